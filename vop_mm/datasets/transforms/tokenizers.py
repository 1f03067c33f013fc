"""Tokenizers. They truncate long captions and keep the end-of-text token last.

A tokenizer is called with a list of str and returns int64 [n, L]. It may have ``unknown_words(text) -> list[str]``, the
words of a text that are not in its vocabulary, which search reports to the user. Without it, all words count as known.
"""
import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from vop_mm.registry import TOKENIZERS

_JOINERS = frozenset('_\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff')  # zero-width joiner, skin tones


@TOKENIZERS.register_module()
class CLIPTokenizer:
    """CLIP's byte pair encoding, from open_clip.

    Args:
        context_length (int): Number of tokens per caption, including start and end of text (L). Defaults to 77.

    Attributes:
        sot_id (int): Start-of-text token.
        eot_id (int): End-of-text token, the largest id.
        vocab_size (int): Number of ids.

    Examples:
        >>> CLIPTokenizer(context_length=6)(['a squid is talking', 'a squid']).tolist()
        [[49406, 320, 22553, 533, 2578, 49407], [49406, 320, 22553, 49407, 0, 0]]
    """

    def __init__(self, context_length: int = 77) -> None:
        self.context_length = _checked(context_length)
        self._bpe = _clip_bpe()
        self.sot_id, self.eot_id = self._bpe.sot_token_id, self._bpe.eot_token_id
        self.vocab_size = self._bpe.vocab_size

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Tokenize texts. [n] str -> [n, L] int64."""
        return _pack([self._bpe.encode(text) for text in texts], self.sot_id, self.eot_id, self.context_length)

    def unknown_words(self, text: str) -> list[str]:
        """Return an empty list: byte pairs can spell every word."""
        return []

    def __repr__(self) -> str:
        return f'{type(self).__name__}(context_length={self.context_length})'


@cache
def _clip_bpe():
    # Loading the vocabulary takes a moment: do it once for all pipelines, and only if it is used.
    from open_clip import SimpleTokenizer
    return SimpleTokenizer()


@TOKENIZERS.register_module()
class WordTokenizer:
    """Tokenizer with a small vocabulary of whole words, for small models of your own.

    Ids: 0 padding, 1 ``<unk>`` (any word that is not in the vocabulary), 2 start of text, then the words in file order,
    and end of text last, so that it has the largest id. Case and punctuation are ignored.

    Args:
        vocab (str | Path): Text file with one word per line.
        context_length (int): Number of tokens per caption, including start and end of text (L). Defaults to 32.

    Attributes:
        unk_id (int): Unknown-word token.
        sot_id (int): Start-of-text token.
        eot_id (int): End-of-text token, the largest id.
        vocab_size (int): Number of ids: the words and four more.

    Raises:
        FileNotFoundError: The vocabulary file is missing.
        ValueError: The file is empty, a line is not one lower-case word, or a word is duplicated.
    """
    unk_id, sot_id = 1, 2

    def __init__(self, vocab: str | Path, context_length: int = 32) -> None:
        self.context_length = _checked(context_length)
        self.vocab = str(vocab)
        path = Path(vocab)
        if not path.is_file():
            raise FileNotFoundError(f'vocabulary not found: {path}')
        words = path.read_text(encoding='utf-8').splitlines()
        if not words:
            raise ValueError(f'{path}: no words in this vocabulary')
        for number, word in enumerate(words, 1):
            if _words(word) != [word]:
                raise ValueError(f'{path}, line {number}: expected one word in lower case, found {word!r}')
        if len(set(words)) != len(words):
            twice = next(word for word in words if words.count(word) > 1)
            raise ValueError(f'{path}: the word {twice!r} stands there twice')
        self._ids = {word: i for i, word in enumerate(words, 3)}
        self.eot_id = 3 + len(words)
        self.vocab_size = self.eot_id + 1

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Tokenize texts. [n] str -> [n, L] int64."""
        rows = [[self._ids.get(word, self.unk_id) for word in _words(text)] for text in texts]
        return _pack(rows, self.sot_id, self.eot_id, self.context_length)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text that are not in the vocabulary.

        Args:
            text (str): Any text.

        Returns:
            list[str]: Unknown words in lower case and text order, without duplicates. A symbol such as an emoji counts
            as an unknown word; punctuation does not.
        """
        words = (''.join(letters) for is_word, letters in groupby(text.lower(), _in_a_word) if is_word)
        return list(dict.fromkeys(word for word in words if not self._knows(word)))

    def _knows(self, word: str) -> bool:
        return all(part in self._ids for part in _words(word)) and not any(map(_is_symbol, word))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(vocab={self.vocab!r}, context_length={self.context_length})'


def _words(text: str) -> list[str]:
    return re.findall(r'\w+', text.lower())


def _in_a_word(character: str) -> bool:
    # unlike \w, includes the marks of scripts such as Devanagari and emoji joiners, so that a word is shown whole
    return character in _JOINERS or unicodedata.category(character)[0] in 'LMN' or _is_symbol(character)


def _is_symbol(character: str) -> bool:
    return unicodedata.category(character) == 'So'


def _checked(context_length: int) -> int:
    if context_length < 3:
        raise ValueError(f'context_length must be at least 3 (start, a word, end), got {context_length}')
    return context_length


def _pack(rows: list[list[int]], sot: int, eot: int, length: int) -> Tensor:
    """Pack word ids into rows of equal length. [n] lists -> [n, length] int64."""
    tokens = torch.zeros(len(rows), length, dtype=torch.int64)
    for row, ids in zip(tokens, rows):
        full = [sot, *ids[:length - 2], eot]
        row[:len(full)] = torch.tensor(full)
    return tokens
