"""tools/analysis_tools/benchmark.py on small files."""
import argparse
import json

import numpy as np
import pytest

from tests.tools import run_tool
from tests.videos import encode_video, painted_frame, read_index
from tools.analysis_tools.benchmarks import decode, evaluate, search
from tools.analysis_tools.benchmarks._clips import repeat_clip
from vop_mm.datasets.decoding import PyAVReader
from vop_mm.evaluation import functional

BENCHMARK = 'tools/analysis_tools/benchmark.py'


@pytest.fixture(scope='module')
def decoded(tmp_path_factory):
    pytest.importorskip('decord')  # which is what is compared
    folder = tmp_path_factory.mktemp('decoded')
    video = encode_video(folder / 'a.mp4', 60, size=(120, 160))
    done = run_tool(BENCHMARK, 'decode', '--video', video, '--repeat', '3', '--json', folder / 'rows.json')
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / 'rows.json').read_text())


def test_decode_measures_the_pipeline_beside_opencv_and_the_bare_decoder(decoded):
    rows = {row['what']: row for row in decoded[1]['rows']}
    speeds = {what: row for what, row in rows.items() if row['figure'].endswith('clips/s')}
    assert {'ReadClip as configured', 'its reader alone', 'decord alone', 'OpenCV seeking, as CLIP4Clip and X-Pool do',
            'stored frames'} == set(speeds)
    assert 'its reader against decord, this file: CPU time' in rows
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


def test_a_repeated_clip_is_the_clip_again_and_again(tmp_path):
    once = encode_video(tmp_path / 'a.mp4', 30)
    reader = PyAVReader(str(repeat_clip(once, tmp_path / 'b.mp4', 3)))
    assert len(reader) == 90 and reader.duration == pytest.approx(3.6, abs=0.01)
    assert [read_index(frame) for frame in reader.get_batch(range(90)).asnumpy()] == [*range(30)] * 3


def test_decode_compares_no_wrong_frames():
    frames = [painted_frame(i) for i in range(5)]
    ways = {decode.STAGE: lambda: frames, 'the same': lambda: [frame // 255 * 254 for frame in frames]}
    decode.check_same_frames(ways)
    for wrong in (frames[1:] + frames[:1], frames[1:]):
        with pytest.raises(RuntimeError, match='slower decoder: other frames'):
            decode.check_same_frames({**ways, 'slower decoder': lambda wrong=wrong: wrong})


@pytest.mark.parametrize('args, says', [(['--video', 'gone.mp4'], 'no such file'), (['--repeat', '0'], 'at least 1')])
def test_bad_input_is_one_line(args, says):
    done = run_tool(BENCHMARK, 'decode', *args)
    assert done.returncode == 1 and done.stderr.startswith('error: ') and says in done.stderr.splitlines()[0]


def test_evaluate_prints_time_and_memory_beside_targets(tmp_path):
    done = run_tool(BENCHMARK, 'evaluate', '--videos', '30', '--captions', '4', '--dim', '8', '--postprocess', 'dsl',
                    '--json', tmp_path / 'rows.json')
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'rows.json').read_text())['rows']
    assert [row['what'] for row in rows] == ['120 captions x 30 videos: similarities and ranks', 't2v_dsl', 'v2t_dsl',
                                             'peak memory of the process']
    assert [row.get('target') for row in rows] == ['at most 30 s', None, None, 'at most 2 GB']
    assert all(row['what'] in done.stdout and row['figure'] in done.stdout for row in rows)
    assert rows[-1]['value'] > 5e7  # bytes: Python and torch are in it, and here what pytest held


def test_evaluate_counts_every_second_once(monkeypatch):
    """The clock goes on by 1, 10 and 100 s in similarities and ranks, and by more in post-processing."""
    now = 0.

    def tick(seconds, result):
        nonlocal now
        now += seconds
        return result

    def rows(*args, postprocess):
        for name, seconds in zip(('t2v', 'v2t', 't2v_dsl', 'v2t_dsl'), (10, 100, 1000, 10000), strict=True):
            yield tick(seconds, (name, {}))

    monkeypatch.setattr(functional, 'similarity_matrix', lambda *args: tick(1, None))
    monkeypatch.setattr(functional, 'evaluate_retrieval', rows)
    monkeypatch.setattr(evaluate.time, 'perf_counter', lambda: now)
    values = evaluate.run(argparse.Namespace(videos=2, captions=1, dim=2, postprocess=['dsl']))
    assert [row['value'] for row in values[:-1]] == [111, 1000, 10000]
    assert values[0]['met'] is False


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


def test_search_with_more_clusters_finds_more(tmp_path):
    done = run_tool(BENCHMARK, 'search', '--num', '21000', '--dim', '16', '--queries', '30', '--backends', 'faiss',
                    '--num-probes', '1', '2000', '--json', tmp_path / 'rows.json')
    assert done.returncode == 0, done.stderr
    rows = {row['what']: row['value'] for row in json.loads((tmp_path / 'rows.json').read_text())['rows']}
    for kind in ('', ', queries apart'):
        few, many = (rows[f'faiss, {n} clusters{kind}: recall@10 against exact search'] for n in (1, 2000))
        assert few < 0.9 < 0.99 < many


def test_exact_search_of_the_benchmark_is_exact(monkeypatch, tmp_path):
    monkeypatch.setattr(search, '_BATCH', 70)
    vectors, queries = search.make_vectors(tmp_path / 'v.npy', 1000, 16, 9, 0)
    expected = np.argsort(-queries @ np.asarray(vectors).T, axis=1)[:, :10]
    assert [set(row) for row in search.nearest(vectors, queries, 10).tolist()] == [set(r) for r in expected.tolist()]


def test_extract_measures_each_method_beside_open_clips_encoder(tmp_path):
    done = run_tool(BENCHMARK, 'extract', 'configs/vop/vop_demo.py', 'configs/vop/vop_f_p_demo.py', '--batch-size', '1',
                    '--repeat', '2', '--json', tmp_path / 'rows.json')
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'rows.json').read_text())['rows']
    assert [row['what'] for row in rows[:3]] == ['open_clip encode_image', 'VoP', 'VoP^F+P']
    for row, method in zip(rows[3:], ('VoP', 'VoP^F+P'), strict=True):
        share = row['what'].split('(')[1].split(' x ')[0]
        assert row['what'].startswith(f"{method}: time, by open_clip's") and 1 < float(share) < 2
        assert float(row['target'].split()[2]) == pytest.approx(1.05 * float(share), abs=0.006)


def test_train_measures_each_method_beside_full_fine_tuning(tmp_path):
    configs = [f'configs/baselines/{name}_demo.py' for name in ('full', 'partial')]
    done = run_tool(BENCHMARK, 'train', *configs, '--batch-size', '2', '--repeat', '2', '--json',
                    tmp_path / 'rows.json')
    assert done.returncode == 0, done.stderr
    rows = {row['what']: row['value'] for row in json.loads((tmp_path / 'rows.json').read_text())['rows']}
    # below the last block nothing is kept: a quarter of the activations, and little more
    assert rows['Partial: activations kept'] < 0.4 * rows['Full: activations kept']
    assert rows["Partial: memory, by Full's"] < 0.6 and rows["Partial: time of a step, by Full's"] > 0
    done = run_tool(BENCHMARK, 'train', configs[1])
    assert done.returncode == 1 and "of the method 'Full'" in done.stderr
