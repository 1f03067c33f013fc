"""The guard names the package, what is there, what is wanted and what to type; for that it imports nothing heavy."""
import subprocess
import sys
from pathlib import Path

import packaging
import pytest
from packaging.requirements import Requirement

import vop_mm
from vop_mm.utils import version_guard
from vop_mm.utils.version_guard import (
    check_environment,
    in_range,
    package_problems,
    python_problems,
    runtime_requirements,
)
from vop_mm.version import PYTHON_RANGE

ROOT = Path(__file__).resolve().parents[2]
RANGES = ['mmengine>=0.10.3,<1.0', 'mmcv-lite>=2.0.1,<2.2.0', 'decord>=0.6.0,<1.0', 'torch>=2.1,<3',
          'torchvision>=0.16']
FITTING = {'mmengine': '0.10.7', 'mmcv_lite': '2.1.0', 'decord': '0.6.0', 'torch': '2.3.1+cu121',
           'torchvision': '0.18.1'}


@pytest.fixture
def problems_with(tmp_path, monkeypatch):
    """Problems of an environment that holds ``FITTING`` with some changes (None: not installed), nothing else."""

    def problems(ranges=RANGES, torchvision_wants='torch (==2.3.1)', **changes):
        for name, version in {**FITTING, **changes}.items():
            if version is None:
                continue
            folder = tmp_path / f'{name}-{version}.dist-info'
            folder.mkdir()
            requires = f'Requires-Dist: {torchvision_wants}\n' if name == 'torchvision' else ''
            (folder / 'METADATA').write_text(f'Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}')
        with monkeypatch.context() as patch:
            patch.setattr(sys, 'path', [str(tmp_path)])
            return package_problems([Requirement(line) for line in ranges])

    return problems


def test_this_environment_fits():
    check_environment()
    assert python_problems(sys.version_info[:3]) == []


def test_a_fitting_environment_has_no_problems(problems_with):
    assert problems_with() == []


@pytest.mark.parametrize(('changes', 'line'), [
    ({'mmengine': None}, 'mmengine: found none, wanted >=0.10.3,<1.0; pip install "mmengine>=0.10.3,<1.0"'),
    ({'mmengine': '0.9.1'}, 'mmengine: found 0.9.1, wanted >=0.10.3,<1.0; pip install "mmengine>=0.10.3,<1.0"'),
    ({'torch': '3.0.0', 'torchvision': None}, 'torch: found 3.0.0, wanted >=2.1,<3; pip install "torch>=2.1,<3"'),
    ({'mmcv_lite': None},
     'mmcv-lite: found none (and no mmcv), wanted >=2.0.1,<2.2.0; pip install "mmcv-lite>=2.0.1,<2.2.0"'),
    ({'mmcv_lite': '2.2.0'},
     'mmcv-lite: found 2.2.0 (and no mmcv), wanted >=2.0.1,<2.2.0; pip install "mmcv-lite>=2.0.1,<2.2.0"'),
    ({'mmcv_lite': None, 'mmcv': '2.2.0'},
     'mmcv: found 2.2.0, wanted >=2.0.1,<2.2.0; '
     'pip uninstall -y mmcv mmcv-lite && pip install "mmcv-lite>=2.0.1,<2.2.0"'),
    ({'mmcv': '2.0.1'},
     'mmcv: found 2.0.1 and mmcv-lite 2.1.0, which overwrite each other, wanted one, >=2.0.1,<2.2.0; '
     'pip uninstall -y mmcv mmcv-lite && pip install "mmcv-lite>=2.0.1,<2.2.0"'),
    ({'decord2': '3.0.0'},
     'decord: found decord2 3.0.0, which brings the same module, wanted decord alone; '
     'pip uninstall -y decord2 decord && pip install "decord>=0.6.0,<1.0"'),
    ({'torch': '2.4.0+cpu'},  # a torchvision alone would bring its own torch: both are asked for
     'torchvision: found 0.18.1, which is for torch==2.3.1, wanted the one for 2.4.0+cpu; '
     'pip install "torch==2.4.0" torchvision'),
])
def test_one_problem_is_one_line(problems_with, changes, line):
    found = problems_with(**changes)
    assert line in found
    assert len(found) == 1 + (changes.get('torchvision', '') is None)


