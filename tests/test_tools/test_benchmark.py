"""tools/analysis_tools/benchmark.py on small files."""
import json
import runpy

import numpy as np
import pytest

from tests.tools import ROOT, run_tool
from tests.videos import encode_video, painted_frame

BENCHMARK = 'tools/analysis_tools/benchmark.py'


@pytest.fixture(scope='module')
def decoded(tmp_path_factory):
    folder = tmp_path_factory.mktemp('decoded')
    video = encode_video(folder / 'a.mp4', 60, size=(120, 160))
    done = run_tool(BENCHMARK, 'decode', '--video', video, '--repeat', '3', '--json', folder / 'rows.json')
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / 'rows.json').read_text())


def test_decode_measures_the_pipeline_beside_opencv_and_the_bare_decoder(decoded):
    rows = {row['what']: row for row in decoded[1]['rows']}
    speeds = {what: row for what, row in rows.items() if row['figure'].endswith('clips/s')}
    assert {'decode stage as configured', 'decord alone', 'OpenCV seeking, as CLIP4Clip and X-Pool do'} <= set(speeds)
    assert all(0 < row['value'] <= row['fastest'] for row in speeds.values())
    for row in rows.values():
        assert ('target' in row) == row['figure'].endswith(' x')
        if 'target' in row:
            _, kind, number, _ = row['target'].split()
            assert row['met'] == (row['value'] <= float(number) if kind == 'most' else row['value'] >= float(number))


def test_decode_prints_figures_targets_and_machine(decoded):
    text, result = decoded
    assert all(row['what'] in text and row['figure'] in text for row in result['rows'])
    assert f"cores: {result['machine']['cores']}" in text and result['machine']['date'] in text


def test_decode_compares_no_wrong_frames():
    decode = runpy.run_path(str(ROOT / 'tools/analysis_tools/benchmarks/decode.py'))
    frames = [painted_frame(i) for i in range(5)]
    ways = {decode['STAGE']: lambda: frames, 'the same': lambda: [frame // 255 * 254 for frame in frames]}
    decode['check_same_frames'](ways)
    for wrong in (frames[1:] + frames[:1], frames[1:]):
        with pytest.raises(RuntimeError, match='slower decoder: other frames'):
            decode['check_same_frames']({**ways, 'slower decoder': lambda wrong=wrong: wrong})


@pytest.mark.parametrize('args, says', [(['--video', 'gone.mp4'], 'no such file'), (['--repeat', '0'], 'at least 1')])
def test_bad_input_is_one_line(args, says):
    done = run_tool(BENCHMARK, 'decode', *args)
    assert done.returncode == 1 and done.stderr.startswith('error: ') and says in done.stderr.splitlines()[0]


def test_search_measures_backends_beside_exact_search(tmp_path):
    done = run_tool(BENCHMARK, 'search', '--num', '3000', '--dim', '32', '--queries', '20', '--backends', 'faiss',
                    'milvus-lite', '--json', tmp_path / 'rows.json')
    assert done.returncode == 0, done.stderr
    rows = {row['what']: row for row in json.loads((tmp_path / 'rows.json').read_text())['rows']}
    assert rows['faiss: recall@10 against exact search']['value'] == 1  # so few are all compared
    assert rows['milvus-lite: recall@10 against exact search']['value'] > 0.9
    for row in rows.values():
        assert row['value'] > 0 or 'memory' in row['what']  # so little is lost in what there was
        if 'target' in row:
            assert row['met'] == (row['value'] >= 0.95 if 'recall' in row['what'] else row['value'] < 10)


def test_exact_search_of_the_benchmark_is_exact(tmp_path):
    search = runpy.run_path(str(ROOT / 'tools/analysis_tools/benchmarks/search.py'))
    search['nearest'].__globals__['_PART'] = 70
    vectors, queries = search['make_vectors'](tmp_path / 'v.npy', 1000, 16, 9, 0)
    expected = np.argsort(-queries @ np.asarray(vectors).T, axis=1)[:, :10]
    assert [set(row) for row in search['nearest'](vectors, queries, 10).tolist()] == [set(r) for r in expected.tolist()]
