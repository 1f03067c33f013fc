"""Good inputs, made once, that all changed ones start from; and what reads them."""
import contextlib
import json
import shutil
from collections import Counter
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from tests.checkpoints import demo_config, write_checkpoint
from tests.videos import encode_video
from vop_mm.engine.checkpoint import serialize

from .harness import WrongResult
from .watch import Canaries

QUERY = 'a red circle moves left'


class World:
    """A folder with good inputs.

    Args:
        folder (Path): Is made; ``folder / 'good'`` must not change, ``folder / 'canary'`` not even be opened.

    Attributes:
        canaries (Canaries): Tell what happened outside an input's own folder.
        counts (Counter): What a target counts in its input; the sums are printed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.good, self.canary = folder, folder / 'good', folder / 'canary'
        self.counts = Counter()
        self.good.mkdir(parents=True)
        self.canaries = Canaries(self.canary, self.good)
        encode_video(self.canary / 'secret.mp4', 30, first=700)
        encode_video(self.canary / 'secret.ts', 30, first=700)

    @cached_property
    def cfg(self):
        """Config of the demo's VoP^F+P, with absolute paths."""
        return demo_config('vop/vop_f_p_demo.py')

    @cached_property
    def checkpoint(self) -> Path:
        return write_checkpoint(self.good / 'prompts.pth', self.cfg, 0)

    @cached_property
    def content(self) -> dict:
        """The checkpoint, read."""
        return torch.load(self.checkpoint, weights_only=True)

    @cached_property
    def safetensors(self) -> Path:
        path = self.good / 'prompts.safetensors'
        path.write_bytes(serialize(self.content, '.safetensors'))
        return path

    @cached_property
    def searcher(self):
        """A searcher with the checkpoint's prompts, to which others can be added."""
        from vop_mm.apis import VideoSearcher
        return VideoSearcher(self.cfg, {'good': self.checkpoint}, num_workers=1, timeout=5.)

    @cached_property
    def videos(self) -> Path:
        folder = self.good / 'videos'
        folder.mkdir()
        for i in range(3):
            encode_video(folder / f'{i}.mp4', 20, first=100 * i)
        return folder

    @cached_property
    def index(self) -> Path:
        """An index of the videos; windows of a third of a second make some clips of each."""
        index = self.good / 'index'
        self.searcher.build_index(self.videos, index, window=.4)
        self.searcher.prompt_set().loader.close()
        return index

    @cached_property
    def features(self) -> Path:
        """Features of the videos, in one part."""
        folder = self.good / 'features'
        self.searcher.extract_features(self.videos, folder, 1, window=.4)
        self.searcher.prompt_set().loader.close()
        return folder

    @cached_property
    def hits(self) -> list[tuple[str, float]]:
        """What the good index finds: names and scores."""
        hits = self.searcher.search(QUERY, self.index, 50, prompts='good', merge=False)
        self.forget_indexes()
        return sorted((Path(hit.path).name, round(hit.start, 3), round(hit.score, 4)) for hit in hits)

    def forget_indexes(self) -> None:
        """Close the indexes that the searcher keeps open."""
        for search_index in self.searcher._indexes.values():
            search_index.close()
        self.searcher._indexes.clear()

    def copy_index(self, folder: Path) -> Path:
        """The good index below a folder, as ``index``, of videos beside it that are there as ``videos``."""
        index = folder / 'index'
        shutil.copytree(self.index, index)
        shutil.copytree(self.videos, folder / 'videos')
        with contextlib.closing(connect(index)) as db:
            put(db, 'videos', str(folder / 'videos'))
        return index


def connect(index: Path):
    """The data base of an index, where every statement is done at once."""
    import sqlite3
    return sqlite3.connect(index / 'catalogue.db', isolation_level=None)


def put(db, key: str, value) -> None:
    """Set what an index says of itself."""
    db.execute('INSERT OR REPLACE INTO meta VALUES (?, ?)', (key, json.dumps(value)))


def get(db, key: str):
    """What an index says of itself; None where it doesn't."""
    row = db.execute('SELECT value FROM meta WHERE key = ?', (key, )).fetchone()
    return row and json.loads(row[0])


# -- what can't be right ----------------------------------------------------------------------------------------------
def check_vectors(vectors: np.ndarray, what: str) -> None:
    """Embeddings are float32, finite, and of length 1."""
    if vectors.dtype != np.float32 or vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise WrongResult(f'{what}: {vectors.dtype} {vectors.shape}, finite: {bool(np.isfinite(vectors).all())}')
    if len(vectors) and abs(np.linalg.norm(vectors, axis=1) - 1).max() > 1e-3:
        raise WrongResult(f'{what}: lengths {np.linalg.norm(vectors, axis=1)[:3]}')


def check_hits(hits, videos: str | Path) -> None:
    """Moments lie in files of the index's folder, and have plain, finite numbers."""
    import os
    for hit in hits:
        if not isinstance(hit.path, str) or '\0' in hit.path:
            raise WrongResult(f'a path of a hit: {hit.path!r:.80}')
        if not os.path.normpath(hit.path).startswith(os.path.normpath(videos) + os.sep):
            raise WrongResult(f'a hit is outside of the video folder: {hit.path!r:.120}')
        for number in (hit.score, hit.start, hit.end):
            if not isinstance(number, float) or not np.isfinite(number) or abs(number) > 1e9:
                raise WrongResult(f'a number of a hit: {number!r:.80}')
        if abs(hit.score) > 1.01 or not 0 <= hit.start <= hit.end:
            raise WrongResult(f'a hit: {hit!r:.200}')


def compare_hits(world: World, hits) -> None:
    """What damaged bytes find, if anything, is what was there before."""
    found = sorted((Path(hit.path).name, round(hit.start, 3), round(hit.score, 4)) for hit in hits)
    if found != world.hits:
        raise WrongResult(f'other results than before the damage, {len(found)} of {len(world.hits)}: '
                          f'{sorted(set(found) - set(world.hits))[:2]}')
