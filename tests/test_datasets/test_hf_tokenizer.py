"""Tokenizers of Hugging Face: equal to open_clip's, from a folder or the hub, and the configs that name them."""
import builtins
import json
import os
import pickle
import socket
import subprocess
import sys
import time

import open_clip
import pytest
import torch

from tests.hf_tokenizers import write_tokenizer
from tests.tools import ROOT
from vop_mm.datasets.transforms import tokenizer_config, tokenizers
from vop_mm.registry import TOKENIZERS
from vop_mm.utils import hub as hub_module

pytest.importorskip('transformers')
ARCHITECTURES = open_clip.list_models()
CAPTIONS = ['a squid is talking', "A man's car,  painted RED &amp; blue!", 'ein Fußball_123', '', '猫 sits 🐕',
            'cat ' * 60]
KINDS = ['siglip', 'mt5', 'bert', 'roberta', 'nllb']


def build(folder, **cfg):
    return TOKENIZERS.build(dict(type='HFTokenizer', name=str(folder), **cfg))


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('clean', ['whitespace', 'lower', 'canonicalize'])
@pytest.mark.parametrize('length', [77, 5])
def test_open_clip_tokenizes_equally(tmp_path, kind, clean, length):
    folder = write_tokenizer(tmp_path / kind, kind)
    ours = build(folder, context_length=length, clean=clean)
    tokens = ours(CAPTIONS)
    assert torch.equal(tokens, open_clip.tokenizer.HFTokenizer(str(folder), length, clean=clean)(CAPTIONS))
    assert tokens.shape == (len(CAPTIONS), length) and tokens.dtype == torch.int64
    assert ours.vocab_size > tokens.max() and ours([]).shape == (0, length)
    assert f'context_length={length}, clean={clean!r}' in repr(ours)


def test_the_folder_of_a_model_gives_what_open_clip_gives(tmp_path):
    folder = write_tokenizer(tmp_path, 'mt5')
    model = dict(embed_dim=8, vision_cfg={}, text_cfg=dict(
        context_length=12, vocab_size=84, hf_tokenizer_name='x/y', tokenizer_kwargs=dict(clean='canonicalize')))
    (folder / 'open_clip_config.json').write_text(json.dumps(dict(model_cfg=model)))
    expected = open_clip.get_tokenizer(f'local-dir:{folder}')(CAPTIONS)
    assert torch.equal(TOKENIZERS.build(tokenizer_config(model, folder=str(folder)))(CAPTIONS), expected)


@pytest.mark.parametrize('length', [32, 6])
def test_the_separator_becomes_zero(tmp_path, length):
    folder = write_tokenizer(tmp_path, 'bert')
    ours = build(folder, context_length=length, strip_sep_token=True)
    expected = open_clip.tokenizer.HFTokenizer(str(folder), length, strip_sep_token=True)(CAPTIONS)
    assert torch.equal(ours(CAPTIONS), expected)
    kept = build(folder, context_length=length)
    assert torch.equal(ours(CAPTIONS), kept(CAPTIONS).masked_fill(kept(CAPTIONS) == 3, 0))
    assert (kept.sot_id, kept.eot_id, ours.sot_id, ours.eot_id) == (2, 3, 2, None)


@pytest.mark.parametrize(('kind', 'expected', 'ids'), [
    ('siglip', [[4, 5, 1, 1, 1], [8, 8, 8, 8, 1]], (None, 1, 1)),  # padding is end of text
    ('mt5', [[4, 5, 1, 0, 0], [8, 8, 8, 8, 1]], (None, 1, 0)),
    ('bert', [[2, 5, 6, 3, 0], [2, 9, 9, 9, 3]], (2, 3, 0)),
    ('nllb', [[4, 78, 7, 26, 2], [4, 7, 10, 8, 2]], (4, 2, 1))])
def test_known_ids(tmp_path, kind, expected, ids):
    """Long captions are cut, and end of text stays last."""
    ours = build(write_tokenizer(tmp_path, kind), context_length=5)
    assert ours(['a squid', 'cat ' * 60]).tolist() == expected
    assert (ours.sot_id, ours.eot_id, ours.pad_id) == ids


