"""Exact frame access with PyAV. Only this file uses PyAV, whose API changes from year to year."""
import bisect
import os
import threading
from array import array
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

import av
import numpy as np

from vop_mm.registry import READERS

from ..errors import VideoDecodeError
from .batch import DamagedError, UnfinishedBatch, damage_error
from .display import HDR, is_mirrored, orient, square_width, to_sdr
from .formats import CODECS
from .frame_index import UNKNOWN, FrameIndex
from .notes import cut_off_note, hdr_note, tracks_note
from .video_reader import VideoReader

# containers in which seeking is reliable (in a transport stream joined from others, it may find any part)
_SEEKABLE = ('mov', 'matroska', 'flv')
_BEFORE_17 = int(av.__version__.split('.')[0]) < 17
_BACK = 2  # number of key frames to step back before decoding from the start


class _PerThread:
    """Replacement for the thread-local of PyAV 19 that holds frame converters, which own threads.

    In a forked process, freeing another thread's converter would wait forever for those threads. Therefore the parent's
    converters are neither freed nor used there.
    """

    def __init__(self) -> None:
        self.__dict__.update(of={}, of_parents=[])
        os.register_at_fork(after_in_child=lambda: self.__dict__.update(of={}, of_parents=[self.of, self.of_parents]))

    def __getattr__(self, name: str):
        try:
            return self.of[name, threading.get_ident()]
        except KeyError:
            raise AttributeError(name) from None

    def __setattr__(self, name: str, value) -> None:
        self.of[name, threading.get_ident()] = value


@lru_cache(maxsize=1)
def prepare_pyav() -> None:
    """Set up PyAV in a process that will decode; importing this module changes nothing for others that use PyAV."""
    av.logging.set_level(av.logging.PANIC)  # FFmpeg's messages about damaged files are raised as exceptions
    converters = getattr(av.video.frame, '_thread_local', None)
    if converters is not None and not isinstance(converters, _PerThread):
        per_thread = _PerThread()
        per_thread.of_parents.append(vars(converters).copy())  # of this thread, most likely the main thread
        av.video.frame._thread_local = per_thread


