"""What the page of search asks its indexes, without the page; the page itself is in tests/test_demo."""
import contextlib
import json
import os
import shutil
import sqlite3
import time
from pathlib import Path

import numpy as np
import pytest

from tests.checkpoints import demo_config
from tests.videos import encode_video
from tests.web import web_server
from vop_mm.apis import VideoSearcher
from vop_mm.search import IndexMismatchError, SearchIndex
from vop_mm.search.page import cards
from vop_mm.search.page.collection import Collection, default_name, index_source, open_collections
from vop_mm.utils.shared_config import SharedConfigError


@pytest.mark.parametrize('names', [('vop', 'f_p', 'zero', 'partial'), ('zero', 'partial', 'vop', 'f_p')])
def test_prompts_on_one_clip_share_it_and_each_searches_its_index(folder, names):
    collections = open_collections({name: folder / name for name in names})
    assert [collection.name for collection in collections] == list(names)
    by_name = {collection.name: collection for collection in collections}
    clips = {name: id(collection.prompt_set.model.backbone) for name, collection in by_name.items()}
    assert clips['vop'] == clips['f_p'] != clips['partial']
    assert (clips['zero'] == clips['vop']) == (names[0] == 'zero')  # without a checkpoint nothing can join others
    for name, collection in by_name.items():
        alone = VideoSearcher.from_index(folder / name, num_workers=1)
        expected = alone.search('a red circle', folder / name, 3)
        found = collection.search('a red circle', 3)
        assert [item.path for item in found] == [hit.path for hit in expected]
        np.testing.assert_allclose([item.score for item in found], [hit.score for hit in expected], atol=1e-5)
        for item in found:
            clip = collection.clip(item.number)
            with clip.file:
                assert clip.file.read() == Path(item.path).read_bytes()
                assert (clip.path, clip.start, clip.end) == (item.path, item.start, item.end)
        collection.close()


def test_an_index_from_before_readclip_says_what_to_do(folder, tmp_path):
    index = shutil.copytree(folder / 'vop', tmp_path / 'index')
    source = SearchIndex.source(index)
    source['config'] = source['config'].replace("'ReadClip'", "'OpenVideo'")
    with contextlib.closing(SearchIndex(index)) as opened, opened.locked(), opened.catalogue.transaction():
        opened.catalogue.set('source', source)
    for opens in (VideoSearcher.from_index, index_source, lambda index: open_collections(dict(a=index))):
        with pytest.raises(SharedConfigError, match=f'the index {index} is refused: .* older version .* index again'):
            opens(index)


def test_videos_elsewhere_are_found_and_nobody_is_asked_for_them(tmp_path):
    cfg = demo_config('baselines/zero_shot_demo.py')
    with web_server() as web:
        web.files['/a.mp4'] = Path(encode_video(tmp_path / 'a.mp4', 20)).read_bytes()
        (tmp_path / 'v.jsonl').write_text(json.dumps(dict(url=f'{web.url}/a.mp4?sign=hush')))
        VideoSearcher(cfg).build_index(tmp_path / 'v.jsonl', tmp_path / 'index')
        asked = len(web.requests)
        collection, = open_collections(dict(a=tmp_path / 'index'))
        found, = collection.search('a red circle')
        assert found.name == f'{web.url}/a.mp4?sign=' and 'hush' not in cards.cards([found], 0, {})
        with pytest.raises(FileNotFoundError):
            collection.clip(found.number)
        collection.close()
        assert len(web.requests) == asked


def test_an_index_that_changes_is_read_again(folder, tmp_path):
    videos, index = tmp_path / 'videos', tmp_path / 'index'
    shutil.copytree(folder / 'videos', videos)
    searcher = VideoSearcher.from_index(folder / 'vop', num_workers=1)
    searcher.build_index(videos, index)
    collection, = open_collections({'vop': index})
    status = collection.status()
    assert (status.clips, status.files, status.failed, status.waiting) == (3, 3, [], 0)
    assert collection.status() is status and abs(status.changed.timestamp() - time.time()) < 60
    (videos / 'bad.mp4').write_text('no video')
    encode_video(videos / '3.mp4', 20, first=300)
    searcher.build_index(videos, index)
    status = collection.status()
    assert (status.clips, status.files, [name for name, _ in status.failed]) == (4, 4, ['bad.mp4'])
    assert len(collection.search('a circle', 9)) == 4
    shutil.rmtree(index)
    with pytest.raises(FileNotFoundError, match='no search index'):
        collection.search('a circle')
    (videos / '3.mp4').unlink()
    searcher.build_index(videos, index)  # another one in its place
    assert len(collection.search('a circle', 9)) == collection.status().clips == 3
    shutil.rmtree(index)
    VideoSearcher.from_index(folder / 'f_p', num_workers=1).build_index(videos, index)
    with pytest.raises(IndexMismatchError, match='other settings: prompts'):
        collection.search('a circle')


