"""Configs that came with data: what they may name, what values they may hold, and that nothing of them runs."""
import sys
import time
import tracemalloc

import pytest
from mmengine.config import Config
from mmengine.registry import Registry
from torch import nn

from tests.checkpoints import demo_config
from tests.tools import ROOT
from vop_mm.registry import INDEXES, PROMPTS
from vop_mm.utils.shared_config import (
    SharedConfigError,
    build_part,
    check_plain,
    check_size,
    parse_config,
    read_shared_config,
)
from vop_mm.utils.tokenizer_names import open_clip_tokenizers

# names that MMEngine imports, calls or looks up elsewhere
FOREIGN = ['os.system', 'builtins.exec', 'builtins.eval', 'subprocess.Popen', 'torch.hub.load', 'this.Thing',
           'antigravity.fly', 'mmengine.Config.fromfile', 'mmengine.mkdir_or_exist', 'mmcv.LoadImageFromFile',
           'mmaction.RawFrameDecode', 'mmaction.registry.TRANSFORMS', 'vop_mm.os.system', 'vop_mm.apis.init_model',
           'vop_mm.vop_mm.OpenCLIP', '.OpenCLIP', 'OpenCLIP.', 'Conv2d', 'CenterCrop', 'StochasticWeightAverage', '',
           'open', 'mmaction.os.system', 'x' * 4000]
NO_NAMES = [['os', 'system'], dict(type='os.system'), 1, None, True, b'os.system', 1.5]
PLACES = ['model', 'model.backbone', 'model.head', 'model.loss', 'model.tuning', 'model.data_preprocessor',
          'model.frame_prompts.0', 'model.text_prompts.0', 'model.frame_prompts.1.mixer', 'model.cls_updates.0',
          'test_dataloader.dataset.pipeline.0', 'test_dataloader.dataset.pipeline.1',
          'test_dataloader.dataset.pipeline.1.tokenizer']


@pytest.fixture(scope='module')
def plain():
    """A config as training dumps it, with a part in every place."""
    cfg = demo_config('vop/vop_c_demo.py').to_dict()
    cfg['model'].update(head=dict(type='MeanPoolSimilarity'), loss=dict(type='SymmetricContrastiveLoss'),
                        data_preprocessor=dict(type='VideoTextPreprocessor'))
    cfg['model']['frame_prompts'] = [dict(type='GenericPrompt', num_tokens=4),
                                     dict(type='ContextPrompt', num_tokens=4, mixer=dict(type='BiLSTM'))]
    cfg['model']['cls_updates'] = [dict(type='ContextUpdate')]
    return cfg


def changed(cfg, place, value):
    """The text of a config with another value in one place."""
    cfg = Config(cfg).copy()
    *parents, last = place.split('.')
    inside = cfg
    for key in parents:
        inside = inside[int(key) if isinstance(inside, (list, tuple)) else key]
    inside[int(last) if isinstance(inside, (list, tuple)) else last] = value
    return text_of(cfg.to_dict())


def text_of(cfg):
    return ''.join(f'{key} = {value!r}\n' for key, value in cfg.items())


def refused(text, match=None):
    """That a config is refused, in one line and at once, and imports nothing."""
    modules, start = set(sys.modules), time.perf_counter()
    tracemalloc.start()
    with pytest.raises(SharedConfigError, match=match) as caught:
        read_shared_config(text)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value)) < 700 and '\n' not in str(caught.value)
    assert time.perf_counter() - start < 10 and peak < 100e6
    assert not {m for m in set(sys.modules) - modules if m.split('.')[0] in ('this', 'antigravity', 'subprocess')}
    return str(caught.value)


def test_every_config_of_the_project_is_taken():
    configs = [path for path in ROOT.glob('configs/*/*.py') if path.parent.name != '_base_']
    assert len(configs) > 100
    for path in configs:
        cfg = Config.fromfile(path)
        found = read_shared_config(text_of(cfg.to_dict()))
        assert found.model == cfg.model and found.get('method') == cfg.get('method'), path
        assert found.test_dataloader.dataset.pipeline == cfg.test_dataloader.dataset.pipeline, path
        assert set(found) <= {'method', 'model', 'test_dataloader'}  # hooks, loops, custom_imports ... are left behind


