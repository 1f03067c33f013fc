"""Texts that the page offers: example queries, and texts to compare an uploaded clip with."""
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from vop_mm.datasets.annotation import read_annotation
from vop_mm.datasets.errors import AnnotationError

_EXAMPLES = ('a person is cooking', 'a dog runs over grass', 'people dance', 'a car drives along a road',
              'somebody plays the guitar')
_MAX_TEXTS = 10_000
_MAX_CAPTIONS = 1_000  # limit for captions that nobody asked for, as all of them are encoded for the first clip
_MAX_EXAMPLE = 60  # characters that fit on a button


@dataclass(frozen=True)
class Texts:
    """Texts of a page."""
    compared: Sequence[str]  # with uploaded clips
    source: str  # displayed origin of those texts
    examples: Sequence[str]  # queries
    captions: Mapping[str, Sequence[str]]  # known captions of videos, by real path


def gather_texts(file: str | Path | None, configs: Sequence[Config]) -> Texts:
    """Collect the texts for a page.

    Uploaded clips are compared with those of a file, with captions of the test splits that the indexes' configs name,
    or with a few examples.
    """
    captions = {path: texts for cfg in configs for path, texts in captions_of(cfg).items()}
    known = list(dict.fromkeys(text for texts in captions.values() for text in texts))
    if file is not None:
        compared, source = read_texts(file), f'from {Path(file).name}'
    elif known:
        compared, source = known[:_MAX_CAPTIONS], 'captions of the test split'
    else:
        compared, source = _EXAMPLES, 'a few examples; use --texts FILE for others'
    return Texts(compared, source, some_examples(known or compared), captions)


def read_texts(path: str | Path) -> list[str]:
    """Read distinct texts from a file: an annotation's captions (``.json``), or one text per line.

    A file that is missing, of another format, empty or too long is refused.
    """
    path = Path(path)
    if path.suffix == '.json':
        texts = [caption for entry in read_annotation(str(path))[1] for caption in entry['captions']]
    else:
        try:
            texts = path.read_text(encoding='utf-8-sig').splitlines()
        except UnicodeDecodeError:
            raise ValueError(f'{path} is not a text file (UTF-8)') from None
    texts = list(dict.fromkeys(text.strip() for text in texts if text.strip()))
    if not 0 < len(texts) <= _MAX_TEXTS:
        raise ValueError(f'{path} contains {len(texts)} texts: it must contain 1 to {_MAX_TEXTS}')
    return texts


def captions_of(cfg: Config) -> dict[str, list[str]]:
    """Return the captions of the test split that a config names, by real path, for whole videos only.

    Relative paths refer to the working directory. Empty if there is no valid annotation.
    """
    try:
        dataset = cfg.test_dataloader.dataset
        root, prefix = dataset.get('data_root') or '', dataset.get('data_prefix') or {}
        folder = os.path.join(root, prefix.get('video') or '')
        entries = read_annotation(os.path.join(root, dataset.get('ann_file') or ''))[1]
    except (AnnotationError, AttributeError, TypeError, ValueError):  # the config may come from an untrusted source
        return {}
    return {os.path.realpath(os.path.join(folder, entry['video'])): entry['captions']
            for entry in entries if not entry.get('start') and entry.get('end') is None}


def some_examples(texts: Sequence[str], count: int = 6) -> list[str]:
    """Pick a few short texts, spread over the list."""
    short = [text for text in dict.fromkeys(texts) if len(text) <= _MAX_EXAMPLE]
    return short[::max(1, len(short) // count)][:count]
