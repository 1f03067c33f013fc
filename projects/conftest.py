"""Tests of projects start from what all tests start from."""
from tests.conftest import pytest_runtest_call, pytest_runtest_setup, small_demo

__all__ = ['pytest_runtest_call', 'pytest_runtest_setup', 'small_demo']
