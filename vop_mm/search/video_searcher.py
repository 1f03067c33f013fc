"""Search videos by text, video and image."""
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config

from vop_mm.config import read_config
from vop_mm.datasets import VideoSource
from vop_mm.datasets.video_files import describe_left_out, find_videos
from vop_mm.engine.inference import init_model
from vop_mm.models.tuning import trainable_parameters, trainable_state_dict
from vop_mm.registry import MODELS
from vop_mm.utils import register_all_modules
from vop_mm.utils.look_ahead import look_ahead
from vop_mm.utils.paths import require_file
from vop_mm.utils.progress import progress_bar
from vop_mm.utils.shared_config import building, check_size

from .hit import Hit
from .indexing import IndexReport, index_folder
from .prompt_set import PromptSet, backbone_names, read_source, shared_backbone
from .remote_indexing import list_videos
from .search_index import DEFAULT_BACKEND, RERANKED, SearchIndex
from .unknown_words import UnknownWordsWarning, describe, find
from .windows import MAX_WINDOWS, cut_windows

_MAX_QUERY = 2000  # characters: a long paragraph. CLIP reads at most 77 tokens
_DEFAULT = 'default'


@dataclass(frozen=True)
class RankedText:
    """A text and its score for a video, from the model's head."""
    text: str
    score: float


