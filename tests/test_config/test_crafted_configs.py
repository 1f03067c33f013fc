"""Indexes, prompts, features and checkpoints of somebody else whose configs would run something: nothing runs.

Each is as it was made but for one change. What would run makes a file; the end is one line.
"""
import json
import shutil
import sqlite3

import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from tests.checkpoints import demo_config, write_checkpoint, write_demo
from tests.tools import ROOT, run_tool
from vop_mm.apis import VideoSearcher
from vop_mm.engine.checkpoint import CheckpointError, load_from_local_safely
from vop_mm.search import SearchIndex, merge_features
from vop_mm.search.page.collection import index_source, open_collections

MINI = json.loads((ROOT / 'demo/mini_clip/MiniCLIP.json').read_text())
PUBLISH = 'tools/model_converters/publish_model.py'


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """A config, a checkpoint, an index of one video, and features of it."""
    folder = write_demo(tmp_path_factory.mktemp('made'))
    searcher = VideoSearcher(str(folder / 'config.py'), folder / 'a.pth', num_workers=1)
    searcher.build_index(folder / 'videos', folder / 'index')
    searcher.extract_features(folder / 'videos', folder / 'features', shards=1)
    return folder


@pytest.fixture
def canary(tmp_path):
    return tmp_path / 'it_ran'


def crafted_configs(text, canary):
    """Each with something that makes the canary when it is built, imported or looked up."""
    evil, more = f"dict(type='os.system', command='touch {canary}')", '\ntest_dataloader = dict(dataset=dict(pipeline=['
    popen = f"dict(type='subprocess.Popen', args=['touch', '{canary}'])"
    head, loss = "dict(type='MeanPoolSimilarity')", "dict(same_video='mask', type='SymmetricContrastiveLoss')"
    return {
        'the model': text + f'\nmodel = {evil}\n',
        'the model, another function': text + f'\nmodel = {popen}\n',
        'CLIP': text + f"\nmodel = dict(type='TextVideoRetriever', backbone={evil})\n",
        'the head': text.replace(head, evil),
        'the loss': text.replace(loss, popen),
        'a prompt': text.replace('frame_prompts=[', f'frame_prompts=[{evil}, ', 1),
        'tuning': text.replace("tuning=dict(type='PromptTuning')", f'tuning={evil}'),
        'the data preprocessor': text.replace("type='VideoTextPreprocessor'",
                                              f"type='os.system', command='touch {canary}'"),
        'one more step': text + f"{more}dict(type='ReadClip'), {evil}]))\n",
        'the first step': text + f"{more}{evil}, dict(type='TokenizeText')]))\n",
        'a reader': text + f"{more}dict(type='ReadClip', reader='os.system'), dict(type='TokenizeText'), "
                           "dict(type='PackVideoText')]))\n",
        'the tokenizer': text + f"{more}dict(type='ReadClip'), dict(type='TokenizeText', tokenizer={evil})]))\n",
        'an argument': text + f"{more}dict(type='ReadClip'), dict(type='ResizeFrames', size=[[{evil}]]), "
                              "dict(type='TokenizeText')]))\n",
        'a scope': text.replace(head, f"dict(_scope_='os', type='system', command='touch {canary}')"),
        'our scope': text.replace(head, f"dict(type='vop_mm.utils.paths.os.system', command='touch {canary}')"),
        'a registry of any module': text.replace(head, "dict(type='canary.Thing')"),
        'initial weights': text.replace('model = dict(', "model = dict(\n    init_cfg=dict(type='Pretrained', "
                                                         f"checkpoint='{canary}.pth'),", 1),
        'a call': text + f"\nx = __import__('os').system('touch {canary}')\n",
        'a call in the model': text.replace('model = dict(', f"model = dict(\n    x=open('{canary}', 'w'),", 1),
        'minus signs': text + '\nx = ' + '-' * 200_000 + '1\n',
        'deep nesting': text + '\nmodel = ' + 'dict(a=' * 5000 + '1' + ')' * 5000 + '\n',
        'a large number': text.replace('num_tokens=8', 'num_tokens=1000000000000'),
    }


KINDS = sorted(crafted_configs('', ''))


def crafted(made, canary, kind):
    text = torch.load(made / 'a.pth', weights_only=True)['meta']['cfg']
    found = crafted_configs(text, canary)[kind]
    assert found != text
    return found


