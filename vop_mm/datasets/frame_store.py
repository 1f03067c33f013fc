"""Decoded frames of a split's clips in one LMDB file, so that they are decoded once and not in every epoch.

A clip is a video and, where the annotation has them, its start and end. A store holds of each clip what
``{"shape", "frame_inds", ...}`` says and the frames themselves, as they are or as JPEG, or the reason why it can't be
decoded. It also holds the settings that made it.
"""
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from vop_mm.utils.files import full_disk_error

from .errors import FrameStoreError

_FILE = 'data.mdb'
_SETTINGS, _FINISHED = b'settings', b'finished'
_FIRST_SIZE = 1 << 30  # bytes that a new store may grow to before its map is made larger
# path -> process that opened it, and LMDB's environment: LMDB opens a file once in a process, and not across a fork
_OPEN: dict[str, tuple] = {}


def _lmdb():
    try:
        import lmdb
    except ImportError as e:
        raise ImportError('lmdb is needed for stores of frames: pip install lmdb') from e
    return lmdb


@contextmanager
def _one_kind_of_error(path: str | Path) -> Iterator[None]:
    try:
        yield
    except _lmdb().Error as e:
        if 'Input/output error' in str(e) and shutil.disk_usage(path).free < 2**20:  # LMDB's word for a write cut short
            raise full_disk_error(path) from None
        raise FrameStoreError(str(path), str(e).removeprefix(f'{path}: ')) from None


def clip_key(video: str, start: float | None = None, end: float | None = None) -> bytes:
    """Under what a clip stands in a store.

    Args:
        video (str): As the annotation names it.
        start (float, optional): Seconds.
        end (float, optional): Seconds.

    Returns:
        bytes: 16 of them.
    """
    times = [None if time is None else float(time) for time in (start, end)]
    return hashlib.blake2b(json.dumps([video, *times]).encode(), digest_size=16).digest()


def source_of(path: str | Path) -> list[int]:
    """What tells a video file from another under the same name.

    Args:
        path (str | Path): The file.

    Returns:
        list[int]: Bytes, and the second in which it was last changed.
    """
    stat = os.stat(path)
    return [stat.st_size, int(stat.st_mtime)]


def encode_frames(frames: Sequence[np.ndarray], quality: int | None = None) -> tuple[bytes, list[int] | None]:
    """Frames as a store keeps them.

    Args:
        frames (Sequence[np.ndarray]): uint8 [H, W, 3] each.
        quality (int, optional): JPEG's, colour at full resolution. None: as they are, exact.

    Returns:
        tuple[bytes, list[int] | None]: All frames, and the length of each JPEG.
    """
    if quality is None:
        return np.stack(frames).tobytes(), None
    parts = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, 'jpeg', quality=quality, subsampling=0)
        parts.append(file.getvalue())
    return b''.join(parts), [len(part) for part in parts]


