"""Tokenizers. They truncate long captions and keep the end-of-text token last.

A tokenizer is called with a list of str and returns int64 [n, L]. It may have ``unknown_words(text) -> list[str]``, the
words of a text that are not in its vocabulary, which search reports to the user. Without it, all words count as known.
"""
import os.path as osp
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from vop_mm.registry import TOKENIZERS
from vop_mm.utils.cli import one_line
from vop_mm.utils.tokenizer_names import on_hub

_CLIP_LENGTH, _CLIP_VOCABULARY = 77, 49408
_CLEANING = ('whitespace', 'lower', 'canonicalize')
_HUB_TIMEOUT = 5.  # seconds; transformers would try for minutes
_FILES = ('tokenizer.json', '*.model', 'vocab.txt', 'vocab.json')  # one of them holds the vocabulary
_MORE_FILES = ('tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json', 'merges.txt', 'config.json')
_JOINERS = frozenset('_\u200d\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff')  # zero-width joiner, skin tones


@TOKENIZERS.register_module()
class CLIPTokenizer:
    """CLIP's byte pair encoding, from open_clip.

    Args:
        context_length (int): Number of tokens per caption, including start and end of text (L). Defaults to 77.

    Attributes:
        sot_id (int): Start-of-text token.
        eot_id (int): End-of-text token, the largest id.
        pad_id (int): Padding.
        vocab_size (int): Number of ids.

    Examples:
        >>> CLIPTokenizer(context_length=6)(['a squid is talking', 'a squid']).tolist()
        [[49406, 320, 22553, 533, 2578, 49407], [49406, 320, 22553, 49407, 0, 0]]
    """
    pad_id = 0

    def __init__(self, context_length: int = _CLIP_LENGTH) -> None:
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
        pad_id (int): Padding.
        vocab_size (int): Number of ids: the words and four more.

    Raises:
        FileNotFoundError: The vocabulary file is missing.
        ValueError: The file is empty, a line is not one lower-case word, or a word is duplicated.
    """
    pad_id, unk_id, sot_id = 0, 1, 2

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
        return [word for word in _whole_words(text.lower()) if not self._knows(word)]

    def _knows(self, word: str) -> bool:
        return all(part in self._ids for part in _words(word)) and not any(map(_is_symbol, word))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(vocab={self.vocab!r}, context_length={self.context_length})'


@TOKENIZERS.register_module()
class HFTokenizer:
    """Tokenizer of a Hugging Face repository or folder, as open_clip uses it: SigLIP, CLIPA, MetaCLIP 2 and others.

    Needs ``transformers``. Code in a repository or folder is never run. The hub's files are downloaded once.

    Args:
        name (str): Local folder with a ``tokenizer.json``, or name of a repository of the hub:
            ``'timm/ViT-B-16-SigLIP'``.
        context_length (int): Number of tokens per caption, including those at start and end (L). Defaults to 77.
        clean (str): How texts are cleaned first: ``'whitespace'``, ``'lower'`` (also lower case) or ``'canonicalize'``
            (also without punctuation). Defaults to ``'whitespace'``.
        strip_sep_token (bool): Replace the separator by 0, as CLIPA was trained. It is BERT's end of text, so that
            captions then have none. Defaults to False.
        tokenizer_mode (str, optional): ``'clips'``: begin and end of text around the words, and the class token last.
            Defaults to None.

    Attributes:
        sot_id (int | None): Token that precedes the words; None if there is none.
        eot_id (int | None): End-of-text token; None if there is none.
        pad_id (int): Padding. It may equal ``eot_id``.
        vocab_size (int): Number of ids.
        folder (str): Folder that it was read from, in the cache of the hub if it is the hub's.

    Raises:
        ImportError: ``transformers`` is not installed.
        FileNotFoundError: The folder is missing, or holds no tokenizer.
        ConnectionError: The hub can't be reached, or has no such repository.
        ValueError: The tokenizer can't be used, or an argument is wrong.
    """

    def __init__(self, name: str, context_length: int = _CLIP_LENGTH, clean: str = 'whitespace',
                 strip_sep_token: bool = False, tokenizer_mode: str | None = None) -> None:
        if clean not in _CLEANING:
            raise ValueError(f'clean must be one of {", ".join(_CLEANING)}, got {clean!r}')
        if tokenizer_mode not in (None, 'clips'):
            raise ValueError(f"tokenizer_mode must be None or 'clips', got {tokenizer_mode!r}")
        self.name, self.context_length = str(name), _checked(context_length)
        options = dict(clean=clean, strip_sep_token=strip_sep_token, tokenizer_mode=tokenizer_mode)
        self._options = {key: value for key, value in options.items() if value}
        found = self.name if on_hub(self.name) else osp.abspath(self.name)
        self.folder, self._tokenizer = _hf_tokenizer(found, self.context_length, **self._options)
        with _usable(self.name):
            theirs, empty = self._tokenizer.tokenizer, self([''])[0].tolist()
            self.vocab_size, self.pad_id, unknown = len(theirs), theirs.pad_token_id, theirs.unk_token_id
            end = theirs.sep_token_id if theirs.eos_token_id is None else theirs.eos_token_id
        self.eot_id = end if end in empty else None
        self.sot_id = empty[0] if empty[0] not in (end, self.pad_id) else None
        self._unk_id = None if unknown in empty else unknown  # GPT-2's is its end of text

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Tokenize texts. [n] str -> [n, L] int64."""
        texts = list(texts)
        return self._tokenizer(texts) if texts else torch.zeros(0, self.context_length, dtype=torch.int64)

    def unknown_words(self, text: str) -> list[str]:
        """Return the words of a text with a part that is not in the vocabulary, in text order, without duplicates.

        There are none if the vocabulary can spell every word, in bytes.
        """
        words = [] if self._unk_id is None else _whole_words(self._tokenizer.clean_fn(text))
        return [word for word, row in zip(words, self(words)) if self._unk_id in row]

    def __repr__(self) -> str:
        options = ''.join(f', {key}={value!r}' for key, value in self._options.items())
        return f'{type(self).__name__}(name={self.name!r}, context_length={self.context_length}{options})'


