"""Small annotation files in the form in which the data sets distribute them."""
import json
import os
from pathlib import Path

import pytest

# where a machine keeps the data sets' own files; they are not part of the project, their licences are the data sets'
REAL = Path(os.environ.get('VOP_MM_ANNOTATIONS', Path(__file__).resolve().parents[2] / 'shared' / 'annotations'))


def real(name: str) -> Path:
    """Folder with a data set's real files; skips the test where there is none."""
    if not (REAL / name).is_dir():
        pytest.skip(f'no annotation files of {name} in {REAL} (VOP_MM_ANNOTATIONS names the folder)')
    return REAL / name


def write_lines(path: Path, lines) -> None:
    path.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8')


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False), encoding='utf-8')


def msrvtt_data(video_ids, captions_each: int = 20) -> dict:
    """The content of MSRVTT_data.json, its sentences not in the order of the videos."""
    sentences = [dict(caption=f'{video_id} seen {i} times', video_id=video_id, sen_id=i)
                 for i in range(captions_each) for video_id in video_ids]
    videos = [dict(category=1, url='', video_id=video_id, split='train', id=i) for i, video_id in enumerate(video_ids)]
    return dict(info=dict(year='2016'), videos=videos, sentences=sentences)


def write_msrvtt(folder: Path, num_9k: int = 40, num_7k: int = 30, num_test: int = 5, captions_each: int = 20) -> None:
    """Videos ``video0`` ... for training and the ones behind them for testing, whose captions the data file has too."""
    ids = [f'video{i}' for i in range(num_9k + num_test)]
    write_json(folder / 'MSRVTT_data.json', msrvtt_data(ids, captions_each))
    write_lines(folder / 'MSRVTT_train.9k.csv', ['video_id', *ids[:num_9k]])
    write_lines(folder / 'MSRVTT_train.7k.csv', ['video_id', *ids[:num_7k]])
    write_lines(folder / 'MSRVTT_JSFUSION_test.csv', ['key,vid_key,video_id,sentence', *(
        f'ret{i},msr{i},{video_id},"a test, of {video_id}"' for i, video_id in enumerate(ids[num_9k:]))])


def write_activitynet(folder: Path, num_train: int = 40, num_test: int = 5) -> None:
    """Sentences with blanks where the real files have them."""
    ids = [f'v_{i:011d}' for i in range(num_train + num_test)]
    for name, part in (('train', ids[:num_train]), ('val_1', ids[num_train:])):
        write_json(folder / f'{name}.json', {
            video_id: dict(duration=30.5, timestamps=[[0.28, 20.], [10., 30.]],
                           sentences=[f'{video_id} begins.', '  It goes  on with a piñata. ']) for video_id in part})


def write_didemo(folder: Path, num_train: int = 40, num_test: int = 5) -> None:
    """Names with extension; a video's descriptions not one behind the other."""
    for split, count in (('train', num_train), ('test', num_test)):
        names = [f'{i:08d}@N06_{split}.{("mov", "mp4", "m4v", "3gp")[i % 4]}' for i in range(count)]
        write_lines(folder / f'{split}_list.txt', names)
        write_json(folder / f'{split}_data.json', [
            dict(annotation_id=i, video=name, description=f'{what} of {i}', times=[[5 - n, 5]] * 4, num_segments=6)
            for n, what in enumerate(('the end', 'the beginning')) for i, name in enumerate(names)])


def write_lsmdc(folder: Path, num_train: int = 200, num_test: int = 5) -> None:
    """Clips of two films in training, every tenth with two sentences, and of a third in the test."""

    def line(film: str, i: int, sentence: str) -> str:
        times = f'00.{i // 60:02d}.{i % 60:02d}.000', f'00.{i // 60:02d}.{i % 60:02d}.886'
        return '\t'.join((f'{film}_{times[0]}-{times[1]}', *times, *times, sentence))

    films = ('0001_A_Film', '1002_Another')
    write_lines(folder / 'LSMDC16_annos_training.csv', [
        line(films[i % 2], i, sentence) for i in range(num_train)
        for sentence in (f'SOMEONE says "{i}.', f"He's {i}, and leaves.")[:1 + (i % 10 == 0)]])
    write_lines(folder / 'LSMDC16_challenge_1000_publictect.csv', [
        line('3001_THE_THIRD', i, f'SOMEONE meets {i}.') for i in range(num_test)])


def write_msvd(folder: Path, num_train: int = 40, num_val: int = 3, num_test: int = 5) -> None:
    """Ids with a dash in front, captions in different numbers."""
    ids = [f'-vid{i:04d}_{i}_{i + 10}' for i in range(num_train + num_val + num_test)]
    write_json(folder / 'captions_msvd.json', {
        video_id: [f'a clip {video_id} {k}' for k in range(2 + i % 5)] for i, video_id in enumerate(ids)})
    write_lines(folder / 'train_list.txt', ids[:num_train])
    write_lines(folder / 'val_list.txt', ids[num_train:num_train + num_val])
    write_lines(folder / 'test_list.txt', ids[num_train + num_val:])


def write_vatex(folder: Path, num_train: int = 40, num_test: int = 5, official: bool = False) -> None:
    """``ref_captions.json`` and both lists, or the official files and the list of test videos."""
    ids = [f'{i:011d}_000{100 + i}_000{110 + i}' for i in range(num_train + 2 * num_test)]
    captions = {video_id: [f'vatex {video_id} {k}' for k in range(10)] for video_id in ids}
    train, validation, test = ids[:num_train], ids[num_train:], ids[num_train:num_train + num_test]
    write_lines(folder / 'test_list.txt', test)
    if official:
        for name, part in (('training', train), ('validation', validation)):
            write_json(folder / f'vatex_{name}_v1.0.json', [
                dict(videoID=video_id, enCap=captions[video_id], chCap=['一个男人'] * 10) for video_id in part])
    else:
        write_lines(folder / 'train_list.txt', train)
        write_json(folder / 'ref_captions.json', captions)


WRITERS = dict(msrvtt=write_msrvtt, activitynet=write_activitynet, didemo=write_didemo, lsmdc=write_lsmdc,
               msvd=write_msvd, vatex=write_vatex)
