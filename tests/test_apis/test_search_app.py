"""What the page of search asks its indexes, without the page; the page itself is in tests/test_demo/test_app.py."""
import asyncio
import json
import os
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from tests.checkpoints import demo_config, write_checkpoint
from tests.videos import encode_video
from vop_mm.apis import TextVideoRetriever
from vop_mm.apis.search_app import cards
from vop_mm.apis.search_app.collection import default_name, index_config, open_collections
from vop_mm.apis.search_app.texts import captions_of, gather_texts, read_texts, some_examples
from vop_mm.index import Gallery, IndexMismatchError


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Videos, and their indexes: by two sets of prompts, without any, and by a method that changes CLIP itself."""
    folder = tmp_path_factory.mktemp('indexes')
    (folder / 'videos').mkdir()
    for i in range(3):
        encode_video(folder / 'videos' / f'{i}.mp4', 20, first=100 * i)
    made = dict(vop='vop/vop_demo.py', f_p='vop/vop_f_p_demo.py', zero='baselines/zero_shot_demo.py',
                partial='baselines/partial_demo.py')
    for seed, (name, config) in enumerate(made.items()):
        cfg = demo_config(config)
        checkpoint = None if name == 'zero' else write_checkpoint(folder / f'{name}.pth', cfg, seed)
        TextVideoRetriever(cfg, checkpoint, num_workers=1).build_index(folder / 'videos', folder / name)
    return folder


@pytest.mark.parametrize('names', [('vop', 'f_p', 'zero', 'partial'), ('zero', 'partial', 'vop', 'f_p')])
def test_prompts_on_one_clip_share_it_and_each_searches_its_index(folder, names):
    collections = open_collections({name: folder / name for name in names})
    assert [collection.name for collection in collections] == list(names)
    by_name = {collection.name: collection for collection in collections}
    clips = {name: id(collection.prompt_set.model.clip) for name, collection in by_name.items()}
    assert clips['vop'] == clips['f_p'] != clips['partial']
    assert (clips['zero'] == clips['vop']) == (names[0] == 'zero')  # without a checkpoint nothing can join others
    for name, collection in by_name.items():
        alone = TextVideoRetriever.from_index(folder / name, num_workers=1)
        expected = alone.search('a red circle', folder / name, 3)
        found = collection.search('a red circle', 3)
        assert [item.path for item in found] == [hit.path for hit in expected]
        np.testing.assert_allclose([item.score for item in found], [hit.score for hit in expected], atol=1e-5)
        for item in found:
            assert collection.clip(item.number) == (item.path, item.start, item.end)
        collection.close()


def test_an_index_that_changes_is_read_again(folder, tmp_path):
    videos, index = tmp_path / 'videos', tmp_path / 'index'
    shutil.copytree(folder / 'videos', videos)
    retriever = TextVideoRetriever.from_index(folder / 'vop', num_workers=1)
    retriever.build_index(videos, index)
    collection, = open_collections({'vop': index})
    status = collection.status()
    assert (status.clips, status.files, status.failed, status.waiting) == (3, 3, [], 0)
    assert collection.status() is status and abs(status.changed.timestamp() - time.time()) < 60
    (videos / 'bad.mp4').write_text('no video')
    encode_video(videos / '3.mp4', 20, first=300)
    retriever.build_index(videos, index)
    status = collection.status()
    assert (status.clips, status.files, [name for name, _ in status.failed]) == (4, 4, ['bad.mp4'])
    assert len(collection.search('a circle', 9)) == 4
    shutil.rmtree(index)
    with pytest.raises(FileNotFoundError, match='no search index'):
        collection.search('a circle')
    (videos / '3.mp4').unlink()
    retriever.build_index(videos, index)  # another one in its place
    assert len(collection.search('a circle', 9)) == collection.status().clips == 3
    shutil.rmtree(index)
    TextVideoRetriever.from_index(folder / 'f_p', num_workers=1).build_index(videos, index)
    with pytest.raises(IndexMismatchError, match='other settings: prompts'):
        collection.search('a circle')


def test_a_clip_is_the_file_that_was_indexed_or_nothing(folder, tmp_path):
    videos, index = tmp_path / 'videos', tmp_path / 'index'
    shutil.copytree(folder / 'videos', videos)
    TextVideoRetriever.from_index(folder / 'vop', num_workers=1).build_index(videos, index)
    collection, = open_collections({'vop': index})
    numbers = {item.name: item.number for item in collection.search('a circle', 3)}
    assert collection.clip(numbers['0.mp4'])[0] == str(videos / '0.mp4')
    os.utime(videos / '0.mp4', ns=(1, 1))
    (videos / '1.mp4').unlink()
    (videos / '2.mp4').unlink()
    (videos / '2.mp4').symlink_to(folder / 'vop.pth')
    for name in ('0.mp4', '1.mp4', '2.mp4'):
        with pytest.raises(FileNotFoundError, match='has changed since it was indexed'):
            collection.clip(numbers[name])
    for number in (99, 0, 2**63, 2**80):
        with pytest.raises(FileNotFoundError, match='no such clip'):
            collection.clip(number)


def test_what_is_no_index_says_so(folder, tmp_path):
    TextVideoRetriever.from_index(folder / 'vop', num_workers=1).extract_features(folder / 'videos', tmp_path / 'f', 1)
    with pytest.raises(ValueError, match='holds extracted features and no index'):
        open_collections({'f': next((tmp_path / 'f').iterdir())})
    gallery = Gallery.create(tmp_path / 'bare', folder, dict(dim=4, prompts='a, b'), dict(type='FaissIndex'))
    gallery.close()
    with pytest.raises(ValueError, match='does not say what it was made with'):
        index_config(tmp_path / 'bare')


def test_texts_come_from_files_and_annotations(folder, tmp_path, monkeypatch):
    (tmp_path / 'a.txt').write_text('\ufeffone\n\n two \none\n', encoding='utf-8')
    assert read_texts(tmp_path / 'a.txt') == ['one', 'two']
    entries = [dict(video_id='0', video='0.mp4', captions=['red', 'blue']),
               dict(video_id='1', video='1.mp4', captions=['red'], start=1, end=2)]
    (tmp_path / 'test.json').write_text(json.dumps(dict(data_list=entries)))
    assert read_texts(tmp_path / 'test.json') == ['red', 'blue']
    dataset = dict(data_root=str(tmp_path), ann_file='test.json', data_prefix=dict(video='v'))
    cfg = Config(dict(test_dataloader=dict(dataset=dataset)))
    (tmp_path / 'v').symlink_to(folder / 'videos')
    captions = captions_of(cfg)
    assert captions == {os.path.realpath(folder / 'videos' / '0.mp4'): ['red', 'blue']}  # whole videos, links followed
    texts = gather_texts(None, [cfg])
    assert (texts.compared, texts.examples, texts.captions) == (['red', 'blue'], ['red', 'blue'], captions)
    assert gather_texts(tmp_path / 'a.txt', [cfg]).compared == ['one', 'two']
    (tmp_path / 'test.json').write_text('{')
    assert captions_of(cfg) == {} and 'a dog' in ' '.join(gather_texts(None, [cfg]).examples)
    assert some_examples([f'text {i}' for i in range(100)] + ['long' * 50], 4) == [f'text {i}' for i in (0, 25, 50, 75)]
    with pytest.raises(ValueError, match='holds 10001 texts: 1 to 10000 are taken'):
        (tmp_path / 'a.txt').write_text('\n'.join(map(str, range(10_001))))
        read_texts(tmp_path / 'a.txt')


def test_a_set_of_prompts_is_called_by_its_method(folder):
    assert [default_name(folder / name) for name in ('vop', 'f_p', 'partial')] == ['VoP', 'VoP^F+P', 'Partial']


@pytest.mark.parametrize('parts, pause, status, message', [
    ((b'ab', b'cd'), 0, 200, 'abcd as a.mp4'),
    ((b'ab', b'cdefgh'), 0, 400, 'a.mp4 did not come whole, or not in time'),  # more than the request said
    ((b'ab', b'cd'), 5, 400, 'a.mp4 did not come whole, or not in time'),
])
def test_an_upload_is_limited_in_size_and_time(tmp_path, parts, pause, status, message):
    httpx, starlette = pytest.importorskip('httpx'), pytest.importorskip('starlette.applications')
    from vop_mm.apis.search_app.uploads import upload_route

    def answer(path, name):
        assert path.startswith(str(tmp_path)) and path.endswith('.mp4')
        return f'{Path(path).read_text()} as {name}'

    async def body():
        for part in parts:
            yield part
            await asyncio.sleep(pause)

    async def post():
        app = starlette.Starlette(routes=[upload_route([answer], 4, str(tmp_path), patience=1.)])
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url='http://page') as client:
            return await client.post('/nearest/0?name=a.mp4', content=body(), headers={'content-length': '4'})

    found = asyncio.run(post())
    assert found.status_code == status and message in found.text and not list(tmp_path.iterdir())


def test_html_holds_no_text_from_outside(folder):
    collection, = open_collections({'vop': folder / 'vop'})
    evil = '<script>"\'&\udcff'
    found = collection.search('a circle', 1)[0]
    found = [type(found)(**{**found.__dict__, 'name': f'{evil}.mp4'})]
    html = ''.join([
        cards.message(evil), cards.heading(evil, evil), cards.uploaded(evil, b''), cards.status_table(
            evil, evil, type(collection.status())(**{**collection.status().__dict__, 'failed': [(evil, evil)]})),
        cards.cards(found, 0, {os.path.realpath(found[0].path): [evil]}),
        cards.ranked_texts([], 1, evil)])
    assert '<script' not in html and html.count('&lt;script&gt;&quot;&#x27;&amp;?') >= 10
    html.encode()