@READERS.register_module()
class PyAVReader(VideoReader):
    """A video read by PyAV; see :class:`VideoReader`.

    The packets' times are read first, without decoding. A frame is found by seeking to the key frame before it and
    decoding up to its time; it is returned only if it carries the requested time. If the first decoded frame is later
    (open groups of pictures, intra refresh), decoding starts one key frame earlier. In a file whose times are missing,
    duplicated or made up, all frames are decoded once to count them, and then found by their number. Frames of another
    size than the first are scaled to it.

    Of several video tracks, FFmpeg's best one is read, never a cover picture; ``notes`` says which.
    """

    def _open(self) -> FrameIndex:
        self._container = None
        self._open_container()
        windowed = self._is_windowed
        index = (self._window_index() if windowed else None) or self._full_index()
        if not windowed:
            return index
        try:
            return index.window(self._start, self._end)
        except ValueError as e:
            raise VideoDecodeError(self.path, str(e)) from None

    def _open_container(self) -> None:
        """Open the file at its start."""
        prepare_pyav()
        self._release()
        name = self._file.format
        allowed = dict(protocol_whitelist='file', format_whitelist=name, codec_whitelist=','.join(CODECS))
        # not `options`: PyAV 15 also passes those to each stream, and crashes on files that announce no streams
        options = dict(format=name, container_options=allowed)
        try:  # accept titles that are not UTF-8
            container = av.open(self._file.name, metadata_errors='ignore', **options)
        except TypeError:  # PyAV 19 has no such argument and accepts any text
            container = av.open(self._file.name, **options)
        self._container, self._seeked = container, False
        # without a video stream, best() of PyAV 15 kills the process
        self._stream = stream = container.streams.best('video') if container.streams.video else None
        if stream is None or _is_cover(stream):
            raise VideoDecodeError(self.path, 'no video stream')
        codec = stream.codec_context
        if codec is None or codec.name not in CODECS:
            raise VideoDecodeError(self.path, f'the codec {codec and codec.name} is not read')
        if self._size is None:
            self._set_up(codec)
        codec.options = {'max_pixels': str(2 * self._limits.pixels)}  # frames may be larger than the header says
        codec.thread_count = self._num_threads
        codec.thread_type = 'NONE' if self._num_threads == 1 else 'AUTO'
        self._rate = float(stream.average_rate or stream.guessed_rate or 0)

    def _set_up(self, codec) -> None:
        """Set the attributes that stay the same when the file is opened again."""
        self._limits.check_frame(self.path, codec.height, codec.width)
        self._scaled = codec.height, square_width(codec.width, self._stream.sample_aspect_ratio)
        self._limits.check_frame(self.path, *self._scaled)
        self._size, self._stored_width = (codec.height, max(codec.width, self._scaled[1])), codec.width
        self.codec, self.track = codec.codec.canonical_name, self._stream.index  # FFmpeg's name; index of the stream
        tracks = [stream.index for stream in self._container.streams.video if not _is_cover(stream)]
        self._has_several = len(tracks) > 1
        if self._has_several:
            self._note(tracks_note(len(tracks), tracks.index(self._stream.index) + 1, codec.height, codec.width))
        if codec.color_trc in HDR:
            self._note(hdr_note(codec.color_trc))

    def _transfer(self, frame: 'av.VideoFrame') -> int:
        """Return the transfer characteristics of a decoded frame; PyAV 15 only knows the decoder's."""
        return int(getattr(frame, 'color_trc', self._stream.codec_context.color_trc))

    def _note(self, note: str | None) -> None:
        if note and note not in self.notes:
            self.notes.append(note)

    # -- public properties --------------------------------------------------------------------------------------------
    @property
    def shown_size(self) -> tuple[int, int]:
        """Height and width of frames as a player shows them; decodes one frame."""
        height, width = self._scaled
        return (width, height) if orient(np.empty((1, 2)), self._first_matrix()).shape == (2, 1) else (height, width)

    @property
    def seek_problem(self) -> str | None:
        """Reason why seeking by key frame number may fail in other decoders; None if there is none."""
        if self._index.counted:
            return 'frames that have no times'
        return 'frames that are stored behind a key frame and shown before it' if self._index.leading else None

    @property
    def display_problem(self) -> str | None:
        """Reason why a decoder that picks its own track and only rotates pictures shows wrong frames; None if none."""
        if self._has_several:
            return 'several tracks'
        if any(note.startswith('HDR') for note in self.notes):
            return 'HDR colors'
        if self._scaled[1] != self._stored_width:
            return 'pixels that are not square'
        return 'mirrored pictures' if is_mirrored(self._first_matrix()) else None

    def _first_matrix(self) -> list[int] | None:
        try:
            frame = next(self._frames(None), None)
        except DamagedError:
            return None
        if frame is not None and self._transfer(frame) in HDR:
            self._note(hdr_note(self._transfer(frame)))
        return frame and display_matrix(frame)

    # -- frame times --------------------------------------------------------------------------------------------------
    def _full_index(self) -> FrameIndex:
        self._open_container()
        # these do not store presentation times, and FFmpeg makes up wrong ones if there are B-frames
        made_up = self._file.format == 'mpeg' or (self._file.format in ('avi', 'asf')
                                                  and self._stream.codec_context.has_b_frames)
        index = None if made_up else self._read_packets(None)
        index = (index and self._without_undecoded(index)) or self._counted_index()
        self._note(cut_off_note(self._stream.metadata.get('DURATION', ''), float(index.end * index.tick)))
        return index

    def _window_index(self) -> FrameIndex | None:
        """Index the packets from the key frame before the window to the window's end; None if that is not possible."""
        if self._file.format not in _SEEKABLE:
            return None
        head = self._read_packets('first')
        head = head and self._without_undecoded(head)
        if head is None:
            return None
        stop = None if self._end is None else head.ticks(self._end)
        target = head.ticks(self._start or 0.)
        if target <= head.times[-1]:
            self._open_container()
            index = self._read_packets(stop)
            return index and index.begin_at(head.first)
        for back in (0, 1, 4, 16):
            place = target - round(back / head.tick)
            if place <= head.first:
                break
            self._seek(place)
            if self._read_packets('first') is None:
                break
            self._seek(max(self._before_key, head.first))  # one group earlier, to detect overlapping parts
            index = self._read_packets(stop)
            if index is None:
                break
            key = index.keys[:1]
            if len(key) and key[0] <= target:
                index = index.begin_at(key[0])  # frames before it belong to the previous group of pictures
                return replace(index, first=head.first, keys=np.insert(index.keys, 0, self._before_key))
        return None

    def _read_packets(self, stop: int | str | None) -> FrameIndex | None:
        """Index the packets from the current position on.

        Args:
            stop (int | str, optional): None: read to the end of the file. ``'first'``: until the first frame is known.
                A time in ticks: until all frames that begin before it are read, and the one after them.
        """
        packets, most = array('q'), 4 * (self._limits.frames + 1)
        seen, has_key, next_time = 0, False, 2**62
        for packet in self._container.demux(self._stream):
            seen += packet.size > 0
            has_key |= packet.size > 0 and packet.is_keyframe
            if not packet.size or not has_key or packet.is_discard:  # discard: hidden by an edit list
                continue
            pts, dts = (UNKNOWN if time is None else time for time in (packet.pts, packet.dts))
            if not packets:
                self._before_key = (pts if dts == UNKNOWN else dts) - 1
                stop = pts if stop == 'first' else stop
            packets.extend((pts, dts, packet.duration or 0, packet.is_keyframe))
            if stop is not None:
                next_time = min(next_time, pts) if pts >= stop else next_time
                if dts >= stop and dts >= next_time:
                    break
            if len(packets) > most:
                break  # refused later because of its length
        else:
            if self._file.format == 'mov':
                if stop is not None or self._seeked:
                    return None  # only a count of all packets shows if it is cut off
                if seen < self._stream.frames < self.file_size:  # a larger number is itself damaged
                    raise VideoDecodeError(self.path, f'the file is damaged or truncated: it has {seen} of '
                                           f'{self._stream.frames} frames')
        if not packets:
            return None
        packets = np.frombuffer(packets, dtype=np.int64).reshape(-1, 4)
        return FrameIndex.from_packets(packets, self._stream.time_base, self._rate)

    def _without_undecoded(self, index: FrameIndex) -> FrameIndex | None:
        """Drop frames shown before the first key frame that depend on data cut off before it."""
        if not index.doubtful:
            return index
        frame = next(self._frames(None), None)
        return index.begin_at(frame.pts) if frame is not None and frame.pts is not None else None

    def _counted_index(self) -> FrameIndex:
        times = []
        for frame in self._frames(None):
            times.append(frame.pts)
            self._limits.check_length(self.path, len(times))
        if not times:
            raise VideoDecodeError(self.path, 'no frames')
        return FrameIndex.from_count(times, self._stream.time_base, self._rate)

    # -- frames -------------------------------------------------------------------------------------------------------
    def _decode(self, indices: np.ndarray) -> np.ndarray:
        batch = UnfinishedBatch(indices)
        if not self._index.counted:
            if self._decode_by_time(batch):
                return batch.frames
            batch = UnfinishedBatch(indices)
            index = self._counted_index().window(self._start, self._end)
            same = len(index) == len(self._index)
            if not same or (self._is_windowed and not np.allclose(index.seconds, self._index.seconds)):
                raise VideoDecodeError(self.path, f'the packets say {len(self._index)} frames at other times than the '
                                       f'{len(index)} that are decoded')
            self._index = replace(index, times=self._index.times, end=self._index.end, first=self._index.first,
                                  tick=self._index.tick)
        self._decode_by_number(batch)
        return batch.frames

    def _decode_by_time(self, batch: UnfinishedBatch) -> bool:
        """Fill the batch by time; return False if the times of packets and frames disagree."""
        index, damaged, broken_key = self._index, {}, None
        frames = frame = last = None  # last decoded frame, and index of the last requested frame
        for i in batch.places:
            target = int(index.times[i])
            key = index.key_before(target)
            if key == broken_key and key >= 0:
                damaged[i] = damaged[last]
                continue
            try:
                if (frame is None or frame.pts > target
                        or (i != last + 1 and key >= 0 and index.keys[key] > frame.pts)):
                    frames, frame = self._start_before(target, key)
                while frame is not None and frame.pts < target:
                    before, frame = frame.pts, next(frames, None)
                    if frame is not None and (frame.pts is None or frame.pts <= before
                                              or (frame.pts < target and self._is_unknown(frame.pts))):
                        return False
            except DamagedError as e:
                damaged[i], broken_key, frame = str(e), key, None
            else:
                if frame is None or frame.pts != target:
                    if frame is not None and self._is_unknown(frame.pts):
                        return False
                    damaged[i] = 'nothing could be decoded'
                elif frame.is_corrupt:
                    damaged[i] = 'the decoder reports it as corrupt'
                else:
                    batch.put(i, self._shown(frame))
            last = i
        if damaged:
            raise damage_error(self.path, damaged)
        return True

    def _start_before(self, target: int, key: int) -> tuple[Iterator, 'av.VideoFrame | None']:
        """Decode from the last key frame that yields a frame at or before a time."""
        for back in range(key, max(key - _BACK, 0) - 1, -1):
            frames = self._frames(int(self._index.keys[back]))
            try:
                frame = next(frames, None)
            except DamagedError:
                if back == max(key - _BACK, 0):
                    raise
                continue
            if frame is not None and frame.pts is not None and frame.pts <= target:
                return frames, frame
        frames = self._frames(None)
        for frame in frames:
            if frame.pts is not None:
                return frames, frame
        return frames, None

    def _is_unknown(self, time: int) -> bool:
        """Return True if a decoded frame's time is inside the index but missing from it."""
        times = self._index.times
        if not times[0] <= time <= times[-1]:
            return False
        return times[bisect.bisect_left(times, time)] != time

    def _decode_by_number(self, batch: UnfinishedBatch) -> None:
        number, first = -1, self._index.offset
        try:
            for number, frame in enumerate(self._frames(None)):
                if number - first in batch.places:
                    if frame.is_corrupt:
                        raise DamagedError('the decoder reports it as corrupt')
                    batch.put(number - first, self._shown(frame))
                    if not batch.missing:
                        return
        except DamagedError as e:
            reason = str(e)
        else:
            reason = f'only {number + 1} frames could be decoded'
        raise damage_error(self.path, dict.fromkeys(sorted(batch.missing), reason))

    def _frames(self, position: int | None) -> Iterator['av.VideoFrame']:
        """Decode from the key frame at a time in ticks, or from the start of the file.

        Raises:
            DamagedError: A frame could not be decoded; raised in its place.
        """
        if position is None:
            self._open_container()
        else:
            self._seek(position)
        key = None
        for packet in self._container.demux(self._stream):
            if position is not None and key is None:
                if packet.size and not packet.is_keyframe:
                    continue
                key = packet.pts
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except (av.error.FFmpegError, ValueError) as e:
                if key is not None and packet.pts is not None and packet.pts < key:
                    continue  # it depends on a frame before the key frame
                yield from self._rest(packet.pts)
                raise DamagedError(self._reason(e)) from None
            yield from frames

    def _seek(self, time: int) -> None:
        self._container.seek(time, stream=self._stream)
        self._seeked = True

    def _rest(self, broken: int | None) -> list:
        """Return the frames that were decoded before a broken one and are still buffered."""
        if self._num_threads != 1:  # with several threads it is unknown which packet was broken
            return []
        try:
            frames = self._stream.codec_context.decode(None)
        except (av.error.FFmpegError, ValueError):
            return []
        return [frame for frame in frames if frame.pts is not None and frame.pts != broken]

    def _shown(self, frame: 'av.VideoFrame') -> np.ndarray:
        """Convert a frame to what a player shows, uint8 [H, W, 3] RGB."""
        size, transfer = self._scaled[::-1], self._transfer(frame)
        if transfer in HDR:
            self._note(hdr_note(transfer))
            image = to_sdr(frame.reformat(*size, 'rgb48le', **self._conversion(frame)).to_ndarray(), transfer)
        else:
            image = frame.reformat(*size, 'rgb24', **self._conversion(frame)).to_ndarray()
        return orient(image, display_matrix(frame))

    def _conversion(self, frame: 'av.VideoFrame') -> dict:
        """Return PyAV's options to convert a frame by its own color matrix, and in no more threads than asked for."""
        if not _BEFORE_17:
            return dict(threads=self._num_threads)
        matrix = int(frame.colorspace)
        if matrix in (0, 2, 3, 5, 6):  # RGB, not specified, BT.601
            return {}
        # PyAV 15 and 16 look at the source's matrix only if another one is asked for
        return dict(src_colorspace=matrix, dst_colorspace=5, src_color_range=int(frame.color_range) or 1,
                    dst_color_range=2)

    @property
    def _is_windowed(self) -> bool:
        return self._start is not None or self._end is not None

    def _release(self) -> None:
        if self._container is not None:
            self._container.close()
        self._container = self._stream = None

    @staticmethod
    def _reason(error: Exception) -> str:
        text = getattr(error, 'strerror', None) or str(error) or type(error).__name__
        if 'Invalid data' in text or 'End of file' in text:
            return 'damaged, truncated, or not the format that its first bytes announce'
        return text


def display_matrix(frame: 'av.VideoFrame') -> list[int] | None:
    """Return the 9 numbers of a frame's display matrix; None if it has none."""
    try:
        data = frame.side_data['DISPLAYMATRIX']
    except KeyError:
        return None
    return np.frombuffer(bytes(data), np.int32).tolist()


def _is_cover(stream) -> bool:
    return bool(stream.disposition & av.stream.Disposition.attached_pic)
