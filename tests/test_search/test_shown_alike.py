"""What looks alike in a player is found alike, however its file stores it."""
import numpy as np
import pytest
from PIL import Image

from tests.checkpoints import demo_config, write_checkpoint
from tests.hdr import HLG, PQ, to_hdr
from tests.test_datasets.test_decoding.test_pyav_reader import MATRICES, set_matrix
from tests.videos import encode_video
from vop_mm.apis import VideoSearcher
from vop_mm.datasets.decoding import PyAVReader
from vop_mm.search import SearchIndex

FORMS = {  # how pictures are changed, how they are encoded, and how they are to be turned back
    'PQ': (lambda image: to_hdr(image, PQ), dict(codec='hevc', pix_fmt='yuv420p10le', transfer=PQ), 'as it is'),
    'HLG': (lambda image: to_hdr(image, HLG), dict(codec='hevc', pix_fmt='yuv420p10le', transfer=HLG), 'as it is'),
    'PQ of 8 bits': (lambda image: to_hdr(image, PQ), dict(transfer=PQ), 'as it is'),
    'BT.709': (lambda image: image, dict(matrix=1), 'as it is'),
    'turned': (np.rot90, {}, 'turned right'),
    'mirrored': (np.fliplr, {}, 'mirrored'),
}


def pictures(path) -> np.ndarray:
    reader = PyAVReader(str(path))
    return reader.get_batch(range(len(reader))).asnumpy()


@pytest.fixture(scope='module')
def searcher(tmp_path_factory):
    cfg = demo_config('vop/vop_f_p_demo.py')
    return VideoSearcher(cfg, write_checkpoint(tmp_path_factory.mktemp('c') / 'a.pth', cfg, 0), batch_size=8)


@pytest.fixture(scope='module')
def alike(searcher, small_demo, tmp_path_factory):
    """An index of the demo's clips, some in all forms; their paths."""
    folder = tmp_path_factory.mktemp('alike')
    (folder / 'videos').mkdir()
    paths = sorted((small_demo / 'videos').glob('*.mp4'))
    vectors = searcher.encode_video(list(map(str, paths)))
    chosen = [paths[i] for i in np.argsort(np.sort(vectors @ vectors.T)[:, -2])[:4]]  # which no other clip resembles
    for path in paths:
        (folder / 'videos' / path.name).symlink_to(path)
        for name, (change, options, matrix) in (FORMS.items() if path in chosen else ()):
            form = folder / 'videos' / f'{path.stem} {name}.mp4'
            set_matrix(encode_video(form, [change(image) for image in pictures(path)], fps=12, **options),
                       *MATRICES[matrix][0])
    searcher.build_index(folder / 'videos', folder / 'index')
    return folder / 'index', [str(folder / 'videos' / path.stem) for path in chosen]


@pytest.mark.parametrize('form', FORMS)
def test_a_video_is_found_beside_its_twin(searcher, alike, form):
    """Before every other clip, asked for by either of the two."""
    index, stems = alike
    for stem in stems:
        for query, wanted in ((f'{stem}.mp4', f'{stem} {form}.mp4'), (f'{stem} {form}.mp4', f'{stem}.mp4')):
            scores = {hit.path: hit.score for hit in searcher.search(video=query, index=index, k=1000)}
            assert scores[wanted] > max(.99, *(scores[path] for path in scores if not path.startswith(stem)))


@pytest.mark.parametrize('orientation, change', [(6, np.rot90), (2, np.fliplr)])
def test_a_photo_finds_what_it_shows(searcher, alike, tmp_path, orientation, change):
    image, exif = pictures(f'{alike[1][0]}.mp4')[20], Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(change(image))).save(tmp_path / 'a.png', exif=exif)
    upright, turned = (searcher.search(image=query, index=alike[0]) for query in (image, tmp_path / 'a.png'))
    assert turned == upright and turned[0].path.startswith(alike[1][0])


def test_a_slide_is_found_for_as_long_as_it_is_shown(searcher, alike, tmp_path):
    """44 of 60 s are one stored frame; beside a file that stores it again and again."""
    slide, rest = (pictures(f'{stem}.mp4') for stem in alike[1][:2])
    (tmp_path / 'videos').mkdir()
    encode_video(tmp_path / 'videos' / 'vfr.mp4', [slide[0], *rest[:32]], times=[0, *44 + np.arange(32) / 2])
    encode_video(tmp_path / 'videos' / 'cfr.mp4', [*slide[:1].repeat(88, 0), *rest[:32]], fps=2)
    for window in (30, None):
        index = tmp_path / f'index {window}'
        searcher.build_index(tmp_path / 'videos', index, window=window)
        (moments, vectors), (times, expected) = (SearchIndex(index).catalogue.clips_of_file(f'{name}.mp4')
                                                 for name in ('vfr', 'cfr'))
        np.testing.assert_allclose(moments, times, atol=.5)
        assert (np.stack(vectors) * expected).sum(1).min() > .99
