"""What a loader of clips and images takes, and what stays behind in its processes."""
import contextlib
import io
import os
import re
import resource
import struct
import threading
import time
import zlib

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from tests.checkpoints import demo_config, write_checkpoint
from tests.odd_files import write_odd_files
from tests.tools import ROOT
from tests.videos import encode_video, read_index
from tools.analysis_tools.benchmarks._clips import repeat_clip
from vop_mm.apis import VideoSearcher
from vop_mm.config import read_config
from vop_mm.datasets import VideoDecodeError
from vop_mm.datasets.decoding import PyAVReader
from vop_mm.search.clip_loader import ClipLoader


@pytest.fixture(scope='module')
def loader():
    loader = ClipLoader(read_config(str(ROOT / 'configs/vop/vop_demo.py')), timeout=30)
    yield loader
    loader.close()


def child(loader) -> int:
    """The number of its only process."""
    loader.start()
    worker = loader._workers.get()
    loader._workers.put(worker)
    return worker._child


def memory(pid: int) -> int:
    with open(f'/proc/{pid}/statm') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE')


def reason(call, *args) -> str:
    """Of the error that a call raises, which it does at once."""
    start = time.monotonic()
    with pytest.raises(VideoDecodeError) as error:
        call(*args)
    assert time.monotonic() - start < 20 and '\n' not in error.value.reason
    return error.value.reason


def test_memory_does_not_grow_after_the_answer(loader, tmp_path):
    """decord decodes a video on as long as it is open, and keeps all frames."""
    still = np.full((720, 1280, 3), 90, np.uint8)
    short = encode_video(tmp_path / 'short.mp4', [still] * 48, max_b_frames=0)
    path = repeat_clip(short, str(tmp_path / 'a.mp4'), 25)  # 48 s; 1.7 GB when decoded
    pid = child(loader)
    assert loader.duration(path) == pytest.approx(48, abs=1)
    seen = []
    for clip in (None, (2, 12), (8, 20)):
        loader.load_clips(path, [clip])
        time.sleep(1)
        seen.append(memory(pid))
        time.sleep(1)
        assert memory(pid) - seen[-1] < 2e6
    assert child(loader) == pid and max(seen) - min(seen) < 100e6
    with open(f'/proc/{pid}/status') as file:
        assert 'Threads:\t1\n' in file.read()


def test_the_limit_of_time_is_of_each_window(tmp_path, monkeypatch):
    """Many windows of a long video take long, and that is no reason to call it bad; one that hangs is."""
    read, path = PyAVReader.get_batch, encode_video(tmp_path / 'a.mp4', 50)
    monkeypatch.setattr(PyAVReader, 'get_batch', lambda self, indices: time.sleep(.6) or read(self, indices))
    loader = ClipLoader(read_config(str(ROOT / 'configs/vop/vop_demo.py')), timeout=1.5)
    with contextlib.closing(loader):
        loader.duration(path)
        frames = [found[0] for found in loader.load_clips(path, [(i / 5, i / 5 + .2) for i in range(6)])]  # 3.6 s
        assert [read_index(clip[0].permute(1, 2, 0).numpy()) for clip in frames] == [0, 5, 10, 15, 20, 25]
        monkeypatch.setattr(PyAVReader, 'get_batch', lambda self, indices: time.sleep(20))
        loader.close()
        assert 'timed out after 3' in reason(loader.load_clips, path, [(0, 1), (1, 2)])


def test_a_clip_behind_the_end_names_the_video(loader, tmp_path):
    path = encode_video(tmp_path / 'a.mp4', 20)
    with pytest.raises(VideoDecodeError, match='a.mp4: the clip starts at 5 s, the video ends at 0.8 s'):
        loader.load_clips(path, [(5., 6.)])
    (frames, num_frames), behind = loader.load_clips(path, [(.2, .4), (5., 6.)])
    assert frames.shape == (12, 3, 40, 40) and num_frames == 5
    assert str(behind).endswith('a.mp4: the clip starts at 5 s, the video ends at 0.8 s')


def test_a_pipeline_without_frames_is_refused_at_once(tmp_path):
    cfg = demo_config('vop/vop_f_p_demo.py')
    checkpoint = write_checkpoint(tmp_path / 'a.pth', cfg, 0)
    content = torch.load(checkpoint, weights_only=True)
    text, count = re.subn(r"dict\([^()]*(\([^()]*\)[^()]*)*type='ReadClip'\)", "dict(type='mmaction.Flip')",
                          content['meta']['cfg'])
    assert count
    content['meta']['cfg'] = text
    torch.save(content, checkpoint)
    with pytest.raises(ValueError, match='a.pth .*a pipeline must be ReadClip, .*; got mmaction.Flip, '):
        VideoSearcher(cfg, dict(a=checkpoint))


