"""Backbones other than OpenAI's ViTs through the tools, from weights in a file to a search, with the configs here.

The small towers of timm are the tests' own, so the tools import their module (``custom_imports``, ``--import``), which
towers that timm itself has don't need.
"""
import copy
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import save_file

from tests.backbone_kinds import KINDS, plain_model
from tests.hf_tokenizers import write_tokenizer
from tests.test_tools.test_bad_input import assert_one_line
from tests.test_tools.test_train import scalars
from tests.tools import ROOT, run_tool
from vop_mm.apis import init_model
from vop_mm.config import read_config
from vop_mm.models.backbones.base import OPENAI_MEAN
from vop_mm.models.backbones.clip_weights import read_clip_weights
from vop_mm.registry import DATASETS

QUERY = 'a red cat sits'
SQUASH = dict(mean=[0.5] * 3, std=[0.5] * 3, interpolation='bilinear', resize_mode='squash')
CLIP_WORDS = dict(vocab_size=49408, context_length=24)
TENSORS = dict(
    siglip={'vision_tower.prompts.0.weight': (2, 4, 48), 'vision_tower.prompts.1.weight': (2, 4, 4, 48),
            'vision_tower.prompts.2.weight': (1, 8, 48), 'vision_tower.frame_position': (4, 48),
            'text_tower.prompts.0.weight': (3, 8, 36)},
    pe={'text_tower.prompts.0.weight': (3, 8, 36), 'vision_tower.prompts.0.weight': (3, 4, 48),
        'vision_tower.prompts.1.fc.weight': (192, 96), 'vision_tower.prompts.1.fc.bias': (192, )},
    resnet={'text_tower.prompts.0.weight': (3, 8, 36)})
IMPORTS = dict(siglip=['--import', 'tests.backbone_kinds'], pe=['--import', 'tests.backbone_kinds'], resnet=[])


class Trained(NamedTuple):
    """Files of a kind of backbone: config, weights, work directory."""
    kind: str
    folder: Path
    config: Path
    work: Path

    @property
    def checkpoint(self):
        return self.work / 'epoch_1.pth'

    @property
    def imports(self):
        return IMPORTS[self.kind]


def write_siglip(folder):
    """A folder as a download of a repository of the hub leaves it, and the architecture under a name of its own."""
    write_tokenizer(folder, 'mt5')
    words = len(json.loads((folder / 'tokenizer.json').read_text())['model']['vocab'])
    arch = copy.deepcopy(KINDS['SigLIP2'])
    arch['text_cfg'].update(vocab_size=words, hf_tokenizer_name='timm/ViT-B-16-SigLIP2',
                            tokenizer_kwargs=dict(clean='canonicalize'))
    save_file(plain_model(arch).state_dict(), folder / 'open_clip_model.safetensors')
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=arch, preprocess_cfg=SQUASH)))
    (folder / 'small-siglip2.json').write_text(json.dumps(arch))
    return 'vop_f_p_siglip2_b16', dict(arch='small-siglip2', weights=str(folder / 'open_clip_model.safetensors'))


def write_pe(folder):
    """An architecture in the config, frames that are not square."""
    arch = copy.deepcopy(KINDS['PE-Core'])
    arch['text_cfg'].update(CLIP_WORDS)
    torch.save(plain_model(arch).state_dict(), folder / 'pe.pt')
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(preprocess_cfg=SQUASH)))
    return 'vop_c_pe_core_b16', dict(arch=arch, weights=str(folder / 'pe.pt'))


def write_resnet(folder):
    """A file of weights without anything beside it."""
    arch = copy.deepcopy(KINDS['ResNet'])
    arch['text_cfg'].update(CLIP_WORDS)
    torch.save(dict(state_dict=plain_model(arch).state_dict()), folder / 'resnet.pth')
    return 'vop_text_rn50', dict(arch=arch, weights=str(folder / 'resnet.pth'))


def write_config(folder, small_demo, kind):
    """A user's config: one of this project with other weights, and the data set in place of MSR-VTT."""
    folder.mkdir()
    base, backbone = dict(siglip=write_siglip, pe=write_pe, resnet=write_resnet)[kind](folder)
    more = dict(video_from=2) if kind == 'siglip' else {}
    loader = dict(batch_size=8, num_workers=0, persistent_workers=False, pin_memory=False)
    loaders = ''.join(f'{part}_dataloader = {dict(loader, dataset=dict(ann_file=f"{file}.json"))}\n'
                      for part, file in (('train', 'train'), ('val', 'dev'), ('test', 'test')))
    imports = '' if kind == 'resnet' else 'custom_imports = dict(imports=["tests.backbone_kinds"])\n'
    (folder / 'config.py').write_text(
        f'_base_ = {str(ROOT / "configs/vop" / f"{base}_msrvtt.py")!r}\n{imports}'
        f'model = {dict(backbone=dict(backbone, _delete_=True, type="OpenCLIP"), **more)}\nnum_frames = 4\n'
        f'data_root = {str(small_demo)!r}\n{loaders}train_cfg = dict(max_epochs=1)\n'
        'default_hooks = dict(logger=dict(interval=1))\n')
    return folder / 'config.py'