class VideoSearcher:
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
        >>> retriever = VideoSearcher('configs/vop/vop_demo.py', 'best.pth')
        >>> retriever.build_index('videos', 'gallery')
        >>> retriever.search('a red square moves left', index='gallery', k=3)
    """

    def __init__(self,
                 config: str | Path | Config,
                 checkpoint: str | Path | dict | None = None,
                 device: str = 'cpu',
                 bf16: bool = False,
                 batch_size: int = 32,
                 num_workers: int = 2,
                 timeout: float = 60.,
                 cfg_options: dict | None = None) -> None:
        register_all_modules()
        if batch_size < 1 or num_workers < 1:
            raise ValueError(f'batch_size and num_workers must be at least 1, got {batch_size} and {num_workers}')
        self.cfg = read_config(config, cfg_options)
        self.batch_size, self.num_workers = batch_size, num_workers
        self._options = dict(num_workers=num_workers, timeout=timeout, bf16=bf16)
        self._sets: dict[str, PromptSet] = {}
        self._galleries: dict[str, SearchIndex] = {}
        if isinstance(checkpoint, dict):
            for file in checkpoint.values():
                require_file(file)
            self._backbone = MODELS.build(self.cfg.model.backbone).requires_grad_(False).to(torch.device(device)).eval()
            for name, file in checkpoint.items():
                self.add_prompts(name, file)
        else:
            model = init_model(self.cfg, checkpoint, device)
            if checkpoint is None and trainable_parameters(model):
                warnings.warn('no checkpoint was given: nothing has trained what is learned here', stacklevel=2)
            self._sets[_DEFAULT] = PromptSet(model, self.cfg, checkpoint, **self._options)
            self._backbone = None if backbone_names(trainable_state_dict(model)) else model.backbone

    @classmethod
    def from_index(cls, index: str | Path, checkpoint: str | Path | None = None, **kwargs) -> 'VideoSearcher':
        """Create the retriever that an index was made with.

        Args:
            index (str | Path): Folder of the index.
            checkpoint (str | Path, optional): Current path of the checkpoint. None: the original path.
            **kwargs: Arguments of the class: ``device``, ``cfg_options`` ...

        Returns:
            VideoSearcher: Retriever with one prompt set.

        Raises:
            FileNotFoundError: The index, or something it was made with, is missing.
            ValueError: The index's config, which is untrusted data, does more than describe a model.
        """
        register_all_modules()
        cfg, noted = read_source(index)
        with building(f'what the index {index} was made with'):
            check_size(cfg.model)
            return cls(cfg, noted if checkpoint is None else checkpoint, **kwargs)

    # -- prompts ------------------------------------------------------------------------------------------------------
    @property
    def prompts(self) -> list[str]:
        """Names of the loaded prompts; ``'default'`` for those of a single file."""
        return list(self._sets)

    def add_prompts(self, name: str, checkpoint: str | Path) -> None:
        """Load the prompts of a checkpoint on the existing CLIP. Memory grows only by the prompts.

        Args:
            name (str): Name for the prompts.
            checkpoint (str | Path): Checkpoint file.

        Raises:
            ValueError: The name is in use, or the existing CLIP was changed by its own checkpoint.
            CheckpointError: The checkpoint can't be read, is for another CLIP, or changes the backbone's own weights.
        """
        if name in self._sets:
            raise ValueError(f'prompts called {name!r} are loaded already')
        if self._backbone is None:
            raise ValueError(f'the method {self.cfg.get("method")} changes CLIP itself: no other prompts can be added')
        model, cfg = shared_backbone(self._backbone, checkpoint, self.cfg)
        with building(f'the model of {checkpoint}'):
            self._sets[name] = PromptSet(model, cfg, checkpoint, **self._options)

    def remove_prompts(self, name: str) -> None:
        """Unload prompts.

        Raises:
            ValueError: There are no prompts of this name.
        """
        self.prompt_set(name).loader.close()
        del self._sets[name]

    def prompt_set(self, name: str | None = None) -> PromptSet:
        """Return a loaded prompt set.

        Args:
            name (str, optional): Name of the prompts; required if several are loaded.

        Returns:
            PromptSet: Its ``settings`` are compared with those of an index, its ``loader`` reads its frames.

        Raises:
            ValueError: There are no prompts of this name, or no name was given and several are loaded.
        """
        if name is None and len(self._sets) == 1:
            return next(iter(self._sets.values()))
        if name not in self._sets:
            what = 'several prompts are loaded' if name is None else f'no prompts called {name!r}'
            raise ValueError(f'{what}: choose one of {", ".join(self._sets) or "(none)"}')
        return self._sets[name]

    # -- embeddings ---------------------------------------------------------------------------------------------------
    def encode_text(self, texts: str | Sequence[str], prompts: str | None = None) -> np.ndarray:
        """Encode texts. Long ones are truncated, as in evaluation.

        Warns about words that are not in the model's vocabulary (:class:`UnknownWordsWarning`).

        Args:
            texts (str | Sequence[str]): n texts.
            prompts (str, optional): Name of the prompts; required if several are loaded.

        Returns:
            np.ndarray: float32 [n, D], unit norm.

        Raises:
            TypeError: An item is not a str.
        """
        return self._encode_text(texts, prompts)

    def unknown_words(self, texts: str | Sequence[str], prompts: str | None = None) -> list[str]:
        """Return the words that are not in the model's vocabulary. The model can't distinguish them.

        Args:
            texts (str | Sequence[str]): One text or several.
            prompts (str, optional): Name of the prompts; required if several are loaded.

        Returns:
            list[str]: Unknown words in text order, without duplicates. Empty if there are none, as with CLIP's own
            vocabulary, or if the tokenizer can't report them.
        """
        return find(self.prompt_set(prompts).tokenizer, texts)

    def keep_text(self, texts: str | Sequence[str], prompts: str | None = None) -> np.ndarray:
        """Encode texts to the head's text features, [n, ...] float32; same as :meth:`encode_text` for a cosine head."""
        return self._encode_text(texts, prompts, keep=True)

    def _encode_text(self, texts: str | Sequence[str], prompts: str | None, keep: bool = False) -> np.ndarray:
        """Encode texts; called only by public methods, so that the warning names the line that called them."""
        chosen, texts = self.prompt_set(prompts), [texts] if isinstance(texts, str) else list(texts)
        for text in texts:
            if not isinstance(text, str):
                raise TypeError(f'a text is a str, got {text!r:.80}')
        if unknown := find(chosen.tokenizer, texts):
            warnings.warn(describe(unknown), UnknownWordsWarning, stacklevel=3)
        encode = chosen.keep_text if keep else chosen.encode_text
        parts = [encode(texts[i:i + self.batch_size]) for i in range(0, len(texts), self.batch_size)]
        return np.concatenate(parts) if parts else np.empty((0, chosen.settings['dim']), np.float32)

    def encode_video(self, videos: str | Path | np.ndarray | Sequence, prompts: str | None = None,
                     progress: bool = False) -> np.ndarray:
        """Encode whole videos.

        Args:
            videos (Sequence): n files or arrays of frames, uint8 [f, H, W, 3] RGB each; or a single one.
            prompts (str, optional): Name of the prompts; required if several are loaded.
            progress (bool): Show a progress bar. Defaults to False.

        Returns:
            np.ndarray: float32 [n, D], unit norm.

        Raises:
            VideoDecodeError: A file can't be read; the message names it.
        """
        return self.keep_video(videos, prompts, progress)[:, :self.prompt_set(prompts).settings['dim']]

    def keep_video(self, videos: str | Path | np.ndarray | Sequence, prompts: str | None = None,
                   progress: bool = False) -> np.ndarray:
        """Encode whole videos to the rows that an index stores; takes the same arguments as :meth:`encode_video`.

        Returns:
            np.ndarray: float32 [n, D], the vectors, for a cosine head; otherwise the vectors followed by the features
            that the head scores videos by, [n, D + kept].
        """
        chosen = self.prompt_set(prompts)
        one = isinstance(videos, (str, Path)) or (isinstance(videos, np.ndarray) and videos.ndim == 4)
        return self._encode([videos] if one else list(videos), chosen, lambda video: (
            chosen.loader.load(str(video)) if isinstance(video, (str, Path)) else chosen.loader.load_frames(video)),
            progress)

    def encode_image(self, images: str | Path | np.ndarray | Sequence, prompts: str | None = None) -> np.ndarray:
        """Encode images as still videos: n files or arrays, uint8 [H, W, 3] RGB -> float32 [n, D]."""
        chosen = self.prompt_set(prompts)
        one = isinstance(images, (str, Path)) or (isinstance(images, np.ndarray) and images.ndim == 3)
        rows = self._encode([images] if one else list(images), chosen, chosen.loader.load_image)
        return rows[:, :chosen.settings['dim']]

    def _encode(self, items: list, chosen: PromptSet, load, progress: bool = False) -> np.ndarray:
        width = chosen.settings['dim'] + chosen.settings.get('kept', 0)
        vectors, frames, real = [np.empty((0, width), np.float32)], [], []
        with progress_bar(progress, 'encoding') as tell, ThreadPoolExecutor(self.num_workers) as pool:
            for done, (_, loaded) in enumerate(look_ahead(pool, load, items, 2 * self.num_workers), 1):
                frames, real = [*frames, loaded[0]], [*real, *loaded[1]]
                if len(frames) == self.batch_size or done == len(items):
                    vectors.append(chosen.encode_frames(torch.cat(frames), real))
                    frames, real = [], []
                tell(done, len(items))
        return np.concatenate(vectors)

    # -- search -------------------------------------------------------------------------------------------------------
    def build_index(self,
                    videos: str | Path,
                    index: str | Path,
                    prompts: str | None = None,
                    window: float | None = None,
                    stride: float | None = None,
                    backend: dict | None = None,
                    progress: bool = False,
                    max_windows: int = MAX_WINDOWS,
                    backend_args: dict | None = None) -> IndexReport:
        """Index a folder of videos, or update its index. After an interruption, the next call continues.

        Args:
            videos (str | Path): Folder, address or manifest; see :class:`~vop_mm.datasets.VideoSource`.
            index (str | Path): Folder of the index.
            prompts (str, optional): Name of the prompts; required if several are loaded.
            window (float, optional): Window length in seconds; longer videos are cut. None: 30, or the index's own.
            stride (float, optional): Seconds between the starts of windows. None: half a window, or the index's own.
            backend (dict, optional): Config from the registry ``INDEXES``: ``dict(type='FaissIndex')``,
                ``dict(type='MilvusIndex', uri='http://...')``. None: FAISS, or the index's own. Some options of an
                existing index can be changed: ``dict(num_probes=256)``.
            progress (bool): Show a progress bar. Defaults to False.
            max_windows (int): Maximum number of windows per file; files with more are not read. Defaults to 10000.
            backend_args (dict, optional): Options for reading remote videos. They are not stored in the index.

        Returns:
            IndexReport: What was done, and the files that can't be read.

        Raises:
            ValueError: There are no videos, or the index is for another folder.
            IndexMismatchError: The index was made with another CLIP, other prompts or other windows.
        """
        return self._build(videos, index, prompts, window, stride, backend or {}, progress, max_windows,
                           backend_args=backend_args)

    def _build(self, videos: str | Path, index: str | Path, prompts: str | None, window: float | None,
               stride: float | None, backend: dict | None, progress: bool, max_windows: int,
               shard: tuple[int, int] = (0, 1), backend_args: dict | None = None) -> IndexReport:
        chosen, source = self.prompt_set(prompts), VideoSource(videos, backend_args)
        source.require_folder()
        asked = dict(window=window, stride=stride)
        chosen.loader.start()
        if SearchIndex.exists(index):
            gallery = SearchIndex(index, backend)
        else:
            chosen.try_out()  # a model that makes no vectors must not leave an index behind
            window = 30. if window is None else float(window)
            asked = dict(window=window, stride=window / 2 if stride is None else float(stride))
            gallery = _create(index, source, dict(chosen.settings, **asked),
                              None if backend is None else {**DEFAULT_BACKEND, **backend}, chosen.source())
        try:
            gallery.check({**chosen.settings, **{key: value for key, value in asked.items() if value is not None}})
            if backend is not None:
                gallery.adjust(backend)
            if not gallery.is_of(videos):
                raise ValueError(f'the index {index} is of the videos in {gallery.videos}, not of {source}')
            with progress_bar(progress, f'indexing {source}') as tell:
                return index_folder(gallery, chosen.loader, chosen.encode_frames, self.batch_size, self.num_workers,
                                    tell, shard, max_windows, None if source.is_local else source)
        finally:
            gallery.close()

    def extract_features(self, videos: str | Path, out: str | Path, shards: int, rank: int = 0, world_size: int = 1,
                         prompts: str | None = None, window: float | None = None, stride: float | None = None,
                         progress: bool = False, max_windows: int = MAX_WINDOWS,
                         backend_args: dict | None = None) -> list[IndexReport]:
        """Encode this process's share of a folder of videos, in parts, for :func:`take_in_features`.

        Existing parts are not encoded again, whatever the number of processes was.

        Args:
            videos (str | Path): Folder, address or manifest.
            out (str | Path): Output folder, with a subfolder for each part.
            shards (int): Number of parts, at least the number of processes; the same in every call.
            rank (int): Rank of this process. Defaults to 0.
            world_size (int): Number of processes. Defaults to 1.
            prompts (str, optional): See :meth:`build_index`.
            window (float, optional): See :meth:`build_index`.
            stride (float, optional): See :meth:`build_index`.
            progress (bool): See :meth:`build_index`.
            max_windows (int): See :meth:`build_index`.
            backend_args (dict, optional): See :meth:`build_index`.

        Returns:
            list[IndexReport]: One report per part of this process.
        """
        if not 0 <= rank < world_size <= shards:
            raise ValueError(f'{shards} parts for {world_size} processes, of which this is number {rank}')
        out = Path(out)
        kept = [path.name for path in out.glob('part_*')]
        if any(not name.endswith(f'_of_{shards}') for name in kept):
            raise ValueError(f'{out} holds features in other parts: {min(kept)}')
        return [self._build(videos, out / f'part_{shard}_of_{shards}', prompts, window, stride, None, progress,
                            max_windows, (shard, shards), backend_args) for shard in range(rank, shards, world_size)]

    def search(self,
               query: str | None = None,
               index: str | Path = 'gallery',
               k: int = 5,
               prompts: str | None = None,
               video: str | Path | np.ndarray | None = None,
               image: str | Path | np.ndarray | None = None,
               merge: bool = True,
               rerank: int = RERANKED) -> list[Hit]:
        """Find moments by a text, a video or an image.

        The search uses vectors. If the model's head scores texts by something other than the cosine with a vector, the
        moments nearest to a text are then re-ranked by the head.

        Warns about words that are not in the model's vocabulary (:class:`UnknownWordsWarning`).

        Args:
            query (str, optional): Text to search by.
            index (str | Path): Folder of the index. Defaults to ``'gallery'``.
            k (int): Number of moments. Defaults to 5.
            prompts (str, optional): Name of the prompts. None: those that the index was made with.
            video (str | Path | np.ndarray, optional): File, or frames uint8 [f, H, W, 3], to search by.
            image (str | Path | np.ndarray, optional): File, or uint8 [H, W, 3], to search by instead of a text.
            merge (bool): Return only the best moment of each video. Defaults to True.
            rerank (int): Number of moments that the head re-ranks, at least ``k``. Defaults to 100.

        Returns:
            list[Hit]: Hits, best first; each unpacks to ``(path, score)``, and has ``start`` and ``end``.

        Raises:
            ValueError: There is no query, it is too long, or there is more than one.
            IndexMismatchError: The index was made with another CLIP or other prompts.
            VideoDecodeError: The video or image can't be read.
        """
        if sum(item is not None for item in (query, video, image)) != 1:
            raise ValueError('search by a text, a video or an image: one of them')
        if query is not None:
            check_query(query)
        gallery = self._gallery(index)
        if prompts is None:
            prompts = next((name for name, item in self._sets.items() if gallery.fits(item.settings)), None)
            prompts = prompts or next(iter(self._sets), None)
        gallery.check(self.prompt_set(prompts).settings)
        if query is not None:
            vector = self._encode_text(query, prompts)[0]
        else:
            vector = (self.encode_image(image, prompts) if video is None else self.encode_video(video, prompts))[0]
        score = None if query is None else self.prompt_set(prompts).scorer(query)
        return gallery.search(vector, k, merge, score, rerank)

    def rank_texts(self, video: str | Path | np.ndarray, texts: Sequence[str],
                   prompts: str | None = None) -> list[RankedText]:
        """Rank texts by how well they match a video (a file, or frames uint8 [f, H, W, 3]), best first."""
        texts, chosen = list(texts), self.prompt_set(prompts)
        scores = chosen.score_one(self._encode_text(texts, prompts, keep=True), self.keep_video(video, prompts)[0])
        return [RankedText(texts[i], float(scores[i])) for i in np.argsort(-scores, kind='stable')]

    def _gallery(self, folder: str | Path) -> SearchIndex:
        """Return an index that is opened once, and again after it has changed."""
        key = str(Path(folder).resolve())
        known = self._galleries.get(key)
        if known is not None and not known.is_current():
            self._galleries.pop(key).close()
        if key not in self._galleries:
            self._galleries[key] = SearchIndex(folder)
        return self._galleries[key]


def check_query(query: str) -> None:
    """Refuse an invalid query.

    Raises:
        ValueError: The query is empty or too long.
    """
    if not query.strip():
        raise ValueError('the query is empty')
    if len(query) > _MAX_QUERY:
        raise ValueError(f'the query has {len(query.split())} words in {len(query)} characters: the model reads a few '
                         f'dozen words, at most {_MAX_QUERY} characters are taken')


def _create(index: str | Path, source: VideoSource, settings: dict, backend: dict | None,
            made_with: dict) -> SearchIndex:
    cut_windows(1, settings['window'], settings['stride'])  # refuses invalid windows
    if not source.is_local:
        list_videos(source)
    elif not (found := find_videos(source.root)).videos:
        raise ValueError(f'no videos in {source}; {describe_left_out(found.left_out) or "the folder is empty"}')
    return SearchIndex.create(index, source.root, settings, backend, made_with)
