"""Convert DiDeMo to annotations.

    python tools/dataset_converters/didemo.py SRC_DIR OUT_DIR [--video-dir DIR]

SRC_DIR holds train_list.txt, test_list.txt, train_data.json and test_data.json. The caption of a video is its
paragraph: its descriptions in the order of the file. Only the first 30 seconds of a video are used.
"""
from vop_mm.conversion import Benchmark, Source, captions_of, convert, field, paragraph
from vop_mm.conversion.video_files import without_extension


def read(source: Source, split: str) -> dict[str, list[str]]:
    """Read one paragraph per listed video."""
    data, names = f'{split}_data.json', f'{split}_list.txt'
    descriptions: dict[str, list[str]] = {}
    for i, record in enumerate(source.json(data, list)):
        where = f'{source.path(data)}: entry {i}'
        # lists and data have the same names, but not always the same extensions
        video = without_extension(field(where, record, 'video', str))
        descriptions.setdefault(video, []).append(record.get('description'))
    listed = {video_id: without_extension(video_id) for video_id in source.ids(names)}
    found = captions_of(listed.values(), descriptions, str(source.path(data)), names)
    return {video_id: [paragraph(f'{source.path(data)}: {video_id}', found[video])]
            for video_id, video in listed.items()}


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(lambda: convert(Benchmark(
        name='didemo', protocol='paragraph', training_files=('train_list.txt', 'train_data.json'),
        read_train=lambda source: dict(train=read(source, 'train')), read_test=lambda source: read(source, 'test'),
        expected=dict(train=(8_395, 8_395), test=(1_004, 1_004)), rough=('train', 'test'),
        times=dict(start=0., end=30.)), __doc__))
