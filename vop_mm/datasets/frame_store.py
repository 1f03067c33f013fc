"""Decoded frames of a split's clips in one LMDB file, so that they are decoded once and not in every epoch.

A clip is a video and, where the annotation has them, its start and end. A store holds of each clip what
``{"shape", "frame_inds", ...}`` says and the frames themselves, as they are or as JPEG, or the reason why it can't be
decoded, and a checksum of each of these. It also holds the settings that made it.

Whatever was damaged in it since is an error that names the store. LMDB itself gets no file to see that would end the
process; see :func:`~vop_mm.datasets.lmdb_check.check_lmdb`.
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

VERSION = 2  # of what is stored of a clip
_FILE, _LOCK = 'data.mdb', 'lock.mdb'
_SETTINGS, _FINISHED = b'settings', b'finished'
_AGAIN = 'run tools/data/cache_frames.py again, it makes anew what is damaged'
# what LMDB may say of a file in which something is wrong; the names depend on its version
_OF_DAMAGE = ('CorruptedError', 'PageNotFoundError', 'PageFullError', 'InvalidError', 'IncompatibleError',
              'VersionMismatchError', 'BadTxnError', 'PanicError')
_MAX_SOUND = 2**18  # clips that a process remembers
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
        reason = str(e).removeprefix(f'{path}: ')
        if type(e).__name__ in _OF_DAMAGE:
            raise DamagedStoreError(str(path), f'{reason}; {_AGAIN}') from None
        raise FrameStoreError(str(path), reason) from None


def _refuse_links(path: str) -> None:
    for name in (_FILE, _LOCK):
        if os.path.islink(os.path.join(path, name)):
            raise FrameStoreError(path, f'{name} is a link; link the folder, not what is in it')


def _check_file(path: str, writing: bool = False) -> None:
    """Raise an error where LMDB might crash; at once, whatever the size."""
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


def source_of(path: str | Path, source: VideoSource | None = None) -> list[int]:
    """What tells a video file from another under the same name.

    Args:
        path (str | Path): The file.
        source (VideoSource, optional): What has it, where that is no local folder.

    Returns:
        list[int]: Bytes, and the second in which it was last changed, or the server's mark; -1: not known.

    Raises:
        OSError: It is not there, or can't be asked for.
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
    """A finished store, to read from. Any number of processes may, forked ones too.

    Args:
        path (str | Path): Its folder.

    Attributes:
        settings (dict): What made it.

    Raises:
        FrameStoreError: Not there, not a store, not finished, or cut off or otherwise damaged (DamagedStoreError).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self._sound: dict[bytes, int] = {}  # clip -> bits of its frames whose checksums this process has compared
        _refuse_links(self.path)
        if not (Path(path) / _FILE).is_file():
            raise FrameStoreError(self.path, 'no frames are stored there; tools/data/cache_frames.py makes them')
        _check_file(self.path)
        with self._transaction() as txn:
            settings, finished = (value and bytes(value) for value in map(txn.get, (_SETTINGS, _FINISHED)))
        _OPEN.pop(self.path)[1].close()  # whoever forks workers now hands nothing on
        if settings is None:
            raise FrameStoreError(self.path, 'not a store of frames')
        self.settings = _read_settings(self.path, settings)
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
            ``frame_times`` (n, seconds) and ``total_frames`` (of the clip). None: nothing.

        Raises:
            DamagedStoreError: What is stored there is not what was stored.
        """
        with self._transaction() as txn:
            return _info(self.path, txn, video, start, end)

    def frames(self, info: dict, positions: Sequence[int]) -> np.ndarray:
        """Some of a clip's frames.

        Args:
            info (dict): Of :meth:`info`, a clip that could be decoded.
            positions (Sequence[int]): Which of the ``n`` stored ones; any order, repetitions allowed.

        Returns:
            np.ndarray: uint8 [len(positions), H, W, 3] RGB, the caller's to change.

        Raises:
            DamagedStoreError: They are not the ones that were stored.
        """
        with self._transaction() as txn:
            return _frames(self.path, txn, info, positions, self._sound)


class FrameStoreWriter:
    """A store to make, or to go on with. Every clip is there as a whole or not at all, whenever the process dies.

    Args:
        path (str | Path): Its folder; made when it isn't there.
        settings (dict): What makes it, JSON's types only.
        anew (bool): Remove the store that is there. Defaults to False.

    Raises:
        FrameStoreError: Something else is there, a store with other settings, or a damaged one (DamagedStoreError).
    """

    def __init__(self, path: str | Path, settings: dict, anew: bool = False) -> None:
        self.path = Path(path)
        file = self.path / _FILE
        if self.path.is_dir() and not file.is_file() and any(self.path.iterdir()):
            raise FrameStoreError(str(path), 'holds something else than frames; name another folder')
        self.path.mkdir(parents=True, exist_ok=True)
        if str(path) in _OPEN:
            _OPEN.pop(str(path))[1].close()
        if anew:
            for name in (_FILE, _LOCK):
                (self.path / name).unlink(missing_ok=True)
        _refuse_links(str(path))  # LMDB would write through them
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
        """As :meth:`FrameStore.info`."""
        with _one_kind_of_error(self.path), self._env.begin() as txn:
            return _info(str(self.path), txn, video, start, end)

    def damage(self, info: dict) -> str | None:
        """Read all frames of a clip. Returns what is wrong with them, None where nothing is."""
        with _one_kind_of_error(self.path), self._env.begin(buffers=True) as txn:
            try:
                if 'unreadable' not in info:
                    _frames(str(self.path), txn, info, range(info['shape'][0]), {})
            except DamagedStoreError as e:
                return str(e)
        return None

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
        sums = [] if 'unreadable' in info else checksums(split_frames(frames, info))
        info = json.dumps(dict(info, video=video, start=start, end=end)).encode()
        sums = np.array([zlib.crc32(info), *sums], '<u8').tobytes()
        self._put({b'i' + key: info, b'f' + key: frames, b'c' + key: sums})

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
            raise ValueError('its checksum is another one')
        info = json.loads(content)
        check_info(info)
        if clip_key(info['video'], info['start'], info['end']) != key:
            raise ValueError('it is of another clip')
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as e:
        raise _damaged(path, f'what it says of {printable(video)} is', e) from None
    return info


def _damaged(path: str, what: str, why: Exception) -> DamagedStoreError:
    reason = printable(str(why) or type(why).__name__)
    return DamagedStoreError(path, f'{what} damaged ({reason}); {_AGAIN}')


def _frames(path: str, txn, info: dict, positions: Sequence[int], sound: dict[bytes, int]) -> np.ndarray:
    """Some of a clip's frames, uint8 [len(positions), H, W, 3]. What is ``sound`` needn't be looked at again."""
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
        if sums is not None:  # older stores have none
            expected = np.frombuffer(sums, '<u8')[1:]
            if len(expected) != info['shape'][0] or (checksums(wanted) != expected[positions]).any():
                raise ValueError('their checksum is another one')
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
        path (str): Of the store.
        there (dict): Its settings.
        wanted (dict): Those that are asked for; others of its settings don't matter.

    Raises:
        FrameStoreError: Names the first setting that differs.
    """
    for key, value in wanted.items():
        found = there.get(key)
        if isinstance(value, dict) and isinstance(found, dict):
            check_settings(path, found, value)
        elif found != value:
            raise FrameStoreError(path, f'made with other settings: {key} is {found!r:.200} there, {value!r} here')
