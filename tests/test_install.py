"""What setup.py asks for, and what goes into a wheel."""
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from email import message_from_string
from pathlib import Path

import packaging
import pytest

import vop_mm

ROOT = Path(__file__).resolve().parents[1]
pytest.importorskip('setuptools')


@pytest.fixture(scope='module')
def setup_py():
    spec = importlib.util.spec_from_file_location('vop_mm_setup', ROOT / 'setup.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """A wheel built from a copy of the tracked tree, with a css file more in a subpackage."""
    pytest.importorskip('pip')
    tmp_path = tmp_path_factory.mktemp('wheel')
    source = tmp_path / 'source'
    source.mkdir()
    for name in ('setup.py', 'pyproject.toml', 'MANIFEST.in', 'LICENSE'):
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
    assert {'runtime', 'optional', 'tests', 'docs', 'all'} == set(metadata.get_all('Provides-Extra'))


def test_guard_of_an_installed_package_reads_its_metadata(wheel, tmp_path, setup_py):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    (tmp_path / 'packaging').symlink_to(Path(packaging.__file__).parent)
    done = subprocess.run([sys.executable, '-E', '-S', '-c', 'import vop_mm'], capture_output=True, text=True,
                          cwd=tmp_path)
    for line in setup_py.read_requirements('runtime'):
        name = setup_py.Requirement(line).name
        assert name == 'packaging' or f'  - {name}: found none' in done.stderr


def test_requirements_are_read_without_comments(setup_py):
    tests = setup_py.read_requirements('tests')
    assert any(line.startswith('lmdb>=') for line in tests)  # by `-r optional.txt`
    assert not [line for line in tests if '#' in line or line.startswith('-')]


LINES = ['mmcv-lite>=2.0.1,<2.2.0', 'torch>=2.1,<3', 'torchvision>=0.16,<1', 'numpy>=1.23']
FULL = ['mmcv<2.2.0,>=2.0.1', *LINES[1:]]


@pytest.mark.parametrize(('installed', 'mmcv', 'fitted'), [
    ({}, '', LINES),
    ({'mmcv': '2.1.0'}, '', FULL),
    ({'mmcv': '2.2.0'}, '', LINES),   # out of range: the guard says what to do
    ({'mmcv': '1.7.2'}, '', LINES),
    ({'mmcv': '2.1.0'}, 'lite', LINES),
    ({}, 'full', FULL),
    ({'torch': '2.9.1+cu130', 'torchvision': '0.24.1'}, '', LINES),
    ({'torch': '2.9.1+cu130'}, '', [*LINES, 'torch==2.9.1']),
    ({'torch': '2.6.0a0+git1'}, '', [*LINES, 'torch==2.6.0a0']),
    ({'torch': '1.13.1'}, '', LINES),  # out of range: to be replaced
    ({'torch': '2.1.2', 'torchvision': '0.16.2'}, '', [*LINES, 'numpy<2']),
])
def test_what_is_installed_is_left_alone(setup_py, installed, mmcv, fitted):
    assert setup_py.fit_to_environment(LINES, installed, mmcv) == fitted


def test_extra_keeps_the_ranges_as_they_are(wheel, setup_py):
    of_extra = [line for line in metadata_of(wheel).get_all('Requires-Dist') if line.endswith('extra == "runtime"')]
    assert len(of_extra) == len(setup_py.read_requirements('runtime'))
