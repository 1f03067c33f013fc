"""Adapter to open_clip: builds a CLIP model, loads its weights and exposes its parts to the towers."""
import copy
import difflib
from pathlib import Path

import torch
from torch import Tensor, nn

from vop_mm.registry import MODELS
from vop_mm.utils.architecture_file import read_architecture

from .attention import SelfAttention
from .base import Backbone, Preprocessing, fingerprint
from .pretrained import load_weights, recorded_preprocessing

ARCHITECTURES: list[Path] = []  # files of open_clip model configs to know by name; modules of a project add theirs
_CLIP_VOCABULARY = 49408


@MODELS.register_module()
class OpenCLIP(Backbone):
    """CLIP model of open_clip, split into parts so that the towers can run its blocks one by one.

    The weights keep open_clip's names (``model.visual...``), and every block is open_clip's own module, with its
    attention replaced by :class:`~vop_mm.models.backbones.attention.SelfAttention`.

    Args:
        arch (str | dict): Name of an open_clip ViT architecture (``'ViT-B-32-quickgelu'``), of an open_clip model
            config that lies as ``NAME.json`` beside the weights file, or of one in ``ARCHITECTURES``; or a model config
            itself: ``dict(embed_dim, vision_cfg, text_cfg, ...)``.
        weights (str, optional): A local file (OpenAI's TorchScript archive, a state dict, safetensors) or an open_clip
            tag such as ``'openai'``, which is downloaded once. None leaves random weights. Defaults to None.
        cache_dir (str, optional): Folder for downloaded weights. Defaults to None, open_clip's default.
        compile (bool | dict): Compile every block with ``torch.compile`` when it first runs, which requires a C++
            compiler and about a minute; a dict holds its options, e.g. ``dict(mode='max-autotune')``.
            Defaults to False.

    Raises:
        ValueError: Unknown or unsupported architecture, unknown tag, or weights that don't fit the architecture.
        FileNotFoundError: ``weights`` looks like a path, and the file does not exist.
        ConnectionError: The weights of a tag can't be downloaded.
    """

    def __init__(self, arch: str | dict, weights: str | None = None, cache_dir: str | None = None,
                 compile: bool | dict = False) -> None:
        model, name = _build(arch, weights), _name(arch)
        _check(model, name)
        file = None if weights is None else load_weights(model, name, weights, cache_dir)
        text = _text_of(model)
        super().__init__(
            preprocessing=self.preprocessing_of(arch, weights),
            vision_width=model.visual.class_embedding.shape[-1],
            text_width=text.token_embedding.embedding_dim,
            embed_dim=model.visual.proj.shape[1],
            context_length=text.positional_embedding.shape[0],
            vocab_size=text.token_embedding.num_embeddings,
            end_of_text=text.token_embedding.num_embeddings - 1,
            arch_name=name, weights=weights, file=file)
        self.arch = arch if isinstance(arch, str) else dict(arch)
        self.model = model
        self.fingerprint = fingerprint(model.state_dict())
        for block in [*self.vision_blocks, *self.text_blocks]:
            block.attn = SelfAttention(block.attn)
            if compile:  # in place, block by block: names stay, and layers of the same shape share the compiled code
                block.compile(**(compile if isinstance(compile, dict) else {}))

    @classmethod
    def preprocessing_of(cls, arch: str | dict, weights: str | None = None, **_) -> Preprocessing:
        """Return the preprocessing of :func:`~vop_mm.models.backbones.pretrained.recorded_preprocessing`.

        Size and tokenizer are those of the architecture.
        """
        cfg = _config(arch, weights)
        size, text = cfg.get('vision_cfg', {}).get('image_size', 224), cfg.get('text_cfg', {})
        length, vocabulary = text.get('context_length', 77), text.get('vocab_size', _CLIP_VOCABULARY)
        return Preprocessing(
            size=tuple(size) if isinstance(size, (list, tuple)) else (size, size),
            tokenizer=dict(type='CLIPTokenizer', **({} if length == 77 else dict(context_length=length)))
            if vocabulary == _CLIP_VOCABULARY else None,
            **recorded_preprocessing(_name(arch), weights))

    @property
    def _text(self) -> nn.Module:
        return _text_of(self.model)

    @property
    def logit_scale(self) -> nn.Parameter:
        return self.model.logit_scale

    @property
    def num_patches(self) -> int:
        """Number of patches of a frame (M)."""
        return self.model.visual.grid_size[0] * self.model.visual.grid_size[1]

    @property
    def vision_blocks(self) -> nn.ModuleList:
        return self.model.visual.transformer.resblocks

    @property
    def text_blocks(self) -> nn.ModuleList:
        return self._text.transformer.resblocks

    @property
    def projections(self) -> list[nn.Parameter]:
        text = self._text.text_projection
        return [self.model.visual.proj, *(text.parameters() if isinstance(text, nn.Module) else [text])]

    # -- vision -----------------------------------------------------------------------------------------------------
    def embed_frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Convert frames to the tokens of the first block (CLS and patches, with positions added, after ln_pre).

        Args:
            frames (Tensor): CLIP-normalized pixels [N, 3, H, W].

        Returns:
            tuple[Tensor, Tensor]: CLS [N, 1, C] and patches [N, M, C].

        Raises:
            ValueError: The frames don't have the model's image size.
        """
        visual = self.model.visual
        if tuple(frames.shape[-2:]) != self.image_size:
            raise ValueError(f'{self.arch_name} takes frames of {self.image_size} pixels (height, width), '
                             f'got {tuple(frames.shape[-2:])}')
        patches = visual.conv1(frames).flatten(2).transpose(1, 2)  # [N, C, h, w] -> [N, M, C]
        positions = visual.positional_embedding
        cls = (visual.class_embedding + positions[0]).to(patches.dtype).expand(frames.shape[0], 1, -1)
        patches = patches + positions[1:].to(patches.dtype)
        return visual.ln_pre(cls), visual.ln_pre(patches)

    def norm_vision_prompts(self, prompts: Tensor) -> Tensor:
        """Apply ln_pre to prompts of the first layer, [..., C] -> [..., C], as to all other tokens of that layer."""
        return self.model.visual.ln_pre(prompts)

    def run_vision_block(self, layer: int, x: Tensor, num_prefix: int, key_mask: Tensor | None = None) -> Tensor:
        block = self.vision_blocks[layer]
        if key_mask is None:
            return block(x)
        # open_clip supports additive masks only: a boolean mask would silently be cast to 0 and 1
        bias = torch.zeros_like(key_mask, dtype=x.dtype).masked_fill_(~key_mask, float('-inf'))
        return block(x, attn_mask=bias[:, None, None])  # [N, T] -> [N, 1, 1, T]: avoids a [T, T] mask in memory

    def read_frames(self, cls: Tensor, patches: Tensor) -> Tensor:
        visual = self.model.visual
        return visual.ln_post(cls.squeeze(-2)) @ visual.proj  # [B, F, 1, C] -> [B, F, D]

    # -- text -------------------------------------------------------------------------------------------------------
    def embed_words(self, tokens: Tensor) -> Tensor:
        return self._text.token_embedding(tokens)

    def text_positions(self, length: int) -> Tensor:
        return self._text.positional_embedding[:length]

    def run_text_block(self, layer: int, x: Tensor) -> Tensor:
        length = x.shape[1]
        return self.text_blocks[layer](x, attn_mask=self._text.attn_mask[:length, :length])

    def read_text(self, x: Tensor) -> Tensor:
        text = self._text
        x = text.ln_final(x)
        projection = text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    def caption_ends(self, tokens: Tensor) -> Tensor:
        return tokens.argmax(dim=-1)  # end of text has the largest id


def _name(arch: str | dict) -> str:
    return arch if isinstance(arch, str) else 'custom'


def _config(arch: str | dict, weights: str | None) -> dict:
    """Return a copy of the open_clip model config of an architecture."""
    if not isinstance(arch, str):
        return copy.deepcopy(dict(arch))
    import open_clip
    for file in ARCHITECTURES:
        open_clip.add_model_config(file)
    cfg = read_architecture(arch, weights) or open_clip.get_model_config(arch)
    if cfg is None:
        near = difflib.get_close_matches(arch, open_clip.list_models(), n=4, cutoff=0.4)
        raise ValueError(f'open_clip has no architecture {arch!r}; near it are: {", ".join(near) or "none"}')
    return cfg


def _build(arch: str | dict, weights: str | None) -> nn.Module:
    from open_clip.model import CLIP, CustomTextCLIP

    cfg = _config(arch, weights)
    vision, text = cfg.get('vision_cfg', {}), cfg.get('text_cfg', {})
    if ('multimodal_cfg' in cfg or vision.get('timm_model_name') or text.get('hf_model_name')
            or isinstance(vision.get('layers'), (list, tuple))):
        raise ValueError(f'architecture {arch!r} is not supported: both towers must be transformers of open_clip\'s '
                         'own (no ResNet, timm, Hugging Face or CoCa towers)')
    custom_text = cfg.pop('custom_text', False)
    try:
        return (CustomTextCLIP if custom_text else CLIP)(**cfg)
    except (TypeError, AssertionError) as e:
        raise ValueError(f'architecture {arch!r} can\'t be built: {e}') from e


def _text_of(model: nn.Module) -> nn.Module:
    # open_clip keeps the text tower either at the top level (CLIP) or under .text (CustomTextCLIP)
    return getattr(model, 'text', model)


def _check(model: nn.Module, name: str) -> None:
    text = _text_of(model)
    if text.attn_mask is None:
        raise ValueError(f'{name}: only text towers with causal attention are supported')
    if not _reads_largest_id(text):
        raise ValueError(f'{name}: only text towers read at the end-of-text token, which has the largest id, are '
                         'supported')
    if model.visual.pool_type != 'tok' or model.visual.attn_pool is not None:
        raise ValueError(f'{name}: only vision towers read at the CLS token are supported')
    for block in [*model.visual.transformer.resblocks, *text.transformer.resblocks]:
        if not isinstance(getattr(block, 'attn', None), nn.MultiheadAttention):
            raise ValueError(f'{name}: only CLIP\'s own kind of blocks is supported, not {type(block).__name__}')


def _reads_largest_id(text: nn.Module) -> bool:
    # open_clip's CLIP and TextTransformer use different names for these attributes
    pool = getattr(text, 'text_pool_type', None) or text.pool_type
    eos = getattr(text, 'text_eos_id', getattr(text, 'eos_id', None))
    return getattr(text, 'cls_emb', None) is None and (pool == 'argmax' or pool == 'eos' and eos == text.vocab_size - 1)
