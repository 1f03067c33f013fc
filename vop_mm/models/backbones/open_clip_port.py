"""Adapter to open_clip: builds a CLIP model, loads its weights and exposes its parts to the towers."""
import copy
import difflib
import importlib.util
from pathlib import Path

from torch import Tensor, nn

from vop_mm.registry import MODELS
from vop_mm.utils.architecture_file import read_architecture

from .attention import SelfAttention
from .base import OPENAI_MEAN, OPENAI_STD, Backbone, Preprocessing, fingerprint
from .pretrained import load_weights, tag_record
from .text_ports import text_port
from .vision_ports import vision_port

ARCHITECTURES: list[Path] = []  # files of open_clip model configs to know by name; modules of a project add theirs
_CLIP_VOCABULARY = 49408


@MODELS.register_module()
class OpenCLIP(Backbone):
    """CLIP model of open_clip, split into parts so that the towers can run its blocks one by one.

    The weights keep open_clip's names (``model.visual...``), and every block is open_clip's or timm's own module, with
    ``nn.MultiheadAttention`` replaced by :class:`~vop_mm.models.backbones.attention.SelfAttention`. Towers without
    transformer blocks run as a whole, without prompts.

    Args:
        arch (str | dict): Name of an open_clip architecture (``'ViT-B-32-quickgelu'``), of an open_clip model config
            that lies as ``NAME.json`` beside the weights file, or of one in ``ARCHITECTURES``; or a model config
            itself: ``dict(embed_dim, vision_cfg, text_cfg, ...)``.
        weights (str, optional): A local file (OpenAI's TorchScript archive, a state dict, safetensors) or an open_clip
            tag such as ``'openai'``, which is downloaded once. None leaves random weights. Defaults to None.
        cache_dir (str, optional): Folder for downloaded weights. Defaults to None, open_clip's default.
        compile (bool | dict): Compile every block with ``torch.compile`` when it first runs, which requires a C++
            compiler and about a minute; a dict holds its options, e.g. ``dict(mode='max-autotune')``.
            Defaults to False.

    Raises:
        ValueError: Unknown architecture or one that can't be built, unknown tag, or weights that don't fit.
        FileNotFoundError: ``weights`` looks like a path, and the file does not exist.
        ConnectionError: The weights of a tag can't be downloaded.
    """

    def __init__(self, arch: str | dict, weights: str | None = None, cache_dir: str | None = None,
                 compile: bool | dict = False) -> None:
        model, name, cfg = _build(arch, weights), _name(arch), _config(arch, weights)
        file = None if weights is None else load_weights(model, name, weights, cache_dir)
        vision, text = vision_port(model.visual, cfg['embed_dim']), text_port(model, cfg.get('text_cfg', {}))
        super().__init__(
            preprocessing=self.preprocessing_of(arch, weights),
            vision_width=vision.width, text_width=text.width, embed_dim=cfg['embed_dim'],
            context_length=text.context_length, vocab_size=text.vocab_size,
            end_of_text=text.vocab_size - 1 if text.end_of_text is None else text.end_of_text,
            causal_text=text.causal, reads_last=text.reads_last, reads_cls=vision.reads_cls,
            arch_name=name, weights=weights, file=file)
        self.arch = arch if isinstance(arch, str) else dict(arch)
        self.model, self._vision, self._text = model, vision, text
        self.fingerprint = fingerprint(model.state_dict())
        for block in [*self.vision_blocks, *self.text_blocks]:
            if isinstance(getattr(block, 'attn', None), nn.MultiheadAttention):
                block.attn = SelfAttention(block.attn)
            if compile:  # in place, block by block: names stay, and layers of the same shape share the compiled code
                block.compile(**(compile if isinstance(compile, dict) else {}))

    @classmethod
    def preprocessing_of(cls, arch: str | dict, weights: str | None = None, **_) -> Preprocessing:
        """Return the preprocessing that open_clip records for a tag; for a file or no weights, OpenAI's is assumed."""
        cfg = _config(arch, weights)
        size, text = cfg.get('vision_cfg', {}).get('image_size', 224), cfg.get('text_cfg', {})
        length, vocabulary = text.get('context_length', 77), text.get('vocab_size', _CLIP_VOCABULARY)
        known = tag_record(_name(arch), weights)
        return Preprocessing(
            size=tuple(size) if isinstance(size, (list, tuple)) else (size, size),
            mean=tuple(known.get('mean', OPENAI_MEAN)), std=tuple(known.get('std', OPENAI_STD)),
            interpolation=known.get('interpolation', 'bicubic'), resize=known.get('resize_mode', 'shortest'),
            tokenizer=dict(type='CLIPTokenizer', **({} if length == 77 else dict(context_length=length)))
            if vocabulary == _CLIP_VOCABULARY else None,
            assumed=not known)

    def train(self, mode: bool = True) -> 'OpenCLIP':
        """Set the mode; the pretrained model stays in evaluation mode.

        Its batch normalizations keep their statistics and nothing is dropped, whatever of its parameters trains.
        """
        super().train(mode)
        self.model.eval()
        return self

    @property
    def logit_scale(self) -> nn.Parameter:
        return self.model.logit_scale

    @property
    def logit_bias(self) -> nn.Parameter | None:
        return getattr(self.model, 'logit_bias', None)  # older versions of open_clip have none

    @property
    def vision_blocks(self) -> nn.ModuleList:
        return self._vision.blocks

    @property
    def text_blocks(self) -> nn.ModuleList:
        return self._text.blocks

    @property
    def vision_kind(self) -> str:
        return self._vision.kind

    @property
    def text_kind(self) -> str:
        return self._text.kind

    @property
    def projections(self) -> list[nn.Parameter]:
        return [*self._vision.projections, *self._text.projections]

    # -- vision -----------------------------------------------------------------------------------------------------
    def embed_frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Convert frames to the tokens of the first block; see :meth:`Backbone.embed_frames`.

        Raises:
            ValueError: The frames don't have the model's image size.
        """
        if tuple(frames.shape[-2:]) != self.image_size:
            raise ValueError(f'{self.arch_name} takes frames of {self.image_size} pixels (height, width), '
                             f'got {tuple(frames.shape[-2:])}')
        return self._vision.embed(frames)

    def norm_vision_prompts(self, prompts: Tensor) -> Tensor:
        """Apply the normalization before the first block (``ln_pre``) to prompts, [..., C] -> [..., C]."""
        return self._vision.norm_prompts(prompts)

    def run_vision_block(self, layer: int, x: Tensor, num_prefix: int, key_mask: Tensor | None = None) -> Tensor:
        return self._vision.run_block(layer, x, num_prefix, key_mask)

    def read_frames(self, cls: Tensor, patches: Tensor) -> Tensor:
        return self._vision.read(cls, patches)

    # -- text -------------------------------------------------------------------------------------------------------
    def embed_words(self, tokens: Tensor) -> Tensor:
        return self._text.embed(tokens)

    def text_positions(self, length: int) -> Tensor:
        return self._text.positions(length)

    def text_key_mask(self, tokens: Tensor) -> Tensor | None:
        return self._text.key_mask(tokens)

    def run_text_block(self, layer: int, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        return self._text.run_block(layer, x, key_mask)

    def read_text(self, x: Tensor) -> Tensor:
        return self._text.read(x)

    def caption_ends(self, tokens: Tensor) -> Tensor:
        return self._text.ends(tokens)


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
    """Build open_clip's model; of CoCa, the two towers without the decoder."""
    from open_clip.model import CLIP, CustomTextCLIP

    cfg = _config(arch, weights)
    of_coca, hub = cfg.pop('multimodal_cfg', None) is not None, cfg.get('text_cfg', {}).get('hf_model_name')
    kind = CustomTextCLIP if cfg.pop('custom_text', False) or of_coca or hub else CLIP
    try:
        return kind(**cfg)
    except (TypeError, AssertionError) as e:
        raise ValueError(f'architecture {arch!r} can\'t be built: {e}') from e
    except (OSError, RuntimeError, ImportError) as e:
        if not hub:
            raise
        if importlib.util.find_spec('transformers') is None:
            raise ValueError(f'the text tower of {_name(arch)} needs the package transformers: '
                             'pip install transformers') from e
        raise ValueError(f'the config of the text tower of {_name(arch)}, {hub}, is in no local folder and can\'t be '
                         'fetched from a hub; name a folder that has its config.json: '
                         '--cfg-options model.backbone.hf_folder=/path/to/folder') from e
