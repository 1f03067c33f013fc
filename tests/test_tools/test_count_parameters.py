"""The paper's parameter column, to the digit, and operations against the count by hand."""
import json

import pytest

from tests.tools import ROOT, run_tool

# method: trainable, the paper's count, the paper's percentage (VoP, table 1; ^F+C is explained in the tool)
PAPER = {
    'Full': (151_277_313, 119_826_432, 100), 'Bias': (171_008, 124_928, 0.104), 'Proj': (655_360, 655_360, 0.547),
    'Partial': (10_240_256, 7_680_512, 6.410), 'Adapter^ATTN': (1_982_976, 1_982_976, 1.655),
    'Adapter^FFN': (1_982_976, 1_982_976, 1.655), 'VoP': (122_880, 122_880, 0.103),
    'VoP^P': (528_384, 528_384, 0.441), 'VoP^C': (14_257_152, 14_257_152, 11.898),
    'VoP^F': (132_096, 122_880, 0.103), 'VoP^F+P': (402_432, 393_216, 0.328),
    'VoP^F+C': (14_278_656, 14_269_440, 11.908),
}


@pytest.fixture(scope='module')
def output(tmp_path_factory):
    file = tmp_path_factory.mktemp('count') / 'rows.json'
    done = run_tool('tools/analysis_tools/count_parameters.py', '--json', file)
    assert done.returncode == 0, done.stderr
    return done.stdout, {row['method']: row for row in json.loads(file.read_text())}


def test_counts_are_the_papers(output):
    text, rows = output
    assert {m: (r['trainable'], r['paper_count'], r['paper_percent']) for m, r in rows.items()} == PAPER
    assert list(rows) == list(PAPER)
    for trainable, count, percent in PAPER.values():
        assert f'{trainable:,}' in text and f'{count:,}' in text
        assert ('100' if percent == 100 else f'{percent:.3f}') in text
    assert '11.785%' in text  # what the paper prints for ^F+C


def test_checkpoints_are_as_small_as_what_trains(output):
    _, rows = output
    for row in rows.values():
        assert 4 * row['trainable'] <= row['checkpoint_bytes'] <= 4 * row['trainable'] * 1.01 + 60_000
    assert rows['VoP']['checkpoint_bytes'] <= 520_000
    assert rows['VoP^F+P']['checkpoint_bytes'] <= 1_700_000


def transformer(tokens, width, layers, sequences):
    """Operations of pre-norm transformer layers: qkv, attention twice, output, MLP; two for each multiplication."""
    return 2 * sequences * layers * (tokens * width * width * (3 + 1 + 8) + 2 * tokens * tokens * width)


def clip_flops(video_prompts=0, text_prompts=0):
    patches = 2 * 12 * 49 * 768 * 3 * 32 * 32
    ends = 2 * 12 * 768 * 512 + 2 * 512 * 512
    return (patches + ends + transformer(50 + video_prompts, 768, 12, 12) +
            transformer(77, 512, 12, 1))


def test_operations_are_those_counted_by_hand(output):
    _, rows = output
    assert rows['Full']['forward_flops'] == pytest.approx(clip_flops(), rel=2e-3)
    assert rows['VoP']['forward_flops'] == pytest.approx(clip_flops(video_prompts=8), rel=2e-3)
    # from layer 8 on, attention is over the video: 12 * 50 + 8 tokens
    per_frame = transformer(58, 768, 8, 12) + transformer(608, 768, 4, 1)
    rest = clip_flops() - transformer(50, 768, 12, 12)
    assert rows['VoP^F']['forward_flops'] == pytest.approx(per_frame + rest, rel=2e-3)
    # a step of full tuning: forward, and twice that backward; nothing but projections: no backward through the blocks
    assert rows['Full']['training_flops'] == pytest.approx(3 * clip_flops(), rel=0.02)
    assert rows['Proj']['training_flops'] == pytest.approx(clip_flops(), rel=0.01)


def test_a_config_that_is_not_there():
    done = run_tool('tools/analysis_tools/count_parameters.py', 'configs/no.py')
    assert done.returncode == 1 and 'error: config not found: configs/no.py' in done.stderr


def test_a_tool_prints_the_warning_as_one_line(tmp_path):
    (tmp_path / 'config.py').write_text(
        f"_base_ = [{str(ROOT / 'configs/vop/vop_demo.py')!r}]\n"
        "test_dataloader = dict(dataset=dict(pipeline=[dict(type='ReadClip', num_frames=12, size=(32, 32)), "
        "dict(type='TokenizeText'), dict(type='PackVideoText')]))\n")
    done = run_tool('tools/analysis_tools/count_parameters.py', tmp_path / 'config.py')
    line, = (line for line in done.stderr.splitlines() if 'disagree' in line)
    assert done.returncode == 0, done.stderr
    assert line.startswith('warning: the config and its backbone, OpenCLIP, disagree: frames have the size')
