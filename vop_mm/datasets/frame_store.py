"""LMDB store of a split's decoded frames, so that clips are decoded once and not in every epoch.

A clip is a video and, if the annotation has them, its start and end. For each clip a store holds its description
(``{"shape", "frame_inds", ...}``) and its frames, uncompressed or as JPEG, or the reason why it can't be decoded, and
checksums of all of these. It also holds the settings it was made with.

Later damage raises an error that names the store. LMDB itself never gets to see a file that would crash the process;
see :func:`~vop_mm.datasets.lmdb_check.check_lmdb`.
"""
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from vop_mm.utils.files import full_disk_error

from .annotation import printable
from .errors import DamagedStoreError, FrameStoreError, VideoDecodeError
from .lmdb_check import DamagedError, check_lmdb
from .stored_clip import check_info, checksums, decode_jpeg, encode_frames, split_frames  # noqa: F401
from .video_source import VideoSource

VERSION = 2  # version of the stored clip format
_FILE, _LOCK = 'data.mdb', 'lock.mdb'
_SETTINGS, _FINISHED = b'settings', b'finished'
_AGAIN = 'run tools/data/cache_frames.py again to rebuild what is damaged'
# LMDB errors that mean damage; the names depend on its version
_OF_DAMAGE = ('CorruptedError', 'PageNotFoundError', 'PageFullError', 'InvalidError', 'IncompatibleError',
              'VersionMismatchError', 'BadTxnError', 'PanicError')
_MAX_SOUND = 2**18  # maximum number of clips whose checksums a process remembers
_FIRST_SIZE = 1 << 30  # initial map size in bytes of a new store; doubled when full
# path -> (pid that opened it, LMDB environment): LMDB opens a file once per process, and not across a fork
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
        if 'Input/output error' in str(e) and shutil.disk_usage(path).free < 2**20:  # LMDB's word for a short write
            raise full_disk_error(path) from None
        reason = str(e).removeprefix(f'{path}: ')
        if type(e).__name__ in _OF_DAMAGE:
            raise DamagedStoreError(str(path), f'{reason}; {_AGAIN}') from None
        raise FrameStoreError(str(path), reason) from None


def _refuse_links(path: str) -> None:
    for name in (_FILE, _LOCK):
        if os.path.islink(os.path.join(path, name)):
            raise FrameStoreError(path, f'{name} is a symbolic link; link the folder instead')


def _check_file(path: str, writing: bool = False) -> None:
    """Raise an error if LMDB might crash on the file; fast for files of any size."""
    file = os.path.join(path, _FILE)
    try:
        check_lmdb(file, writing)
    except DamagedError as e:
        raise DamagedStoreError(path, f'{e}; {_AGAIN}') from None
    except ValueError as e:
        raise FrameStoreError(path, f'{file} is {e}') from None
    except OSError as e:
        raise FrameStoreError(path, f'{file} can\'t be read ({e.strerror or e})') from None


def clip_key(video: str, start: float | None = None, end: float | None = None) -> bytes:
    """Return the key of a clip in a store.

    Args:
        video (str): Name of the video in the annotation.
        start (float, optional): Start in seconds.
        end (float, optional): End in seconds.

    Returns:
        bytes: Key of 16 bytes.
    """
    times = [None if time is None else float(time) for time in (start, end)]
    return hashlib.blake2b(json.dumps([video, *times]).encode(), digest_size=16).digest()


def source_of(path: str | Path, source: VideoSource | None = None) -> list[int]:
    """Return size and modification time of a video, to notice a replaced file.

    Args:
        path (str | Path): Path or name of the video.
        source (VideoSource, optional): Source of the video if it is not in a local folder.

    Returns:
        list[int]: Size in bytes, and modification time in seconds or a number for the server's tag; -1: unknown.

    Raises:
        OSError: The file is missing or can't be accessed.
    """
    if source is not None:
        try:
            stat = source.stat(path)
        except VideoDecodeError as e:
            raise OSError(e.reason) from None
        return [-1 if value is None else value for value in (stat.size, stat.number)]
    stat = os.stat(path)
    return [stat.st_size, int(stat.st_mtime)]


