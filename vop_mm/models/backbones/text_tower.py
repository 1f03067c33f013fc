"""Text tower: a backbone's frozen blocks, with prompts, over captions."""
from collections.abc import Iterable

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vop_mm.utils.precision import at_least_float32

from ..prompts.base import LayerContext, PromptProvider
from .base import Backbone


class TextTower(BaseModule):
    """Tower that runs captions through a backbone's text blocks with prompts in between (VoP, section 3.2).

    The order of tokens in a layer is ``[SOT, prompts, words, suffix prompts, last token]``. Prompts of the first layer
    are inserted before the positional embedding is added, which increases the positions of the words. Tokenizers
    without start of text (SigLIP's) have their first token there.

    Args:
        prompts (Iterable[PromptProvider]): Providers after the start-of-text token. If empty, the tower is the
            plain backbone's.
        suffix_prompts (Iterable[PromptProvider]): Providers before the last position, as in some published
            checkpoints. Defaults to none.
        published_eot (bool): Read the embedding where the published VoP code reads it: at the end-of-text index plus
            the number of all prompts, suffix included. In captions shorter than the limit, that is after end of text.
            Only for published checkpoints with a suffix. Defaults to False: at the end-of-text token.
        context_length (int): Number of positions of the tower (77 in CLIP).
        recompute (bool): Recompute activations inside blocks in the backward pass instead of storing them. Defaults to
            False.
    """

    def __init__(self, prompts: Iterable[PromptProvider] = (), suffix_prompts: Iterable[PromptProvider] = (), *,
                 published_eot: bool = False, context_length: int = 77, recompute: bool = False) -> None:
        super().__init__()
        self.prompts = nn.ModuleList(prompts)
        self.suffix_prompts = nn.ModuleList(suffix_prompts)
        self.published_eot = published_eot
        self.recompute = recompute
        layers = {layer for p in [*self.prompts, *self.suffix_prompts] for layer in p.layers}
        most = max((sum(p.num_tokens for p in [*self.prompts, *self.suffix_prompts] if layer in p.layers)
                    for layer in layers), default=0)
        self.max_words = context_length - most
        if self.max_words < 3:
            raise ValueError(f'{most} text prompts leave no room for words in {context_length} positions')

    def forward(self, backbone: Backbone, tokens: Tensor,
                words: bool = False) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Embed captions.

        Args:
            backbone (Backbone): The frozen backbone.
            tokens (Tensor): Token ids [n, L] int64, 0 after end of text. Longer captions are cut to :attr:`max_words`,
                keeping end of text.
            words (bool): Embed all tokens as well. Defaults to False.

        Returns:
            tuple[Tensor, Tensor | None, Tensor | None]: Raw embeddings of the captions, [n, D]; of all their tokens,
            [n, max_words, D], 0 after end of text; mask of the tokens that exist, [n, max_words] bool. The last two are
            None unless ``words`` is set.
        """
        tokens = fit_tokens(tokens, backbone.caption_ends(tokens), self.max_words)
        suffix = len(self.suffix_prompts) > 0
        if suffix:  # the suffix goes before the very last position, so padding takes part
            tokens = F.pad(tokens, (0, self.max_words - tokens.shape[1]))
        eot = backbone.caption_ends(tokens)  # [n]
        # what remains of a layer's output without prompts, [n, L + A, C], split where prompts are inserted
        x, keys, num_before = backbone.embed_words(tokens), backbone.text_key_mask(tokens), 0
        end = x.shape[1] - 1 if suffix else x.shape[1]
        first, middle, last = x[:, :1], x[:, 1:end], x[:, end:]
        for layer in range(len(backbone.text_blocks)):
            context = LayerContext(layer, first)
            before = self._tokens(self.prompts, context)  # [n, P, C]
            after = self._tokens(self.suffix_prompts, context)  # [n, S, C]
            x = torch.cat([first, *before, middle, *after, last], dim=1)  # [n, P + L + S, C]
            if layer == 0:
                x = x + backbone.text_positions(x.shape[1]).to(x.dtype)
            num_before, num_after = (sum(t.shape[1] for t in ts) for ts in (before, after))
            mask = []
            if keys is not None:  # prompts are never masked
                mask = [torch.cat([keys[:, :1], keys.new_ones(keys.shape[0], num_before), keys[:, 1:]], dim=1)]
            if self.recompute and x.requires_grad:
                x = checkpoint(backbone.run_text_block, layer, x, *mask, use_reentrant=False)
            else:
                x = backbone.run_text_block(layer, x, *mask)
            start, stop = 1 + num_before, x.shape[1] - last.shape[1] - num_after
            first, middle, last = x[:, :1], x[:, start:stop], x[:, stop + num_after:]
        position = eot + num_before
        if backbone.reads_last:
            position = torch.full_like(position, x.shape[1] - 1)
        elif self.published_eot:
            position = position + num_after
        elif suffix:  # end of text in the last position has moved after the suffix
            position = position + num_after * (eot == tokens.shape[1] - 1)
        x = x[torch.arange(x.shape[0], device=x.device), position]  # [n, P + L + S, C] -> [n, C]
        sentence = at_least_float32(backbone.read_text(x))
        if not words:
            return sentence, None, None
        mask = torch.arange(self.max_words, device=x.device) <= eot[:, None]  # [n, max_words]
        x = torch.cat([first, middle, last], dim=1)[:, :tokens.shape[1]]  # without a read-out token
        each = at_least_float32(backbone.read_text(x))  # [n, L, D]
        return sentence, F.pad(each, (0, 0, 0, self.max_words - each.shape[1])) * mask[..., None], mask

    @staticmethod
    def _tokens(providers: Iterable[PromptProvider], context: LayerContext) -> list[Tensor]:
        tokens = [p.tokens(context) for p in providers if context.layer in p.layers]
        return [t.to(context.cls.dtype).expand(context.cls.shape[0], 1, -1, -1).squeeze(1) for t in tokens]


def fit_tokens(tokens: Tensor, ends: Tensor, length: int) -> Tensor:
    """Truncate token ids, keeping end of text as the last token of every caption that was too long.

    The result is the same as tokenizing to that length.

    Args:
        tokens (Tensor): Token ids [n, L] int64.
        ends (Tensor): Index of each row's end-of-text token, [n] int64.
        length (int): Maximum number of tokens to keep.

    Returns:
        Tensor: [n, min(L, length)].
    """
    if tokens.shape[1] <= length:
        return tokens
    eot = ends[:, None]  # [n, 1]
    kept = tokens[:, :length].clone()
    kept[:, -1:] = torch.where(eot >= length, tokens.gather(1, eot), kept[:, -1:])
    return kept