@pytest.fixture(scope='module', params=['siglip', 'pe', 'resnet'])
def trained(request, small_demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / 'clip'
    config = write_config(folder, small_demo, request.param)
    work = folder.parent / 'work'
    done = run_tool('tools/train.py', config, '--work-dir', work)
    assert done.returncode == 0 and 'warning' not in done.stderr.lower(), done.stderr
    return Trained(request.param, folder, config, work)


def test_a_checkpoint_holds_what_trains(trained):
    content = torch.load(trained.checkpoint, weights_only=True)
    assert {name: tuple(value.shape) for name, value in content['state_dict'].items()
            if 'mixer' not in name} == TENSORS[trained.kind]
    assert all(line['loss'] > 0 for line in scalars(trained.work))
    assert trained.checkpoint.stat().st_size < 2 ** 20
    model = init_model(trained.config, trained.checkpoint)
    frames, norm = model.backbone.preprocessing, model.data_preprocessor
    assert (frames.resize, frames.interpolation) == dict(resnet=('shortest', 'bicubic')).get(
        trained.kind, ('squash', 'bilinear'))
    assert frames.mean == ((0.5, ) * 3 if trained.kind != 'resnet' else OPENAI_MEAN)
    torch.testing.assert_close(norm.mean.flatten(), torch.tensor(frames.mean))


def test_it_is_evaluated_resumed_published_indexed_and_searched(trained, small_demo, tmp_path):
    tests = [run_tool('tools/test.py', trained.config, trained.checkpoint, '--work-dir', tmp_path / 'test', '--json',
                      tmp_path / f'{size}.json', '--cfg-options', f'test_dataloader.batch_size={size}')
             for size in (13, 5)]
    assert all(done.returncode == 0 for done in tests), tests[0].stderr
    assert json.loads((tmp_path / '13.json').read_text()) == json.loads((tmp_path / '5.json').read_text())

    done = run_tool('tools/train.py', trained.config, '--work-dir', trained.work, '--resume', '--cfg-options',
                    'train_cfg.max_epochs=2')
    assert done.returncode == 0 and 'resumed epoch: 1' in done.stdout + done.stderr, done.stderr
    assert {line['epoch'] for line in scalars(trained.work)} == {1, 2}

    done = run_tool('tools/model_converters/publish_model.py', trained.work / 'epoch_2.pth',
                    tmp_path / 'out' / 'prompts.safetensors')
    assert done.returncode == 0, done.stderr
    published, = (tmp_path / 'out').iterdir()
    assert str(trained.folder).encode() not in published.read_bytes()

    (tmp_path / 'videos').mkdir()
    for path in sorted((small_demo / 'videos').glob('test_*.mp4')):
        (tmp_path / 'videos' / path.name).symlink_to(path)
    found = []
    for checkpoint in (trained.work / 'epoch_2.pth', published):
        index = tmp_path / checkpoint.stem
        done = run_tool('tools/index_videos.py', tmp_path / 'videos', index, '--config', trained.config,
                        '--checkpoint', checkpoint, '--window', 100)
        assert done.returncode == 0, done.stderr
        done = run_tool('tools/search.py', index, QUERY, '-k', 13, '--json', *trained.imports, cwd=tmp_path)
        assert done.returncode == 0 and 'warning' not in done.stderr.lower(), done.stderr
        found.append({Path(hit['path']).name: hit['score'] for hit in json.loads(done.stdout)})
    assert found[0] == found[1]

    model, cfg = init_model(trained.config, trained.work / 'epoch_2.pth'), read_config(trained.config)
    dataset = DATASETS.build(cfg.test_dataloader.dataset)
    tokens = dataset.pipeline.transforms[-2].tokenizer([QUERY])
    assert tokens.shape == (1, 24)
    expected = {}
    for item in map(dataset.__getitem__, range(len(dataset))):
        data = model.data_preprocessor(dict(inputs=[item['inputs']], data_samples=[item['data_samples']]))
        expected[Path(item['data_samples'].filename).name] = model.similarity(tokens, data['frames']).item()
    assert found[0] == pytest.approx(expected, abs=1e-5) and len(expected) == 13


def test_on_another_backbone_it_is_refused_in_a_line(trained, tmp_path):
    shutil.copytree(trained.folder, tmp_path / 'clip')
    weights, = (path for path in (tmp_path / 'clip').iterdir() if path.suffix in ('.safetensors', '.pt', '.pth'))
    state = read_clip_weights(weights).state_dict
    state['logit_scale'] += 1
    (save_file if weights.suffix == '.safetensors' else torch.save)(state, weights)
    test = ['tools/test.py', trained.config, trained.checkpoint, '--work-dir', tmp_path / 'work', '--cfg-options',
            f'model.backbone.weights={weights}']
    assert_one_line(run_tool(*test), 'the checkpoint was made on other CLIP weights: fingerprint ')
    if trained.kind == 'siglip':
        arch = tmp_path / 'clip' / 'small-siglip2.json'
        arch.rename(arch.with_stem('other'))
        assert_one_line(run_tool(*test, 'model.backbone.arch=other'),
                        'the checkpoint was made on CLIP small-siglip2, this model has other')
