"""Convert LSMDC to annotations.

    python tools/dataset_converters/lsmdc.py SRC_DIR OUT_DIR [--video-dir DIR]

SRC_DIR holds LSMDC16_annos_training.csv (or LSMDC16_annos_training_someone.csv) and
LSMDC16_challenge_1000_publictect.csv: clip id, four times and a sentence, separated by tabs. A clip with several lines
has several captions in training; the dev split uses one of them. Clips are in folders named after films.
"""
from vop_mm.conversion import Benchmark, ConversionError, Source, convert

TRAIN = ('LSMDC16_annos_training.csv', 'LSMDC16_annos_training_someone.csv')
TEST = 'LSMDC16_challenge_1000_publictect.csv'


def read(source: Source, name: str) -> dict[str, list[str]]:
    """Read the sentences of each clip."""
    captions: dict[str, list[str]] = {}
    for clip, *_, sentence in source.tsv(name, 6):
        captions.setdefault(clip, []).append(sentence)
    return captions


def read_test(source: Source) -> dict[str, list[str]]:
    """Read the 1,000 clips of the public test set, one sentence each."""
    captions = read(source, TEST)
    twice = [clip for clip, sentences in captions.items() if len(sentences) > 1]
    if twice:
        raise ConversionError(f'{source.path(TEST)}: duplicate id {twice[0]}')
    return captions


def file_name(clip: str) -> str:
    """Return the path of a clip; ``0001_American_Beauty_00.00.51.926-00.00.54.129`` is in ``0001_American_Beauty``."""
    return f'{clip.rpartition("_")[0]}/{clip}.avi'


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(lambda: convert(Benchmark(
        name='lsmdc', protocol='1:1', training_files=TRAIN,
        read_train=lambda source: dict(train=read(source, source.require(*TRAIN))), read_test=read_test,
        expected=dict(train=(101_000, 101_000), test=(1_000, 1_000)), rough=('train',), file_name=file_name,
        # about as many clips as in the test split
        dev_fraction=0.01), __doc__))
