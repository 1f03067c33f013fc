"""Convert MSR-VTT to annotations.

    python tools/dataset_converters/msrvtt.py SRC_DIR OUT_DIR [--video-dir DIR]

SRC_DIR holds MSRVTT_data.json, MSRVTT_train.9k.csv, MSRVTT_train.7k.csv and MSRVTT_JSFUSION_test.csv (1k-A). OUT_DIR
gets train_9k.json, train_7k.json, dev.json and test.json. The dev videos are in both original training splits, and are
removed from both.
"""
from vop_mm.conversion import Benchmark, Source, captions_of, convert, field

DATA, TEST = 'MSRVTT_data.json', 'MSRVTT_JSFUSION_test.csv'
LISTS = dict(train_9k='MSRVTT_train.9k.csv', train_7k='MSRVTT_train.7k.csv')


def read_train(source: Source) -> dict[str, dict[str, list[str]]]:
    """Read both training splits; the captions of a video are all its sentences."""
    splits = {split: [row['video_id'] for row in source.csv(name, 'video_id')] for split, name in LISTS.items()}
    captions: dict[str, list[str]] = {}
    for i, record in enumerate(field(str(source.path(DATA)), source.json(DATA, dict), 'sentences', list)):
        where = f'{source.path(DATA)}: sentence {i}'
        captions.setdefault(field(where, record, 'video_id', str), []).append(record.get('caption'))
    return {split: captions_of(video_ids, captions, str(source.path(DATA)), LISTS[split])
            for split, video_ids in splits.items()}


def read_test(source: Source) -> dict[str, list[str]]:
    """Read 1k-A, with one sentence per video."""
    return {row['video_id']: [row['sentence']] for row in source.csv(TEST, 'video_id', 'sentence')}


if __name__ == '__main__':
    from vop_mm.utils.cli import run_cli
    run_cli(lambda: convert(Benchmark(
        name='msrvtt', protocol='1:1', training_files=(DATA, *LISTS.values()), read_train=read_train,
        read_test=read_test,
        expected=dict(train_9k=(9_000, 180_000), train_7k=(7_010, 140_200), test=(1_000, 1_000))), __doc__))
