"""Create indexes and bring them up to date: with videos, or with features that were extracted in parts."""
import re
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vop_mm.datasets import VideoSource
from vop_mm.datasets.video_files import describe_left_out, find_videos
from vop_mm.utils.progress import progress_bar

from .clip_loader import ClipLoader
from .indexing import IndexOptions, IndexReport, Run
from .remote_indexing import RemoteRun, list_videos
from .search_index import SearchIndex
from .windows import cut_windows

if TYPE_CHECKING:  # features are merged without importing models
    from .prompt_set import PromptSet

_WINDOW = 30.  # seconds
_PART = re.compile(r'part_\d{1,9}_of_\d{1,9}', re.ASCII)


def build_index(prompts: 'PromptSet', videos: str | Path, index: str | Path, backend: dict | None,
                options: IndexOptions) -> IndexReport:
    """Index a folder of videos with a prompt set; see :meth:`VideoSearcher.build_index`. No backend: features only."""
    source = VideoSource(videos, options.backend_args)
    source.require_folder()
    prompts.loader.start()
    if SearchIndex.exists(index):
        search_index = SearchIndex(index, backend)
    else:
        prompts.try_out()  # a model that makes no vectors must not leave an index behind
        window = _WINDOW if options.window is None else float(options.window)
        stride = window / 2 if options.stride is None else float(options.stride)
        options = replace(options, window=window, stride=stride)
        cut_windows(1, window, stride)  # refuses invalid windows
        _require_videos(source)
        search_index = SearchIndex.create(index, source.root, dict(prompts.settings, window=window, stride=stride),
                                           backend, prompts.source())
    with closing(search_index):
        windows = dict(window=options.window, stride=options.stride)
        search_index.check({**prompts.settings, **{key: value for key, value in windows.items() if value is not None}})
        _check_use(search_index, videos, backend)
        return index_folder(search_index, prompts.loader, prompts.encode_frames, options,
                            None if source.is_local else source)


def index_folder(search_index: SearchIndex, loader: ClipLoader, encode: Callable,
                 options: IndexOptions | None = None, source: VideoSource | None = None) -> IndexReport:
    """Update an index with its videos.

    Files are compared by size and modification time, then by a hash of their content; remote files by size and tag
    (ETag, or modification time), and they are fetched if these are new or there is no tag. Content that is known under
    another name is not encoded again. Every batch is stored immediately: after an interruption, the next call
    continues. A file that changes between its hash and its last clip keeps its old index entry, so a vector always
    belongs to the hash stored with it.

    Args:
        search_index (SearchIndex): The index.
        loader (ClipLoader): Loader of videos; must be thread-safe.
        encode (Callable): Maps frames, uint8 [n, F, 3, H, W], and the number of real frames of each clip to vectors,
            float32 [n, D] or [n, D + kept] (see :meth:`Catalogue.put_file`).
        options (IndexOptions, optional): Options; windows are those of the index.
        source (VideoSource, optional): Source of remote videos. The index's own source is not used because its
            addresses can't be trusted.

    Raises:
        ValueError: There are no videos (the index is unchanged), or embeddings are not finite.
        VideoDecodeError: The remote files can't be listed.
        BlockingIOError: Another process is changing the index.
    """
    options = options or IndexOptions()
    with progress_bar(options.progress, f'indexing {source or search_index.videos}') as progress:
        run = search_index, loader, encode, options, progress
        return (Run(*run) if source is None else RemoteRun(source, *run)).run()


def merge_features(features: str | Path, index: str | Path, backend: dict | None = None,
                   videos: str | Path | None = None) -> IndexReport:
    """Create or update an index from extracted features, without running a model.

    Args:
        features (str | Path): Output folder of ``VideoSearcher.extract_features``, with all parts.
        index (str | Path): Folder of the index.
        backend (dict, optional): See ``VideoSearcher.build_index``.
        videos (str | Path, optional): Folder of the videos. None: the one recorded in the features.

    Raises:
        FileNotFoundError: Features, or some of their parts, are missing.
        ValueError: A part is unfinished or damaged, or the index is for another folder.
        IndexMismatchError: The features were made with another CLIP, other prompts or other windows than the index.
    """
    folders = sorted(folder for folder in Path(features).glob('part_*_of_*') if _PART.fullmatch(folder.name))
    count = int(folders[0].name.rpartition('_')[2]) if folders else 0
    if not folders or len(folders) != count or not all(SearchIndex.exists(folder) for folder in folders):
        raise FileNotFoundError(f'{features} contains {len(folders)} of {count or "no"} parts of features')
    backend = backend or {}
    with ExitStack() as stack:
        parts = [stack.enter_context(closing(SearchIndex(folder))) for folder in folders]
        for part in parts:
            part.check(parts[0].settings)
            if not part.is_finished():
                raise ValueError(f'{part.folder} is not finished: run tools/extract_features.py again')
        search_index = stack.enter_context(closing(
            SearchIndex(index, backend) if SearchIndex.exists(index) else
            SearchIndex.create(index, videos or parts[0].videos, parts[0].settings, backend,
                               SearchIndex.source(folders[0]))))
        search_index.check(parts[0].settings)
        _check_use(search_index, videos, backend)
        with search_index.locked():
            search_index.repair()
            report = _merge(search_index, parts)
            search_index.synchronize()
            return report


def _merge(search_index: SearchIndex, parts: Sequence[SearchIndex]) -> IndexReport:
    report, catalogue, seen = IndexReport(), search_index.catalogue, set()
    before = catalogue.files()
    for part in parts:
        with catalogue.transaction():
            for path, state in part.catalogue.files().items():
                known = before.get(path)
                seen.add(path)
                if state.error:
                    report.failed.append((path, state.error))
                if known == state:
                    report.unchanged += state.error is None
                    continue
                catalogue.put_file(path, state, *part.catalogue.clips_of_file(path))
                if state.error is None:
                    report.added += known is None or known.error is not None
                    report.changed += known is not None and known.error is None
    with catalogue.transaction():
        for path in before.keys() - seen:
            catalogue.remove_file(path)
            report.removed += before[path].error is None
    report.clips = catalogue.num_clips()
    report.failed.sort()
    return report


def _check_use(search_index: SearchIndex, videos: str | Path | None, backend: dict | None) -> None:
    """Refuse an index of other videos or of another backend; options that may change are changed."""
    if backend is not None:
        search_index.adjust(backend)
    if videos is not None:
        search_index.follow_move(videos)
        search_index.check_videos(videos)


def _require_videos(source: VideoSource) -> None:
    if not source.is_local:
        list_videos(source)
    elif not (found := find_videos(source.root)).videos:
        raise ValueError(f'no videos in {source}; {describe_left_out(found.left_out) or "the folder is empty"}')
