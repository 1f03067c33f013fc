"""Examples of the documentation run as they stand, on the demo."""
import json
import re
import shlex

import pytest

from tests.test_tools.test_train import options
from tests.tools import ROOT, run_tool

QUICK = ['train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=16']


def blocks(page, kind):
    """The code blocks of a page."""
    return re.findall(rf'^```{kind}\n(.*?)^```', (ROOT / 'docs' / 'en' / page).read_text(), flags=re.M | re.S)


def write_files(page, folder):
    """Blocks that begin with a comment of their name, as files."""
    for block in blocks(page, 'python'):
        if name := re.match(r'# (\S+\.py)\n', block):
            (folder / name[1]).parent.mkdir(exist_ok=True)
            (folder / name[1]).write_text(block)


@pytest.mark.parametrize(('page', 'says'), [
    ('add_a_prompt_module.md', 'VoP with MyPrompt: '), ('add_a_tuning_method.md', None),
    ('add_a_head.md', 'VoP with MyHead: '), ('add_a_backbone.md', 'VoP on MyBackbone: '),
    ('configs_and_training.md', 'VoP^F+P: ')])
def test_an_example_trains(demo_folder, page, says):
    (demo_folder / 'configs').symlink_to(ROOT / 'configs')
    write_files(page, demo_folder)
    text = (ROOT / 'docs' / 'en' / page).read_text()
    commands = [line for block in blocks(page, 'bash') for line in block.splitlines()
                if re.match(r'python tools/train.py (\w+/)?(my_|vop_mine|layer_norm|more_frames)', line)
                or 'num_frames=16' in line]
    assert commands
    for command in commands:
        _, tool, config, *rest = command.split()
        changes = [o for o in options('data/demo')[1:]
                   if not o.startswith(('num_frames', 'train_cfg', 'param_scheduler'))]
        done = run_tool(tool, config, '--cfg-options', *[r for r in rest if r != '--cfg-options'], *changes, *QUICK,
                        cwd=demo_folder)
        assert done.returncode == 0, done.stderr
        trains = re.search(r'INFO - (.*: [\d,]+ of [\d,]+ parameters \(.*%\))', done.stdout + done.stderr)[1]
        assert (trains in text) if says is None else trains.startswith(says)
        for line in (line for block in blocks(page, 'bash') for line in block.splitlines()
                     if line.startswith('python tools/test.py my_')):
            _, tool, config, checkpoint = line.replace('epoch_8', 'epoch_1').split()
            done = run_tool(tool, config, checkpoint, '--cfg-options', *changes, cwd=demo_folder)
            assert done.returncode == 0 and 't2v/R1' in done.stdout, done.stderr
        if page == 'add_a_backbone.md':
            index, = (line for block in blocks(page, 'bash') for line in block.splitlines() if 'index_videos' in line)
            _, tool, *rest = index.replace('epoch_8', 'epoch_1').split()
            done = run_tool(tool, *rest, cwd=demo_folder)
            assert done.returncode == 0 and 'gallery: 49 clips' in done.stdout, done.stderr
            search, = (line for block in blocks(page, 'bash') for line in block.splitlines() if 'tools/search' in line)
            _, tool, *rest = shlex.split(search)
            done = run_tool(tool, *rest, '--json', cwd=demo_folder)
            assert done.returncode == 0, done.stderr
            scores = [hit['score'] for hit in json.loads(done.stdout)]
            assert len(scores) == 5 and scores == sorted(scores, reverse=True)
            done = run_tool(tool, *rest[:2], cwd=demo_folder)
            assert done.returncode == 1 and 'import its module first (tools: --import MODULE)' in done.stderr


def test_training_without_a_dev_split(demo_folder):
    """The recipe of datasets.md, with the demo in the place of MSR-VTT."""
    (demo_folder / 'configs').symlink_to(ROOT / 'configs')
    write_files('datasets.md', demo_folder)
    (demo_folder / 'data' / 'whole').mkdir()
    for name in ('train.json', 'test.json', 'videos'):
        (demo_folder / 'data' / 'whole' / name).symlink_to(demo_folder / 'data' / 'demo' / name)
    config = demo_folder / 'vop_msrvtt_whole.py'
    config.write_text(config.read_text().replace('vop_msrvtt', 'vop_demo').replace('data/msrvtt_whole', 'data/whole'))
    changes = [o for o in options('data/whole', **{'train_cfg.max_epochs': 2}) if not o.startswith(
        ('val_', 'param_scheduler')) and 'data_root' not in o]
    done = run_tool('tools/train.py', config, '--work-dir', 'work', *changes, cwd=demo_folder)
    assert done.returncode == 0, done.stderr
    assert sorted(p.name for p in (demo_folder / 'work').glob('*.pth')) == ['epoch_1.pth', 'epoch_2.pth']
    done = run_tool('tools/test.py', config, 'work/epoch_2.pth', '--work-dir', 'test', *changes, cwd=demo_folder)
    assert done.returncode == 0 and 't2v/R1' in done.stdout, done.stderr
    assert 'demo test' in done.stdout
