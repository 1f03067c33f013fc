"""ONNX files of both towers of every method, run in onnxruntime beside the model."""
import copy
import hashlib
import json
import sys
import time

import numpy as np
import pytest
import torch
from mmengine.config import Config

from tests.checkpoints import demo_config, write_checkpoint
from tests.clips import DATA
from tests.test_tools.test_bad_input import assert_one_line
from tests.tools import ROOT, ForkedTool, obey_permissions, run_tool
from tests.versions import needs
from vop_mm.apis import init_model
from vop_mm.deployment import onnx_export
from vop_mm.models.backbones.base import fingerprint
from vop_mm.models.backbones.openai_arch import openai_arch
from vop_mm.models.tuning import trainable_parameters, trainable_state_dict

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')
pytest.importorskip('onnxscript')
from vop_mm.deployment.onnx_export import (  # noqa: E402
    LOWEST_TORCH,
    TextEncoder,
    VideoEncoder,
    export_onnx,
    largest_difference,
    open_session,
    write_onnx,
)

pytestmark = needs('torch', LOWEST_TORCH, 'the exporter')
TOOL = 'tools/deployment/export_onnx.py'
TOLERANCE = 1e-4
# the layers that a method names are halved with the tower: what is exported takes half the time
SMALL = dict(embed_dim=64, quick_gelu=True,
             vision_cfg=dict(image_size=40, patch_size=8, width=64, layers=2, head_width=16),
             text_cfg=dict(context_length=32, vocab_size=39, width=64, heads=4, layers=2))
GENERIC = dict(type='GenericPrompt', num_tokens=4)
METHODS = {
    **{name: f'vop/{name}_demo.py' for name in ('vop', 'vop_p', 'vop_c', 'vop_f', 'vop_f_p', 'vop_f_c')},
    **{name: f'baselines/{name}_demo.py' for name in ('zero_shot', 'full', 'bias', 'proj', 'partial', 'adapter_attn',
                                                      'adapter_ffn')},
}
TRANSFORMER = dict(type='FrameTransformer', num_layers=1)
# the other mixers, and a context module in its other role
ABLATIONS = dict(frame_prompts=[GENERIC, dict(type='ContextPrompt', mixer=TRANSFORMER, layers=(0, 2))],
                 cls_updates=[dict(type='ContextUpdate', mixer=dict(type='LSTM'), layers=(0, 1))])
# five of them export the same graph: a tower each is enough
TOWERS = dict(zero_shot='video', full='video text', bias='text', proj='video', partial='text',
              adapter_attn='video', adapter_ffn='video text')


def small_model(name, layers=2, **changes):
    """A method on random CLIP weights, every trainable value moved from where it starts."""
    cfg = demo_config(METHODS.get(name, METHODS['vop']))
    arch = {key: dict(value, layers=layers) if key.endswith('cfg') else value for key, value in SMALL.items()}
    cfg.model.update(copy.deepcopy(ABLATIONS) if name == 'ablations' else {}, **changes)
    cfg.model.backbone = dict(type='OpenCLIP', arch=arch)
    if cfg.model.get('video_from'):
        cfg.model.video_from //= 2
    torch.manual_seed(0)
    return moved(init_model(cfg))


