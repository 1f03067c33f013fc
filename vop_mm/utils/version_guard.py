"""Check the environment when vop_mm is imported: one error names all packages that are missing or out of range.

Only package metadata is read, so that no heavy package is imported, and a broken one can't hide the message that
explains it. The ranges are those of ``requirements/runtime.txt``.
"""
from __future__ import annotations  # an old Python must get as far as its message

import re
import sys
from importlib import metadata
from pathlib import Path

from ..version import PYTHON_RANGE

try:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version
except ImportError:
    Requirement = None

_ROOT = Path(__file__).resolve().parents[2]
# Other distributions that provide the same module.
_SAME_MODULE = {'decord': ('decord2', 'eva-decord')}


def check_environment() -> None:
    """Check Python and every runtime requirement against the installed versions.

    Raises:
        ImportError: Something is missing or out of range. The message names every such package, the found and the
            required version, and the command that fixes it.
    """
    # with a wrong Python, its packages do not matter, and nothing else is reported
    problems = python_problems(sys.version_info[:3])
    if not problems and Requirement is None:
        problems = ['packaging: found none; pip install -e . in the folder of vop_mm\'s pyproject.toml']
    problems = problems or package_problems(runtime_requirements())
    if len(problems) > 1:
        problems.append('or all of these at once: pip install -e . in the folder of vop_mm\'s pyproject.toml')
    if problems:
        raise ImportError(f'vop_mm cannot run in this environment ({sys.prefix}):\n'
                          + '\n'.join(f'  - {problem}' for problem in problems))


def runtime_requirements() -> list[Requirement]:
    """Read the requirements of this platform, from the source tree or the metadata of the installed package.

    Returns:
        list[Requirement]: Requirements; empty if vop_mm was copied without its metadata, so nothing can be checked.
    """
    source = _ROOT / 'requirements' / 'runtime.txt'
    if source.is_file() and (_ROOT / 'pyproject.toml').is_file():
        lines = (line.split('#')[0].strip() for line in source.read_text(encoding='utf-8').splitlines())
        found = [Requirement(line) for line in lines if line]
    else:
        try:
            lines = metadata.requires('vop_mm') or []
        except metadata.PackageNotFoundError:
            return []
        found = map(Requirement, lines)
    return [one for one in found if one.marker is None or one.marker.evaluate({'extra': ''})]


def python_problems(found: tuple[int, int, int]) -> list[str]:
    """Describe what is wrong with a Python version: one line, or none."""
    low, high = PYTHON_RANGE
    if low <= tuple(found[:2]) < high:
        return []
    return ['python: found {}.{}.{}, wanted >={}.{},<{}.{}; make a new environment with one in that range'.format(
        *found, *low, *high)]


def package_problems(requirements: list[Requirement]) -> list[str]:
    """Describe what is wrong with the installed packages: one line per problem."""
    problems = []
    for requirement in requirements:
        wanted = ','.join(sorted(map(str, requirement.specifier), reverse=True))  # '>=1,<2', not '<2,>=1'
        problems.append(_mmcv_problem(wanted) if requirement.name == 'mmcv-lite' else
                        _problem(requirement.name, wanted))
    problems.append(_torchvision_problem())
    return [problem for problem in problems if problem]


def in_range(version: str, wanted: str) -> bool:
    """Return True if a version is in a range, ignoring suffixes of the release number (``rc1``, ``+cu121``).

    Args:
        version (str): For instance ``'2.1.2+cu121'``.
        wanted (str): For instance ``'>=2.1,<3'``.
    """
    return Version(version).base_version in SpecifierSet(wanted)


def _problem(name: str, wanted: str) -> str | None:
    for other in _SAME_MODULE.get(name, ()):
        if _version(other):
            return (f'{name}: found {other} {_version(other)}, which brings the same module, wanted {name} alone; '
                    f'pip uninstall -y {other} {name} && pip install "{name}{wanted}"')
    found = _version(name)
    if found and in_range(found, wanted):
        return None
    return f'{name}: found {found or "none"}, wanted {wanted}; pip install "{name}{wanted}"'


def _mmcv_problem(wanted: str) -> str | None:
    """Check mmcv and mmcv-lite, which share the same files: only one may be installed, or both in one version."""
    full, lite = _version('mmcv'), _version('mmcv-lite')
    install = f'pip install "mmcv-lite{wanted}"'
    anew = f'pip uninstall -y mmcv mmcv-lite && {install}'
    if full and lite and full != lite:
        return f'mmcv: found {full} and mmcv-lite {lite}, which overwrite each other, wanted one, {wanted}; {anew}'
    found = full or lite
    if found and in_range(found, wanted):
        return None
    if full:
        return f'mmcv: found {full}, wanted {wanted}; {anew}'
    return f'mmcv-lite: found {lite or "none"} (and no mmcv), wanted {wanted}; {install}'


def _torchvision_problem() -> str | None:
    """Check torchvision, which is built for a minor release of torch; with another, operators may be missing."""
    torch, torchvision = _version('torch'), _version('torchvision')
    if not torch or not torchvision:
        return None
    for wants in map(Requirement, metadata.requires('torchvision') or ()):
        minor = re.sub(r'==\s*(\d+\.\d+)[^,]*', r'==\1.*', str(wants.specifier))
        if wants.name == 'torch' and not in_range(torch, minor):
            return (f'torchvision: found {torchvision}, which is for torch{wants.specifier}, wanted the one for '
                    f'{torch}; pip install "torch=={Version(torch).public}" torchvision')
    return None


def _version(name: str) -> str | None:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    # its own ``version`` parses the whole file as an e-mail, which takes as long as everything else here
    text = found.read_text('METADATA') or found.read_text('PKG-INFO') or ''
    match = re.search(r'^Version:\s*(\S+)', text, re.MULTILINE)
    return match and match[1]
