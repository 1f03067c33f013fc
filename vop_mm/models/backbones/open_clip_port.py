"""Adapter to open_clip: builds a CLIP model, loads its weights and exposes its parts to the towers."""
import copy
import difflib
from pathlib import Path

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from vop_mm.registry import MODELS
from vop_mm.utils.architecture_file import read_architecture

from .attention import SelfAttention
from .clip_weights import fingerprint, read_clip_weights

ARCHITECTURES: list[Path] = []  # files of open_clip model configs to know by name; modules of a project add theirs


@MODELS.register_module()
class OpenCLIP(BaseModule):
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

    Attributes:
        file (str, optional): File from which the weights were read.

    Raises:
        ValueError: Unknown or unsupported architecture, unknown tag, or weights that don't fit the architecture.
        FileNotFoundError: ``weights`` looks like a path, and the file does not exist.
        ConnectionError: The weights of a tag can't be downloaded.
    """

    def __init__(self, arch: str | dict, weights: str | None = None, cache_dir: str | None = None,
                 compile: bool | dict = False) -> None:
        super().__init__()
        self.arch = arch if isinstance(arch, str) else dict(arch)
        self.weights = weights
        self.model = _build(arch, weights)
        self.file = None if weights is None else _load(self.model, arch, weights, cache_dir)
        self._fingerprint: str | None = None
        if self._text.attn_mask is None:
            raise ValueError(f'{self.arch_name}: only text towers with causal attention are supported')
        if not _reads_largest_id(self._text):
            raise ValueError(f'{self.arch_name}: only text towers read at the end-of-text token, which has the '
                             'largest id, are supported')
        if self.model.visual.pool_type != 'tok' or self.model.visual.attn_pool is not None:
            raise ValueError(f'{self.arch_name}: only vision towers read at the CLS token are supported')
        for block in [*self.vision_blocks, *self.text_blocks]:
            if not isinstance(getattr(block, 'attn', None), nn.MultiheadAttention):
                raise ValueError(f'{self.arch_name}: only CLIP\'s own kind of blocks is supported, not '
                                 f'{type(block).__name__}')
            block.attn = SelfAttention(block.attn)
            if compile:  # in place, block by block: names stay, and layers of the same shape share the compiled code
                block.compile(**(compile if isinstance(compile, dict) else {}))

    # -- properties -------------------------------------------------------------------------------------------------
    @property
    def arch_name(self) -> str:
        """Name of the architecture; ``'custom'`` if it was given as a dict."""
        return self.arch if isinstance(self.arch, str) else 'custom'

    @property
    def fingerprint(self) -> str:
        """Hash of the weights, cached on first access; read it before training changes them."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self.model.state_dict())
        return self._fingerprint

    @property
    def _text(self) -> nn.Module:
        # open_clip keeps the text tower either at the top level (CLIP) or under .text (CustomTextCLIP)
        return getattr(self.model, 'text', self.model)

    @property
    def logit_scale(self) -> nn.Parameter:
        """Logarithm of the scale applied to cosine similarities."""
        return self.model.logit_scale

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        return tuple(self.model.visual.image_size)

    @property
    def num_patches(self) -> int:
        """Number of patches of a frame (M)."""
        return self.model.visual.grid_size[0] * self.model.visual.grid_size[1]

    @property
    def vision_blocks(self) -> nn.ModuleList:
        """Residual blocks of the vision tower."""
        return self.model.visual.transformer.resblocks

    @property
    def text_blocks(self) -> nn.ModuleList:
        """Residual blocks of the text tower."""
        return self._text.transformer.resblocks

    @property
    def vision_width(self) -> int:
        """Number of channels of the vision tower (C)."""
        return self.model.visual.class_embedding.shape[-1]

    @property
    def text_width(self) -> int:
        """Number of channels of the text tower."""
        return self._text.token_embedding.weight.shape[-1]

    @property
    def embed_dim(self) -> int:
        """Number of dimensions of the embeddings of both towers (D)."""
        return self.projections[0].shape[1]

    @property
    def context_length(self) -> int:
        """Maximum number of text tokens, prompts included (77 in CLIP)."""
        return self._text.positional_embedding.shape[0]

    @property
    def vocab_size(self) -> int:
        """Number of token ids; the largest id is end of text."""
        return self._text.token_embedding.num_embeddings

    @property
    def projections(self) -> list[nn.Parameter]:
        """Parameters of the two final projections."""
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

    def run_vision_block(self, layer: int, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Run one frozen vision block.

        Args:
            layer (int): Layer index, from 0.
            x (Tensor): Tokens [N, T, C].
            key_mask (Tensor, optional): [N, T] bool, False for tokens that must not be attended to. None masks nothing.

        Returns:
            Tensor: [N, T, C].
        """
        block = self.vision_blocks[layer]
        if key_mask is None:
            return block(x)
        # open_clip supports additive masks only: a boolean mask would silently be cast to 0 and 1
        bias = torch.zeros_like(key_mask, dtype=x.dtype).masked_fill_(~key_mask, float('-inf'))
        return block(x, attn_mask=bias[:, None, None])  # [N, T] -> [N, 1, 1, T]: avoids a [T, T] mask in memory

    def project_frames(self, cls: Tensor) -> Tensor:
        """Project CLS tokens to frame embeddings that are not normalized, [..., C] -> [..., D]."""
        visual = self.model.visual
        return visual.ln_post(cls) @ visual.proj

    # -- text -------------------------------------------------------------------------------------------------------
    def embed_words(self, tokens: Tensor) -> Tensor:
        """Look up word embeddings of token ids, without positions, [n, L] -> [n, L, C]."""
        return self._text.token_embedding(tokens)

    def text_positions(self, length: int) -> Tensor:
        """Return the positional embedding of the first ``length`` positions, [length, C]."""
        return self._text.positional_embedding[:length]

    def run_text_block(self, layer: int, x: Tensor) -> Tensor:
        """Run one frozen text block with the causal mask, [n, T, C] -> [n, T, C]."""
        length = x.shape[1]
        return self.text_blocks[layer](x, attn_mask=self._text.attn_mask[:length, :length])

    def project_text(self, x: Tensor) -> Tensor:
        """Project the states at end of text to text embeddings that are not normalized, [n, C] -> [n, D]."""
        text = self._text
        x = text.ln_final(x)
        projection = text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection


def _build(arch: str | dict, weights: str | None) -> nn.Module:
    import open_clip
    from open_clip.model import CLIP, CustomTextCLIP

    if isinstance(arch, str):
        for file in ARCHITECTURES:
            open_clip.add_model_config(file)
        cfg = read_architecture(arch, weights) or open_clip.get_model_config(arch)
        if cfg is None:
            near = difflib.get_close_matches(arch, open_clip.list_models(), n=4, cutoff=0.4)
            raise ValueError(f'open_clip has no architecture {arch!r}; near it are: {", ".join(near) or "none"}')
    else:
        cfg = arch
    cfg = copy.deepcopy(dict(cfg))
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


def _reads_largest_id(text: nn.Module) -> bool:
    # open_clip's CLIP and TextTransformer use different names for these attributes
    pool = getattr(text, 'text_pool_type', None) or text.pool_type
    eos = getattr(text, 'text_eos_id', getattr(text, 'eos_id', None))
    return getattr(text, 'cls_emb', None) is None and (pool == 'argmax' or pool == 'eos' and eos == text.vocab_size - 1)


def _load(model: nn.Module, arch: str | dict, weights: str, cache_dir: str | None) -> str:
    """Load weights from a file or by tag into ``model`` and return the path of the file."""
    name = arch if isinstance(arch, str) else 'custom'
    path, quick_gelu = (weights, False) if _is_path(weights) else _download(name, weights, cache_dir)
    state, from_openai = read_clip_weights(path)
    if (from_openai or quick_gelu) and not any('QuickGELU' in type(m).__name__ for m in model.modules()):
        raise ValueError(f'the weights {weights} were trained with quick-GELU, as all of OpenAI\'s; name a quick-GELU '
                         f'architecture, e.g. {name}-quickgelu')
    try:
        model.load_state_dict(state)
    except RuntimeError as e:
        lines = [line.strip() for line in str(e).splitlines()[1:] if line.strip()]
        shown = '; '.join(line if len(line) < 160 else line[:157] + '...' for line in lines[:2])
        raise ValueError(f'weights {weights} don\'t fit the CLIP architecture {name}: {shown}') from e
    return path


def _is_path(weights: str) -> bool:
    return '/' in weights or Path(weights).suffix in ('.pt', '.pth', '.bin', '.safetensors') or Path(weights).is_file()


def _download(arch: str, tag: str, cache_dir: str | None) -> tuple[str, bool]:
    # returns the file and whether its weights use quick-GELU
    import open_clip
    from open_clip.pretrained import download_pretrained, get_pretrained_cfg

    cfg = get_pretrained_cfg(arch, tag)
    if not cfg:
        tags = open_clip.list_pretrained_tags_by_model(arch)
        raise ValueError(f'open_clip has no weights {tag!r} for {arch}; it has: {", ".join(tags) or "none"}')
    try:
        path = download_pretrained(cfg, cache_dir=cache_dir)
    except Exception as e:  # hub clients raise their own errors, which differ between versions
        raise ConnectionError(
            f'the weights {tag!r} of {arch} can\'t be downloaded ({type(e).__name__}). Without a connection, fetch the '
            'file elsewhere (OpenAI archive, state dict or safetensors) and point at it: '
            '--cfg-options model.backbone.weights=/path/to/file') from e
    return path, tag.lower() == 'openai' or bool(cfg.get('quick_gelu'))
