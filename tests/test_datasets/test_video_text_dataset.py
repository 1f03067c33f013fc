import json
import os
import pickle
import shutil

import pytest
import torch
from mmengine.dataset import pseudo_collate
from torch.utils.data import DataLoader

from tests.datasets import PIPELINE, annotation, build, indices
from tests.s3 import s3_server
from tests.videos import broken_videos, encode_video, spoil_frames
from tests.web import web_server
from vop_mm.datasets import (
    AnnotationError,
    TooManyUnreadableVideosError,
    VideoDecodeError,
    VideoNotFoundError,
    VideoTextDataset,
)
from vop_mm.evaluation.metrics import RetrievalMetric


@pytest.fixture(scope='module')
def partly(tmp_path_factory):
    """Six videos, of which bad1 and bad2 can't be decoded."""
    folder = tmp_path_factory.mktemp('partly')
    (folder / 'videos').mkdir()
    kinds = broken_videos(folder)
    for i in range(4):
        encode_video(folder / 'videos' / f'v{i}.mp4', 60, first=100 * i)
    for name, kind in (('bad1', 'truncated_faststart'), ('bad2', 'garbage')):
        (folder / 'videos' / f'{name}.mp4').write_bytes(open(kinds[kind], 'rb').read())
    annotation(folder, dict(v0=['a'], bad1=['b', 'c'], v1=['d', 'e'], bad2=['f'], v2=['g'], v3=['h']))
    return folder


def error_of_worker(data, kind: type) -> Exception:
    iterator = iter(DataLoader(data, batch_size=6, num_workers=1, collate_fn=pseudo_collate))
    with pytest.raises(kind) as error:
        next(iterator)
    iterator._shutdown_workers()  # garbage collection does it too, but takes seconds
    return error.value


