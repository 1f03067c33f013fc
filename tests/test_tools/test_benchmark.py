"""tools/analysis_tools/benchmark.py on small files."""
import json
import runpy

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
