"""Contract of a backbone: what towers, tuning, engine, search and deployment may ask of one."""
import hashlib
import math
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass

from mmengine.model import BaseModule
from torch import Tensor, nn

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
_RESIZE, _INTERPOLATION = ('shortest', 'squash'), ('bicubic', 'bilinear')


@dataclass(frozen=True)
class Preprocessing:
    """Inputs that a backbone's weights were trained on.

    Args:
        size (tuple[int, int]): Height and width of frames in pixels.
        mean (tuple[float, float, float]): Mean of each channel, for pixels in 0..1. Defaults to OpenAI's.
        std (tuple[float, float, float]): Standard deviation of each channel. Defaults to OpenAI's.
        interpolation (str): ``'bicubic'`` or ``'bilinear'``. Defaults to ``'bicubic'``.
        resize (str): ``'shortest'``: the short side is resized, then the center is cropped. ``'squash'``: both sides
            are resized, without regard to the aspect ratio. Defaults to ``'shortest'``.
        tokenizer (dict, optional): Config of the tokenizer, from the registry ``TOKENIZERS``. None: configs must
            name one. Defaults to None.
        assumed (bool): Whether only size and tokenizer are known, because the weights come from a file without
            metadata. A config with other values causes no warning then. Defaults to False.

    Raises:
        ValueError: Unknown value of ``interpolation`` or ``resize``.
    """
    size: tuple[int, int]
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD
    interpolation: str = 'bicubic'
    resize: str = 'shortest'
    tokenizer: dict | None = None
    assumed: bool = False

    def __post_init__(self) -> None:
        for name, allowed in (('interpolation', _INTERPOLATION), ('resize', _RESIZE)):
            if getattr(self, name) not in allowed:
                raise ValueError(f'{name} must be one of {allowed}, got {getattr(self, name)!r}')