def moved(model):
    with torch.no_grad():
        for parameter in trainable_parameters(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def videos(count, frames=12, size=40):
    """uint8 [B, F, 3, H, W], and as CLIP wants them, by constants and arithmetic that are not the model's."""
    rng = np.random.default_rng(count)
    colors = rng.integers(0, 256, (count, frames, 3, 1, 1))
    pixels = (colors + rng.integers(-60, 60, (count, frames, 3, size, size))).clip(0, 255).astype(np.uint8)
    mean, std = (np.array(x)[:, None, None] for x in ((0.48145466, 0.4578275, 0.40821073),
                                                      (0.26862954, 0.26130258, 0.27577711)))
    return pixels, torch.from_numpy((pixels / 255.0 - mean) / std).float()


def captions(count, length, vocab=39):
    """int64 [B, L], of all lengths from no word to ``length``."""
    rng = np.random.default_rng(count)
    tokens = rng.integers(1, vocab - 1, (count, length))
    for row, end in zip(tokens, np.linspace(1, length - 1, count).round().astype(int)[::-1], strict=True):
        row[end], row[end + 1:] = vocab - 1, 0
    return tokens


def run(session, **inputs):
    assert {i.name for i in session.get_inputs()} == set(inputs)
    return session.run(None, inputs)[0]


def assert_same(found, expected, tolerance=TOLERANCE):
    assert found.dtype == np.float32 and found.shape == tuple(expected.shape)
    assert np.abs(found - expected.numpy()).max() <= tolerance
    assert np.abs(np.linalg.norm(found, axis=1) - 1).max() <= 1e-5
    if len(found) > 1:  # or else the tolerance would say nothing
        assert np.abs(found[0] - found[1]).max() > 10 * tolerance


@torch.no_grad()
def assert_video(session, model, mask=None):
    for count in (1, 2, 5):
        pixels, frames = videos(count)
        assert_same(run(session, frames=pixels), model.encode_video(frames))


@torch.no_grad()
def assert_text(session, model, vocab=39):
    most, context = model.text_tower.max_words, model.backbone.context_length
    for count, length in ((1, context), (2, most - 1), (2, most), (5, most + 1), (5, context), (5, 6), (1, 3)):
        tokens = captions(count, length, vocab)
        assert_same(run(session, tokens=tokens), model.encode_text(torch.from_numpy(tokens)))


def exported(encoder, folder, **options):
    write_onnx(encoder, folder / 'tower.onnx', **options)
    return open_session(folder / 'tower.onnx', num_threads=1)


# -- what the files compute -------------------------------------------------------------------------------------------
@pytest.mark.parametrize('name', ['vop', 'vop_p', 'vop_c', 'vop_f', 'vop_f_p', 'ablations'])
def test_video_of_prompted_methods(name, tmp_path):  # VoP^F+C, and the text tower of all of them, by the tool, below
    model = small_model(name)
    assert_video(exported(VideoEncoder(model), tmp_path), model)


@pytest.mark.parametrize('name', TOWERS)
def test_baselines(name, tmp_path):
    model = small_model(name, layers=1)
    if 'video' in TOWERS[name]:
        assert_video(exported(VideoEncoder(model), tmp_path), model)
    if 'text' in TOWERS[name]:
        assert_text(exported(TextEncoder(model), tmp_path), model)


def test_text_with_prompts_behind_it_as_published(tmp_path):
    weights = str(DATA / 'modelscope_prefix4_suffix4' / 'ViT-B-32.pt')
    cfg = demo_config(METHODS['vop'])
    cfg.model.backbone = dict(type='OpenCLIP', weights=weights, arch=openai_arch(torch_archive(weights)))
    cfg.model.update(text_prompts=[GENERIC], text_suffix_prompts=[GENERIC], published_eot=True)
    model = moved(init_model(cfg))
    assert_text(exported(TextEncoder(model), tmp_path), model, model.backbone.vocab_size)


def torch_archive(path):
    from vop_mm.models.backbones.clip_weights import read_clip_weights
    return read_clip_weights(path).state_dict


@torch.no_grad()
def test_padding_frames_are_masked_where_the_model_masks_them(tmp_path):
    model = small_model('vop_f_c', data_preprocessor=dict(type='VideoTextPreprocessor', short_videos='mask'))
    session = exported(VideoEncoder(model), tmp_path)
    for count in (1, 2, 5):
        pixels, frames = videos(count)
        mask = np.arange(12)[None] < np.linspace(3, 12, count).astype(int)[:, None]
        found = run(session, frames=pixels, frame_mask=mask)
        assert_same(found, model.encode_video(frames, torch.from_numpy(mask)))
        other = run(session, frames=np.where(mask[..., None, None, None], pixels, 0), frame_mask=mask)
        assert np.abs(found - other).max() <= 1e-6  # what stands in the padding doesn't matter


def test_the_check_sees_a_file_of_another_model(tmp_path):
    model = small_model('zero_shot', layers=1)
    exported(TextEncoder(model), tmp_path)
    assert largest_difference(tmp_path / 'tower.onnx', TextEncoder(model)) < 1e-5
    with torch.no_grad():
        model.backbone.model.positional_embedding[1:].mul_(5)
    assert largest_difference(tmp_path / 'tower.onnx', TextEncoder(model)) > 1e-3
    with torch.no_grad():
        model.backbone.model.text_projection.fill_(torch.nan)
    assert not largest_difference(tmp_path / 'tower.onnx', TextEncoder(model)) < 1


# -- the tool ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    """Of VoP^F+C on the mini CLIP."""
    folder = tmp_path_factory.mktemp('checkpoint')
    return write_checkpoint(folder / 'vop_f_c.pth', demo_config(METHODS['vop_f_c']), seed=1)


@pytest.fixture(scope='module')
def by_tool(checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp('exported') / 'new' / 'out'
    done = run_tool(TOOL, f'configs/{METHODS["vop_f_c"]}', checkpoint, folder)
    assert done.returncode == 0, done.stderr
    return folder, done


def test_tool_exports_a_checkpoint(by_tool, checkpoint):
    folder, done = by_tool
    model = init_model(ROOT / 'configs' / METHODS['vop_f_c'], checkpoint,
                       cfg_options={'model.backbone.weights': str(ROOT / 'demo/mini_clip/mini_clip.safetensors')})
    assert_video(open_session(folder / 'video.onnx', 1), model)
    assert_text(open_session(folder / 'text.onnx', 1), model)
    assert {path.name for path in folder.iterdir()} == {'video.onnx', 'text.onnx', 'model.json'}
    assert done.stderr == '' and len(done.stdout.splitlines()) == 5, done.stderr + done.stdout


def test_what_a_program_needs_is_beside_and_inside(by_tool, checkpoint):
    folder, _ = by_tool
    about = json.loads((folder / 'model.json').read_text())
    model = init_model(demo_config(METHODS['vop_f_c']), checkpoint)
    assert about['method'] == 'VoP^F+C'
    assert about['clip'] == dict(arch='MiniCLIP', fingerprint=model.backbone.fingerprint)
    assert about['prompts_fingerprint'] == fingerprint(trainable_state_dict(model))
    assert (about['embed_dim'], about['num_frames'], about['image_size']) == (64, 12, [40, 40])
    assert about['mean'] == [0.48145467, 0.45782751, 0.40821072] and about['std'] == [0.26862955, 0.26130259, 0.2757771]
    assert (about['context_length'], about['max_words'], about['short_videos']) == (32, 24, 'repeat')
    words = (ROOT / 'demo/mini_clip/vocab.txt').read_text().split()
    assert about['tokenizer'] == dict(type='WordTokenizer', context_length=32, start_of_text=2, end_of_text=38,
                                      padding=0, unknown=1, first_word=3, words=words)
    steps = [step['type'] for step in about['frame_pipeline']]
    assert steps == ['ReadClip']
    assert about['checkpoint'] == dict(file='vop_f_c.pth', sha256=sha256(checkpoint))
    assert about['sha256'] == {name: sha256(folder / name) for name in ('text.onnx', 'video.onnx')}
    assert 0 < max(about['largest_difference'].values()) < TOLERANCE
    assert about['versions']['torch'] == torch.__version__.split('+')[0] and about['opset'] == 18
    inputs_of = {'video.onnx': {'frames': ['batch', 12, 3, 40, 40]}, 'text.onnx': {'tokens': ['batch', 'length']}}
    for name, inputs in inputs_of.items():
        session = open_session(folder / name, 1)
        assert {i.name: i.shape for i in session.get_inputs()} == inputs
        assert [(o.name, o.shape) for o in session.get_outputs()] == [(f'{name[:-5]}_features', ['batch', 64])]
        inside = json.loads(session.get_modelmeta().custom_metadata_map['vop_mm'])
        assert inside.pop('versions').items() <= about['versions'].items()
        assert inside.items() <= about.items()
        assert set(about) - set(inside) == {'versions', 'largest_difference', 'sha256'}
        assert not any(path in (folder / name).read_bytes() for path in (str(ROOT).encode(), b'site-packages'))


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    """A config of CLIP with one layer a tower, as it comes: what is exported in two seconds."""
    folder = tmp_path_factory.mktemp('tiny')
    cfg = demo_config(METHODS['zero_shot'])
    arch = {key: dict(value, layers=1) if key.endswith('cfg') else value for key, value in SMALL.items()}
    cfg.model.backbone = dict(type='OpenCLIP', arch=arch)
    (folder / 'tiny.py').write_text(Config(cfg.to_dict()).pretty_text)
    return folder / 'tiny.py'


def test_opset_weights_beside_and_a_model_that_is_compiled(tiny, tmp_path):
    done = run_tool(TOOL, tiny, 'none', tmp_path, '--opset', '20', '--external-data', '--cfg-options',
                    'model.backbone.compile={"backend": "eager"}')
    assert done.returncode == 0, done.stderr
    about = json.loads((tmp_path / 'model.json').read_text())
    files = {'text.onnx', 'text.onnx.data', 'video.onnx', 'video.onnx.data'}
    assert {path.name for path in tmp_path.iterdir()} == {'model.json', *files} and set(about['sha256']) == files
    assert about['opset'] == 20 and about['checkpoint'] is None
    for name in ('video.onnx', 'text.onnx'):
        assert {o.domain: o.version for o in onnx.load(tmp_path / name).opset_import}[''] == 20
        assert (tmp_path / f'{name}.data').stat().st_size > 2 * (tmp_path / name).stat().st_size
        assert len(open_session(tmp_path / name).get_inputs()) == 1


def test_without_onnxruntime_it_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, 'write_onnx', lambda encoder, path, *args: path.write_bytes(b'x'))
    monkeypatch.setitem(sys.modules, 'onnxruntime', None)
    for name in ('video.onnx.data', 'mine.txt'):  # one is of an earlier export
        (tmp_path / name).write_text('before')
    said = []
    about = export_onnx(init_model(Config.fromfile(tiny)), tmp_path, log=said.append)
    assert said[0].startswith('not checked: onnxruntime is not installed') and about['largest_difference'] == {}
    assert json.loads((tmp_path / 'model.json').read_text()) == about
    assert {path.name for path in tmp_path.iterdir()} == {'video.onnx', 'text.onnx', 'model.json', 'mine.txt'}


@pytest.mark.parametrize('difference, says', [(2e-4, '2.0e-04'), (float('nan'), 'nan')])
def test_a_file_that_differs_too_much_is_not_left(difference, says, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_export, 'write_onnx', lambda encoder, path, *args: path.write_bytes(b'x'))
    monkeypatch.setattr(onnx_export, 'largest_difference', lambda path, encoder: difference)
    with pytest.raises(ValueError, match=f'video.onnx differs from the model by {says}, more than 1e-04'):
        export_onnx(init_model(Config.fromfile(tiny)), tmp_path / 'new' / 'out')
    assert not list(tmp_path.iterdir())


def test_an_export_that_fails_leaves_the_one_before(tiny, tmp_path, monkeypatch):
    def fail(encoder, path, *args):
        path.write_bytes(b'half')
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(onnx_export, 'write_onnx', fail)
    for name in ('video.onnx', 'model.json'):
        (tmp_path / name).write_text('before')
    with pytest.raises(OSError, match='No space'):
        export_onnx(init_model(Config.fromfile(tiny)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['model.json', 'video.onnx']
    assert all(path.read_text() == 'before' for path in tmp_path.iterdir())


def test_a_killed_export_leaves_nothing_under_a_files_name_and_nothing_for_long(tiny, tmp_path):
    with open(tmp_path / 'log', 'w+') as log:
        process = ForkedTool(TOOL, tiny, 'none', tmp_path / 'out', out=log, err=log)
        while not list(tmp_path.glob('out/.vop_mm.*/video.onnx')):
            assert process.poll() is None, (tmp_path / 'log').read_text()
            time.sleep(0.01)
        process.kill()
    left, = (tmp_path / 'out').iterdir()
    assert left.name.startswith('.vop_mm.') and left.name.endswith('.tmp')
    done = run_tool(TOOL, tiny, 'none', tmp_path / 'out')
    assert done.returncode == 0, done.stderr
    assert not left.exists() and (tmp_path / 'out/model.json').is_file()


def as_file(folder):
    folder.write_text('mine')


def unwritable(folder):
    folder.mkdir()
    folder.chmod(0o500)


@pytest.mark.parametrize('make, says', [(as_file, 'out'), (unwritable, 'Permission denied')])
def test_a_folder_that_can_not_be_written(tiny, tmp_path, make, says):
    make(tmp_path / 'out')
    assert_one_line(run_tool(TOOL, tiny, 'none', tmp_path / 'out', before=obey_permissions), says)
    assert [path.name for path in tmp_path.rglob('*')] == ['out']


@pytest.mark.parametrize('args, says', [
    (['no.py', 'none'], 'config not found: no.py'),
    (['CONFIG', 'none'], 'trains: name the checkpoint'),
    (['CONFIG', 'no.pth'], 'checkpoint not found: no.pth'),
    (['CONFIG', 'garbage.pth'], 'garbage.pth'),
    (['configs/vop/vop_p_demo.py', 'CHECKPOINT'], "doesn't fit this model"),
    (['CONFIG', 'CHECKPOINT', '--opset', '17'], 'opset must be 18'),
    (['CONFIG', 'CHECKPOINT', '--opset', '99'], 'opset must be 18'),
    (['CONFIG', 'CHECKPOINT', '--cfg-options', 'model.backbone.weights=no.safetensors'], 'no.safetensors'),
])
def test_bad_input_is_one_line_and_leaves_nothing(args, says, checkpoint, tmp_path):
    (tmp_path / 'garbage.pth').write_bytes(b'garbage')
    places = dict(CONFIG=f'configs/{METHODS["vop_f_c"]}', CHECKPOINT=checkpoint)
    config, weights, *options = (places.get(arg, arg) for arg in args)
    weights = tmp_path / weights if weights == 'garbage.pth' else weights
    assert_one_line(run_tool(TOOL, config, weights, tmp_path / 'new' / 'out', *options), says)
    assert [path.name for path in tmp_path.iterdir()] == ['garbage.pth']


@pytest.mark.parametrize('missing', ['onnx', 'onnxscript'])
def test_without_the_exporter_it_says_what_to_install(missing, tiny, tmp_path):
    done = run_tool(TOOL, tiny, 'none', tmp_path / 'out', before=lambda: sys.modules.__setitem__(missing, None))
    assert_one_line(done, f'needs {missing}: pip install {missing}')
    assert not list(tmp_path.iterdir())


def test_an_older_torch_is_named(tiny, tmp_path, monkeypatch):
    model = init_model(Config.fromfile(tiny))
    monkeypatch.setattr(torch, '__version__', '2.4.1+cu121')
    with pytest.raises(ImportError, match=f'needs torch >= {LOWEST_TORCH}, this is 2.4.1'):
        export_onnx(model, tmp_path / 'out')
