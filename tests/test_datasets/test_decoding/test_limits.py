"""How much comes out of a file, at most."""
import os
import time

import av
import numpy as np
import pytest

from tests.videos import encode_video
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import DecodeProcess, Limits, PyAVReader
from vop_mm.datasets.decoding.limits import limited_memory

SIDE = 16000


@pytest.fixture(scope='module')
def huge(tmp_path_factory):
    """A video of few bytes and of 16000 x 16000 pixels."""
    path = encode_halves(tmp_path_factory.mktemp('huge') / 'a.mp4', SIDE, SIDE)
    assert os.path.getsize(path) < 10**6
    return path


def encode_halves(path, height: int, width: int) -> str:
    """A video of one frame, quickly: black on the left, white on the right."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream('libx264', rate=25)
        stream.height, stream.width, stream.pix_fmt = height, width, 'yuv420p'
        stream.options = dict(preset='ultrafast')
        frame = av.VideoFrame(width, height, 'yuv420p')
        for plane, black, white in zip(frame.planes, (16, 128, 128), (235, 128, 128)):
            rows = np.full((plane.height, plane.line_size), black, np.uint8)
            rows[:, plane.width // 2:] = white
            plane.update(rows)
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return str(path)


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    with open('/proc/self/status') as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith('VmHWM'))


def reason(path, call=lambda reader: reader.get_batch([0])):
    with pytest.raises(VideoDecodeError) as error:
        call(PyAVReader(str(path)))
    return error.value.reason


def test_frames_that_are_too_large_are_refused_by_name_and_limit(huge, monkeypatch):
    before = peak()
    assert reason(huge) == ('frames of 16000 x 16000 pixels are too large: the limit is 35,651,584 '
                            '(VOP_MM_MAX_PIXELS)')
    assert peak() - before < 10**9


def test_a_header_that_lies_about_the_size(huge, tmp_path):
    content = bytearray(open(huge, 'rb').read())
    place = content.index(b'avc1') + 4 + 24
    content[place:place + 4] = bytes([0, 64, 0, 64])
    place = content.index(b'tkhd') + 4 + 76
    content[place:place + 8] = bytes([0, 64, 0, 0, 0, 64, 0, 0])
    (tmp_path / 'a.mp4').write_bytes(content)
    assert '16000 x 16000' in reason(tmp_path / 'a.mp4')


def test_memory_ends_before_the_machines_does(huge, monkeypatch):
    """Whatever a file says: the process that decodes gets no more."""
    monkeypatch.setenv('VOP_MM_MAX_PIXELS', str(SIDE * SIDE))
    monkeypatch.setattr(Limits, 'check_batch', lambda *args: None)
    monkeypatch.setenv('VOP_MM_MAX_MEMORY', '600000000')  # a frame takes 768,000,000

    def decode():
        PyAVReader(huge).get_batch([0])

    process = DecodeProcess(decode, timeout=30)
    start = time.monotonic()
    with pytest.raises(VideoDecodeError) as error:
        process.call('a.mp4')
    # FFmpeg's h264 decoder has no other word for memory that it did not get than for damage
    assert any(says in error.value.reason for says in ('memory', 'the decoder crashed: SIGABRT', 'are damaged'))
    assert time.monotonic() - start < 20
    process.close()


def test_python_that_needs_too_much_memory(monkeypatch, capfd):
    monkeypatch.setenv('VOP_MM_MAX_MEMORY', '300000000')
    process = DecodeProcess(lambda size: len(np.ones(size, np.uint8)))
    assert process.call('a.mp4', 200_000_000) == 200_000_000
    assert process.call('a.mp4', 200_000_000) == 200_000_000  # what was freed is there again
    with pytest.raises(VideoDecodeError, match=r'a.mp4: decoding it takes more than 0.3 GB of memory.*MAX_MEMORY'):
        process.call('a.mp4', 400_000_000)
    process.close()
    assert capfd.readouterr().err == ''


def test_the_limit_is_of_growth_and_is_taken_back():
    held = np.ones(200_000_000, np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('VOP_MM_MAX_MEMORY', '100000000')
        with limited_memory():
            np.ones(50_000_000, np.uint8)
            with pytest.raises(MemoryError):
                np.ones(200_000_000, np.uint8)
    assert len(np.ones(200_000_000, np.uint8)) == len(held)


def test_8k_is_read(tmp_path):
    path = encode_halves(tmp_path / 'a.mp4', 4320, 7680)

    def decode():
        return PyAVReader(path).get_batch([0] * 12).asnumpy()[:, ::1000, ::1000].copy()

    process = DecodeProcess(decode)
    frames = process.call(path)
    process.close()
    assert frames.shape == (12, 5, 8, 3) and frames[:, :, :3].max() < 5 and frames[:, :, 4:].min() > 250


@pytest.mark.parametrize('variable, value, says', [
    ('PIXELS', 3839, 'frames of 80 x 48 pixels are too large: the limit is 3,839 (VOP_MM_MAX_PIXELS)'),
    ('FRAMES', 59, '60 frames are too many: the limit is 59 (VOP_MM_MAX_FRAMES)'),
    ('MEMORY', 3 * 60 * 48 * 80 * 3 - 1, '60 frames of 80 x 48 pixels at once take 0.0 GB')])
def test_limits_are_exact_and_can_be_set(tmp_path, monkeypatch, variable, value, says):
    path = encode_video(tmp_path / 'a.mp4', 60)
    monkeypatch.setenv(f'VOP_MM_MAX_{variable}', str(value))
    assert says in reason(path, lambda reader: reader.get_batch(range(60)))
    monkeypatch.setenv(f'VOP_MM_MAX_{variable}', str(value + 1))
    assert len(PyAVReader(path).get_batch(range(60)).asnumpy()) == 60


def test_a_video_that_says_it_is_very_long(tmp_path, monkeypatch):
    path = encode_video(tmp_path / 'a.mp4', 3, times=[0, 1000, 3700])
    assert len(PyAVReader(path)) == 3
    monkeypatch.setenv('VOP_MM_MAX_HOURS', '1')
    assert '1.8 hours are too long: the limit is 1 (VOP_MM_MAX_HOURS)' in reason(path)
    assert len(PyAVReader(encode_video(tmp_path / 'a.mp4', 3, times=[0, 1000, 1800]))) == 3


@pytest.mark.parametrize('value', ['', '0', '-1', '1e9', 'many'])
def test_a_limit_that_is_no_number_is_not_ignored(tmp_path, monkeypatch, value):
    monkeypatch.setenv('VOP_MM_MAX_HOURS', value)
    with pytest.raises(ValueError, match=f"VOP_MM_MAX_HOURS must be a whole number above 0, not '{value}'"):
        PyAVReader(encode_video(tmp_path / 'a.mp4', 3))
