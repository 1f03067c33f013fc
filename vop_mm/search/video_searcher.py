"""Search videos by text, video and image."""
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from vop_mm.utils import register_all_modules
from vop_mm.utils.shared_config import building, check_size

from .build import build_index
from .encoder import Encoder
from .hit import Hit
from .indexing import IndexOptions, IndexReport
from .nearest import RERANKED
from .prompt_set import IndexSource, read_source
from .search_index import SearchIndex

_MAX_QUERY = 2000  # characters: a long paragraph. CLIP reads at most 77 tokens


@dataclass(frozen=True)
class RankedText:
    """A text and its score for a video, from the model's head."""
    text: str
    score: float


class VideoSearcher(Encoder):
    """Encodes texts and videos, and finds videos by texts and vice versa.

    Embeddings are the same as in ``tools/test.py``. Several checkpoints share one frozen CLIP; each brings its prompts
    and the config that it was trained with, and is selected by name in each call.

    Args:
        config (str | Path | Config): Config of the CLIP, and of everything that a checkpoint doesn't specify.
        checkpoint (str | Path | dict, optional): Checkpoint file, or ``{name: file}`` for several on one backbone.
            None: zero-shot; a method that needs training is used untrained, with a warning.
        device (str): Device of the model. Defaults to ``'cpu'``.
        bf16 (bool): Compute in bfloat16; embeddings are still float32. Defaults to False.
        batch_size (int): Number of texts or clips per batch. Defaults to 32.
        num_workers (int): Number of decoding processes. Defaults to 2.
        timeout (float): Time limit in seconds for decoding some clips of a video. Defaults to 60.
        cfg_options (dict, optional): Changes to the config.

    Raises:
        FileNotFoundError: The config, a checkpoint or the CLIP weights are missing.
        CheckpointError: A checkpoint can't be read, is for another CLIP, or can't share the backbone.

    Example:
        >>> searcher = VideoSearcher('configs/vop/vop_demo.py', 'best.pth')
        >>> searcher.build_index('videos', 'gallery')
        >>> searcher.search('a red square moves left', index='gallery', k=3)
    """

    @classmethod
    def from_index(cls, index: str | Path, checkpoint: str | Path | None = None, source: IndexSource | None = None,
                   **kwargs) -> 'VideoSearcher':
        """Create the searcher that an index was made with.

        Args:
            index (str | Path): Folder of the index.
            checkpoint (str | Path, optional): Current path of the checkpoint. None: the original path.
            source (IndexSource, optional): Result of :func:`read_source`, if it is already known.
            **kwargs: Arguments of the class: ``device``, ``cfg_options`` ...

        Raises:
            FileNotFoundError: The index, or something it was made with, is missing.
            ValueError: The index's config, which is untrusted data, does more than describe a model.
        """
        register_all_modules()
        source = source or read_source(index)
        with building(f'what the index {index} was made with'):
            check_size(source.cfg.model)
            return cls(source.cfg, source.checkpoint if checkpoint is None else checkpoint, **kwargs)

    def build_index(self, videos: str | Path, index: str | Path, prompts: str | None = None,
                    backend: dict | None = None, **options) -> IndexReport:
        """Index a folder of videos, or update its index. After an interruption, the next call continues.

        Args:
            videos (str | Path): Folder, address or manifest; see :class:`~vop_mm.datasets.VideoSource`.
            index (str | Path): Folder of the index.
            prompts (str, optional): Name of the prompts; required if several are loaded.
            backend (dict, optional): Config from the registry ``INDEXES``: ``dict(type='FaissIndex')``,
                ``dict(type='MilvusIndex', uri='http://...')``. None: FAISS, or the index's own. Some options of an
                existing index can be changed: ``dict(num_probes=256)``.
            **options: ``window``, ``stride``, ``max_windows``, ``backend_args`` and ``progress``; see
                :class:`~vop_mm.search.indexing.IndexOptions`.

        Raises:
            ValueError: There are no videos, or the index is for another folder.
            IndexMismatchError: The index was made with another CLIP, other prompts or other windows.
        """
        return build_index(self.prompt_set(prompts), videos, index, backend or {}, self._index_options(options))

    def extract_features(self, videos: str | Path, out: str | Path, shards: int, rank: int = 0, world_size: int = 1,
                         prompts: str | None = None, **options) -> list[IndexReport]:
        """Encode this process's share of a folder of videos, in parts, for :func:`merge_features`.

        Existing parts are not encoded again, whatever the number of processes was. Other arguments are those of
        :meth:`build_index`.

        Args:
            videos (str | Path): Folder, address or manifest.
            out (str | Path): Output folder, with a subfolder for each part.
            shards (int): Number of parts, at least the number of processes; the same in every call.
            rank (int): Rank of this process. Defaults to 0.
            world_size (int): Number of processes. Defaults to 1.
            prompts (str, optional): Name of the prompts.
            **options: See :meth:`build_index`.
        """
        if not 0 <= rank < world_size <= shards:
            raise ValueError(f'{shards} shards for {world_size} processes, rank {rank}: there must be at least as many '
                             'shards as processes, and the rank must be less than their number')
        other = [path.name for path in Path(out).glob('part_*') if not path.name.endswith(f'_of_{shards}')]
        if other:
            raise ValueError(f'{out} contains features in another number of parts: {min(other)}')
        return [build_index(self.prompt_set(prompts), videos, Path(out) / f'part_{shard}_of_{shards}', None,
                            self._index_options(options, shard=(shard, shards)))
                for shard in range(rank, shards, world_size)]

    def search(self, query: str | Sequence[str] | None = None, index: str | Path = 'gallery', k: int = 5,
               prompts: str | None = None, video: str | Path | np.ndarray | None = None,
               image: str | Path | np.ndarray | None = None, merge: bool = True,
               rerank: int = RERANKED) -> list[Hit] | list[list[Hit]]:
        """Find moments by texts, a video or an image.

        The search uses vectors. If the model's head scores texts by something other than the cosine with a vector, the
        moments nearest to a text are then re-ranked by the head.

        Warns about words that are not in the model's vocabulary (:class:`UnknownWordsWarning`).

        Args:
            query (str | Sequence[str], optional): Text to search by, or a list of texts, which are encoded together.
            index (str | Path): Folder of the index. Defaults to ``'gallery'``.
            k (int): Number of moments. Defaults to 5.
            prompts (str, optional): Name of the prompts. None: those that the index was made with.
            video (str | Path | np.ndarray, optional): File, or frames uint8 [f, H, W, 3], to search by.
            image (str | Path | np.ndarray, optional): File, or uint8 [H, W, 3], to search by instead of a text.
            merge (bool): Return only the best moment of each video. Defaults to True.
            rerank (int): Number of moments that the head re-ranks, at least ``k``. Defaults to 100.

        Returns:
            list[Hit] | list[list[Hit]]: Hits, best first; for a list of texts, a list of them for each text.

        Raises:
            ValueError: There is no query, it is too long, or there is more than one kind.
            IndexMismatchError: The index was made with another CLIP or other prompts.
            VideoDecodeError: The video or image can't be read.
        """
        if sum(item is not None for item in (query, video, image)) != 1:
            raise ValueError('search by exactly one of a text, a video or an image')
        texts = [] if query is None else [query] if isinstance(query, str) else list(query)
        for text in texts:
            check_query(text)
        search_index = self.open_index(index)
        if prompts is None:
            prompts = next((name for name, item in self._sets.items() if search_index.fits(item.settings)), None)
            prompts = prompts or next(iter(self._sets), None)
        chosen = self.prompt_set(prompts)
        search_index.check(chosen.settings)
        if query is None:
            vector = (self.encode_image(image, prompts) if video is None else self.encode_video(video, prompts))[0]
            return search_index.search(vector, k, merge)
        found = [search_index.search(vector, k, merge, score, rerank)
                 for vector, score in zip(self._encode_text(texts, prompts), chosen.scorers(texts))]
        return found[0] if isinstance(query, str) else found

    def rank_texts(self, video: str | Path | np.ndarray, texts: Sequence[str],
                   prompts: str | None = None) -> list[RankedText]:
        """Rank texts by how well they match a video (a file, or frames uint8 [f, H, W, 3]), best first."""
        kept = self._encode_text(texts, prompts, keep=True)
        return rank_texts(texts, self.prompt_set(prompts).score_one(kept, self.keep_video(video, prompts)[0]))

    def open_index(self, folder: str | Path) -> SearchIndex:
        """Return an index that is opened once, and again after it has changed."""
        key = str(Path(folder).resolve())
        if key in self._indexes and not self._indexes[key].is_current():
            self.close_index(folder)
        if key not in self._indexes:
            self._indexes[key] = SearchIndex(folder)
        return self._indexes[key]

    def close_index(self, folder: str | Path) -> None:
        """Close an index if it is open."""
        opened = self._indexes.pop(str(Path(folder).resolve()), None)
        if opened is not None:
            opened.close()

    @cached_property
    def _indexes(self) -> dict[str, SearchIndex]:
        """Open indexes by path."""
        return {}

    @cached_property
    def lock(self) -> threading.RLock:
        """Lock for threads that use open indexes, which are not thread-safe."""
        return threading.RLock()

    def _index_options(self, options: dict, **more) -> IndexOptions:
        return IndexOptions(**options, **more, batch_size=self.batch_size, num_workers=self.num_workers)


def rank_texts(texts: Sequence[str], scores: np.ndarray) -> list[RankedText]:
    """Return texts with their scores, best first."""
    return [RankedText(texts[i], float(scores[i])) for i in np.argsort(-scores, kind='stable')]


def check_query(query: str) -> None:
    """Refuse an invalid query.

    Raises:
        TypeError: The query is not a str.
        ValueError: The query is empty or too long.
    """
    if not isinstance(query, str):
        raise TypeError(f'a query must be a str, got {query!r:.80}')
    if not query.strip():
        raise ValueError('the query is empty')
    if len(query) > _MAX_QUERY:
        raise ValueError(f'the query has {len(query.split())} words and {len(query)} characters: use at most '
                         f'{_MAX_QUERY} characters')
