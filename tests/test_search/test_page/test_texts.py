"""Texts that the page offers."""
import json
import os

import pytest
from mmengine.config import Config

from vop_mm.search.page.texts import captions_of, gather_texts, read_texts, some_examples


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
    with pytest.raises(ValueError, match='contains 10001 texts: it must contain 1 to 10000'):
        (tmp_path / 'a.txt').write_text('\n'.join(map(str, range(10_001))))
        read_texts(tmp_path / 'a.txt')