# -- items ------------------------------------------------------------------------------------------------------------
def test_training_has_one_item_per_pair(whole):
    data = build(whole)
    assert data.metainfo['dataset'] == 'made' and data.metainfo['split'] == 'x'
    assert [(data[i]['data_samples'].video_id, data[i]['data_samples'].captions) for i in range(len(data))] == [
        ('v0', ['z']), ('v1', ['a1']), ('v2', ['a2']), ('v2', ['b2']), ('v3', ['a3']), ('v3', ['b3']), ('v3', ['c3'])]
    assert [data.get_data_info(i)['video_index'] for i in range(len(data))] == [0, 1, 2, 2, 3, 3, 3]
    for item in (data[i] for i in range(len(data))):
        assert {index // 100 for index in indices(item)} == {item['data_samples'].video_index}


def test_evaluation_has_one_item_per_video(whole):
    data = build(whole, test_mode=True)
    samples = [data[i]['data_samples'] for i in range(len(data))]
    assert [(s.video_id, s.video_index, s.captions) for s in samples] == [
        ('v0', 0, ['z']), ('v1', 1, ['a1']), ('v2', 2, ['a2', 'b2']), ('v3', 3, ['a3', 'b3', 'c3'])]
    assert samples[3].tokens.tolist() == [[97], [98], [99]] and samples[3].unreadable == []


def test_what_the_first_transform_gets(tmp_path):
    (tmp_path / 'a.json').write_text(json.dumps(dict(data_list=[
        dict(video_id='x', video='sub/x.mp4', captions=['a', 'b'], start=2, end=None, kind='event', twin='y')])))
    data = build(tmp_path, pipeline=[], check_files=False, test_mode=True)
    assert data[0] == dict(video_id='x', filename=str(tmp_path / 'videos/sub/x.mp4'), captions=['a', 'b'], start=2,
                           kind='event', twin='y', video='sub/x.mp4', video_index=0, sample_idx=0)


def test_form_of_mmaction2(whole, tmp_path):
    (tmp_path / 'b.json').write_text(json.dumps({'v1.mp4': ['one', 'two'], 'v3.mp4': ['three']}))
    data = build(whole, ann_file=str(tmp_path / 'b.json'))
    assert [data[i]['data_samples'].captions for i in range(3)] == [['one'], ['two'], ['three']]
    assert indices(data[2])[0] // 100 == 3


@pytest.mark.parametrize('serialize_data', [True, False])
def test_mmengines_own_arguments(whole, serialize_data):
    data = build(whole, serialize_data=serialize_data, indices=3, lazy_init=True)
    data.full_init()
    assert len(data) == 3 and data[-1]['data_samples'].captions == ['a2']


# -- errors at the start ----------------------------------------------------------------------------------------------
def test_annotation_errors_reach_the_user(tmp_path):
    with pytest.raises(AnnotationError, match=r'a\.json: no such annotation file'):
        build(tmp_path)
    (tmp_path / 'a.json').write_text('{"metainfo": {}, "data_list": []}')
    with pytest.raises(AnnotationError, match=r'a\.json: the dataset is empty'):
        build(tmp_path)


def test_missing_videos_are_named_at_the_start(whole, tmp_path):
    names = [f'gone{i}' for i in range(5)]
    annotation(tmp_path, {name: ['a'] for name in ['v0', *names]})
    arguments = dict(ann_file=str(tmp_path / 'a.json'))
    with pytest.raises(VideoNotFoundError) as error:
        build(whole, **arguments)
    assert isinstance(error.value, FileNotFoundError)
    message = str(error.value)
    assert message.startswith('5 of 6 videos of') and 'gone0.mp4' in message and message.endswith('...')
    assert 'gone4' not in message and '\n' not in message
    data = build(whole, check_files=False, on_unreadable='error', **arguments)
    with pytest.raises(VideoDecodeError, match='no such file'):
        data[1]


@pytest.mark.parametrize('test_mode, policy', [(True, 'replace'), (False, 'skip'), (False, 'ignore')])
def test_wrong_policy(whole, test_mode, policy):
    with pytest.raises(ValueError, match='on_unreadable'):
        build(whole, test_mode=test_mode, on_unreadable=policy)


# -- videos that can't be decoded -------------------------------------------------------------------------------------
def test_training_replaces_and_tells(partly):
    data = build(partly)
    chosen = {}
    for epoch in range(6):
        data.set_epoch(epoch)
        for i in (1, 2, 5):  # captions b and c of bad1, f of bad2
            item = data[i]
            sample = item['data_samples']
            own = str(partly / 'videos' / ('bad1.mp4' if i < 3 else 'bad2.mp4'))
            assert sample.unreadable[0][0] == own and len({path for path, _ in sample.unreadable}) == \
                len(sample.unreadable)
            assert sample.video_id in ('v0', 'v1', 'v2', 'v3') and sample.filename.endswith(f'{sample.video_id}.mp4')
            assert {index // 100 for index in indices(item)} == {int(sample.video_id[1])}  # never black
            assert sample.captions[0] in dict(v0='a', v1='de', v2='g', v3='h')[sample.video_id]
            chosen[epoch, i] = pickle.dumps((sample.video_id, item['inputs'].numpy()))
    assert 'damaged or truncated' in data[1]['data_samples'].unreadable[0][1]
    assert data[0]['data_samples'].unreadable == []
    assert len(set(chosen.values())) > 6
    again = build(partly)
    again.set_epoch(3)
    item = again[2]
    assert pickle.dumps((item['data_samples'].video_id, item['inputs'].numpy())) == chosen[3, 2]


def test_a_damaged_part_costs_training_the_video_and_leaves_its_other_clips(whole, tmp_path):
    video = encode_video(tmp_path / 'bad.mp4', 60, first=900, options={'x264-params': 'scenecut=0'}, max_b_frames=0)
    spoil_frames(video, slice(38, 48))
    shutil.copy(whole / 'videos' / 'v0.mp4', tmp_path)
    entries = [dict(video_id=str(i), video='bad.mp4', captions=['a'], **times)
               for i, times in enumerate((dict(), dict(end=1.4), dict(start=1.4, end=2)))]
    (tmp_path / 'a.json').write_text(json.dumps(dict(data_list=[
        *entries, dict(video_id='3', video='v0.mp4', captions=['a'])])))
    pipeline = [dict(PIPELINE[0], num_frames=12), *PIPELINE[1:]]
    data = build(tmp_path, data_prefix=dict(video=''), pipeline=pipeline)
    samples = [data[i]['data_samples'] for i in range(4)]
    assert [bool(sample.unreadable) for sample in samples] == [True, False, True, False]
    assert 'are damaged' in samples[0].unreadable[0][1] and {index // 900 for index in indices(data[1])} == {1}


def test_evaluation_errors_by_default(partly):
    data = build(partly, test_mode=True)
    with pytest.raises(VideoDecodeError, match=r"can't decode .*bad1\.mp4: "):
        data[1]


@pytest.mark.parametrize('test_mode', [True, False])
def test_the_error_of_a_worker_is_the_same_line(partly, test_mode):
    data = build(partly, test_mode=test_mode, on_unreadable='error')
    error = error_of_worker(data, VideoDecodeError)
    assert str(error).startswith("can't decode ") and '\n' not in str(error)
    assert error.path == str(partly / 'videos' / 'bad1.mp4')


def test_evaluation_can_skip_and_every_item_keeps_its_place(partly):
    data = build(partly, test_mode=True, on_unreadable='skip')
    items = [data[i] for i in range(len(data))]
    assert [item['data_samples'].video_index for item in items] == [0, 1, 2, 3, 4, 5]
    for i, item in enumerate(items):
        sample = item['data_samples']
        assert item['inputs'].shape == (2, 3, 20, 40) and len(sample.tokens) == len(sample.captions)
        if i in (1, 3):
            path = str(partly / 'videos' / f'bad{(i + 1) // 2}.mp4')
            assert sample.filename == path and [p for p, _ in sample.unreadable] == [path]
            assert not item['inputs'].any() and sample.num_frames == 2
            assert sample.captions == (['b', 'c'] if i == 1 else ['f'])
        else:
            assert sample.unreadable == [] and item['inputs'].any()


def test_the_metric_leaves_skipped_videos_out(partly):
    metric = RetrievalMetric()
    for start in (0, 4):
        data = build(partly, test_mode=True, on_unreadable='skip')
        batch = pseudo_collate([data[i] for i in range(start, min(start + 4, len(data)))])
        for sample in batch['data_samples']:  # what a model makes of them; all black videos would look alike
            video = torch.nn.functional.one_hot(torch.tensor(sample.video_index), 6).float()
            sample.set_data(dict(video_feature=video, text_features=video.repeat(len(sample.tokens), 1)))
        metric.process(batch, [sample.to_dict() for sample in batch['data_samples']])
    assert metric.evaluate(len(data))['t2v/R1'] == 100
    assert metric.summary['left_out'] == ['bad1', 'bad2']
    assert (metric.summary['num_videos'], metric.summary['num_texts']) == (4, 5)


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / 'videos').mkdir()
    for i in range(20):
        (tmp_path / 'videos' / f'v{i}.mp4').write_bytes(b'no video')
    annotation(tmp_path, {f'v{i}': ['a', 'b'] for i in range(20)})
    for arguments in (dict(), dict(test_mode=True, on_unreadable='skip')):
        with pytest.raises(TooManyUnreadableVideosError, match=r'none of 11 videos in a row.* first: .*v0\.mp4: not a'):
            build(tmp_path, **arguments)[0]
    message = str(error_of_worker(build(tmp_path), TooManyUnreadableVideosError))
    assert message.startswith('none of 11') and '\n' not in message
    with pytest.raises(TooManyUnreadableVideosError, match='none of 2 videos'):
        build(tmp_path, indices=4)[0]


def test_errors_survive_pickling():
    error = pickle.loads(pickle.dumps(VideoDecodeError('a: b.mp4', 'two\nlines')))
    assert str(error) == "can't decode a: b.mp4: two lines"
    error = pickle.loads(pickle.dumps(VideoDecodeError('a\n\udcff.mp4', 'no')))
    assert str(error) == "can't decode a\\n\\udcff.mp4: no" and error.path == 'a\n\udcff.mp4'  # one line, any name


# -- names and places -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize('video', ['../secret.mp4', 'sub/../../secret.mp4', '{}/secret.mp4'])
def test_an_annotation_names_no_files_elsewhere(whole, tmp_path, video):
    encode_video(tmp_path / 'secret.mp4', 5)
    (tmp_path / 'videos' / 'sub').mkdir(parents=True)
    video = video.format(tmp_path)
    entries = [dict(video_id='x', video=video, captions=['a'])]
    (tmp_path / 'a.json').write_text(json.dumps(dict(data_list=entries)))
    with pytest.raises(AnnotationError, match=r'a.json: entry 0 \(x\): the path .* is outside the video folder'):
        build(tmp_path)
    # as before where no folder was named
    (tmp_path / 'b.json').write_text(json.dumps({str(tmp_path / 'secret.mp4'): ['a']}))
    data = VideoTextDataset(str(tmp_path / 'b.json'), pipeline=PIPELINE)
    assert data[0]['data_samples'].filename == str(tmp_path / 'secret.mp4')


def test_links_in_the_folder_are_the_users(whole, tmp_path):
    (tmp_path / 'videos').mkdir()
    (tmp_path / 'videos' / 'v0.mp4').symlink_to(whole / 'videos' / 'v0.mp4')
    (tmp_path / 'videos' / 'more').symlink_to(whole / 'videos')
    annotation(tmp_path, {'v0': ['a'], 'more/v1': ['b']})
    data = build(tmp_path)
    assert [index // 100 for i in range(2) for index in indices(data[i])] == [0, 0, 1, 1]


def test_a_fifo_in_the_folder_does_not_hang(whole, tmp_path):
    (tmp_path / 'videos').mkdir()
    os.mkfifo(tmp_path / 'videos' / 'v0.mp4')
    annotation(tmp_path, {'v0': ['a']})
    with pytest.raises(VideoNotFoundError, match='1 of 1 videos'):
        build(tmp_path)
    data = build(tmp_path, on_unreadable='error', check_files=False)
    with pytest.raises(VideoDecodeError, match='v0.mp4: not a regular file'):
        data[0]


def test_names_in_messages_are_short_and_of_one_line(tmp_path):
    (tmp_path / 'videos').mkdir()
    annotation(tmp_path, {'a' * 5000: ['a'], 'b\n\x1b[31m': ['b']})
    with pytest.raises(VideoNotFoundError, match='2 of 2 videos') as error:
        build(tmp_path)
    assert str(error.value).isprintable() and len(str(error.value)) < 600


# -- videos elsewhere -------------------------------------------------------------------------------------------------
@pytest.fixture
def web(whole):
    with web_server() as server:
        server.files.update({f'/v/{path.name}': path.read_bytes() for path in (whole / 'videos').iterdir()})
        yield server


def test_videos_of_a_web_server_give_the_same_items(whole, web):
    near = build(whole)
    for workers in (0, 2):
        far = build(whole, data_prefix=dict(video=f'{web.url}/v'))
        items = [item for batch in DataLoader(far, batch_size=7, num_workers=workers, collate_fn=lambda x: x)
                 for item in batch]
        assert len(items) == 7 and all(torch.equal(a['inputs'], b['inputs']) for a, b in zip(items, near))
        assert items[1]['data_samples'].filename == 'v1.mp4'


def test_videos_of_an_s3_server_give_the_same_items(whole):
    with s3_server() as (options, system):
        for path in (whole / 'videos').iterdir():
            system.pipe_file(f'bucket/v/{path.name}', path.read_bytes())
        far = build(whole, data_prefix=dict(video='s3://bucket/v'), backend_args=options)
        near = build(whole)
        items = [item for batch in DataLoader(far, batch_size=7, num_workers=2, collate_fn=lambda x: x)
                 for item in batch]
        assert all(torch.equal(a['inputs'], b['inputs']) for a, b in zip(items, near))


def test_a_manifest_names_files_and_clips(whole, web, tmp_path):
    lines = [dict(url=f'{web.url}/v/v{i}.mp4', **(dict(start=1, end=1.4) if i == 2 else {})) for i in range(4)]
    (tmp_path / 'videos.jsonl').write_text('\n'.join(map(json.dumps, lines)))
    data = build(whole, data_prefix=dict(video=str(tmp_path / 'videos.jsonl')))
    info = data.get_data_info(2)
    assert (info['start'], info['end'], info['video']) == (1, 1.4, 'v2.mp4')
    assert {225 <= index <= 235 for index in indices(data[2])} == {True}  # 25 frames per second
    assert 'start' not in data.get_data_info(0)


def test_videos_that_can_not_be_fetched(whole, web):
    annotation_file = str(whole / 'a.json')
    del web.files['/v/v3.mp4']
    url = web.url.replace('://', '://user:hush@')
    arguments = dict(data_prefix=dict(video=f'{url}/v'), ann_file=annotation_file)
    sample = build(whole, **arguments)[4]['data_samples']
    assert sample.unreadable == [('v3.mp4', 'HTTP 404 Not Found')] and sample.video_id in ('v0', 'v1', 'v2')
    with pytest.raises(VideoDecodeError) as error:
        build(whole, on_unreadable='error', **arguments)[4]
    assert str(error.value) == f"can't decode {web.url}/v/v3.mp4: HTTP 404 Not Found"


@pytest.mark.parametrize('video', ['../x.mp4', 'http://127.0.0.1:1/x.mp4', '/x.mp4'])
def test_an_annotation_does_not_lead_out_of_an_address(tmp_path, video):
    (tmp_path / 'a.json').write_text(json.dumps({video: ['a']}))
    with pytest.raises(AnnotationError, match=r'a\.json: entry 0 \(.*\): '):
        build(tmp_path, data_prefix=dict(video='http://127.0.0.1:2/v'))


def test_an_address_is_not_joined_to_the_data_root(tmp_path):
    annotation(tmp_path, dict(v0=['a']))
    assert build(tmp_path, data_prefix=dict(video='memory://v')).source.shown('v0.mp4') == 'memory://v/v0.mp4'
