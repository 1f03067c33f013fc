"""VoP^C: prompts generated from the content of a video's frames."""
from torch import Tensor, nn

from vop_mm.registry import MIXERS, PROMPTS

from .base import LayerContext, PromptProvider


@PROMPTS.register_module()
class ContextPrompt(PromptProvider):
    """Tokens generated from the sequence of a video's CLS tokens (VoP, section 3.3).

    Before each layer, a context module runs over the CLS tokens of all frames, and a linear layer turns each frame's
    output into its tokens. Both are shared by all layers. The context module's output is used for nothing else.

    Args:
        num_tokens (int): Number of tokens per layer and frame. Defaults to 4.
        mixer (dict): Config of the context module. Defaults to ``dict(type='BiLSTM')``.
        **kwargs: ``layers`` and the arguments filled in by the retriever; see :class:`PromptProvider`.
    """

    def __init__(self, num_tokens: int = 4, *, mixer: dict = dict(type='BiLSTM'), **kwargs) -> None:
        super().__init__(num_tokens, **kwargs)
        self.mixer = MIXERS.build(mixer, default_args=dict(width=self.width))
        self.fc = nn.Linear(self.mixer.out_width, num_tokens * self.width)

    def tokens(self, context: LayerContext) -> Tensor:
        mixed = self.mixer(context.cls, context.frame_mask)  # [B, F, C] -> [B, F, C']
        return self.fc(mixed).unflatten(-1, (self.num_tokens, self.width))  # [B, F, P * C] -> [B, F, P, C]
