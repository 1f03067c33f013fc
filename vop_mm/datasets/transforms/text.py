"""Transform that tokenizes captions."""
import torch
from mmcv.transforms import BaseTransform

from vop_mm.registry import TOKENIZERS, TRANSFORMS


@TRANSFORMS.register_module()
class TokenizeText(BaseTransform):
    """Tokenize all captions of a sample.

    Required keys: ``captions`` (list of str). Added keys: ``tokens``, int64 [len(captions), L].

    Args:
        tokenizer (dict): Config of a tokenizer in the registry ``TOKENIZERS``: maps a list of str to int64 [n, L],
            truncated to L with the end-of-text token kept. Defaults to ``dict(type='CLIPTokenizer')``.
    """

    def __init__(self, tokenizer: dict = dict(type='CLIPTokenizer')) -> None:
        self.tokenizer = TOKENIZERS.build(tokenizer)

    def transform(self, results: dict) -> dict:
        """Tokenize ``captions``."""
        captions = results['captions']
        tokens = torch.as_tensor(self.tokenizer(list(captions)), dtype=torch.int64)
        if tokens.ndim != 2 or len(tokens) != len(captions):
            raise ValueError(f'the tokenizer made {tuple(tokens.shape)} of {len(captions)} captions, not [n, L]')
        results['tokens'] = tokens
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(tokenizer={self.tokenizer!r})'