class Backbone(BaseModule):
    """Base class of models with a vision and a text tower whose blocks can be run one by one.

    The towers (:class:`VisionTower`, :class:`TextTower`) run the blocks with prompts in between. Code outside a
    backbone's own file uses the members of this class only.

    The vision tower's sequence begins with R read-out tokens (CLS: R = 1; R = 0 if frames are read from their patches
    alone), followed by prompts and M patches. Joined frames form one sequence: ``[R * F, P, M * F]`` tokens. A frame's
    summary is its CLS token if the frame is read from that alone, otherwise the mean of its patches.

    A tower without blocks runs as a whole in :meth:`embed_frames` or :meth:`embed_words` and takes no prompts.

    Args:
        preprocessing (Preprocessing): Result of :meth:`preprocessing_of` for this model.
        vision_width (int): Number of channels of the vision tower (C).
        text_width (int): Number of channels of the text tower.
        embed_dim (int): Number of dimensions of the embeddings of both towers (D).
        context_length (int): Maximum number of text tokens, prompts included.
        vocab_size (int): Number of token ids.
        end_of_text (int): Id of the token that ends captions.
        causal_text (bool): Whether text tokens attend to earlier tokens only. Captions read at their end are then cut
            after it; all others keep their length. Defaults to True.
        reads_last (bool): Whether captions are read at the last position of the sequence instead of at their end.
            Defaults to False.
        reads_cls (bool): Whether frames are read from their CLS token alone. Defaults to True.
        arch_name (str, optional): Name of the architecture, which must match that of a checkpoint. Defaults to the name
            of the class.
        weights (str, optional): Tag or file of the weights, for messages. Defaults to None.
        file (str, optional): File from which the weights were read. Defaults to None.
    """
    fingerprint: str | None = None  # see take_fingerprint

    def __init__(self, *, preprocessing: Preprocessing, vision_width: int, text_width: int, embed_dim: int,
                 context_length: int, vocab_size: int, end_of_text: int, causal_text: bool = True,
                 reads_last: bool = False, reads_cls: bool = True, arch_name: str | None = None,
                 weights: str | None = None, file: str | None = None) -> None:
        super().__init__()
        self.preprocessing = preprocessing
        self.vision_width, self.text_width, self.embed_dim = vision_width, text_width, embed_dim
        self.context_length, self.vocab_size, self.end_of_text = context_length, vocab_size, end_of_text
        self.causal_text, self.reads_last, self.reads_cls = causal_text, reads_last, reads_cls
        self.arch_name = arch_name or type(self).__name__
        self.weights, self.file = weights, file

    # -- inputs -----------------------------------------------------------------------------------------------------
    @classmethod
    @abstractmethod
    def preprocessing_of(cls, **arguments) -> Preprocessing:
        """Return the preprocessing for given arguments, without building the model or loading weights.

        Data pipelines are completed from it; see :mod:`vop_mm.config.preprocessing`.

        Args:
            **arguments: Arguments of the class, as in a config.
        """

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the frames in pixels."""
        return self.preprocessing.size

    # -- parameters -------------------------------------------------------------------------------------------------
    @property
    @abstractmethod
    def vision_blocks(self) -> nn.ModuleList:
        """Residual blocks of the vision tower."""

    @property
    @abstractmethod
    def text_blocks(self) -> nn.ModuleList:
        """Residual blocks of the text tower."""

    @property
    def vision_kind(self) -> str:
        """Kind of vision tower, for messages and tables."""
        return type(self).__name__

    @property
    def text_kind(self) -> str:
        """Kind of text tower, for messages and tables."""
        return type(self).__name__

    def require_blocks(self, tower: str, what: str) -> None:
        """Raise an error if a tower runs as a whole.

        Args:
            tower (str): ``'vision'`` or ``'text'``.
            what (str): Name of what needs blocks, for the message.

        Raises:
            ValueError: The tower has no blocks.
        """
        blocks, kind = ((self.vision_blocks, self.vision_kind) if tower == 'vision' else
                        (self.text_blocks, self.text_kind))
        if not len(blocks):
            raise ValueError(f'{what} can\'t be used: the {tower} tower of {self.arch_name} has no transformer blocks '
                             f'({kind})')

    @property
    @abstractmethod
    def projections(self) -> Iterable[nn.Parameter]:
        """Parameters of the two final projections."""

    @property
    @abstractmethod
    def logit_scale(self) -> nn.Parameter:
        """Logarithm of the scale applied to cosine similarities, a scalar or [1]."""

    @property
    def logit_bias(self) -> nn.Parameter | None:
        """Bias added to scaled similarities, a scalar or [1], of models trained with a sigmoid loss (SigLIP).

        The default is None: no bias.
        """
        return None

    @property
    def max_logit_scale(self) -> float | None:
        """Maximum of :attr:`logit_scale`: log(100), CLIP's own, or None for models with a bias, which have none."""
        return math.log(100) if self.logit_bias is None else None

    def take_fingerprint(self) -> None:
        """Set ``fingerprint`` to the hash of the current weights, unless it is already set.

        Call it when the weights are loaded; otherwise the retriever does, before anything is added or trained.
        """
        self.fingerprint = self.fingerprint or fingerprint(self.state_dict())

    # -- vision -----------------------------------------------------------------------------------------------------
    @abstractmethod
    def embed_frames(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Convert frames to the tokens of the first block, with positions added and normalized.

        Args:
            frames (Tensor): Normalized pixels [N, 3, H, W].

        Returns:
            tuple[Tensor, Tensor]: Read-out tokens [N, R, C] and patches [N, M, C].
        """

    def norm_vision_prompts(self, prompts: Tensor) -> Tensor:
        """Normalize prompts of the first layer like the tokens of :meth:`embed_frames`, [..., C] -> [..., C].

        The default changes nothing.
        """
        return prompts

    @abstractmethod
    def run_vision_block(self, layer: int, x: Tensor, num_prefix: int, key_mask: Tensor | None = None) -> Tensor:
        """Run one vision block.

        Args:
            layer (int): Layer index, from 0.
            x (Tensor): Tokens [N, T, C].
            num_prefix (int): Number of read-out tokens and prompts. The patches of one or several frames
                follow, the only tokens with a position in a frame, for blocks that add positions (rotary).
            key_mask (Tensor, optional): [N, T] bool, False for tokens that must not be attended to. None masks nothing.

        Returns:
            Tensor: [N, T, C].
        """

    @abstractmethod
    def read_frames(self, cls: Tensor, patches: Tensor) -> Tensor:
        """Read frame embeddings, not normalized, from the last block's output.

        Args:
            cls (Tensor): Read-out tokens [B, F, R, C].
            patches (Tensor): Patches [B, F, M, C].

        Returns:
            Tensor: [B, F, D].
        """

    # -- text -------------------------------------------------------------------------------------------------------
    @abstractmethod
    def embed_words(self, tokens: Tensor) -> Tensor:
        """Look up word embeddings of token ids, without positions, [n, L] -> [n, L + A, C].

        Usually A = 0. A tower that is read at a token of its own appends this token.
        """

    @abstractmethod
    def text_positions(self, length: int) -> Tensor:
        """Return the positional embedding of the first ``length`` positions, [length, C]."""

    def text_key_mask(self, tokens: Tensor) -> Tensor | None:
        """Return which tokens of :meth:`embed_words` may be attended to, [n, L] -> [n, L + A] bool; None: all."""
        return None

    @abstractmethod
    def run_text_block(self, layer: int, x: Tensor, key_mask: Tensor | None = None) -> Tensor:
        """Run one text block, with its attention mask.

        Args:
            layer (int): Layer index, from 0.
            x (Tensor): Tokens [n, T, C].
            key_mask (Tensor, optional): :meth:`text_key_mask` with prompts inserted, [n, T] bool. Not passed to
                backbones that have no such mask.

        Returns:
            Tensor: [n, T, C].
        """

    @abstractmethod
    def read_text(self, x: Tensor) -> Tensor:
        """Project states of the last block to embeddings that are not normalized, [..., C] -> [..., D]."""

    @abstractmethod
    def caption_ends(self, tokens: Tensor) -> Tensor:
        """Return the index of each caption's end-of-text token, [n, L] int64 -> [n] int64.

        Captions are read there, unless the backbone :attr:`reads_last`.
        """

    def cut_captions(self, tokens: Tensor) -> Tensor:
        """Cut token ids after the last end in a batch, [n, L] -> [n, L'], if later tokens don't affect embeddings.

        This reads the ids: call it while they are on the CPU.
        """
        if not self.causal_text or self.reads_last or not len(tokens):
            return tokens
        return tokens[:, :int(self.caption_ends(tokens).max()) + 1]


def fingerprint(state_dict: dict[str, Tensor]) -> str:
    """Return a hash of a state dict's names, shapes and float32 values.

    The hash is the same for the same weights, whatever file they were read from.

    Args:
        state_dict (dict[str, Tensor]): Weights.

    Returns:
        str: 16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        value = state_dict[name].detach()
        digest.update(f'{name}{tuple(value.shape)}'.encode())
        if not value.is_meta:  # a model built on the meta device, for counting only, has no values
            digest.update(value.float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]
