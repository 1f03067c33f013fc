"""Convert ActivityNet Captions to annotations.

    python tools/dataset_converters/activitynet.py SRC_DIR OUT_DIR [--video-dir DIR]

SRC_DIR holds train.json and val_1.json. The caption of a video is its paragraph: its sentences in the order of the
file. Ids have the prefix v_, which file names may lack. val1 is the test split.
"""
from vop_mm.conversion import Benchmark, Source, convert, field, paragraph

TRAIN, TEST = 'train.json', 'val_1.json'


def read(source: Source, name: str) -> dict[str, list[str]]:
    """Read one paragraph per video."""
    captions = {}
    for video_id, record in source.json(name, dict).items():
        where = f'{source.path(name)}: {video_id}'
        captions[video_id] = [paragraph(where, field(where, record, 'sentences', list))]
    return captions


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(lambda: convert(Benchmark(
        name='activitynet', protocol='paragraph', training_files=(TRAIN,),
        read_train=lambda source: dict(train=read(source, TRAIN)), read_test=lambda source: read(source, TEST),
        expected=dict(train=(10_009, 10_009), test=(4_917, 4_917)), prefix='v_'), __doc__))