def put(index, key, value):
    db = sqlite3.connect(index / 'catalogue.db')
    db.execute('INSERT OR REPLACE INTO meta VALUES (?, ?)', (key, json.dumps(value)))
    db.commit()
    db.close()


def module_in_path(tmp_path, canary, monkeypatch):
    """A module that makes the canary when it is imported."""
    (tmp_path / 'canary.py').write_text(f'open({str(canary)!r}, "w")\n')
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.parametrize('kind', KINDS)
def test_an_index(made, tmp_path, canary, kind, monkeypatch):
    module_in_path(tmp_path, canary, monkeypatch)
    index = shutil.copytree(made / 'index', tmp_path / 'index')
    put(index, 'source', dict(SearchIndex.source(index), config=crafted(made, canary, kind)))
    for use in (VideoSearcher.from_index, index_source, lambda index: open_collections({'a': index})):
        with pytest.raises(ValueError, match='index .*index is refused|has no type') as caught:
            use(index)
        assert '\n' not in str(caught.value) and len(str(caught.value)) < 900
    assert not canary.exists()


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'CLIP'])  # theirs is not used, and not published
@pytest.mark.parametrize('ending', ['.pth', '.safetensors'])
def test_prompts_and_their_publication(made, tmp_path, canary, kind, ending, monkeypatch):
    module_in_path(tmp_path, canary, monkeypatch)
    content = torch.load(made / 'a.pth', weights_only=True)
    content['meta']['cfg'] = crafted(made, canary, kind)
    path = tmp_path / f'shared{ending}'
    if ending == '.pth':
        torch.save(content, path)
    else:
        save_file(dict(content['state_dict']), path, metadata=dict(meta=json.dumps(content['meta'])))
    searcher = VideoSearcher(str(made / 'config.py'), {'honest': made / 'a.pth'})
    with pytest.raises(CheckpointError, match=f'shared{ending} is refused|has no type') as caught:
        searcher.add_prompts('shared', path)
    assert '\n' not in str(caught.value) and searcher.prompts == ['honest'] and not canary.exists()
    if ending == '.pth':
        done = run_tool(PUBLISH, path, tmp_path / 'out.pth')
        assert_one_line(done, 'is not published')
        assert not list(tmp_path.glob('out*')) and not canary.exists()


@pytest.mark.parametrize('tower', [
    dict(vision_cfg=dict(timm_model_name='hf-hub:somebody/evil', timm_model_pretrained=True, image_size=40)),
    dict(vision_cfg=dict(timm_model_name='local-dir:HERE', timm_model_pretrained=True, image_size=40)),
    dict(text_cfg=dict(hf_model_name='HERE', hf_model_pretrained=True, context_length=32, vocab_size=39))])
def test_an_index_whose_architecture_names_a_folder_or_a_hub(made, tmp_path, canary, tower, monkeypatch):
    """The folder has code that both libraries know how to find; the hub is not asked."""
    (tmp_path / 'evil.py').write_text(f'open({str(canary)!r}, "w")\n')
    (tmp_path / 'config.json').write_text(json.dumps(dict(
        architecture='test_vit', auto_map=dict(AutoConfig='evil.Config', AutoModel='evil.Model'), model_type='evil')))
    monkeypatch.setattr('builtins.input', lambda *_: 'y')  # transformers may ask whether to run it
    monkeypatch.setattr('socket.socket.connect', lambda *_: canary.touch())
    index = shutil.copytree(made / 'index', tmp_path / 'index')
    text = SearchIndex.source(index)['config']
    arch = json.loads(json.dumps({**MINI, **tower}).replace('HERE', str(tmp_path)))
    assert "arch='MiniCLIP'" in text
    put(index, 'source', dict(SearchIndex.source(index), config=text.replace("arch='MiniCLIP'", f'arch={arch!r}')))
    with pytest.raises(ValueError, match='the model cannot be used: architecture ') as caught:
        VideoSearcher.from_index(index)
    assert '\n' not in str(caught.value) and not canary.exists()


def test_tools_end_with_one_line(made, tmp_path, canary):
    index = shutil.copytree(made / 'index', tmp_path / 'index')
    put(index, 'source', dict(SearchIndex.source(index), config=crafted(made, canary, 'the model')))
    assert_one_line(run_tool('tools/search.py', index, 'a cat'), "model has the type 'os.system'")
    assert_one_line(run_tool('tools/index_videos.py', made / 'videos', index), "model has the type 'os.system'")
    assert_one_line(run_tool('demo/app.py', index), "model has the type 'os.system'")
    assert not canary.exists()


