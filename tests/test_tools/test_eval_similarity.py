"""Scoring a saved matrix from the command line."""
import json
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.tools import ROOT, run_tool
from vop_mm.evaluation.functional import (
    evaluate_retrieval,
    load_query_bank,
    retrieval_metrics,
    similarity_matrix,
)

TOOL = 'tools/analysis_tools/eval_similarity.py'
DATA = Path(__file__).parents[1] / 'data'


@pytest.fixture
def files(tmp_path):
    """The published figures' matrices as .npy."""
    with np.load(DATA / 'retrieval_metrics.npz', allow_pickle=False) as arrays:
        for name in arrays:
            np.save(tmp_path / f'{name}.npy', arrays[name])
    return tmp_path


def test_table_and_json(files):
    done = run_tool(TOOL, files / 'multi_caption_80.npy', '--json', files / 'out.json', '--text-to-video',
                    files / 'multi_caption_80_text_to_video.npy')
    assert (done.returncode, done.stderr) == (0, '')
    assert done.stdout == (
        f'{files}/multi_caption_80.npy: 236 texts, gallery of 80 videos, ties pessimistic, v2t by video\n'
        '        R@1     R@5    R@10    R@50    Rsum     MdR     MnR\n'
        't2v    56.4    85.2    94.5   100.0   236.0     1.0     3.2\n'
        'v2t    63.8    93.8    97.5   100.0   255.0     1.0     2.1\n')
    written = json.loads((files / 'out.json').read_text())
    expected = json.loads((DATA / 'retrieval_metrics.json').read_text())['multi_caption_80']
    for direction, values in expected.items():
        assert {key: written[direction][key] for key in values} == pytest.approx(values, rel=1e-12)
    assert {key: written[key] for key in written if key not in expected} == dict(
        dataset=None, split=None, protocol=None, num_texts=236, num_videos=80, ties='pessimistic', v2t_protocol='video',
        query_bank=None, bootstrap=0, files=[f'{files}/multi_caption_80.npy'])


@pytest.fixture
def embeddings(tmp_path):
    """Of 30 texts and 10 videos, apart and as tools/test.py dumps them, and of a training split."""
    rng = np.random.default_rng(0)
    owner = rng.permutation(np.arange(30) % 10)

    def unit(*shape):
        x = rng.standard_normal(shape).astype(np.float32)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    texts, videos = unit(30, 16), unit(10, 16)
    np.save(tmp_path / 'texts.npy', texts)
    np.save(tmp_path / 'videos.npy', videos)
    np.save(tmp_path / 'owner.npy', owner)
    np.save(tmp_path / 'scaled.npy', 100 * videos @ videos.T)
    np.savez(tmp_path / 'dump.npz', text_features=texts, video_features=videos, text_to_video=owner,
             dataset='msvd', split='test', protocol='multi-caption')
    np.savez(tmp_path / 'bank.npz', text_features=unit(50, 16), video_features=unit(20, 16))
    return tmp_path


def test_embeddings_are_scored_as_their_products(embeddings):
    pair = embeddings / 'texts.npy', embeddings / 'videos.npy', '--text-to-video', embeddings / 'owner.npy'
    texts, videos, owner = (np.load(embeddings / f'{name}.npy') for name in ('texts', 'videos', 'owner'))
    options = '--postprocess', 'dsl', 'qbnorm', 'sinkhorn', '--query-bank', embeddings / 'bank.npz', '--bootstrap', '50'
    written = []
    for files in (pair, (embeddings / 'dump.npz', )):
        done = run_tool(TOOL, *files, *options, '--json', embeddings / 'out.json')
        assert done.returncode == 0, done.stderr
        written.append(json.loads((embeddings / 'out.json').read_text()))
    similarity = similarity_matrix(texts, videos)
    expected = dict(evaluate_retrieval(similarity, owner, postprocess=('dsl', 'qbnorm', 'sinkhorn'), bootstrap=50,
                                       query_bank=load_query_bank(embeddings / 'bank.npz', texts, videos)))
    assert [{row: file[row] for row in expected} for file in written] == [expected] * 2
    meta = [{key: file[key] for key in ('dataset', 'split', 'protocol')} for file in written]
    assert meta == [dict.fromkeys(meta[0]), dict(dataset='msvd', split='test', protocol='multi-caption')]
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f'{embeddings}/dump.npz: msvd, test, multi-caption, 30 texts, gallery of 10 videos, ')
    assert [line.split()[0] for line in lines[2::2]] == list(expected) and len({len(line) for line in lines[1:]}) == 1
    low, high = expected['v2t_dsl']['R1_low'], expected['v2t_dsl']['R1_high']
    assert lines[9].split('  ')[-7:] and f'[{low:.1f}, {high:.1f}]' in lines[9]


@pytest.mark.parametrize('arguments, says', [
    (['texts.npy', 'videos.npy'], '30 texts and 10 videos: text_to_video must say'),
    (['texts.npy', 'owner.npy'], r'got (30, 16) and (30,)'),
    (['bank.npz'], 'bank.npz was not written by tools/test.py --dump'),
    (['texts.npy', '--postprocess', 'qbnorm'], 'qbnorm needs a query bank'),
    (['texts.npy', '--query-bank', 'bank.npz'], 'a query bank is only used by qbnorm'),
    (['texts.npy', '--query-bank', 'bank.npz', '--postprocess', 'qbnorm'], 'name two files of them'),
    (['dump.npz', '--query-bank', 'no.npz', '--postprocess', 'qbnorm'], 'query bank not found: no.npz'),
    (['dump.npz', '--query-bank', 'dump.npz', '--postprocess', 'qbnorm'], 'dump.npz is of the split test'),
    (['scaled.npy', '--postprocess', 'dsl'], 'are not cosines'),
    (['dump.npz', '--bootstrap', '-1'], '--bootstrap must be at least 0'),
])
def test_bad_embeddings(embeddings, arguments, says):
    done = run_tool(TOOL, *arguments, '--json', 'out.json', cwd=embeddings)
    assert done.returncode == 1 and done.stdout == '' and says in done.stderr and 'Traceback' not in done.stderr
    assert not (embeddings / 'out.json').exists()


