"""The picture and the page of what queries find."""
import base64
import json
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from tests.forks import fork_runs
from tests.test_visualization.test_rankings import dump
from tests.tools import run_tool
from tests.videos import encode_video

TOOL = 'tools/visualizations/vis_retrieval.py'
COLOURS = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
GREEN, RED, GREY = (0x2c, 0xa0, 0x2c), (0xd6, 0x27, 0x28), (0x88, 0x88, 0x88)


@pytest.fixture(scope='module')
def split(tmp_path_factory):
    """Three videos of one color each, and their annotation."""
    folder = tmp_path_factory.mktemp('split')
    (folder / 'videos').mkdir()
    for i, color in enumerate(COLOURS):
        encode_video(folder / 'videos' / f'v{i}.mp4', [np.full((48, 64, 3), color, np.uint8)] * 8)
    (folder / 'test.json').write_text(json.dumps(dict(metainfo={}, data_list=[
        dict(video_id=f'v{i}', video=f'v{i}.mp4', captions=[f'caption {i}']) for i in range(3)])))
    return folder


class Page(HTMLParser):
    """Pictures with the class of their frame, texts, and everything that would be run or fetched."""

    def __init__(self, text):
        super().__init__()
        self.pictures, self.texts, self.active, self._kind = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self._kind = attrs.get('class', self._kind)
        if tag == 'img':
            data = base64.b64decode(attrs['src'].removeprefix('data:image/jpeg;base64,'))
            picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
            self.pictures.append((self._kind, picture[60, 20].tolist(), picture.shape))
        if tag in ('script', 'link', 'iframe') or any(name.startswith('on') for name in attrs):
            self.active.append(tag)

    def handle_data(self, data):
        self.texts.append(data)


def pixels(picture, color, columns):
    """Of a frame's color; film strips have other ones."""
    return (np.abs(picture[:, columns].astype(int) - color).max(axis=-1) <= 3).sum()


def test_right_is_green_wrong_is_red_and_the_true_one_below(tmp_path, split):
    right, wrong = np.eye(3), np.eye(3)[[1, 2, 0]]
    captions = ['<script>alert(1)</script> & "x"', 'costs $5 or $6', 'third']
    out = tmp_path / 'new' / 'out.png'
    done = run_tool(TOOL, 'configs/vop/vop_demo.py', out, '--num-queries', '3', '--num-frames', '4', '--features',
                    f'good={dump(tmp_path / "r.npz", right, captions)}',
                    f'<b>bad={dump(tmp_path / "w.npz", wrong, captions)}',
                    '--cfg-options', f'test_dataloader.dataset.data_root={split}')
    assert done.returncode == 0, done.stderr
    picture = cv2.imread(str(out))[..., ::-1]
    good, bad = np.split(np.arange(picture.shape[1] // 2 * 2), 2)
    assert pixels(picture, GREEN, good) > 500 and pixels(picture, RED, good) == 0
    assert pixels(picture, GREY, good) < 200 < 500 < pixels(picture, GREY, bad)  # letters have some gray
    assert pixels(picture, RED, bad) > 500 and pixels(picture, GREEN, bad) == 0

    page = Page(out.with_suffix('.html').read_text())
    assert not page.active and all(caption in ''.join(page.texts) for caption in captions) and '<b>bad' in page.texts
    near = {tuple(c): i for i, c in enumerate(COLOURS)}
    shown = [(kind, min(near, key=lambda c: np.abs(np.subtract(c, color)).sum())) for kind, color, _ in page.pictures]
    assert [kind for kind, _ in shown] == ['right', 'wrong', 'true'] * 3
    for (_, a), (_, b), (_, c) in zip(shown[::3], shown[1::3], shown[2::3], strict=True):
        assert a == c != b
    assert page.pictures[0][2] == (120, 4 * 160 + 3 * 2, 3)


def test_several_videos_and_checkpoints(tmp_path, demo_folder):
    arguments = ['configs/vop/vop_demo.py', tmp_path / 'out.png', '--checkpoints',
                 'zero-shot=configs/baselines/zero_shot_demo.py', '--top-k', '3', '--num-queries', '2', '--cfg-options']
    done = run_tool(TOOL, *arguments, f'test_dataloader.dataset.data_root={demo_folder / "data/demo"}',
                    'test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False', 'num_frames=3',
                    before=fork_runs)
    assert done.returncode == 0, done.stderr
    page = Page((tmp_path / 'out.html').read_text())
    kinds = ' '.join(kind for kind, *_ in page.pictures)
    assert 6 <= len(page.pictures) <= 8 and kinds.count('right') + kinds.count('true') == 2


def test_bad_input_gives_one_line(tmp_path):
    (tmp_path / 'x.npz').write_bytes(b'garbage')
    for arguments, says in (
            (['--features', f'a={tmp_path}/no.npz'], 'no.npz'),
            (['--features', f'a={tmp_path}/x.npz'], 'x.npz was not written by'),
            (['--checkpoints', 'a=no.py'], 'file not found: no.py'),
            (['--checkpoints', f'a=configs/vop/vop_demo.py:{tmp_path}/x.npz'], 'configs/vop/vop_demo.py failed'),
            (['--features', f'a={tmp_path}/x.npz', '--top-k', '0'], '--top-k must be at least 1')):
        done = run_tool(TOOL, 'configs/vop/vop_demo.py', tmp_path / 'o.png', *arguments, before=fork_runs)
        assert done.returncode == 1 and says in done.stderr and 'Traceback' not in done.stderr
    assert not (tmp_path / 'o.png').exists() and not (tmp_path / 'o.html').exists()
