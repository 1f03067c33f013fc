"""Every config builds its model, its pipelines, its data sets, its metric and its optimizer."""
import ast
import copy
import json
from functools import cache
from pathlib import Path

import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from tests.hf_tokenizers import write_tokenizer
from tests.videos import encode_video
from vop_mm.config import read_config
from vop_mm.engine.start_of_log import layers_without_prompts
from vop_mm.models.tuning import trainable_parameters
from vop_mm.registry import DATASETS, METRICS, MODELS

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = sorted(str(p.relative_to(ROOT)) for p in (ROOT / 'configs').rglob('*.py') if '_base_' not in p.parts)
METHODS = {'vop': ['vop', 'vop_p', 'vop_c', 'vop_f', 'vop_f_p', 'vop_f_c'],
           'baselines': ['zero_shot', 'full', 'bias', 'proj', 'partial', 'adapter_attn', 'adapter_ffn']}
DATA_SETS = ['demo', 'msrvtt', 'msrvtt7k', 'didemo', 'activitynet', 'lsmdc', 'msvd', 'vatex']
OTHER_BACKBONES = {
    *(f'{method}_{backbone}' for method in METHODS['vop'] for backbone in ('pe_core_b16', 'siglip2_b16')),
    *(f'vop_{backbone}' for backbone in (
        'clipa_l14', 'coca_b32', 'eva01_g14', 'eva02_b16', 'eva02_e14', 'metaclip2_h14', 'mobileclip2_b', 'text_rn50',
        'visual_roberta_b32', 'vitamin_b'))}
TOKENIZERS_OF = dict(siglip2='mt5', clipa='bert', metaclip2='mt5', roberta='roberta')  # small ones for those of the hub
SQUASHED = ('pe_core', 'siglip2', 'clipa')


def test_there_is_one_for_every_method_and_data_set():
    expected = {f'configs/{family}/{method}_{data}.py' for family, methods in METHODS.items() for method in methods
                for data in DATA_SETS} | {f'configs/vop/{name}_msrvtt.py' for name in OTHER_BACKBONES}
    assert expected == {c for c in CONFIGS if c.split('/')[1] in METHODS}


def test_the_model_index_names_what_is_there(hugging_face):
    for path in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        index = yaml.safe_load((ROOT / path).read_text())
        collections = {c['Name'] for c in index['Collections']}
        assert all((ROOT / c['README']).is_file() for c in index['Collections'])
        for model in index.get('Models', []):
            cfg = Config.fromfile(ROOT / model['Config'])
            assert model['In Collection'] in collections and Path(model['Config']).stem == model['Name']
            cfg.model.backbone.weights = None
            if 'roberta' in model['Name']:
                cfg.model.backbone.hf_folder = hugging_face['roberta']
            trainable = trainable_parameters(build_model(json.dumps(cfg.model.to_dict())))
            assert model['Metadata']['Parameters'] == sum(p.numel() for p in trainable.values())


@pytest.fixture(scope='session')
def split(tmp_path_factory):
    """An annotation of any data set's form, with two real videos."""
    folder = tmp_path_factory.mktemp('split')
    (folder / 'videos').mkdir()
    for i in range(2):
        encode_video(folder / 'videos' / f'{i}.mp4', 20, first=20 * i, size=(240, 320))
    entries = [dict(video_id=str(i), video=f'{i}.mp4', captions=['a cat', 'a red circle'], start=0., end=0.6)
               for i in range(2)]
    (folder / 'split.json').write_text(json.dumps(dict(metainfo=dict(dataset='x'), data_list=entries)))
    return folder


@pytest.fixture(scope='session')
def hugging_face(tmp_path_factory):
    """Folders in place of the hub's: tokenizers of other sizes and, of RoBERTa, the config of its text tower."""
    pytest.importorskip('transformers')
    folders = {kind: write_tokenizer(tmp_path_factory.mktemp(kind), kind) for kind in set(TOKENIZERS_OF.values())}
    numbers = dict(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48)
    (folders['roberta'] / 'config.json').write_text(json.dumps(dict(model_type='roberta', **numbers)))
    return {kind: str(folder) for kind, folder in folders.items()}


@cache
def build_model(cfg):
    """The same method is the same model on every data set: built once."""
    with torch.device('meta'):  # shapes and structure; no time is spent on values
        return MODELS.build(json.loads(cfg))


@cache
def load_item(cfg):
    """Methods share data sets."""
    return DATASETS.build(ast.literal_eval(cfg))[1]


@pytest.mark.parametrize('path', [c for c in CONFIGS if c.endswith(('_msrvtt.py', '_demo.py')) or 'ablations' in c])
def test_what_is_printed_is_the_config(path):
    cfg = Config.fromfile(ROOT / path)
    text = cfg.pretty_text
    assert Config.fromstring(text, '.py').to_dict() == cfg.to_dict()
    assert len(text.splitlines()) < 400


@pytest.mark.parametrize('path', CONFIGS)
def test_builds(path, split, hugging_face, monkeypatch):
    monkeypatch.chdir(ROOT)  # the demo's vocabulary is named from there
    folder = next((hugging_face[kind] for name, kind in TOKENIZERS_OF.items() if name in path), None)
    cfg = read_config(path, {} if folder is None else {'model.backbone.hf_folder': folder})  # frames as the tag says
    cfg.model.backbone.weights = None
    model = build_model(json.dumps(cfg.model.to_dict()))
    trains = cfg.train_cfg is not None
    assert bool(trainable_parameters(model)) == trains and cfg.method
    assert not layers_without_prompts(model, cfg)  # or the config says that it is meant
    assert model.vision_tower.num_frames == cfg.model.num_frames == cfg.num_frames
    height, width = model.backbone.image_size
    for part in ('train', 'val', 'test') if trains else ('test',):
        loader = cfg[f'{part}_dataloader']
        item = load_item(repr({**loader.dataset.to_dict(), 'data_root': str(split), 'ann_file': 'split.json'}))
        assert item['inputs'].shape == (cfg.num_frames, 3, height, width) and item['inputs'].dtype == torch.uint8
        texts = 1 if part == 'train' else 2
        assert item['data_samples'].tokens.shape == (texts, model.backbone.context_length)
        assert item['data_samples'].tokens.max() < model.backbone.vocab_size
        read = loader.dataset.pipeline[0]
        if part != 'train' and path.endswith('_msrvtt.py'):
            assert read.size == ((height, width) if any(name in path for name in SQUASHED) else height)
    for metric in cfg.test_evaluator if isinstance(cfg.test_evaluator, list) else [cfg.test_evaluator]:
        METRICS.build(metric)
    if trains:
        assert 'dev' in cfg.val_dataloader.dataset.ann_file  # nothing is selected on the test split
        optimizer = build_optim_wrapper(model, copy.deepcopy(cfg.optim_wrapper)).optimizer
        held = [p for group in optimizer.param_groups for p in group['params']]
        assert {id(p) for p in held} == {id(p) for p in trainable_parameters(model).values()}
