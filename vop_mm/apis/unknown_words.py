"""Words of a query that a model's vocabulary lacks, and how a user is told."""
from collections.abc import Callable, Sequence

_MAX_WORDS = 10
_MAX_LENGTH = 30  # characters of a word


class UnknownWordsWarning(UserWarning):
    """A text has words that the model's vocabulary lacks. All of them are the same to the model."""


def find(tokenizer: Callable, texts: str | Sequence[str]) -> list[str]:
    """Find the words that a tokenizer's vocabulary lacks.

    Args:
        tokenizer (Callable): Of the registry ``TOKENIZERS``. One without ``unknown_words`` has every word.
        texts (str | Sequence[str]): One text or several.

    Returns:
        list[str]: Each once, in the order of the texts.
    """
    unknown_words = getattr(tokenizer, 'unknown_words', None)
    if unknown_words is None:
        return []
    texts = [texts] if isinstance(texts, str) else texts
    return list(dict.fromkeys(word for text in texts for word in unknown_words(text)))


def describe(words: Sequence[str]) -> str:
    """Say in one short line that a model doesn't know these words; '' for none."""
    if not words:
        return ''
    shown = [word if len(word) <= _MAX_LENGTH else f'{word[:_MAX_LENGTH]}...' for word in words[:_MAX_WORDS]]
    more = f' and {len(words) - _MAX_WORDS} more' if len(words) > _MAX_WORDS else ''
    return f'the model doesn\'t know: {", ".join(shown)}{more}'
