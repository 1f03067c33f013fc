"""A data set of which some files are broken, each in another way."""
import json
import struct
from pathlib import Path

import numpy as np

from tests.videos import encode_audio, encode_video

KINDS = ('truncated', 'cut_off', 'garbage', 'playlist', 'audio_only')


def break_video(path: str | Path, kind: str) -> None:
    """Put a broken file in the place of an mp4.

    Args:
        path (str | Path): A whole one with an index at its end, as :func:`tests.videos.encode_video` writes it.
        kind (str): One of ``KINDS``, or ``'crash'``, which aborts the process that opens it with decord.
    """
    path = Path(path)
    content = path.read_bytes()
    if kind == 'truncated':
        path.write_bytes(content[:len(content) // 2])
    elif kind == 'garbage':
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif kind == 'cut_off':
        path.write_bytes(Path(encode_video(path, 30, faststart=True)).read_bytes()[:-800])
    elif kind == 'playlist':
        path.write_text('#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n')
    elif kind == 'audio_only':
        encode_audio(path)
    elif kind == 'crash':
        path.write_bytes(with_wrong_table(content))
    else:
        raise ValueError(kind)


def with_wrong_table(content: bytes) -> bytes:
    """An mp4 whose table of frame times claims so many entries that the tables behind it are read as such.

    decord 0.6.0 then asks for more memory than there is, in C++, which ends the process.
    """
    tables = content.index(b'stbl') - 4
    end = tables + struct.unpack_from('>I', content, tables)[0]
    place = content.index(b'stts') + 8
    damaged = bytearray(content)
    struct.pack_into('>I', damaged, place, (end - place - 4) // 8)
    return bytes(damaged)


def make_broken_dataset(folder: str | Path, videos: int = 100) -> dict[str, str]:
    """Write videos of painted frames, five of them broken, and ``train.json``, ``dev.json`` and ``test.json``, which
    all name all of them with one caption each.

    Args:
        folder (str | Path): Gets ``videos/`` and the annotations. Not there yet, or empty.
        videos (int): How many, the broken ones included. Defaults to 100: 5% are broken.

    Returns:
        dict[str, str]: Path of the broken file of every one of ``KINDS``.
    """
    folder = Path(folder)
    (folder / 'videos').mkdir(parents=True)
    entries = [dict(video_id=f'v{i}', video=f'v{i}.mp4', captions=[f'a circle moves {i}']) for i in range(videos)]
    for i, entry in enumerate(entries):
        encode_video(folder / 'videos' / entry['video'], 14, first=14 * i % 1000)
    broken = {}
    for i, kind in enumerate(KINDS):
        broken[kind] = str(folder / 'videos' / entries[7 + i * videos // len(KINDS)]['video'])
        break_video(broken[kind], kind)
    for split in ('train', 'dev', 'test'):
        metainfo = dict(dataset='broken', split=split, protocol='1:1')
        (folder / f'{split}.json').write_text(json.dumps(dict(metainfo=metainfo, data_list=entries)))
    return broken
