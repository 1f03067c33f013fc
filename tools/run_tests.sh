#!/usr/bin/env bash
# Create or reuse the environment (see _env.sh) and run the tests: bash tools/run_tests.sh [pytest arguments]
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/_env.sh

# The models of the tests are tiny: threads would only wait for each other and for other processes.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
export MPLBACKEND="${MPLBACKEND:-Agg}"
# Test files are distributed over several processes, slow ones first (tests/conftest.py);
# `bash tools/run_tests.sh -n 0` runs them in one process.
workers=$(env -u OMP_NUM_THREADS nproc)  # nproc would return 1 otherwise
[ "$workers" -le 4 ] || workers=4
# without a path: tests/ and projects/, as set in pyproject.toml
python -m pytest -q -n "$workers" --dist loadfile --no-loadscope-reorder "$@" < /dev/null
