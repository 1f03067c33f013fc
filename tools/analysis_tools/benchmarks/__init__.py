"""What benchmark.py measures. Every module without an underscore in front is a subcommand.

Its docstring says what it measures, ``add_arguments(parser)`` what it takes, and ``run(args)`` returns the rows of the
table: dicts with ``what``, ``figure`` (text), ``value`` (number), and where there is a target ``target`` (text) and
``met`` (bool).
"""