class FrameStore:
    """A finished frame store, for reading. Any number of processes may read it, including forked ones.

    Args:
        path (str | Path): Folder of the store.

    Attributes:
        settings (dict): Settings it was made with.

    Raises:
        FrameStoreError: The folder is missing, not a store, not finished, or damaged (DamagedStoreError).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._sound: dict[bytes, int] = {}  # clip -> bit mask of its frames whose checksums this process has verified
        _refuse_links(self.path)
        if not (Path(path) / _FILE).is_file():
            raise FrameStoreError(self.path, 'no frame store there; create it with tools/data/cache_frames.py')
        _check_file(self.path)
        with self._transaction() as txn:
            settings, finished = (value and bytes(value) for value in map(txn.get, (_SETTINGS, _FINISHED)))
        _OPEN.pop(self.path)[1].close()  # so that workers forked now inherit no open environment
        if settings is None:
            raise FrameStoreError(self.path, 'not a store of frames')
        self.settings = _read_settings(self.path, settings)
        if finished is None:
            raise FrameStoreError(self.path, 'not finished: run tools/data/cache_frames.py again to continue')

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
        """Return the stored description of a clip.

        Args:
            video (str): Name of the video in the annotation.
            start (float, optional): Start in seconds.
            end (float, optional): End in seconds.

        Returns:
            dict | None: ``source`` (see :func:`source_of`) and either ``unreadable`` (str) or ``shape`` (n, H, W, 3),
            ``frame_times`` (n, seconds) and ``total_frames`` (frames of the clip). None if the clip is not stored.

        Raises:
            DamagedStoreError: The description is damaged.
        """
        with self._transaction() as txn:
            return _info(self.path, txn, video, start, end)

    def frames(self, info: dict, positions: Sequence[int]) -> np.ndarray:
        """Return some of a clip's frames.

        Args:
            info (dict): Result of :meth:`info` for a clip that could be decoded.
            positions (Sequence[int]): Indices into the ``n`` stored frames, in any order, repetitions allowed.

        Returns:
            np.ndarray: uint8 [len(positions), H, W, 3] RGB, a copy that the caller may change.

        Raises:
            DamagedStoreError: The frames are damaged.
        """
        with self._transaction() as txn:
            return _frames(self.path, txn, info, positions, self._sound)


class FrameStoreWriter:
    """A frame store to create or to continue. Each clip is written atomically, whenever the process dies.

    Args:
        path (str | Path): Folder of the store; created if missing.
        settings (dict): Settings to make it with, JSON types only.
        anew (bool): Remove an existing store first. Defaults to False.

    Raises:
        FrameStoreError: The folder holds something else, other settings, or a damaged store (DamagedStoreError).
    """

    def __init__(self, path: str | Path, settings: dict, anew: bool = False) -> None:
        self.path = Path(path)
        file = self.path / _FILE
        if self.path.is_dir() and not file.is_file() and any(self.path.iterdir()):
            raise FrameStoreError(str(path), 'neither empty nor a frame store; choose another folder')
        self.path.mkdir(parents=True, exist_ok=True)
        if str(path) in _OPEN:
            _OPEN.pop(str(path))[1].close()
        if anew:
            for name in (_FILE, _LOCK):
                (self.path / name).unlink(missing_ok=True)
        _refuse_links(str(path))  # LMDB would write through links
        if os.path.lexists(file):
            _check_file(str(path), writing=True)
        with _one_kind_of_error(path):
            self._env = _lmdb().open(str(path), map_size=max(_FIRST_SIZE, file.stat().st_size if file.is_file() else 0))
        try:
            with _one_kind_of_error(path), self._env.begin() as txn:
                there = txn.get(_SETTINGS)
            if there is None:
                self._put({_SETTINGS: json.dumps(settings).encode()})
            else:
                check_settings(str(path), _read_settings(str(path), bytes(there)), settings)
        except BaseException:
            self.close()
            raise

    def info(self, video: str, start: float | None = None, end: float | None = None) -> dict | None:
        """Return the stored description of a clip; see :meth:`FrameStore.info`."""
        with _one_kind_of_error(self.path), self._env.begin() as txn:
            return _info(str(self.path), txn, video, start, end)

    def damage(self, info: dict) -> str | None:
        """Read all frames of a clip; return what is wrong with them, or None."""
        with _one_kind_of_error(self.path), self._env.begin(buffers=True) as txn:
            try:
                if 'unreadable' not in info:
                    _frames(str(self.path), txn, info, range(info['shape'][0]), {})
            except DamagedStoreError as e:
                return str(e)
        return None

    def add(self, video: str, start: float | None, end: float | None, info: dict, frames: bytes) -> None:
        """Store a clip, replacing an older one.

        Args:
            video (str): Name of the video in the annotation.
            start (float | None): Start in seconds.
            end (float | None): End in seconds.
            info (dict): Description as in :meth:`FrameStore.info`, with ``lengths`` from :func:`encode_frames`.
            frames (bytes): Result of :func:`encode_frames`; empty for a video that can't be decoded.
        """
        key = clip_key(video, start, end)
        sums = [] if 'unreadable' in info else checksums(split_frames(frames, info))
        info = json.dumps(dict(info, video=video, start=start, end=end)).encode()
        sums = np.array([zlib.crc32(info), *sums], '<u8').tobytes()
        self._put({b'i' + key: info, b'f' + key: frames, b'c' + key: sums})

    def set_finished(self, finished: bool) -> None:
        """Mark the store as finished or not; only a finished one can be read."""
        self._put({_FINISHED: b'yes' if finished else None})

    def close(self) -> None:
        """Close the store."""
        self._env.close()

    def _put(self, values: dict[bytes, bytes | None]) -> None:
        """Set values, or remove those that are None, in one transaction."""
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


def _read_settings(path: str, content: bytes) -> dict:
    try:
        settings = json.loads(content)
        if isinstance(settings, dict):
            return settings
    except (ValueError, TypeError, RecursionError):
        pass
    raise DamagedStoreError(path, f'its settings are damaged; {_AGAIN}')


def _info(path: str, txn, video: str, start: float | None, end: float | None) -> dict | None:
    key = clip_key(video, start, end)
    content, sums = txn.get(b'i' + key), txn.get(b'c' + key)
    if content is None:
        return None
    content = bytes(content)
    try:
        if sums is not None and int.from_bytes(sums[:8], 'little') != zlib.crc32(content):
            raise ValueError('checksum mismatch')
        info = json.loads(content)
        check_info(info)
        if clip_key(info['video'], info['start'], info['end']) != key:
            raise ValueError('it belongs to another clip')
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
        raise _damaged(path, f'the entry of {printable(video)} is', e) from None
    return info


def _damaged(path: str, what: str, why: Exception) -> DamagedStoreError:
    reason = printable(str(why) or type(why).__name__)
    return DamagedStoreError(path, f'{what} damaged ({reason}); {_AGAIN}')


def _frames(path: str, txn, info: dict, positions: Sequence[int], sound: dict[bytes, int]) -> np.ndarray:
    """Return some of a clip's frames, uint8 [len(positions), H, W, 3]; those in ``sound`` are not verified again."""
    key = clip_key(info['video'], info['start'], info['end'])
    data, bits = txn.get(b'f' + key), 0
    for position in positions:
        bits |= 1 << int(position)
    new = bits & ~sound.get(key, 0)
    sums = txn.get(b'c' + key) if new else None
    positions = np.asarray(positions, dtype=np.int64)
    try:
        parts = split_frames(data, info)
        wanted = parts[positions] if isinstance(parts, np.ndarray) else [parts[p] for p in positions]
        if sums is not None:  # older stores have no checksums
            expected = np.frombuffer(sums, '<u8')[1:]
            if len(expected) != info['shape'][0] or (checksums(wanted) != expected[positions]).any():
                raise ValueError('checksum mismatch')
            if len(sound) < _MAX_SOUND:
                sound[key] = sound.get(key, 0) | bits
        if isinstance(wanted, np.ndarray):
            return wanted
        return np.stack([decode_jpeg(part, tuple(info['shape'][1:])) for part in wanted])
    except (ValueError, TypeError) as e:
        raise _damaged(path, f'the frames of {printable(info["video"])} are', e) from None


def check_settings(path: str, there: dict, wanted: dict) -> None:
    """Refuse a store that was made with other settings.

    Args:
        path (str): Folder of the store.
        there (dict): Settings of the store.
        wanted (dict): Required settings; other settings of the store are ignored.

    Raises:
        FrameStoreError: A setting differs; the message names the first one.
    """
    for key, value in wanted.items():
        found = there.get(key)
        if isinstance(value, dict) and isinstance(found, dict):
            check_settings(path, found, value)
        elif found != value:
            raise FrameStoreError(path, f'made with other settings: {key} is {found!r:.200} there, {value!r} here')
