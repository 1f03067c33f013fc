"""What a catalogue is asked about single files and clips."""
import numpy as np
import pytest

from vop_mm.index.catalogue import Catalogue, Clip, FileState

_VECTORS = np.eye(2, dtype=np.float32)


@pytest.fixture
def catalogue(tmp_path):
    catalogue = Catalogue(tmp_path / 'catalogue.db', create=True)
    with catalogue.transaction():
        catalogue.put_file('a.mp4', FileState(10, 20, 'x', None), [(0., 4.), (0.1 + 0.2, 5.)], _VECTORS)
        catalogue.put_file('b\udcff.mp4', FileState(11, 21, 'y', None), [(0., 4.)], _VECTORS[:1])
        catalogue.put_file('bad.mp4', FileState(12, 22, 'z', 'not a video'))
    yield catalogue
    catalogue.close()


def test_a_clip_is_found_by_its_file_and_start(catalogue):
    number = catalogue.number('a.mp4', 0.1 + 0.2)
    assert catalogue.clips([number]) == {number: Clip('a.mp4', 0.1 + 0.2, 5.)}
    other = catalogue.number('b\udcff.mp4', 0.)
    assert catalogue.clips([other])[other].path == 'b\udcff.mp4'
    assert catalogue.number('a.mp4', 1.) is None and catalogue.number('bad.mp4', 0.) is None


def test_a_clips_number_is_never_given_again(catalogue):
    before = [catalogue.number('a.mp4', 0.), catalogue.number('b\udcff.mp4', 0.)]
    with catalogue.transaction():
        catalogue.remove_file('b\udcff.mp4')
        catalogue.put_file('a.mp4', FileState(10, 20, 'x', None), [(0., 4.)], _VECTORS[:1])
    assert catalogue.number('a.mp4', 0.) not in before and not catalogue.clips(before)


def test_a_file_is_as_it_was_indexed(catalogue):
    assert catalogue.file('a.mp4') == FileState(10, 20, 'x', None)
    assert catalogue.file('bad.mp4').error == 'not a video'
    assert catalogue.file('nothing.mp4') is None
