"""Heads of strangers in the tools: what training obeys, evaluation scores."""
import json

import pytest
import torch
from mmengine.dataset import pseudo_collate

from tests.forks import fork_runs
from tests.heads import one_by_one
from tests.test_tools.test_train import options, scalars
from tests.tools import ROOT, run_ranks, run_tool
from vop_mm.apis import init_model
from vop_mm.config import read_config
from vop_mm.evaluation.functional import retrieval_metrics
from vop_mm.registry import DATASETS


def config_of(folder, head, base='vop/vop_demo'):
    config = folder / 'with_head.py'
    config.write_text(f"""_base_ = ['{ROOT}/configs/{base}.py']
custom_imports = dict(imports=['tests.heads'], allow_failed_imports=False)
model = dict(head=dict(type='{head}'))
""")
    return config


@pytest.mark.slow
@pytest.mark.parametrize('head', ['MirrorSimilarity', 'FramesByText'])
def test_evaluation_scores_as_the_head_does(small_demo, tmp_path, head):
    config, work = config_of(tmp_path, head), tmp_path / 'work'
    done = run_tool('tools/train.py', config, '--work-dir', work, *options(small_demo))
    assert done.returncode == 0, done.stderr
    losses = [line['loss'] for line in scalars(work)]
    assert losses[-1] < losses[0]

    arguments = [config, work / 'epoch_4.pth']
    done = run_tool('tools/test.py', *arguments, '--work-dir', tmp_path / 'one', '--json', tmp_path / 'one.json',
                    *options(small_demo))
    assert done.returncode == 0, done.stderr
    done = run_ranks('tools/test.py', *arguments, '--work-dir', tmp_path / 'two', '--json', tmp_path / 'two.json',
                     '--launcher', 'pytorch', *options(small_demo), processes=2)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name).read_text()) for name in ('one.json', 'two.json'))
    assert one == two

    cfg = read_config(config, ['num_frames=3'])
    model = init_model(cfg, work / 'epoch_4.pth')
    cfg.test_dataloader.dataset.data_root = str(small_demo)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    data = model.data_preprocessor(pseudo_collate([dataset[i] for i in range(len(dataset))]))
    with torch.no_grad():
        texts, videos = model.keep_text(data['tokens']), model.keep_video(data['frames'])
        pairs = one_by_one(model.head, texts, videos)
        torch.testing.assert_close(model.similarity(data['tokens'], data['frames']), pairs, rtol=0, atol=1e-5)
    for direction, values in retrieval_metrics(pairs, data['text_video']).items():
        for key, value in values.items():
            assert one[f'{direction}/{key}'] == pytest.approx(value), key


def test_dumps_and_pictures_refuse_a_head_by_name(small_demo, tmp_path):
    config = config_of(tmp_path, 'MirrorSimilarity', 'baselines/zero_shot_demo')
    changes = ['--cfg-options', f'test_dataloader.dataset.data_root={small_demo}']
    for tool, *arguments in (('tools/test.py', config, '--work-dir', tmp_path, '--dump', tmp_path / 'x.npz'),
                             ('tools/visualizations/vis_retrieval.py', config, tmp_path / 'x.png', '--checkpoints',
                              f'mirror={config}')):
        done = run_tool(tool, *arguments, *changes, before=fork_runs)
        assert done.returncode == 1 and 'the head MirrorSimilarity scores otherwise' in done.stderr, done.stderr
        assert not list(tmp_path.glob('x.*'))
