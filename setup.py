"""Installation by ``pip install -e .`` or ``pip install .``.

Version ranges are in ``requirements/``. What the environment already holds bends three of them, so that nothing that
works is replaced:

- a full ``mmcv`` in range is required in place of ``mmcv-lite``: both own the same files, and installing the lite one
  over the full one breaks its operators. No requirement line can say "either";
- an installed ``torch`` without ``torchvision`` is kept: the newest torchvision would pull its own torch;
- a ``torch`` before 2.3 was built for numpy 1.

pip's isolated builds run the environment's own interpreter, so its packages are found there as well. Builders that make
an environment of their own (uv, ``python -m build``) can't be asked: ``VOP_MM_MMCV=full`` or ``lite`` decides then, and
``lite`` makes wheels to share.
"""
import importlib.metadata
import os
import re
import site
import sys
from pathlib import Path

from setuptools import find_packages, setup

try:
    from packaging.requirements import Requirement
    from packaging.version import Version
except ImportError:  # an environment without it, built without isolation
    from setuptools._vendor.packaging.requirements import Requirement
    from setuptools._vendor.packaging.version import Version

ROOT = Path(__file__).resolve().parent


def read_version() -> dict:
    """The names of ``vop_mm/version.py``, without importing the package."""
    names = {}
    exec((ROOT / 'vop_mm' / 'version.py').read_text(encoding='utf-8'), names)
    return names


def read_requirements(name: str) -> list[str]:
    """Lines of ``requirements/NAME.txt`` and the files it includes, without comments."""
    lines = []
    for line in (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8').splitlines():
        line = re.sub(r'(^|\s)#.*', '', line).strip()
        if line.startswith('-r '):
            lines += read_requirements(Path(line[3:].strip()).stem)
        elif line:
            lines.append(line)
    return lines


def installed_versions() -> dict[str, str]:
    """Version of what bends a range and is installed where this interpreter's packages go."""
    folders = site.getsitepackages()
    if sys.prefix == sys.base_prefix:
        folders.append(site.getusersitepackages())
    found = {}
    for name in ('mmcv', 'torch', 'torchvision'):
        for dist in importlib.metadata.distributions(name=name, path=folders):
            found.setdefault(name, dist.version)
    return found


def fit_to_environment(lines: list[str], installed: dict[str, str], mmcv: str = '') -> list[str]:
    """Requirements that leave alone what is installed and in range.

    Args:
        lines (list[str]): Requirements, one a line.
        installed (dict[str, str]): Versions of ``mmcv``, ``torch`` and ``torchvision``, those that are installed.
        mmcv (str): ``'full'`` or ``'lite'`` decides instead of what is installed. Defaults to ''.

    Returns:
        list[str]: Requirements, one a line.
    """
    ranges = {req.name: req.specifier for req in map(Requirement, lines)}
    has = {name: Version(version) for name, version in installed.items()}
    fitted = list(lines)
    lite = ranges['mmcv-lite']
    if mmcv == 'full' or (not mmcv and 'mmcv' in has and lite.contains(has['mmcv'], prereleases=True)):
        fitted = [f'mmcv{lite}' if Requirement(line).name == 'mmcv-lite' else line for line in fitted]
    torch = has.get('torch')
    if torch and ranges['torch'].contains(torch, prereleases=True):
        if 'torchvision' not in has:
            fitted.append(f'torch=={torch.public}')
        if torch < Version('2.3.dev0'):
            fitted.append('numpy<2')
    return fitted


def main() -> None:
    version = read_version()
    python_min, python_max = ('.'.join(map(str, end)) for end in version['PYTHON_RANGE'])
    runtime = read_requirements('runtime')
    optional, tests, docs = (read_requirements(name) for name in ('optional', 'tests', 'docs'))
    readme = ROOT / 'README.md'
    setup(
        name='vop_mm',
        version=version['__version__'],
        description='Parameter-efficient tuning of CLIP for text-video retrieval (VoP, CVPR 2023), with MMEngine',
        long_description=readme.read_text(encoding='utf-8') if readme.exists() else '',
        long_description_content_type='text/markdown',
        license='Apache-2.0',
        keywords='computer vision, text-video retrieval, prompt tuning, CLIP, OpenMMLab',
        classifiers=[
            'Development Status :: 4 - Beta',
            'Operating System :: POSIX :: Linux',
            'Programming Language :: Python :: 3',
            'Programming Language :: Python :: 3.10',
            'Programming Language :: Python :: 3.11',
            'Programming Language :: Python :: 3.12',
            'Programming Language :: Python :: 3.13',
            'Topic :: Scientific/Engineering :: Artificial Intelligence',
        ],
        packages=find_packages(include=['vop_mm', 'vop_mm.*']),
        package_data={'vop_mm': ['**/*.css', '**/*.js']},
        include_package_data=False,
        python_requires=f'>={python_min},<{python_max}',
        install_requires=fit_to_environment(runtime, installed_versions(), os.environ.get('VOP_MM_MMCV', '')),
        extras_require={
            # for the version guard of an installed package: the ranges as they are, whatever the environment bent
            'runtime': runtime,
            'optional': optional,
            'tests': tests,
            'docs': docs,
            'all': sorted({*optional, *tests, *docs}),
        },
        zip_safe=False,
    )


if __name__ == '__main__':
    main()