def test_the_class_token_last(tmp_path):
    folder, options = write_tokenizer(tmp_path, 'roberta'), dict(context_length=6, tokenizer_mode='clips')
    ours, theirs = build(folder, **options), open_clip.tokenizer.HFTokenizer(str(folder), **options)
    assert torch.equal(ours(CAPTIONS), theirs(CAPTIONS))
    assert ours(['cat', 'cat ' * 9]).tolist() == [[0, 262, 2, 1, 1, 0], [0, 262, 225, 262, 2, 0]]


@pytest.mark.parametrize(('kind', 'expected'), [
    ('bert', ['zebra', '日本', '🐕']), ('roberta', []), ('siglip', ['日本', '🐕']), ('mt5', ['日本', '🐕'])])
def test_unknown_words(tmp_path, kind, expected):
    ours = build(write_tokenizer(tmp_path, kind), context_length=16)
    assert ours.unknown_words('A cats &amp; zebra! 日本 zebra is 🐕') == expected
    assert ours.unknown_words('a squid is talking') == ours.unknown_words('') == []


def test_what_is_not_text_is_tokenized(tmp_path):
    ours = build(write_tokenizer(tmp_path, 'bert'), context_length=8)
    assert ours(['a\x00cat\udcff', '\u0301' * 1900]).shape == (2, 8)
    assert ours.unknown_words('a\udcff cat') in ([], ['\ufffd'])


@pytest.mark.parametrize('kind', KINDS)
def test_copies_for_workers(tmp_path, kind):
    ours = build(write_tokenizer(tmp_path, kind), context_length=9)
    copy = pickle.loads(pickle.dumps(ours))
    assert torch.equal(copy(CAPTIONS), ours(CAPTIONS)) and copy.unknown_words('猫') == ours.unknown_words('猫')


def test_a_vocabulary_is_loaded_once(tmp_path):
    folder = write_tokenizer(tmp_path, 'bert')
    one, same, other = build(folder), build(folder), build(folder, context_length=9)
    assert one._tokenizer is same._tokenizer is not other._tokenizer
    assert one(['a']).shape == (1, 77) and other(['a']).shape == (1, 9)


@pytest.mark.parametrize(('cfg', 'message'), [
    (dict(context_length=2), 'at least 3'), (dict(clean='none'), 'clean must be one of whitespace, lower, canonic'),
    (dict(tokenizer_mode='x'), "must be None or 'clips', got 'x'")])
def test_wrong_arguments(tmp_path, cfg, message):
    with pytest.raises(ValueError, match=message):
        build(tmp_path, **cfg)


# -- folders ------------------------------------------------------------------------------------------------------
@pytest.fixture
def no_hub(monkeypatch):
    """Any use of the hub is an error."""
    def used(name, *_):
        raise AssertionError(f'the hub was asked for {name}')
    monkeypatch.setattr(tokenizers, 'hub_folder', used)


@pytest.mark.parametrize('name', [
    '/no/such/folder', './none', '../none', 'a/b/c', '~/none', 'none/', 'c:\\none', 'a\\b', 'hf-hub:timm/x',
    'https://huggingface.co/timm/x', 'none/tokenizer.json', '..', '.', ''])
def test_names_of_folders_are_not_sent_to_the_hub(no_hub, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match='tokenizer not found|no tokenizer.json in this folder') as caught:
        build(name)
    assert '\n' not in str(caught.value)


