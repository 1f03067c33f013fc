"""Words of a query that are not in a model's vocabulary."""
from collections.abc import Callable, Sequence

_MAX_WORDS = 10
_MAX_WORD = 30  # maximum characters shown of a word


class UnknownWordsWarning(UserWarning):
    """A text has words that are not in the model's vocabulary. The model can't distinguish them."""


def find(tokenizer: Callable, texts: str | Sequence[str]) -> list[str]:
    """Return the words that are not in a tokenizer's vocabulary, in text order, without duplicates.

    A tokenizer without ``unknown_words`` knows all words.
    """
    unknown_words = getattr(tokenizer, 'unknown_words', None)
    if unknown_words is None:
        return []
    texts = [texts] if isinstance(texts, str) else texts
    return list(dict.fromkeys(word for text in texts for word in unknown_words(text)))


def describe(words: Sequence[str]) -> str:
    """Describe in one short line that a model doesn't know these words; '' if there are none."""
    if not words:
        return ''
    shown = [word if len(word) <= _MAX_WORD else f'{word[:_MAX_WORD]}...' for word in words[:_MAX_WORDS]]
    more = f' and {len(words) - _MAX_WORDS} more' if len(words) > _MAX_WORDS else ''
    return f'the model doesn\'t know: {", ".join(shown)}{more}'