@pytest.mark.parametrize('changes', [
    {'mmcv_lite': None, 'mmcv': '2.1.0'},  # the full one instead
    {'mmcv': '2.1.0'},                     # both, of one version: the same files
    {'torch': '2.3.0'},                    # another patch release than torchvision's
])
def test_what_is_accepted(problems_with, changes):
    assert problems_with(**changes) == []


@pytest.mark.parametrize(('wants', 'lines'), [
    ('torch', 0), ('torch>=2.3', 0), ('torch>=2.3; python_version>"3"', 0), ('torch (>=2.9.0)', 1),
    ('torchaudio==2.9', 0)])
def test_what_a_torchvision_wants_of_torch(problems_with, wants, lines):
    assert len(problems_with(torchvision_wants=wants)) == lines


@pytest.mark.parametrize(('version', 'wanted', 'inside'), [
    ('2.1.2+cu121', '>=2.1,<3', True), ('2.1', '>=2.1.0', True), ('2.10.0', '>=2.9', True), ('3', '<3', False),
    ('2.6.0a0+git', '>=2.6', True), ('1.0.1', '!=1.0.1', False), ('1.0.1', '==1.0.1', True), ('1.0', '<=1.0.0', True),
    ('1.0', '>1.0', False), ('0.1', '', True), ('2.10.1', '==2.1.*', False), ('2.1.2', '==2.1.*', True),
])
def test_in_range(version, wanted, inside):
    assert in_range(version, wanted) is inside


@pytest.mark.parametrize('python', [(3, 9, 18), (3, 14, 0)])
def test_python_out_of_range(python):
    low, high = ('.'.join(map(str, end)) for end in PYTHON_RANGE)
    found = '.'.join(map(str, python))
    assert python_problems(python) == [
        f'python: found {found}, wanted >={low},<{high}; make a new environment with one in that range']


def test_one_error_names_everything(monkeypatch):
    monkeypatch.setattr(version_guard, 'runtime_requirements',
                        lambda: [Requirement('no-such-a>=1'), Requirement('no-such-b>=2')])
    with pytest.raises(ImportError, match=r'(?s)cannot run.*no-such-a: found none.*no-such-b: .*pip install -e'):
        check_environment()


def test_ranges_are_those_of_the_file():
    lines = (ROOT / 'requirements/runtime.txt').read_text().splitlines()
    assert {one.name for one in runtime_requirements()} == {
        Requirement(line).name for line in lines if line and not line.startswith('#')}


@pytest.mark.parametrize(('machine', 'wanted'), [
    ('x86_64', True), ('AMD64', True), ('aarch64', False), ('arm64', False)])
def test_decord_is_not_wanted_where_it_has_no_wheel(machine, wanted):
    line, = (line for line in (ROOT / 'requirements/runtime.txt').read_text().splitlines() if line.startswith('decord'))
    assert Requirement(line).marker.evaluate({'platform_machine': machine}) is wanted


def test_import_is_light():
    code = 'import sys, vop_mm; print(vop_mm.__version__, *{m.split(".")[0] for m in sys.modules})'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, cwd=ROOT, check=True)
    version, *modules = done.stdout.split()
    assert version == vop_mm.__version__
    assert not {'torch', 'numpy', 'mmengine', 'mmcv', 'decord', 'av', 'open_clip'} & set(modules)


def test_an_empty_environment_is_told_what_to_do():
    # -S: no site-packages
    done = subprocess.run([sys.executable, '-E', '-S', '-c', 'import vop_mm'], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    says = "  - packaging: found none; pip install -e . in the folder of vop_mm's pyproject.toml\n"
    assert done.stderr.endswith(says)


def test_an_environment_with_nothing_but_packaging_gets_the_whole_list(tmp_path):
    (tmp_path / 'packaging').symlink_to(Path(packaging.__file__).parent)
    done = subprocess.run([sys.executable, '-S', '-c', 'import vop_mm'], capture_output=True, text=True, cwd=ROOT,
                          env={'PYTHONPATH': str(tmp_path)})
    for name in ('torch', 'torchvision', 'mmengine', 'mmcv-lite', 'mmaction2', 'open_clip_torch'):
        assert f'  - {name}: found none' in done.stderr
