"""A checkpoint to share: the hash in its name, what it holds, and that it is read like any other."""
import hashlib
import json

import pytest
import torch
from safetensors import safe_open

from tests.test_engine.test_checkpoint import build, save
from tests.tools import run_tool
from vop_mm.engine.checkpoint import load_trainable

TOOL = 'tools/model_converters/publish_model.py'


@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_holds_what_trains_under_its_hash(tmp_path, ending):
    model = build(seed=1)
    source = save(model, tmp_path / 'epoch_3.pth', optimizer=dict(state={}, param_groups=[]))
    done = run_tool(TOOL, source, tmp_path / 'out' / f'mine.v1{ending}')
    assert done.returncode == 0, done.stderr
    path, = (tmp_path / 'out').iterdir()
    assert path.name == f'mine.v1-{hashlib.sha256(path.read_bytes()).hexdigest()[:8]}{ending}'
    assert str(path) in done.stdout

    other = build(seed=1)
    torch.nn.init.zeros_(other.vision_tower.prompts[0].weight)
    checkpoint = load_trainable(other, str(path))
    for (name, ours), theirs in zip(model.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name
    assert set(checkpoint) == {'meta', 'state_dict'}
    assert checkpoint['meta']['vop_mm']['method'] == 'VoP' and checkpoint['meta']['epoch'] == 3
    assert set(checkpoint['meta']) == {'vop_mm', 'dataset_meta', 'epoch'}  # nothing of the machine it was trained on
    if ending == '.safetensors':
        with safe_open(path, 'pt') as file:
            assert json.loads(file.metadata()['meta']) == checkpoint['meta']

    again = run_tool(TOOL, path, tmp_path / 'again' / f'mine.v1{ending}')
    assert again.returncode == 0 and [p.name for p in (tmp_path / 'again').iterdir()] == [path.name]


@pytest.mark.parametrize(('source', 'out', 'status', 'says'), [
    ('no.pth', 'out.pth', 1, 'checkpoint not found: no.pth'),
    ('no.pth', 'out.bin', 2, 'must end in .pth or .safetensors')])
def test_bad_input(tmp_path, source, out, status, says):
    done = run_tool(TOOL, source, tmp_path / out)
    assert done.returncode == status and says in done.stderr and not list(tmp_path.iterdir())
