"""MSVD to annotations: python tools/dataset_converters/msvd.py SRC_DIR OUT_DIR [--video-dir DIR]

SRC_DIR holds captions_msvd.json ({id: [caption, ...]}), train_list.txt and test_list.txt. All captions of a video are
queries of its own.
"""
from vop_mm.conversion import Benchmark, Source, captions_of, convert

CAPTIONS = ('captions_msvd.json', '*captions*.json')
LISTS = dict(train='train_list.txt', test='test_list.txt')


def read(source: Source, split: str) -> dict[str, list[str]]:
    """Captions of the listed videos."""
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
