"""Which file format for cached frames: python tools/analysis_tools/compare_store_formats.py [--clips 200]

Writes the same clips (a photograph that moves) into LMDB, HDF5, Arrow and WebDataset, and reads them back in random
order from forked processes, as the workers of a DataLoader do. What is not installed is left out:
pip install lmdb h5py pyarrow webdataset
"""
import argparse
import io
import multiprocessing
import os
import time
from pathlib import Path

FRAMES, SIZE = 12, 224
CODECS = ('raw', 'png', 'jpeg 95', 'jpeg 90')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Compare formats for cached frames.')
    parser.add_argument('--clips', type=int, default=200, help='clips to write (default: 200, 361 MB a format)')
    parser.add_argument('--reads', type=int, default=400, help='clips that each process reads (default: 400)')
    parser.add_argument('--workers', type=int, default=2, help='processes that read (default: 2)')
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    from vop_mm.utils.files import temporary_folder

    clips = make_clips(args.clips)
    print(f'{"format":11} {"frames":8} {"MB/clip":>8} {"written, clips/s":>17} {"read, clips/s":>14} '
          f'{"not in memory":>14} {"error of 255":>13}')
    with temporary_folder(None, 'store_formats') as folder:
        for form in FORMATS:
            try:
                for codec in CODECS if form is Lmdb else CODECS[:1]:
                    measure(form, codec, clips, Path(folder) / f'{form.__name__}_{codec[:2]}{codec[-2:]}', args)
            except ImportError as e:
                print(f'{form.__name__:11} left out: {e}')
    return 0


def make_clips(count: int):
    """uint8 [count, F, H, W, 3]: windows that move over a photograph."""
    import matplotlib.cbook
    import numpy as np
    from PIL import Image

    with matplotlib.cbook.get_sample_data('grace_hopper.jpg') as file:
        photo = np.asarray(Image.open(file).convert('RGB'))
    rng = np.random.default_rng(0)
    ends = rng.integers(0, np.array(photo.shape[:2]) - SIZE, (count, 2, 2))
    clips = np.empty((count, FRAMES, SIZE, SIZE, 3), np.uint8)
    for clip, (start, end) in zip(clips, ends):
        for i, (y, x) in enumerate(np.linspace(start, end, FRAMES).astype(int)):
            clip[i] = photo[y:y + SIZE, x:x + SIZE]
    return clips


def measure(form, codec: str, clips, path: Path, args: argparse.Namespace) -> None:
    import numpy as np

    from vop_mm.utils.interrupts import end_with_parent

    encode, decode = coder(codec)
    start = time.perf_counter()
    form.write(path, (encode(clip) for clip in clips))
    written = time.perf_counter() - start
    files = [path] if path.is_file() else [p for p in path.rglob('*') if p.is_file()]
    rates = []
    for cold in (False, True):
        for file in files if cold else ():
            with file.open('rb') as f:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        with multiprocessing.get_context('fork').Pool(args.workers, end_with_parent) as pool:
            start = time.perf_counter()
            jobs = [(form, path, decode, len(clips), min(args.reads, len(clips)) if cold else args.reads, seed)
                    for seed in range(args.workers)]
            reads = sum(pool.map(read, jobs, chunksize=1))
            rates.append(reads / (time.perf_counter() - start))
    error = np.abs(decode(encode(clips[0])).astype(int) - clips[0]).mean()
    size = sum(file.stat().st_blocks * 512 for file in files) / len(clips) / 1e6
    print(f'{form.__name__:11} {codec:8} {size:8.2f} {len(clips) / written:17.0f} {rates[0]:14.0f} {rates[1]:14.0f} '
          f'{error:13.2f}', flush=True)


def read(job) -> int:
    """Read clips in random order, in a process of its own; WebDataset in the order in which they stand."""
    import numpy as np

    form, path, decode, count, reads, seed = job
    order = np.random.default_rng(seed).permutation(np.arange(reads) % count)
    total = 0
    for data in form.read(path, order):
        clip = decode(data)
        total += clip.shape == (FRAMES, SIZE, SIZE, 3)
    return total


class _Raw:

    def encode(self, clip):
        return clip.tobytes()

    def decode(self, data):
        import numpy as np
        return np.frombuffer(data, np.uint8).reshape(FRAMES, SIZE, SIZE, 3).copy()


class _Pictures:

    def __init__(self, **options) -> None:
        self.options = options

    def encode(self, clip):
        import numpy as np
        from PIL import Image
        parts = []
        for frame in clip:
            file = io.BytesIO()
            Image.fromarray(frame).save(file, **self.options)
            parts.append(file.getvalue())
        return np.array([len(part) for part in parts], '<i8').tobytes() + b''.join(parts)

    def decode(self, data):
        import numpy as np
        from PIL import Image
        stops = 8 * FRAMES + np.cumsum([0, *np.frombuffer(data, '<i8', FRAMES)])
        return np.stack([np.asarray(Image.open(io.BytesIO(data[a:b]))) for a, b in zip(stops[:-1], stops[1:])])


def coder(codec: str):
    """Functions that turn a clip to bytes and back."""
    if codec == 'raw':
        made = _Raw()
    elif codec == 'png':
        made = _Pictures(format='png')
    else:
        made = _Pictures(format='jpeg', quality=int(codec.split()[1]), subsampling=0)
    return made.encode, made.decode


class Lmdb:

    @staticmethod
    def write(path, items) -> None:
        import lmdb
        with lmdb.open(str(path), map_size=1 << 36) as env:
            for i, data in enumerate(items):  # a transaction for each: killed, it keeps what was written
                with env.begin(write=True) as txn:
                    txn.put(b'%d' % i, data)

    @staticmethod
    def read(path, order):
        import lmdb
        with lmdb.open(str(path), readonly=True, lock=False) as env, env.begin(buffers=True) as txn:
            for i in order:
                yield txn.get(b'%d' % i)


class Hdf5:

    @staticmethod
    def write(path, items) -> None:
        import h5py
        import numpy as np
        with h5py.File(path, 'w') as file:
            for i, data in enumerate(items):
                file.create_dataset(str(i), data=np.frombuffer(data, np.uint8))
                file.flush()

    @staticmethod
    def read(path, order):
        import h5py
        with h5py.File(path) as file:
            for i in order:
                yield file[str(i)][:]


class Arrow:

    @staticmethod
    def write(path, items) -> None:
        import pyarrow as pa
        schema = pa.schema([('clip', pa.large_binary())])
        with pa.OSFile(str(path), 'wb') as sink, pa.ipc.new_file(sink, schema) as file:
            for data in items:
                file.write_batch(pa.record_batch([pa.array([data], pa.large_binary())], schema=schema))

    @staticmethod
    def read(path, order):
        import pyarrow as pa
        with pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            for i in order:
                yield file.get_batch(int(i))['clip'][0].as_buffer()


class WebDataset:

    @staticmethod
    def write(path, items) -> None:
        import webdataset
        with webdataset.TarWriter(str(path)) as sink:
            for i, data in enumerate(items):
                sink.write({'__key__': str(i), 'bin': data})

    @staticmethod
    def read(path, order):
        import webdataset
        left = len(order)
        while left:
            for item in webdataset.WebDataset(str(path), shardshuffle=False):
                yield item['bin']
                left -= 1
                if not left:
                    return


FORMATS = (Lmdb, Hdf5, Arrow, WebDataset)

if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(main)