@pytest.mark.parametrize('place', PLACES)
def test_types_are_what_is_registered_for_their_place(plain, place):
    assert read_shared_config(text_of(plain)) is not None
    for name in [*FOREIGN, *NO_NAMES]:
        part = dict(type=name, command='touch /nonexistent/ran', repo_or_dir='.', source='local')
        refused(changed(plain, place, part), r'has the type .* registered here|not a plain value but bytes|has no type')
    kind = next(kind for kind in ('mixer', 'prompts', 'updates', 'tuning', 'tokenizer', 'pipeline', 'model')
                if kind in place)
    for name, own in dict(GenericPrompt='prompts', BiLSTM='mixer', ContextUpdate='updates', OpenCLIP='model',
                          ReadClip='pipeline', FaissIndex=None).items():  # registered, elsewhere
        if kind != own:
            refused(changed(plain, place, dict(type=name)), 'registered here')


@pytest.mark.parametrize('first', [
    dict(type='IsolatedDecode', timeout=60, transforms=[dict(type='OpenVideo'), dict(type='mmaction.DecordDecode')]),
    dict(type='OpenVideo'), dict(type='vop_mm.OpenVideoTorchCodec'), dict(type='SampleSegments', num_frames=12),
    dict(type='LoadCachedFrames', store='x', pipeline=[dict(type='OpenVideo')])])
def test_a_pipeline_from_before_readclip_says_what_to_do(plain, first):
    said = refused(changed(plain, 'test_dataloader.dataset.pipeline.0', first), 'older version of vop_mm')
    assert 'index again' in said and 'publish_model.py --config' in said and 'import its module' not in said
    assert 'older' not in refused(changed(plain, 'model.head', first), 'registered here')  # it never was a head


def test_types_inside_any_argument(plain):
    evil = dict(type='os.system', command='touch /nonexistent/ran')
    for place, part in {
            'test_dataloader.dataset.pipeline.1': dict(type='ResizeFrames', size=evil),
            'test_dataloader.dataset.pipeline.1 ': dict(type='ResizeFrames', size=[[dict(a=[evil])]]),
            'model.head': dict(type='MeanPoolSimilarity', x=evil),
            'model.backbone': dict(type='OpenCLIP', arch=dict(vision_cfg=evil)),
            'model.frame_prompts.0': dict(type='GenericPrompt', anything=dict(goes=(evil, )))}.items():
        refused(changed(plain, place.strip(), part))


@pytest.mark.parametrize('key', ['_scope_', '_delete_', '_base_', '__class__', 'init_cfg', 'custom_imports',
                                 'default_scope', 'locations', 'backend_args', 'a b', "a'b", '', 'x' * 200])
def test_keys_that_mmengine_acts_on(plain, key):
    value = 'os' if key == '_scope_' else dict(checkpoint='http://127.0.0.1:9/x.pth')
    for place in ('model', 'model.backbone', 'model.frame_prompts.0', 'test_dataloader.dataset.pipeline.1'):
        refused(changed(plain, f'{place}.{key}', value), 'has the key|has no argument')


def test_scopes_are_the_known_ones(plain):
    for place, name in (('model.backbone.type', 'vop_mm.OpenCLIP'),
                        ('test_dataloader.dataset.pipeline.0.type', 'vop_mm.ReadClip'),
                        ('test_dataloader.dataset.pipeline.1',
                         dict(type='mmaction.CenterCrop', crop_size=40))):
        assert read_shared_config(changed(plain, place, name)) is not None
    refused(changed(plain, 'model.backbone.type', 'mmaction.OpenCLIP'))
    refused(changed(plain, 'model.head', dict(type='mmaction.CenterCrop', crop_size=3)))  # a transform is no head


def test_what_is_never_used_is_not_looked_at(plain):
    more = dict(plain, custom_imports=dict(imports=['this']), default_scope='os', train_pipeline=[dict(type='a.b')],
                custom_hooks=[dict(type='os.system')], filename=1, _base_='x')
    found = read_shared_config(text_of(more))
    assert set(found) == {'method', 'model', 'test_dataloader'} and 'this' not in sys.modules


