"""Text towers of open_clip, by kind: embedding of words, running of a block, read-out.

A port refers to modules of the model and owns none, so that the names of the weights remain open_clip's.
"""
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .vision_ports import additive_mask

_SENTENCEPIECE_END = 1  # end of text of the tokenizers of T5, mT5 and Gemma


class OpenClipText:
    """Port of open_clip's ``TextTransformer``, and of the same parts at the top level of its ``CLIP``.

    Causal or not; read at the token with the largest id, at the first token with a given id, at the last position, or
    at a token of its own that follows the words (CoCa).

    Args:
        text (nn.Module): Module that has the parts.
        cfg (dict): ``text_cfg`` of the model config.

    Attributes:
        blocks (nn.ModuleList): Transformer blocks; empty if the tower runs as a whole.
        width (int): Number of channels of the tokens (C).
        causal (bool): Whether tokens attend to earlier tokens only.
        reads_last (bool): Whether captions are read at the last position of the sequence.

    Raises:
        ValueError: The tower is read in another way.
    """

    def __init__(self, text: nn.Module, cfg: dict) -> None:
        self.text = text
        self.blocks = text.transformer.resblocks
        self.width = text.token_embedding.embedding_dim
        self.vocab_size = text.token_embedding.num_embeddings
        self.context_length = text.context_length
        self.causal = text.attn_mask is not None
        self.read_out = getattr(text, 'cls_emb', None)
        # open_clip's CLIP and TextTransformer use different names for these attributes
        pool = getattr(text, 'text_pool_type', None) or text.pool_type
        self.reads_last = self.read_out is not None or pool == 'last'
        if pool == 'argmax':
            self.end_of_text = None
        elif pool == 'eos':
            self.end_of_text = getattr(text, 'text_eos_id', None) or text.eos_id
        elif pool == 'last':  # not what the tower needs, but where captions end: a stripped end becomes padding, 0
            stripped = (cfg.get('tokenizer_kwargs') or {}).get('strip_sep_token')
            self.end_of_text = 0 if stripped else cfg.get('eos_id', _SENTENCEPIECE_END)
        else:
            raise ValueError(f'text towers that are read by {pool!r} are not supported')

    @property
    def kind(self) -> str:
        """Kind of tower: how it is made and how captions are read, in words."""
        read = ('read-out token' if self.read_out is not None else 'last position' if self.reads_last else
                'largest id' if self.end_of_text is None else f'id {self.end_of_text}')
        return f'{"causal" if self.causal else "not causal"}, {read}'

    @property
    def projections(self) -> Iterable[nn.Parameter]:
        """Parameters of the final projection, if there is one."""
        projection = self.text.text_projection
        if projection is None:
            return []
        return projection.parameters() if isinstance(projection, nn.Module) else [projection]

    def embed(self, tokens: Tensor) -> Tensor:
        """Look up word embeddings, [n, L] -> [n, L + A, C], followed by the tower's own read-out token (A = 1)."""
        x = self.text.token_embedding(tokens)
        if self.read_out is None:
            return x
        return torch.cat([x, self.read_out.to(x.dtype).expand(x.shape[0], 1, -1)], dim=1)

    def positions(self, length: int) -> Tensor:
        """Return the positional embedding of the first positions, [length, C]."""
        return self.text.positional_embedding[:length]

    def key_mask(self, tokens: Tensor) -> Tensor | None:
        """Return which tokens may be attended to, [n, L] -> [n, L + A] bool; None if padding is not masked."""
        text = self.text
        if self.read_out is None and not getattr(text, 'use_pad_mask', False):
            return None
        valid = tokens != text.pad_id
        if self.read_out is None:
            return valid
        always = valid.new_ones(valid.shape[0], 1)
        # CoCa's weights were trained with a mask that is shifted by one position
        return torch.cat([valid, always] if text.correct_cls_mask else [always, valid], dim=1)

    def run_block(self, layer: int, x: Tensor, key_mask: Tensor | None) -> Tensor:
        """Run a block, with its attention mask, [n, T, C] -> [n, T, C]."""
        length, mask = x.shape[1], None
        if self.causal:
            mask = self.text.attn_mask[:length, :length]
        if key_mask is not None:
            keys = additive_mask(key_mask, x.dtype)
            mask = keys if mask is None else mask + keys  # [n, 1, T, T]
        return self.blocks[layer](x, attn_mask=mask)

    def read(self, x: Tensor) -> Tensor:
        """Project states of the last block, [..., C] -> [..., D]."""
        x, projection = self.text.ln_final(x), self.text.text_projection
        if projection is None:
            return x
        return projection(x) if isinstance(projection, nn.Module) else x @ projection

    def ends(self, tokens: Tensor) -> Tensor:
        """Return the index of each caption's end of text, [n, L] -> [n]."""
        if self.end_of_text is None:
            return tokens.argmax(dim=-1)  # it has the largest id
        return (tokens == self.end_of_text).int().argmax(dim=-1)  # the first one: some tokenizers pad with it


class HuggingFaceText(OpenClipText):
    """Port of a text tower of Hugging Face, which runs as a whole: it has no prompts.

    The sequence is the states of the words, followed by the pooled state, at which the caption is read.

    Args:
        text (HFTextEncoder): The tower.
        cfg (dict): ``text_cfg`` of the model config.
    """
    causal, reads_last = False, True

    def __init__(self, text: nn.Module, cfg: dict) -> None:
        self.text = text
        self.blocks = nn.ModuleList()
        self.width = text.config.hidden_size
        self.vocab_size = text.config.vocab_size
        self.context_length = cfg.get('context_length', 77)
        self.end_of_text = text.config.eos_token_id

    @property
    def kind(self) -> str:
        return f'{type(self.text.transformer).__name__} as a whole'

    @property
    def projections(self) -> Iterable[nn.Parameter]:
        return self.text.proj.parameters()

    def embed(self, tokens: Tensor) -> Tensor:
        mask = (tokens != self.text.config.pad_token_id).long()
        out = self.text.transformer(input_ids=tokens, attention_mask=mask)
        return torch.cat([out.last_hidden_state, self.text.pooler(out, mask)[:, None]], dim=1)

    def key_mask(self, tokens: Tensor) -> None:
        return None

    def read(self, x: Tensor) -> Tensor:
        return self.text.proj(x)

    def ends(self, tokens: Tensor) -> Tensor:
        return (tokens != self.text.config.pad_token_id).sum(dim=-1) - 1


def text_port(model: nn.Module, cfg: dict) -> OpenClipText:
    """Return the port of a model's text tower.

    Args:
        model (nn.Module): open_clip's ``CLIP``, which holds the parts of its text tower itself, or ``CustomTextCLIP``.
        cfg (dict): ``text_cfg`` of the model config.

    Returns:
        OpenClipText: The port.
    """
    text = getattr(model, 'text', model)
    return OpenClipText(text, cfg) if hasattr(text, 'token_embedding') else HuggingFaceText(text, cfg)
