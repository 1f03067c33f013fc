"""A fuzzer: inputs that a user may get from somebody else, changed at random, through the doors that a user has.

``python -m tests.fuzz --help``; ``tests/fuzz/test_fuzz.py`` runs some inputs of every kind.
"""