def test_a_users_own_part_counts_once_it_is_registered(plain):
    text = changed(plain, 'model.frame_prompts.0', dict(type='OwnPrompt', num_tokens=3))
    refused(text, 'import its module first')

    @PROMPTS.register_module(name='OwnPrompt')
    class OwnPrompt(nn.Module):
        def __init__(self, num_tokens, width, depth, num_frames):
            super().__init__()
    try:
        assert read_shared_config(text).model.frame_prompts[0].type == 'OwnPrompt'
    finally:
        del PROMPTS.module_dict['OwnPrompt']


@pytest.mark.parametrize('value', ['1' * 13, '-' + '1' * 13, '1' * 5000, '1e400', '-1e300', 'float("nan")', '1j',
                                   '{1, 2}', 'b"x"', '...',
                                   '[0] * 10**9', '10**12', 'lambda: 0', '"a" * 9', 'f"{1}"',
                                   '"' + 'a' * 50_000 + '"', '[' * 60 + ']' * 60, '[' * 100_000, '-' * 200_000 + '1',
                                   'a' + '.b' * 50_000, '1' + '+1' * 50_000, '[' + '0,' * 60_000 + ']', '~1', 'not 1',
                                   'dict(**{})', 'dict([])', 'exec("1")', '"unclosed', "'a\nb'", '\0', '1 if 1 else 2'])
def test_values_are_plain_and_bounded(plain, value):
    text = text_of(plain).replace("'num_tokens': 4", f"'num_tokens': {value}", 1)
    assert text != text_of(plain)
    refused(text)


@pytest.mark.parametrize('text', ['import os', 'x: int = 1', 'a[0] = 1', 'x = y = z', 'def f(): pass',
                                  'x = 1; exec("1")',
                                  "x = __import__('os').system('true')", 'x', '# a comment', 'x = 1\n' * 50_000,
                                  'x' * 300_000, 'if 1:\n x = 1'])
def test_text_is_names_and_values(text):
    with pytest.raises(SharedConfigError, match='not a plain config'):
        parse_config(text)


def test_text_is_read_as_it_was_written():
    value = dict(a=[1, -2.5e-3, 'it\'s "x"\n\\', None, True, (1, (2, ))], b={'c': {}, 'd': []}, e=1e-05, f='ü')
    assert parse_config(Config(dict(x=value, y='z')).pretty_text) == dict(x=value, y='z')
    assert parse_config(text_of(dict(x=value))) == dict(x=value)


def test_values_that_are_not_text():
    """As they come from JSON and from a checkpoint."""
    deep = wide = []
    for _ in range(100_000):
        deep = [deep]
    for _ in range(100):  # 2**100 values in a few hundred bytes
        wide = [wide, wide]
    for value in (deep, wide, 10**5000, float('nan'), float('inf'), {1: 2}, object(), int, print, {'a': {(1, ): 2}}):
        with pytest.raises(SharedConfigError):
            check_plain(value, 'it')
    while deep:
        deep = deep.pop()  # from outside in: Python's own way is recursive on some versions


def test_one_long_name_before_many_values():
    """Put together for each of them it would take a hundred gigabytes."""
    start = time.perf_counter()
    check_plain({'k' * 1_000_000: list(range(99_000))}, 'it', max_nodes=100_000, max_string=1_000_000, bounded=False)
    with pytest.raises(SharedConfigError, match='it.kkk') as caught:
        check_plain({'k' * 1_000_000: [[[object()]]]}, 'it', max_string=1_000_000, bounded=False)
    assert len(str(caught.value)) < 300 and time.perf_counter() - start < 5


