"""What the package asks for, and what goes into a wheel."""
import re
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import packaging
import pytest
from packaging.requirements import Requirement

import vop_mm
from tools import _requirements

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip('setuptools')


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tracked tree, with a css file more in a subpackage."""
    pytest.importorskip('pip')
    tmp_path = tmp_path_factory.mktemp('wheel')
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('pyproject.toml', 'MANIFEST.in', 'LICENSE', 'README.md'):
        shutil.copy(ROOT / name, source)
    for name in ('vop_mm', 'requirements', 'tests/test_utils'):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    (source / 'vop_mm' / 'models' / 'data_of_a_test.css').write_text('')
    done = subprocess.run(
        [sys.executable, '-m', 'pip', 'wheel', '--no-deps', '--no-build-isolation', '--disable-pip-version-check', '-q',
         '-w', str(tmp_path), str(source)], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-2000:]
    (path,) = tmp_path.glob('*.whl')
    return path


def metadata_of(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        return message_from_string(archive.read(name).decode())


def test_wheel_holds_the_package_and_its_data_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {'vop_mm/models/data_of_a_test.css', 'vop_mm/search/page/page.css', 'vop_mm/search/page/page.js'} <= names
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / 'vop_mm').rglob('*.py')}
    assert sources <= names  # a folder without __init__.py would be left out
    assert {name.split('/')[0] for name in names} == {'vop_mm', f'vop_mm-{vop_mm.__version__}.dist-info'}


def test_wheel_metadata(wheel):
    metadata = metadata_of(wheel)
    assert metadata['Name'].replace('-', '_') == 'vop_mm'
    assert metadata['Version'] == vop_mm.__version__
    assert set(metadata['Requires-Python'].split(',')) == {'>=3.10', '<3.14'}
    assert metadata['License'] == 'Apache-2.0' or metadata['License-Expression'] == 'Apache-2.0'
    assert {'optional', 'tests', 'docs', 'all'} == set(metadata.get_all('Provides-Extra'))


def test_requirements_are_those_of_the_files(wheel):
    found = list(map(Requirement, metadata_of(wheel).get_all('Requires-Dist')))
    for extra, files in (('', ['runtime']), ('optional', ['optional']), ('tests', ['optional', 'tests']),
                         ('docs', ['docs']), ('all', ['optional', 'tests', 'docs'])):
        own = [one for one in found if (re.search('extra == "(.*?)"', str(one.marker)) or ['', ''])[1] == extra]
        expected = [Requirement(line) for file in files for line in _requirements.read(file)]
        assert sorted((one.name, one.specifier) for one in own) == sorted((one.name, one.specifier) for one in expected)


def test_guard_of_an_installed_package_reads_its_metadata(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (tmp_path / 'packaging').symlink_to(Path(packaging.__file__).parent)
    done = subprocess.run([sys.executable, '-E', '-S', '-c', 'import vop_mm'], capture_output=True, text=True,
                          cwd=tmp_path)
    for line in _requirements.read('runtime'):
        name = Requirement(line).name
        assert name == 'packaging' or f'  - {name}: found none' in done.stderr
    assert 'faiss' not in done.stderr


def test_requirements_are_read_without_comments():
    assert any(line.startswith('lmdb>=') for line in _requirements.read('optional'))
    assert not [line for line in _requirements.read('runtime') if '#' in line]


LINES = ['mmcv-lite>=2.0.1,<2.2.0', 'torch>=2.1,<3', 'torchvision>=0.16,<1', 'numpy>=1.23']


@pytest.mark.parametrize(('installed', 'fitted'), [
    ({}, LINES),
    ({'mmcv': '2.1.0'}, LINES[1:]),
    ({'mmcv': '2.2.0'}, LINES),   # out of range: the guard says what to do
    ({'mmcv': '1.7.2'}, LINES),
    ({'torch': '2.9.1+cu130', 'torchvision': '0.24.1'}, LINES),
    ({'torch': '2.9.1+cu130'}, [*LINES, 'torch==2.9.1']),
    ({'torch': '2.6.0a0+git1'}, [*LINES, 'torch==2.6.0a0']),
    ({'torch': '1.13.1'}, LINES),  # out of range: to be replaced
    ({'torch': '2.1.2', 'torchvision': '0.16.2'}, [*LINES, 'numpy<2']),
])
def test_what_is_installed_is_left_alone(installed, fitted):
    assert _requirements.fit(LINES, installed) == fitted


def test_requirements_of_this_environment(tmp_path):
    done = subprocess.run([sys.executable, str(ROOT / 'tools/_requirements.py'), 'docs'], capture_output=True,
                          text=True, cwd=tmp_path, check=True)
    found = {Requirement(line).name for line in done.stdout.splitlines()}
    assert {'mmengine', 'torch', 'markdown-it-py'} <= found and 'faiss-cpu' not in found
