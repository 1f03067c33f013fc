"""Benchmarks of benchmark.py. Every module without a leading underscore is a subcommand.

Its docstring is the help text, ``add_arguments(parser)`` adds its arguments, and ``run(args)`` returns the rows of the
table: dicts with ``what``, ``figure`` (text), ``value`` (number) and, if there is a target, ``target`` (text) and
``met`` (bool).
"""
