"""Tests that need more than the lowest supported versions have."""
from importlib.metadata import version

import pytest
from packaging.version import Version


def needs(package: str, at_least: str, why: str) -> pytest.MarkDecorator:
    """Skip where an installed package is older.

    Args:
        package (str): ``'torch'``.
        at_least (str): ``'2.4'``.
        why (str): What older ones lack.
    """
    return pytest.mark.skipif(Version(version(package)) < Version(at_least), reason=f'{package} < {at_least}: {why}')
