"""Print requirements that leave alone what is installed and in range; arguments name extras.

    pip install -r <(python tools/_requirements.py optional tests) && pip install --no-deps -e .

``pip install .`` replaces some of it: the newest torchvision brings its own torch, and mmcv-lite overwrites files of
a full mmcv. A torch before 2.3 was built for numpy 1. No requirement line can say so.
"""
import sys
from importlib import metadata
from pathlib import Path

try:
    from packaging.requirements import Requirement
    from packaging.version import Version
except ImportError:  # a new environment has pip alone
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.version import Version

FOLDER = Path(__file__).resolve().parents[1] / 'requirements'


def read(name: str) -> list[str]:
    """Return the requirements of a file."""
    lines = (line.split('#')[0].strip() for line in (FOLDER / f'{name}.txt').read_text(encoding='utf-8').splitlines())
    return [line for line in lines if line]


def fit(lines: list[str], installed: dict[str, str]) -> list[str]:
    """Return requirements that keep installed versions of ``mmcv``, ``torch`` and ``torchvision``."""
    ranges = {req.name: req.specifier for req in map(Requirement, lines)}
    fitted = list(lines)
    if 'mmcv' in installed and ranges['mmcv-lite'].contains(installed['mmcv'], prereleases=True):
        fitted = [line for line in fitted if Requirement(line).name != 'mmcv-lite']
    if 'torch' in installed and ranges['torch'].contains(installed['torch'], prereleases=True):
        torch = Version(installed['torch'])
        if 'torchvision' not in installed:
            fitted.append(f'torch=={torch.public}')
        if torch < Version('2.3.dev0'):
            fitted.append('numpy<2')
    return fitted


def main() -> None:
    installed = {dist.metadata['Name']: dist.version for dist in metadata.distributions()}
    print(*fit([line for name in ('runtime', *sys.argv[1:]) for line in read(name)], installed), sep='\n')


if __name__ == '__main__':
    main()
