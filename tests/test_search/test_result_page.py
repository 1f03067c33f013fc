"""Pages that are written to files hold texts of others."""
import numpy as np
import pytest

from vop_mm.search.result_page import write_result_page
from vop_mm.visualization.rankings import Rankings
from vop_mm.visualization.retrieval_page import write_page

EVIL = '<script>window.hacked=1</script>{query}"\'&\udcff'  # a name and an argument needn't be UTF-8
SHOWN = '&lt;script&gt;window.hacked=1&lt;/script&gt;{query}&quot;&#x27;&amp;?'


def search_page(path):
    write_result_page(path, EVIL, [], EVIL)


def retrieval_page(path):
    rankings = Rankings([EVIL], [EVIL], np.zeros(1, dtype=int), np.ones((1, 1)))
    write_page({EVIL: rankings}, [0], {EVIL: np.zeros((8, 8, 3), dtype=np.uint8)}, path, EVIL)


@pytest.mark.parametrize('write', [search_page, retrieval_page])
def test_texts_of_others_are_texts_and_nothing_runs(tmp_path, write):
    write(tmp_path / 'a.html')
    text = (tmp_path / 'a.html').read_text(encoding='utf-8')
    assert '<script' not in text and text.count(SHOWN) >= 3
    policy = text.index('<meta http-equiv="Content-Security-Policy" content="default-src \'none\';')
    assert policy < text.index('<title>')
