"""Messages of the page; the page itself is in tests/test_demo."""
import pytest


def test_an_error_of_the_system_names_no_file():
    pytest.importorskip('gradio')
    from vop_mm.search.page.page import SearchPage
    told = SearchPage([], None, None, 1)._describe(PermissionError(13, 'Permission denied', '/srv/my videos/a.mp4'))
    assert told == 'Permission denied'
