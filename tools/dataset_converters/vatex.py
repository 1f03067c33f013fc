"""Convert VATEX to annotations.

    python tools/dataset_converters/vatex.py SRC_DIR OUT_DIR [--video-dir DIR]

SRC_DIR holds test_list.txt, the 1,500 videos of the validation set that are used for testing retrieval, and the
captions: either ref_captions.json ({id: [caption, ...]}) with train_list.txt, or the official
vatex_training_v1.0.json and vatex_validation_v1.0.json ([{"videoID", "enCap": [...]}, ...]), where train_list.txt is
optional. Every English caption of a video is a separate query.
"""
from vop_mm.conversion import Benchmark, ConversionError, Source, captions_of, convert, field

REF, TRAINING, VALIDATION = 'ref_captions.json', 'vatex_training_v1.0.json', 'vatex_validation_v1.0.json'
LISTS = dict(train='train_list.txt', test='test_list.txt')


def read_official(source: Source, name: str) -> dict[str, list[str]]:
    """Read the English captions of each video."""
    captions: dict[str, list[str]] = {}
    for i, record in enumerate(source.json(name, list)):
        where = f'{source.path(name)}: entry {i}'
        video_id = field(where, record, 'videoID', str)
        if video_id in captions:
            raise ConversionError(f'{where}: duplicate id {video_id}')
        captions[video_id] = field(where, record, 'enCap', list)
    return captions


def read(source: Source, split: str, official: str) -> dict[str, list[str]]:
    """Read the captions of the listed videos; without a training list, of all videos in the official file."""
    name, listed = source.require(REF, official), LISTS[split]
    captions = source.json(name, dict) if name == REF else read_official(source, name)
    if name == TRAINING and not source.find(listed):
        return captions
    return captions_of(source.ids(listed), captions, str(source.path(name)), listed)


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(lambda: convert(Benchmark(
        name='vatex', protocol='multi-caption', training_files=(LISTS['train'], TRAINING),
        read_train=lambda source: dict(train=read(source, 'train', TRAINING)),
        read_test=lambda source: read(source, 'test', VALIDATION),
        expected=dict(train=(25_991, 259_910), test=(1_500, 15_000))), __doc__))
