"""Convert MSVD to annotations.

    python tools/dataset_converters/msvd.py SRC_DIR OUT_DIR [--video-dir DIR]

SRC_DIR holds captions_msvd.json ({id: [caption, ...]}), train_list.txt and test_list.txt. Every caption of a video is
a separate query.
"""
from vop_mm.conversion import Benchmark, ConversionError, Source, captions_of, convert

CAPTIONS = ('captions_msvd.json', '*captions*.json')
LISTS = dict(train='train_list.txt', test='test_list.txt')
PICKLE = 'raw-captions.pkl'  # used by CLIP4Clip and X-Pool: {id: [[word, ...], ...]}
TO_JSON = ('python -c "import json, pickle; json.dump({k: [\' \'.join(c) for c in v] for k, v in pickle.load(open('
           '\'raw-captions.pkl\', \'rb\')).items()}, open(\'captions_msvd.json\', \'w\'))"')


def read(source: Source, split: str) -> dict[str, list[str]]:
    """Read the captions of the listed videos."""
    if not source.find(*CAPTIONS) and source.find(PICKLE):
        raise ConversionError(f'{source.path(PICKLE)} is a pickle, which can run programs and is not loaded; if you '
                              f'trust it, make the {CAPTIONS[0]} that is read of it, in its folder: {TO_JSON}')
    name = source.require(*CAPTIONS)
    return captions_of(source.ids(LISTS[split]), source.json(name, dict), str(source.path(name)), LISTS[split])


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(lambda: convert(Benchmark(
        name='msvd', protocol='multi-caption', training_files=(LISTS['train'],),
        read_train=lambda source: dict(train=read(source, 'train')), read_test=lambda source: read(source, 'test'),
        expected=dict(train=(1_200, 48_774), test=(670, 27_763)), file_name=lambda video_id: f'{video_id}.avi',
        # 5% would be 60 videos
        dev_fraction=0.1), __doc__))