@pytest.mark.parametrize('place, value, says', [
    ('model.backbone.arch', 'hf-hub:laion/CLIP-ViT-B-32', 'architecture and weights of open_clip'),
    ('model.backbone.arch', 'local-dir:/tmp', 'architecture and weights of open_clip'),
    ('model.backbone.weights', 'http://127.0.0.1:9/x.pt', 'architecture and weights of open_clip'),
    ('model.backbone.weights', 'hf-hub:laion/x', 'architecture and weights of open_clip'),
    ('model.backbone.weights', ['a'], 'not a string'),
    ('model.backbone.cache_dir', '/tmp/somewhere', 'must not come with data'),
    ('model.backbone.compile', dict(options={'cpp.cxx': '/tmp/evil'}), 'has the key'),
    ('model.backbone.compile', dict(backend='x'), 'must not come with data'),
    ('model.backbone.nothing', 1, 'OpenCLIP has no argument nothing'),
    ('model.nothing', 1, 'TextVideoRetriever has no argument nothing'),
    ('method', 1, 'method is not a string'),
    ('test_dataloader.dataset.data_root', ['a'], 'not a string'),
    ('test_dataloader.dataset.data_prefix', ['a'], 'another form'),
    ('test_dataloader.dataset.pipeline', 'abc', 'not a list of transforms'),
    ('test_dataloader.dataset.pipeline', [[]], 'has no type'),
    ('test_dataloader.dataset.pipeline.0.transforms', 'abc', 'ReadClip has no argument transforms'),
    ('test_dataloader.dataset.pipeline.0.store', 'x', 'must not come with data'),
    ('model.backbone', 'OpenCLIP', 'has no type'),
    # a CLIP in another place
    ('model.loss', dict(type='OpenCLIP', arch='hf-hub:laion/x'), 'model.loss.arch is .*weights of open_clip'),
    ('model.loss', dict(type='OpenCLIP', arch='ViT-B-32', weights='openai'), 'weights are those of model.backbone'),
    ('model.loss', dict(type='OpenCLIP', arch='ViT-B-32', cache_dir='/tmp/x'), 'loss.cache_dir .*not come with data'),
    ('model.data_preprocessor', dict(type='OpenCLIP', arch='ViT-B-32', compile=dict(mode='x')), 'not come with data'),
    ('model.loss', dict(type='TextVideoRetriever', backbone=dict(type='OpenCLIP', arch='local-dir:/tmp')),
     'model.loss.backbone.arch'),
    ('model', dict(type='OpenCLIP', arch='ViT-B-32', weights='/tmp/x.pt', backbone=dict(type='OpenCLIP')),
     'no argument'),
])
def test_what_parts_are_given(plain, place, value, says):
    refused(changed(plain, place, value), says)


@pytest.mark.parametrize('place, value', [
    ('model.video_from', 'many'), ('model.frame_prompts', 7), ('model.frame_prompts.0.unknown', 7),
    ('model.tuning.unknown', 7), ('model.frame_prompts.0.layers', (0, 99)), ('model.backbone.arch', {}),
    ('model.backbone.arch', dict(embed_dim=0, vision_cfg=dict(width=0, head_width=0), text_cfg={})),
    ('model', dict(type='MeanPoolSimilarity', backbone=dict(type='OpenCLIP', arch='mini-clip-demo')))])
def test_parts_that_can_not_be_built_are_one_line(plain, place, value):
    with pytest.raises((ValueError, RuntimeError)) as caught:
        cfg = read_shared_config(changed(plain, place, value))
        check_size(cfg.model)
    assert '\n' not in str(caught.value).strip() or isinstance(caught.value, RuntimeError)


@pytest.mark.parametrize('change', [
    dict(frame_prompts=[dict(type='PositionPrompt', num_tokens=4096)], num_frames=4096),
    dict(frame_prompts=[dict(type='ContextPrompt', mixer=dict(type='FrameTransformer', max_frames=999_999_999))]),
    dict(frame_prompts=[dict(type='ContextPrompt', mixer=dict(type='FrameTransformer', max_frames=1_000_000,
                                                              num_layers=32))] * 9),
    dict(backbone=dict(type='OpenCLIP', arch='ViT-bigG-14', weights=None)),
    dict(backbone=dict(type='OpenCLIP', weights='x.pt', arch=dict(
        embed_dim=9999, vision_cfg=dict(layers=200, width=64_000, head_width=64, image_size=64, patch_size=32),
        text_cfg=dict(layers=2, width=64, heads=2)))),
    dict(frame_prompts=[dict(type='GenericPrompt')] * 200)])