def test_a_clip_is_the_file_that_was_indexed_or_nothing(folder, tmp_path):
    videos, index = tmp_path / 'videos', tmp_path / 'index'
    shutil.copytree(folder / 'videos', videos)
    VideoSearcher.from_index(folder / 'vop', num_workers=1).build_index(videos, index)
    collection, = open_collections({'vop': index})
    numbers = {item.name: item.number for item in collection.search('a circle', 3)}
    with collection.clip(numbers['0.mp4']).file as file:
        assert file.read() == (videos / '0.mp4').read_bytes()
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


@pytest.fixture(scope='module')
def shared_searcher(folder):
    return VideoSearcher.from_index(folder / 'vop', num_workers=1)


@pytest.fixture
def made_up(folder, shared_searcher, tmp_path):
    """An index and its videos in a folder of their own, to be changed as its author likes."""
    shutil.copytree(folder / 'videos', tmp_path / 'videos')
    shutil.copytree(folder / 'vop', tmp_path / 'index')
    collection = Collection('vop', tmp_path / 'index', shared_searcher, 'default')
    yield collection
    collection.close()


@pytest.mark.parametrize('change', [
    "UPDATE clips SET start = 'x\" onload=a'", 'UPDATE clips SET stop = 9e999', "UPDATE clips SET stop = 'text'",
    "UPDATE clips SET start = x'00'",
    "UPDATE meta SET value = '[1]' WHERE key = 'settings'", "UPDATE meta SET value = '{}' WHERE key = 'settings'",
    "UPDATE meta SET value = 'null' WHERE key = 'settings'", "UPDATE meta SET value = '{' WHERE key = 'settings'",
    "UPDATE meta SET value = '7' WHERE key = 'videos'", "UPDATE meta SET value = 'null' WHERE key = 'videos'",
    "UPDATE meta SET value = '[]' WHERE key = 'backend'", "UPDATE meta SET value = '{}' WHERE key = 'backend'",
    "UPDATE meta SET value = '{\"type\": 5}' WHERE key = 'backend'", 'DROP TABLE clips', 'DROP TABLE files',
    'DROP TABLE meta', "UPDATE meta SET value = x'ff' WHERE key = 'settings'",
    "UPDATE files SET path = 'a' || id, size = 'text', hash = 7",
])
def test_an_index_of_other_values_is_one_line(made_up, change):
    """Nothing but ValueError and OSError, which the page shows as one message."""
    with contextlib.closing(sqlite3.connect(made_up.index / 'catalogue.db')) as db, db:
        db.execute(change)
    made_up.close()
    for ask in (lambda: cards.cards(made_up.search('a circle', 3), 0, {}), lambda: made_up.clip(1),
                lambda: cards.status_table('a', 'b', made_up.status()), lambda: default_name(made_up.index),
                lambda: index_source(made_up.index)):
        try:
            ask()
        except (ValueError, OSError) as e:
            said = str(e)
        else:
            said = 'an answer'
        assert len(said.splitlines()) == 1


def test_what_is_no_index_says_so(folder, tmp_path):
    VideoSearcher.from_index(folder / 'vop', num_workers=1).extract_features(folder / 'videos', tmp_path / 'f', 1)
    with pytest.raises(ValueError, match='contains extracted features, not an index'):
        open_collections({'f': next((tmp_path / 'f').iterdir())})
    search_index = SearchIndex.create(tmp_path / 'bare', folder, dict(dim=4, prompts='a, b'), dict(type='FaissIndex'))
    search_index.close()
    with pytest.raises(ValueError, match='has no config'):
        index_source(tmp_path / 'bare')


def test_a_set_of_prompts_is_called_by_its_method(folder):
    assert [default_name(folder / name) for name in ('vop', 'f_p', 'partial')] == ['VoP', 'VoP^F+P', 'Partial']
