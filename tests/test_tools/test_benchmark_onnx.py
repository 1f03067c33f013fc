"""tools/analysis_tools/benchmark.py onnx: rows of both towers, and that both sides compute the same."""
import json

import pytest
import torch

from tests.tools import run_tool
from tests.versions import needs
from tools.analysis_tools.benchmarks import onnx
from vop_mm.apis import init_model

pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
from vop_mm.deployment.onnx_export import LOWEST_TORCH, TextEncoder  # noqa: E402

pytestmark = needs('torch', LOWEST_TORCH, 'the exporter')
BENCHMARK = 'tools/analysis_tools/benchmark.py'


def test_measures_both_towers_beside_pytorch(tmp_path):
    done = run_tool(BENCHMARK, 'onnx', 'configs/vop/vop_demo.py', '--batch-size', '1', '--captions', '3', '--repeat',
                    '2', '--json', tmp_path / 'rows.json')
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / 'rows.json').read_text())['rows']
    for tower, count in (('video', 1), ('text', 3)):
        what = f'VoP, {tower}'
        own = {row['what'].removeprefix(what): row for row in rows if row['what'].startswith(what)}
        assert list(own) == [': exporting', ': size of the file', ': largest difference',
                             f', {count} at a time: PyTorch', f', {count} at a time: onnxruntime',
                             f", {count} at a time: time of onnxruntime, by PyTorch's"]
        assert own[': largest difference']['met'] and 1e5 < own[': size of the file']['value'] < 1e6
        last = own[f", {count} at a time: time of onnxruntime, by PyTorch's"]
        assert last['met'] == (last['value'] <= 1) and all(row['value'] > 0 for row in own.values())


@torch.no_grad()
def test_captions_are_the_same_on_both_sides():
    encoder = TextEncoder(init_model('configs/baselines/zero_shot_demo.py'))
    tokens = onnx.captions(encoder.random_inputs(4)['tokens'])
    assert tokens.shape == (4, 32) and (tokens.argmax(dim=1) == onnx.CAPTION - 1).all()
    whole, cut = encoder.reference(tokens), encoder.reference(tokens[:, :onnx.CAPTION])
    assert torch.allclose(whole, cut, rtol=0, atol=1e-6) and (whole[0] - whole[1]).abs().max() > 1e-2


def test_bad_input_is_one_line():
    for args in (['--captions', '0'], ['--repeat', '0'], ['no.py']):
        done = run_tool(BENCHMARK, 'onnx', *args)
        assert done.returncode == 1 and done.stderr.startswith('error: ') and 'Traceback' not in done.stderr