def test_only_videos_are_decoded(loader, tmp_path):
    paths, secret = write_odd_files(tmp_path)
    for kind, path in paths.items():
        for call in (loader.load, loader.duration):
            said = reason(call, path)
            expected = 'damaged, truncated' if kind == 'hls_in_packets' else 'not a video of a known container'
            assert expected in said and secret not in said


def test_what_is_no_file_is_said_at_once(loader, tmp_path):
    os.mkfifo(tmp_path / 'fifo')
    for call in (loader.load, loader.duration, loader.load_image):
        found = []
        thread = threading.Thread(target=lambda call=call, found=found: found.append(
            reason(call, str(tmp_path / 'fifo'))), daemon=True)
        thread.start()
        thread.join(25)
        assert found == ['not a regular file']


def save(path, image, kind, **options) -> str:
    image.save(path, kind, **options)
    return str(path)


@pytest.mark.parametrize('kind', ['JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF'])
def test_images(loader, tmp_path, kind):
    image = Image.fromarray(np.full((40, 60, 3), (200, 30, 90), np.uint8))
    frames, num_frames = loader.load_image(save(tmp_path / 'image', image, kind))
    assert num_frames == [1] and frames[0, 0].float().mean((1, 2)).tolist() == pytest.approx([200, 30, 90], abs=6)


def test_of_an_animation_the_first_picture(loader, tmp_path):
    pictures = [Image.new('RGB', (40, 40), color) for color in ('red', 'blue', 'lime')]
    for kind in ('GIF', 'WEBP'):
        path = save(tmp_path / 'a', pictures[0], kind, save_all=True, append_images=pictures[1:])
        assert loader.load_image(path)[0][0, 0].float().mean((1, 2)).tolist() == pytest.approx([255, 0, 0], abs=8)


@pytest.mark.parametrize('kind', ['EPS', 'PDF', 'PPM', 'ICO', 'TGA', 'PCX', 'SGI'])
def test_formats_that_are_not_on_the_list(loader, tmp_path, kind):
    image = Image.new('RGB', (40, 60), 'red')
    assert reason(loader.load_image, save(tmp_path / 'a.png', image, kind)).startswith('not an image')


def test_postscript_is_not_run(loader, tmp_path):
    (tmp_path / 'a.jpg').write_text(f'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n({tmp_path}/ran) (w) file\n')
    assert reason(loader.load_image, str(tmp_path / 'a.jpg')).startswith('not an image')
    assert not (tmp_path / 'ran').exists()


def png(width: int, height: int) -> bytes:
    """A PNG of black pixels, one bit each."""
    def chunk(kind, data):
        return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))
    packed = zlib.compressobj(9)
    rows = b''.join(packed.compress(bytes(1 + width // 8)) for _ in range(height)) + packed.flush()
    head = struct.pack('>2I5B', width, height, 1, 0, 0, 0, 0)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')


@pytest.mark.parametrize('side, says', [
    (12000, 'an image of 12000 x 12000 pixels is too large: the limit is 100,000,000 (VOP_MM_MAX_IMAGE_PIXELS)'),
    (40000, 'an image of more than 100,000,000 pixels is too large')])
def test_few_bytes_of_many_pixels(loader, tmp_path, side, says):
    (tmp_path / 'a.png').write_bytes(png(side, side))
    assert reason(loader.load_image, str(tmp_path / 'a.png')) == says


def test_damaged_images(loader, tmp_path):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8))
    rng = np.random.default_rng(1)
    for kind in ('JPEG', 'PNG', 'WEBP', 'BMP', 'GIF', 'TIFF'):
        file = io.BytesIO()
        image.save(file, kind)
        for i in range(12):
            content = bytearray(file.getvalue())
            if i % 3 == 0:
                content = content[:rng.integers(len(content))]
            else:
                for place in rng.integers(0, 200 if i % 2 else len(content), 8):
                    content[place % len(content)] = rng.integers(256)
            (tmp_path / 'a').write_bytes(content)
            pid = child(loader)
            with contextlib.suppress(VideoDecodeError):
                loader.load_image(str(tmp_path / 'a'))
            assert child(loader) == pid  # which has not died of it


END = [dict(type='TokenizeText'), dict(type='PackVideoText')]


@pytest.mark.parametrize('steps', [
    [dict(type='ReadClip', num_frames=4096, size=(2048, 2048))],
    [dict(type='ReadClip'), *[dict(type='mmaction.ThreeCrop', crop_size=64)] * 14],
    [dict(type='ReadClip'), *[dict(type='mmaction.Resize', scale=30.)] * 4]], ids=['frames', 'crops', 'scales'])
def test_a_pipeline_that_makes_much_of_little(monkeypatch, steps):
    """Each number is within its bounds. It is tried in a process with limits, not in this one."""
    monkeypatch.setenv('VOP_MM_MAX_MEMORY', '300000000')
    cfg = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[*steps, *END]))))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match='the test pipeline fails on a black frame: .*memory'):
        ClipLoader(cfg).try_out(64, 64)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    ClipLoader(Config(dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='ReadClip'), *END]))))).try_out(64, 64)