def test_a_folder_comes_before_the_hub(no_hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_tokenizer(tmp_path / 'bert-base-uncased', 'bert')
    assert build('bert-base-uncased', context_length=4)(['a cat']).tolist() == [[2, 5, 9, 3]]


@pytest.mark.parametrize(('file', 'content', 'message'), [
    ('tokenizer.json', '{}', 'cannot be used'), ('tokenizer.json', '{"version": "1.0", "model": []}', 'cannot be used'),
    ('tokenizer_config.json', '[]', 'cannot be used'), ('tokenizer_config.json', '{', 'cannot be used'),
    ('tokenizer_config.json', '{"tokenizer_class": "PreTrainedTokenizerFast"}', 'cannot be used.*padding')])
def test_damaged_folders(tmp_path, file, content, message):
    folder = write_tokenizer(tmp_path, 'bert')
    (folder / file).write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        build(folder)
    assert '\n' not in str(caught.value) and len(str(caught.value)) < 700


def test_no_code_of_a_folder_runs(tmp_path):
    folder, canary = write_tokenizer(tmp_path / 'evil', 'bert'), tmp_path / 'it_ran'
    (folder / 'evil.py').write_text(f'open({str(canary)!r}, "w")\nclass Evil: pass\n')
    for name in ('tokenizer_config.json', 'config.json'):
        (folder / name).write_text(json.dumps(dict(
            tokenizer_class='Evil', model_type='evil', auto_map=dict(
                AutoTokenizer=['evil.Evil', 'evil.Evil'], AutoConfig='evil.Evil'))))
    with pytest.raises(ValueError, match='cannot be used.*(custom code|requires you to execute)'):
        build(folder)
    assert not canary.exists()


def test_pipes_are_not_opened(tmp_path):
    folder = write_tokenizer(tmp_path, 'bert')
    (folder / 'added_tokens.json').unlink(missing_ok=True)
    os.mkfifo(folder / 'added_tokens.json')
    with pytest.raises(ValueError, match='added_tokens.json is not a regular file'):
        build(folder)


# -- the hub ------------------------------------------------------------------------------------------------------
@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub on loopback that takes connections and never answers, and an empty cache."""
    import huggingface_hub
    with socket.create_server(('127.0.0.1', 0)) as server:
        monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', f'http://127.0.0.1:{server.getsockname()[1]}')
        monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path / 'cache'))
        monkeypatch.setattr(hub_module, '_TIMEOUT', 0.5)
        yield tmp_path / 'cache'


def in_cache(cache, name, kind):
    """Put a repository into the cache of the hub, as a download would."""
    repository = cache / f'models--{name.replace("/", "--")}'
    (repository / 'refs').mkdir(parents=True)
    (repository / 'refs' / 'main').write_text('0' * 40)
    return write_tokenizer(repository / 'snapshots' / ('0' * 40), kind)


def test_a_hub_that_does_not_answer_is_not_waited_for(hub):
    start = time.monotonic()
    with pytest.raises(ConnectionError) as caught:
        build('google/none-1')
    assert time.monotonic() - start < 30
    message = str(caught.value)
    for part in ("'google/none-1' is in no local folder", "hub can't be reached", 'tokenizer.json', "name='/path/to"):
        assert part in message
    assert '\n' not in message


def test_what_was_downloaded_before_is_enough(hub):
    folder = in_cache(hub, 'google/none-2', 'mt5')
    ours = build('google/none-2', context_length=5)
    assert ours(['a squid']).tolist() == [[4, 5, 1, 0, 0]] and ours.folder == str(folder)


def test_offline_nothing_is_asked(hub, monkeypatch):
    import huggingface_hub
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(hub_module, '_TIMEOUT', 10)
    start = time.monotonic()
    with pytest.raises(ConnectionError, match="hub can't be reached"):
        build('google/none-3')
    assert time.monotonic() - start < 20


def test_a_repository_that_the_hub_lacks(hub, monkeypatch):
    import huggingface_hub
    from huggingface_hub.utils import RepositoryNotFoundError

    def lacks(self, name, timeout):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', lacks)
    with pytest.raises(ConnectionError, match='is in no local folder, and the Hugging Face hub has no such repository'):
        build('google/none-4')


def test_the_files_of_a_repository_are_downloaded(hub, tmp_path, monkeypatch):
    import huggingface_hub
    asked = []

    def download(name, allow_patterns):
        asked.append((name, allow_patterns))
        return str(write_tokenizer(tmp_path / 'snapshot', 'bert'))
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', lambda self, name, timeout: None)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    assert build('google/none-5', context_length=4)(['a cat']).tolist() == [[2, 5, 9, 3]]
    (name, patterns), = asked
    assert name == 'google/none-5' and 'tokenizer.json' in patterns and not any(p.endswith(('.py', '.bin', '*'))
                                                                              for p in patterns)


# -- transformers -------------------------------------------------------------------------------------------------
def test_transformers_is_named_if_it_is_missing(tmp_path, monkeypatch):
    folder, find = write_tokenizer(tmp_path, 'bert'), builtins.__import__

    def without(name, *args, **kwargs):
        if name == 'transformers':
            raise ModuleNotFoundError("No module named 'transformers'")
        return find(name, *args, **kwargs)
    monkeypatch.setattr(builtins, '__import__', without)
    with pytest.raises(ImportError, match='^HFTokenizer needs transformers: pip install transformers$'):
        build(folder)


def test_importing_the_tokenizers_imports_no_transformers():
    """MMEngine does, where it is installed, for one of its optimizers."""
    code = "import sys, vop_mm.datasets.transforms; assert 'transformers' not in sys.modules"
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- configs of open_clip -----------------------------------------------------------------------------------------
class Recorded:
    """Stands for a tokenizer of transformers, and says what it was loaded with."""

    def __init__(self, name, **options):
        self.name, self.options = str(name), options
        self.pad_token_id = self.eos_token_id = self.sep_token_id = self.unk_token_id = 1

    def __len__(self):
        return 100

    def __call__(self, texts, max_length, **options):
        self.texts, self.call = texts, dict(max_length=max_length, **options)
        return type('Encoding', (), dict(input_ids=torch.ones(len(texts), max_length, dtype=torch.int64)))


@pytest.mark.parametrize('arch', ARCHITECTURES)
def test_every_architecture_gets_what_open_clip_gives_it(monkeypatch, tmp_path, arch):
    import transformers
    monkeypatch.setattr(transformers.AutoTokenizer, 'from_pretrained', Recorded)
    monkeypatch.setattr(open_clip.factory, 'SimpleTokenizer', dict)  # takes a second to load; test_tokenizers.py has it
    config = open_clip.get_model_config(arch)
    cfg, theirs = tokenizer_config(config, arch), open_clip.get_tokenizer(arch)
    assert config == open_clip.get_model_config(arch)
    if cfg['type'] == 'CLIPTokenizer':
        assert theirs == dict(context_length=TOKENIZERS.build(cfg).context_length)
        assert ('context_length' in cfg) == (theirs['context_length'] != 77)
        return
    assert cfg['name'] == theirs.tokenizer.name
    named = tokenizer_config(config, arch, folder=str(write_tokenizer(tmp_path, 'bert')))
    assert named == dict(cfg, name=str(tmp_path))
    ours = TOKENIZERS.build(named)
    assert torch.equal(ours(CAPTIONS), theirs(CAPTIONS))
    one, other = ours._tokenizer, theirs
    assert one.tokenizer.texts == other.tokenizer.texts and one.tokenizer.call == other.tokenizer.call
    assert (one.context_length, one.strip_sep_token, one.clean_fn, one.tokenizer_mode) == (
        other.context_length, other.strip_sep_token, other.clean_fn, other.tokenizer_mode)
    assert one.tokenizer.options == dict(cache_dir=None, local_files_only=True, trust_remote_code=False)


def test_configs_that_open_clip_lacks():
    def of(arch='', folder=None, **text):
        return tokenizer_config(dict(text_cfg=text), arch, folder)
    assert of() == dict(type='CLIPTokenizer') == of(vocab_size=64000, hf_tokenizer_name='')
    assert of(vocab_size=300) is None and tokenizer_config({}) == dict(type='CLIPTokenizer')
    assert of('My-SigLIP2', vocab_size=256000) is None is of(tokenizer_kwargs=dict(reduction_mask='simple'))
    assert of(hf_model_name='a/b') == dict(type='HFTokenizer', name='a/b', context_length=77)
    assert of(hf_model_name='a/b', hf_tokenizer_name='c/d', context_length=9, tokenizer_mode='clips',
              tokenizer_kwargs=dict(clean='lower'), folder='/x') == dict(
        type='HFTokenizer', name='/x', context_length=9, tokenizer_mode='clips', clean='lower')
    with pytest.raises(ValueError, match='the tokenizer argument trust_remote_code is not known'):
        of(hf_model_name='a/b', tokenizer_kwargs=dict(trust_remote_code=True))