class FrameStore:
    """A finished store, to read from. Any number of processes may, forked ones too.

    Args:
        path (str | Path): Its folder.

    Attributes:
        settings (dict): What made it.

    Raises:
        FrameStoreError: Not there, not a store, or not finished.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        if not (Path(path) / _FILE).is_file():
            raise FrameStoreError(self.path, 'no frames are stored there; tools/data/cache_frames.py makes them')
        with self._transaction() as txn:
            settings, finished = (value and bytes(value) for value in map(txn.get, (_SETTINGS, _FINISHED)))
        _OPEN.pop(self.path)[1].close()  # whoever forks workers now hands nothing on
        if settings is None:
            raise FrameStoreError(self.path, 'not a store of frames')
        self.settings = json.loads(settings)
        if finished is None:
            raise FrameStoreError(self.path, 'not finished: run tools/data/cache_frames.py again, it goes on where it '
                                  'stopped')

    @contextmanager
    def _transaction(self):
        with _one_kind_of_error(self.path):
            opened_by, env = _OPEN.get(self.path, (None, None))
            if opened_by != os.getpid():
                if env is not None:  # the parent's
                    env.close()
                env = _lmdb().open(self.path, readonly=True, lock=False)
                _OPEN[self.path] = os.getpid(), env
            with env.begin(buffers=True) as txn:
                yield txn

    def info(self, video: str, start: float | None = None, end: float | None = None) -> dict | None:
        """What is stored of a clip.

        Args:
            video (str): As the annotation names it.
            start (float, optional): Seconds.
            end (float, optional): Seconds.

        Returns:
            dict | None: ``source`` (see :func:`source_of`) and either ``unreadable`` (str) or ``shape`` (n, H, W, 3),
            ``frame_inds`` (n), ``total_frames``, ``avg_fps``, ``clip_start`` and ``clip_end``. None: nothing.
        """
        with self._transaction() as txn:
            return _info(txn, video, start, end)

    def frames(self, info: dict, positions: Sequence[int]) -> np.ndarray:
        """Some of a clip's frames.

        Args:
            info (dict): Of :meth:`info`, a clip that could be decoded.
            positions (Sequence[int]): Which of the ``n`` stored ones; any order, repetitions allowed.

        Returns:
            np.ndarray: uint8 [len(positions), H, W, 3] RGB, the caller's to change.
        """
        with self._transaction() as txn:
            data = txn.get(b'f' + clip_key(info['video'], info['start'], info['end']))
            if info['lengths'] is None:
                return np.frombuffer(data, np.uint8).reshape(info['shape'])[np.asarray(positions)]
            stops = np.cumsum([0, *info['lengths']])
            return np.stack([np.asarray(Image.open(io.BytesIO(data[stops[p]:stops[p + 1]]))) for p in positions])


class FrameStoreWriter:
    """A store to make, or to go on with. Every clip is there as a whole or not at all, whenever the process dies.

    Args:
        path (str | Path): Its folder; made when it isn't there.
        settings (dict): What makes it, JSON's types only.

    Raises:
        FrameStoreError: Something else is there, or a store with other settings.
    """

    def __init__(self, path: str | Path, settings: dict) -> None:
        self.path = Path(path)
        file = self.path / _FILE
        if self.path.is_dir() and not file.is_file() and any(self.path.iterdir()):
            raise FrameStoreError(str(path), 'holds something else than frames; name another folder')
        self.path.mkdir(parents=True, exist_ok=True)
        if str(path) in _OPEN:
            _OPEN.pop(str(path))[1].close()
        with _one_kind_of_error(path):
            self._env = _lmdb().open(str(path), map_size=max(_FIRST_SIZE, file.stat().st_size if file.is_file() else 0))
            with self._env.begin() as txn:
                there = txn.get(_SETTINGS)
        if there is None:
            self._put({_SETTINGS: json.dumps(settings).encode()})
        else:
            check_settings(str(path), json.loads(there), settings)

    def info(self, video: str, start: float | None = None, end: float | None = None) -> dict | None:
        """As :meth:`FrameStore.info`."""
        with _one_kind_of_error(self.path), self._env.begin() as txn:
            return _info(txn, video, start, end)

    def add(self, video: str, start: float | None, end: float | None, info: dict, frames: bytes) -> None:
        """Store a clip, in place of an older one.

        Args:
            video (str): As the annotation names it.
            start (float | None): Seconds.
            end (float | None): Seconds.
            info (dict): As :meth:`FrameStore.info` gives it, and ``lengths`` of :func:`encode_frames`.
            frames (bytes): Of :func:`encode_frames`; empty for a video that can't be decoded.
        """
        key = clip_key(video, start, end)
        info = json.dumps(dict(info, video=video, start=start, end=end))
        self._put({b'i' + key: info.encode(), b'f' + key: frames})

    def set_finished(self, finished: bool) -> None:
        """Say whether all clips are there; only then the store can be read from."""
        self._put({_FINISHED: b'yes' if finished else None})

    def close(self) -> None:
        """Let go of the file."""
        self._env.close()

    def _put(self, values: dict[bytes, bytes | None]) -> None:
        """Set values, or remove those that are None, all at once."""
        with _one_kind_of_error(self.path):
            while True:
                try:
                    with self._env.begin(write=True) as txn:
                        for key, value in values.items():
                            if value is None:
                                txn.delete(key)
                            else:
                                txn.put(key, value)
                    return
                except _lmdb().MapFullError:
                    self._env.set_mapsize(2 * self._env.info()['map_size'])


def _info(txn, video: str, start: float | None, end: float | None) -> dict | None:
    found = txn.get(b'i' + clip_key(video, start, end))
    return None if found is None else json.loads(bytes(found))


def check_settings(path: str, there: dict, wanted: dict) -> None:
    """Refuse a store that was made with other settings.

    Args:
        path (str): Of the store.
        there (dict): Its settings.
        wanted (dict): Those that are asked for; others of its settings don't matter.

    Raises:
        FrameStoreError: Names the first setting that differs.
    """
    for key, value in wanted.items():
        if there.get(key) == value:
            continue
        found = there.get(key)
        if key == 'pipeline':
            key, found, value = _first_difference(found or [], value)
        raise FrameStoreError(path, f'made with other settings: {key} is {found} there, {value} here')


def _first_difference(there: list[dict], wanted: list[dict]) -> tuple[str, object, object]:
    names = [[step['type'] for step in steps] for steps in (there, wanted)]
    if names[0] != names[1]:
        return 'pipeline', ' - '.join(names[0]), ' - '.join(names[1])
    return next((f'{a["type"]}.{key}', a.get(key), b.get(key)) for a, b in zip(there, wanted)
                for key in {**a, **b} if a.get(key) != b.get(key))