def test_a_model_that_would_fill_the_memory(plain, change):
    """Small enough in each number, and billions of values in all; none of them is made."""
    before, start = resident(), time.perf_counter()
    with pytest.raises(SharedConfigError, match='more than any|the maximum is|holds too much'):
        cfg = read_shared_config(text_of(dict(plain, model=dict(plain['model'], **change))))
        check_size(cfg.model)
    assert resident() - before < 300e6 and time.perf_counter() - start < 20


def resident():
    with open('/proc/self/statm') as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.parametrize('backend', [
    dict(type='torch.hub.load', repo_or_dir='.', model='entry', source='local'), dict(type='os.system', command='true'),
    dict(type='FaissIndex', command='x'), dict(type='FaissIndex', num_probes=10**30), dict(exact_up_to=3), 7,
    dict(type='FaissIndex', _scope_='os'), dict(type='vop_mm.search.FaissIndex'), dict(type=['FaissIndex']),
    ['FaissIndex'], 'FaissIndex',
    dict(type='FaissIndex', exact_up_to=float('nan')), dict(type='FaissIndex', num_probes='many')])
def test_back_ends_are_registered_indexes(backend, tmp_path):
    with pytest.raises(ValueError):
        build_part(backend, 'backend', INDEXES, folder=str(tmp_path), dim=4)
    assert build_part(dict(type='FaissIndex'), 'backend', INDEXES, folder=str(tmp_path), dim=4).dim == 4


def test_mmengine_is_not_asked_for_names(plain, monkeypatch):
    """Not even for one that it would refuse: what it does on the way there is what runs code."""
    monkeypatch.setattr(Registry, 'get', None)
    monkeypatch.setattr(Registry, 'build', None)
    assert read_shared_config(text_of(plain)) is not None
    refused(changed(plain, 'model.head', dict(type='os.system')))


@pytest.mark.parametrize('other', ['[]', '[dict(type="VideoTextPreprocessor")]', '1', 'None'])
def test_the_data_preprocessor_is_one_part(other):
    """MMEngine made a Sequential of a list, which has no frames to normalize."""
    text = (f'model = dict(type="TextVideoRetriever", data_preprocessor={other}, '
            'backbone=dict(type="OpenCLIP", arch="x"))\n')
    with pytest.raises(SharedConfigError, match='data_preprocessor'):
        read_shared_config(text + 'test_dataloader = dict(dataset=dict(pipeline=[]))')


HUGGING_FACE = 'test_dataloader.dataset.pipeline.1.tokenizer'


@pytest.mark.parametrize('name', [
    'someone/tokenizer', 'gpt2', 'timm/ViT-B-16-SigLIP-unknown', 'google/mt5-base.x', 'TIMM/ViT-B-16-SigLIP', None, 1,
    ['timm/ViT-B-16-SigLIP'], dict(type='HFTokenizer')])
def test_tokenizers_of_the_hub_are_those_of_open_clip(plain, name):
    open_clip_tokenizers()  # imports open_clip, which takes more time and memory than refusing may
    refused(changed(plain, HUGGING_FACE, dict(type='HFTokenizer', name=name)),
            r'1\.tokenizer\.name is (not a string|.*: a config that comes with data can name a tokenizer of open_clip)')


@pytest.mark.parametrize('name', [
    'timm/ViT-B-16-SigLIP', 'bert-base-uncased', 'google/mt5-xl', '/no/such/folder', 'hf-hub:someone/tokenizer', '../x',
    'https://example.org/tokenizer'])  # whatever is no name of a repository is taken for a folder, and never asked for
def test_tokenizers_of_open_clip_and_folders_are_taken(plain, name):
    cfg = read_shared_config(changed(plain, HUGGING_FACE, dict(type='vop_mm.HFTokenizer', name=name)))
    assert cfg.test_dataloader.dataset.pipeline[1].tokenizer.name == name


@pytest.mark.parametrize('argument', [dict(trust_remote_code=True), dict(cache_dir='/tmp/x'), dict(revision='x')])
def test_a_tokenizer_takes_no_options_of_transformers(plain, argument):
    cfg = dict(type='HFTokenizer', name='bert-base-uncased', **argument)
    refused(changed(plain, HUGGING_FACE, cfg), f'HFTokenizer has no argument {min(argument)}')