@pytest.mark.parametrize('source', [None, [], 'x', {}, dict(config=1), dict(config=['a']), dict(config=''),
                                    dict(config='x = 1'), dict(config='model = dict()', checkpoint=None), 'checkpoint'])
def test_an_index_that_does_not_say(made, tmp_path, source):
    index = shutil.copytree(made / 'index', tmp_path / 'index')
    put(index, 'source', dict(SearchIndex.source(index), checkpoint=['a']) if source == 'checkpoint' else source)
    with pytest.raises(ValueError, match='has no config|is refused|has an invalid value'):
        VideoSearcher.from_index(index)


@pytest.mark.parametrize('backend', [
    dict(type='torch.hub.load', repo_or_dir='HERE', model='entry', source='local'),
    dict(type='os.system', command='touch CANARY'), dict(type='FaissIndex', _scope_='os'), dict(type=['FaissIndex']),
    dict(type='FaissIndex', nothing=1), ['FaissIndex'], 'FaissIndex', dict(exact_up_to=1), 3])
def test_the_back_end_of_an_index_and_of_features(made, tmp_path, canary, backend):
    backend = json.loads(json.dumps(backend).replace('HERE', str(tmp_path)).replace('CANARY', str(canary)))
    (tmp_path / 'hubconf.py').write_text(f'def entry(**kwargs):\n    open({str(canary)!r}, "w")\n')
    index = shutil.copytree(made / 'index', tmp_path / 'index')
    features = shutil.copytree(made / 'features', tmp_path / 'features')
    for folder in (index, features / 'part_0_of_1'):
        put(folder, 'backend', backend)
    searcher = VideoSearcher(str(made / 'config.py'), made / 'a.pth')
    for use in (SearchIndex, lambda index: searcher.search('a cat', index),
                lambda _: merge_features(features, tmp_path / 'b')):
        with pytest.raises(ValueError, match='is refused|has an invalid value') as caught:
            use(index)
        assert '\n' not in str(caught.value)
    assert not canary.exists() and not (tmp_path / 'b').exists()


def test_what_is_published_is_taken(made, tmp_path):
    done = run_tool(PUBLISH, made / 'a.pth', tmp_path / 'out.safetensors')
    assert done.returncode == 0, done.stderr
    path, = tmp_path.glob('out-*')
    searcher = VideoSearcher(str(made / 'config.py'), {'a': path})
    assert set(Config.fromstring(load_from_local_safely(path)['meta']['cfg'], '.py')) == {
        'method', 'model', 'test_dataloader'}
    searcher.search('a cat', made / 'index')


def test_parts_of_ones_own_are_published(tmp_path):
    """With the module that registers them; the tool can't know it."""
    import projects.example_project.bank_prompt  # noqa: F401
    cfg = Config.fromfile('projects/example_project/configs/vop_bank_demo.py', import_custom_modules=False)
    write_checkpoint(tmp_path / 'bank.pth', cfg, 0)
    assert_one_line(run_tool(PUBLISH, tmp_path / 'bank.pth', tmp_path / 'out.pth'), '--import')
    done = run_tool(PUBLISH, tmp_path / 'bank.pth', tmp_path / 'out.pth', '--import',
                    'projects.example_project.bank_prompt')
    assert done.returncode == 0 and len(list(tmp_path.glob('out-*.pth'))) == 1, done.stderr


def test_a_cache_of_ones_own_is_not_asked_for_in_an_index(made, tmp_path, monkeypatch):
    """``cache_dir`` is a folder to write to, which no index may name: it notes the file that was read."""
    import vop_mm.models.backbones.pretrained as pretrained
    weights = demo_config('vop/vop_demo.py').model.backbone.weights
    monkeypatch.setattr(pretrained, '_download', lambda arch, tag, cache_dir: (weights, False))
    cfg = demo_config('vop/vop_demo.py')
    cfg.model.backbone.update(weights='a_tag', cache_dir=str(tmp_path / 'cache'))
    VideoSearcher(cfg, made / 'a.pth').build_index(made / 'videos', tmp_path / 'index')
    clip = index_source(tmp_path / 'index').cfg.model.backbone
    assert clip.weights == weights and clip.cache_dir is None
    VideoSearcher.from_index(tmp_path / 'index').search('a cat', tmp_path / 'index')


def assert_one_line(done, message):
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    assert done.returncode == 1 and len(errors) == 1 and message in errors[0], done.stderr
    assert 'Traceback' not in done.stderr + done.stdout