@cache
def _hf_tokenizer(name: str, context_length: int, **options):
    # Loading a large vocabulary takes seconds: do it once for all pipelines.
    try:
        import transformers  # noqa: F401
    except ImportError as e:
        raise ImportError('HFTokenizer needs transformers: pip install transformers') from e
    from open_clip.tokenizer import HFTokenizer as OpenCLIPTokenizer

    folder = Path(_downloaded(name) if on_hub(name) else name)
    if not folder.is_dir():
        raise FileNotFoundError(f'tokenizer not found: {folder} is no folder')
    if not any(path for pattern in _FILES for path in folder.glob(pattern)):
        raise FileNotFoundError(f'{folder}: no tokenizer.json in this folder')
    if other := [path for path in folder.iterdir() if not (path.is_file() or path.is_dir())]:
        raise ValueError(f'{other[0]} is not a regular file')
    with _usable(name):
        tokenizer = OpenCLIPTokenizer(str(folder), context_length, **options, local_files_only=True,
                                      trust_remote_code=False)
        # fails without padding or an unknown token, and sets the length, which threads can't do while others tokenize
        tokenizer(['', 'a \U00013000'])  # a hieroglyph
    return str(folder), tokenizer


@contextmanager
def _usable(name: str) -> Iterator[None]:
    try:
        yield
    except BaseException as e:  # tokenizers raises bare exceptions for damaged files, and panics
        if not isinstance(e, Exception) and type(e).__name__ != 'PanicException':
            raise
        raise ValueError(f'the tokenizer {name} cannot be used: {one_line(e):.300}') from e


def _downloaded(name: str) -> str:
    """Return the folder of a repository's tokenizer in the cache of the hub, after a download if there is a network."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import RepositoryNotFoundError

    files = [*_FILES, *_MORE_FILES]
    try:
        HfApi().model_info(name, timeout=_HUB_TIMEOUT)  # the download itself has no such limit
        return snapshot_download(name, allow_patterns=files)
    except Exception as e:  # hub clients raise their own errors, which differ between versions
        try:
            return snapshot_download(name, allow_patterns=files, local_files_only=True)
        except Exception:
            why = ('has no such repository' if isinstance(e, RepositoryNotFoundError) else
                   f'can\'t be reached ({type(e).__name__})')
        raise ConnectionError(
            f'the tokenizer {name!r} is no local folder, and the Hugging Face hub {why}. Without a connection, fetch '
            "its tokenizer.json and tokenizer_config.json elsewhere and point at their folder: tokenizer=dict("
            "type='HFTokenizer', name='/path/to/folder', ...)") from e


def tokenizer_config(model_config: dict, arch: str = '', folder: str | None = None) -> dict | None:
    """Return the config of the tokenizer that an open_clip architecture was trained with.

    Args:
        model_config (dict): open_clip model config.
        arch (str): Its name. Defaults to ``''``.
        folder (str, optional): Local folder to use in place of a repository of the hub. Defaults to None.

    Returns:
        dict | None: Config for ``TOKENIZERS``. None if the model config names no tokenizer and was not made for CLIP's.

    Raises:
        ValueError: The model config has tokenizer arguments that are not known here.
    """
    text = model_config.get('text_cfg', {})
    length, options = text.get('context_length', _CLIP_LENGTH), dict(text.get('tokenizer_kwargs') or {})
    name = text.get('hf_tokenizer_name') or text.get('hf_model_name')
    if not name:
        # some have more ids than CLIP's tokenizer uses; open_clip knows a SigLIP without a tokenizer's name by its own
        clips = text.get('vocab_size', _CLIP_VOCABULARY) >= _CLIP_VOCABULARY and 'siglip' not in arch.lower()
        if not clips or options:
            return None
        return dict(type='CLIPTokenizer', **({} if length == _CLIP_LENGTH else dict(context_length=length)))
    if unknown := options.keys() - {'clean', 'strip_sep_token'}:
        raise ValueError(f'{arch or "the architecture"}: the tokenizer argument {min(unknown)} is not known')
    if text.get('tokenizer_mode'):
        options['tokenizer_mode'] = text['tokenizer_mode']
    return dict(type='HFTokenizer', name=folder or name, context_length=length, **options)


def _words(text: str) -> list[str]:
    return re.findall(r'\w+', text.lower())


def _whole_words(text: str) -> list[str]:
    words = (''.join(letters) for is_word, letters in groupby(text, _in_a_word) if is_word)
    return list(dict.fromkeys(words))


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
