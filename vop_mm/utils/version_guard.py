"""Says in one error which packages are missing or out of range, and the commands that mend it.

Only package metadata is read, and only with the standard library: nothing heavy is imported, and a broken package can't
hide the message that explains it. The ranges are those of ``requirements/runtime.txt``, read from the source tree or
from the metadata of the installed package.
"""
from __future__ import annotations  # an old Python has to get as far as its message

import ast
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

from ..version import PYTHON_RANGE

_ROOT = Path(__file__).resolve().parents[2]
# Other distributions that bring the same module.
_SAME_MODULE = {'decord': ('decord2', 'eva-decord')}
_COMPARE = {
    '>=': lambda a, b: a >= b,
    '<=': lambda a, b: a <= b,
    '==': lambda a, b: a == b,
    '!=': lambda a, b: a != b,
    '>': lambda a, b: a > b,
    '<': lambda a, b: a < b,
}


def check_environment() -> None:
    """Check Python and every runtime requirement against what is installed.

    Raises:
        ImportError: Something is missing or out of range. Names every such package, what was found, what is wanted, and
            the command that mends it.
    """
    # packages of another Python are no use: with a wrong one, that is all there is to say
    problems = python_problems(sys.version_info[:3]) or package_problems(runtime_ranges())
    if len(problems) > 1:
        problems.append('or all of these at once: pip install -e . in the folder of vop_mm\'s setup.py')
    if problems:
        raise ImportError(f'vop_mm can not run in this environment ({sys.prefix}):\n'
                          + '\n'.join(f'  - {problem}' for problem in problems))


def runtime_ranges() -> list[str]:
    """The lines of ``requirements/runtime.txt``.

    Returns:
        list[str]: For instance ``['mmengine>=0.10.3,<1.0', ...]``. Empty where vop_mm was put without its metadata:
        there is nothing to check against then.
    """
    source = _ROOT / 'requirements' / 'runtime.txt'
    if source.is_file() and (_ROOT / 'setup.py').is_file():
        lines = (line.split('#')[0].strip() for line in source.read_text(encoding='utf-8').splitlines())
        return [line.split(';')[0].strip() for line in lines if line and applies(line)]
    try:
        lines = metadata.requires('vop_mm') or []
    except metadata.PackageNotFoundError:
        return []
    # this extra has the ranges as they are; setup.py bends the plain requirements to the environment it finds
    return [line.split(';')[0].strip() for line in lines
            if re.search(r'extra\s*==\s*.runtime\b', line) and applies(line)]


def applies(line: str) -> bool:
    """Whether a requirement is one of this platform, by its marker.

    Args:
        line (str): For instance ``'decord>=0.6.0; platform_machine == "x86_64" or platform_machine == "AMD64"'``.

    Returns:
        bool: True also where it has no marker.
    """
    marker = line.partition(';')[2].strip()
    return not marker or _holds(ast.parse(marker, mode='eval').body)


def _holds(node: ast.expr) -> bool:
    """Whether a marker is true, which has the syntax of a Python expression; what is not known here is."""
    if isinstance(node, ast.BoolOp):
        return (all if isinstance(node.op, ast.And) else any)([_holds(value) for value in node.values])
    known = {'platform_machine': platform.machine(), 'sys_platform': sys.platform, 'platform_system': platform.system()}
    sides = [known.get(side.id) if isinstance(side, ast.Name) else ast.literal_eval(side)
             for side in (node.left, node.comparators[0])]
    if None in sides or not isinstance(node.ops[0], (ast.Eq, ast.NotEq)):
        return True
    return (sides[0] == sides[1]) is isinstance(node.ops[0], ast.Eq)


def python_problems(found: tuple[int, int, int]) -> list[str]:
    """What is wrong with the Python, in words.

    Args:
        found (tuple[int, int, int]): Its version.

    Returns:
        list[str]: One line, or none.
    """
    low, high = PYTHON_RANGE
    if low <= tuple(found[:2]) < high:
        return []
    return ['python: found {}.{}.{}, wanted >={}.{},<{}.{}; make a new environment with one in that range'.format(
        *found, *low, *high)]


def package_problems(ranges: list[str]) -> list[str]:
    """What is wrong with the installed packages, in words.

    Args:
        ranges (list[str]): Requirements, for instance ``['mmengine>=0.10.3,<1.0']``.

    Returns:
        list[str]: A line a package, none when all is well.
    """
    problems = []
    for line in ranges:
        name, wanted = re.match(r'\s*([\w.-]+)\s*\(?([^()]*)', line).groups()
        wanted = ','.join(sorted((part.strip() for part in wanted.split(',')), reverse=True))  # '>=1,<2', not '<2,>=1'
        problems.append(_mmcv_problem(wanted) if name == 'mmcv-lite' else _problem(name, wanted))
    problems.append(_torchvision_problem())
    return [problem for problem in problems if problem]


def in_range(version: str, wanted: str) -> bool:
    """Whether a version is in a range; what follows the release number (``rc1``, ``+cu121``) does not count.

    Args:
        version (str): For instance ``'2.1.2+cu121'``.
        wanted (str): For instance ``'>=2.1,<3'``.

    Returns:
        bool: Whether it is.
    """
    for part in filter(None, wanted.split(',')):
        compare, bound = re.match(r'\s*([<>=!]+)\s*(.+)', part).groups()
        digits = bound.count('.') if bound.endswith('.*') else None  # '==2.1.*' compares two numbers
        if not _COMPARE[compare](_release(version)[:digits], _release(bound)[:digits]):
            return False
    return True


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
    """mmcv and mmcv-lite own the same files: one of them, or both in one version."""
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
    """A torchvision is built for a minor release of torch; with another its operators may be missing."""
    torch, torchvision = _version('torch'), _version('torchvision')
    if not torch or not torchvision:
        return None
    for line in metadata.requires('torchvision') or ():
        match = re.match(r'torch\s*\(?([<>=!][^;()]*)', line)
        wants = match[1].strip() if match else ''
        if not in_range(torch, re.sub(r'==\s*(\d+\.\d+)[^,]*', r'==\1.*', wants)):
            return (f'torchvision: found {torchvision}, which is for torch{wants}, wanted the one for {torch}; '
                    f'pip install "torch=={torch.split("+")[0]}" torchvision')
    return None


def _release(version: str) -> tuple[int, ...]:
    numbers = tuple(int(number) for number in re.match(r'\d+(?:\.\d+)*', version.strip())[0].split('.'))
    return numbers + (0,) * (4 - len(numbers))


def _version(name: str) -> str | None:
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return None
    # its own ``version`` parses all of the file as an e-mail, which takes as long as everything else here
    text = found.read_text('METADATA') or found.read_text('PKG-INFO') or ''
    match = re.search(r'^Version:\s*(\S+)', text, re.MULTILINE)
    return match and match[1]