@pytest.mark.parametrize('ties', ['pessimistic', 'optimistic', 'mean'])
@pytest.mark.parametrize('protocol', ['video', 'caption'])
def test_options_reach_the_function(tmp_path, ties, protocol):
    rng = np.random.default_rng(0)
    similarity, text_to_video = rng.integers(0, 4, (30, 10)).astype(np.float32), rng.permutation(np.arange(30) % 10)
    np.save(tmp_path / 'a.npy', similarity)
    np.save(tmp_path / 'b.npy', text_to_video)
    done = run_tool(TOOL, tmp_path / 'a.npy', '--text-to-video', tmp_path / 'b.npy', '--ties', ties, '--v2t-protocol',
                    protocol, '--json', tmp_path / 'out.json')
    assert done.returncode == 0
    written = json.loads((tmp_path / 'out.json').read_text())
    assert {d: written[d] for d in ('t2v', 'v2t')} == retrieval_metrics(similarity, text_to_video, ties, protocol)


class Code:

    def __reduce__(self):
        return os.mkdir, (os.environ['VOP_MM_TEST_PROOF'],)


def write(path, name, good):
    if isinstance(name, np.ndarray):
        np.save(path, name)
    elif name == 'pickle':
        path.write_bytes(pickle.dumps(Code()))
    elif name == 'objects':
        np.save(path, np.array([[Code()]], dtype=object), allow_pickle=True)
    elif name == 'several':
        with open(path, 'wb') as file:
            np.savez(file, good)
    elif name == 'truncated':
        np.save(path, good)
        path.write_bytes(path.read_bytes()[:-100])
    elif name == 'header':
        np.save(path, good)
        path.write_bytes(path.read_bytes().replace(b"'shape': (", b"'shape': [", 1))
    elif name == 'folder':
        path.mkdir()
    elif isinstance(name, bytes):
        path.write_bytes(name)


@pytest.mark.parametrize(('content', 'says'), [
    (None, 'no such file: {path}'),
    ('folder', 'no such file: {path}'),
    (b'', '{path} is not a .npy file of numbers'),
    (b'text,video\n1,2\n', '{path} is not a .npy file of numbers'),
    ('pickle', '{path} is not a .npy file of numbers'),
    ('objects', '{path} is not a .npy file of numbers'),
    ('several', '{path} holds several arrays'),
    ('truncated', '{path} is not a .npy file of numbers'),
    ('header', '{path} is not a .npy file of numbers'),
    (np.zeros(5), 'similarity must be [num_texts, num_videos], both at least 1, got the shape (5,)'),
    (np.zeros((0, 5)), 'error: ValueError'),  # some versions of NumPy map no empty file
    (np.zeros((5, 4)), 'similarity has 5 texts and 4 videos: text_to_video must say which text belongs to which video'),
    (np.array([[1, 2], [np.nan, 1]]), 'similarity is not finite at text 1, video 0: nan'),
    (np.array([['a']]), 'similarity must be float16 to float64 or integers, got <U1'),
])
def test_bad_matrix(tmp_path, monkeypatch, content, says):
    monkeypatch.setenv('VOP_MM_TEST_PROOF', str(tmp_path / 'code_was_run'))
    path = tmp_path / 'a.npy'
    write(path, content, np.eye(30))
    done = run_tool(TOOL, path, '--json', tmp_path / 'out.json')
    assert done.returncode == 1 and done.stdout == ''
    lines = done.stderr.splitlines()
    assert says.format(path=path) in lines[0] and lines[0].startswith('error: ') and len(lines) == 2
    assert {p.name for p in tmp_path.iterdir()} <= {'a.npy'}


@pytest.mark.parametrize(('content', 'says'), [
    (None, 'no such file: {path}'),
    (np.zeros(4, int), 'text_to_video must be 5 integers, got int64 of the shape (4,)'),
    (np.zeros(5), 'text_to_video must be 5 integers, got float64'),
    (np.array([0, 1, 2, 3, 4]), 'text_to_video[4] is 4, and there are 4 videos'),
    (np.array([0, 1, 2, 2, 2]), '1 of 4 videos have no text: 3'),
])
def test_bad_text_to_video(tmp_path, content, says):
    np.save(tmp_path / 'a.npy', np.zeros((5, 4)))
    write(tmp_path / 'b.npy', content, None)
    done = run_tool(TOOL, tmp_path / 'a.npy', '--text-to-video', tmp_path / 'b.npy')
    assert done.returncode == 1 and says.format(path=tmp_path / 'b.npy') in done.stderr


def test_json_into_a_folder_that_is_not_there_fails_first(tmp_path):
    np.save(tmp_path / 'a.npy', np.eye(3))
    done = run_tool(TOOL, tmp_path / 'a.npy', '--json', tmp_path / 'no' / 'out.json')
    assert done.returncode == 1 and done.stdout == ''
    assert f'no such folder: {tmp_path}/no' in done.stderr


def test_help_is_quick():
    start = time.perf_counter()
    done = subprocess.run([sys.executable, str(ROOT / TOOL), '--help'], capture_output=True, text=True,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)})
    assert done.returncode == 0 and '--text-to-video' in done.stdout
    assert time.perf_counter() - start < 3
