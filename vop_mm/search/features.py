"""Merge features that were extracted in parts into an index."""
import contextlib
import re
from collections.abc import Sequence
from pathlib import Path

from .indexing import IndexReport
from .search_index import DEFAULT_BACKEND, SearchIndex

_PART = re.compile(r'part_\d{1,9}_of_\d{1,9}', re.ASCII)


def take_in_features(features: str | Path, index: str | Path, backend: dict | None = None,
                     videos: str | Path | None = None) -> IndexReport:
    """Create or update an index from extracted features, without running a model.

    Args:
        features (str | Path): Output folder of ``VideoSearcher.extract_features``, with all parts.
        index (str | Path): Folder of the index.
        backend (dict, optional): See ``VideoSearcher.build_index``.
        videos (str | Path, optional): Folder of the videos. None: the one recorded in the features.

    Returns:
        IndexReport: What was done.

    Raises:
        FileNotFoundError: Features, or some of their parts, are missing.
        ValueError: A part is unfinished or damaged, or the index is for another folder.
        IndexMismatchError: The features were made with another CLIP, other prompts or other windows than the index.
    """
    folders = sorted(folder for folder in Path(features).glob('part_*_of_*') if _PART.fullmatch(folder.name))
    count = int(folders[0].name.rpartition('_')[2]) if folders else 0
    if not folders or len(folders) != count or not all(SearchIndex.exists(folder) for folder in folders):
        raise FileNotFoundError(f'{features} holds {len(folders)} of {count or "no"} parts of features')
    with contextlib.ExitStack() as stack:
        parts = [stack.enter_context(contextlib.closing(SearchIndex(folder))) for folder in folders]
        for part in parts:
            part.check(parts[0].settings)
            if not part.is_finished():
                raise ValueError(f'{part.folder} is not finished: run tools/extract_features.py again, and take the '
                                 'features in when it has ended')
        if SearchIndex.exists(index):
            gallery = SearchIndex(index, backend)
        else:
            gallery = SearchIndex.create(index, videos or parts[0].videos, parts[0].settings,
                                     {**DEFAULT_BACKEND, **(backend or {})}, SearchIndex.source(folders[0]))
        with contextlib.closing(gallery):
            if videos is not None and not gallery.is_of(videos):
                raise ValueError(f'the index {index} is of the videos in {gallery.videos}, not of {videos}')
            gallery.adjust(backend or {})
            return take_in(gallery, parts)


def take_in(gallery: SearchIndex, features: Sequence[SearchIndex]) -> IndexReport:
    """Update an index with features that were extracted in parts.

    Args:
        gallery (SearchIndex): The index.
        features (Sequence[SearchIndex]): All parts.

    Returns:
        IndexReport: What was done.

    Raises:
        IndexMismatchError: The features are of another CLIP, other prompts or other settings; the index is unchanged.
        BlockingIOError: Another process is changing the index.
    """
    with gallery.locked():
        for part in features:
            gallery.check(part.settings)
        gallery.repair()
        report, before, seen = IndexReport(), gallery.catalogue.files(), set()
        for part in features:
            with gallery.catalogue.transaction():
                for path, state in part.catalogue.files().items():
                    seen.add(path)
                    if state.error:
                        report.failed.append((path, state.error))
                    if before.get(path) == state:
                        report.unchanged += state.error is None
                        continue
                    gallery.catalogue.put_file(path, state, *(part.catalogue.clips_of_file(path)))
                    if state.error is None:
                        known = before.get(path)
                        report.added += known is None or known.error is not None
                        report.changed += known is not None and known.error is None
        with gallery.catalogue.transaction():
            for path in before.keys() - seen:
                gallery.catalogue.remove_file(path)
                report.removed += before[path].error is None
        gallery.synchronize()
        report.clips = gallery.catalogue.num_clips()
        report.failed.sort()
        return report
