# Set up the environment that quickstart.sh and run_tests.sh share. This file is sourced, not run:
#
#     source "$(dirname "${BASH_SOURCE[0]}")/_env.sh"
#
# Afterwards, `python` and `pip` belong to an environment in which this clone is installed in editable mode, with the
# extras `optional` (renders clips) and `tests`:
#   - An active virtual environment (VIRTUAL_ENV) or conda environment other than `base` is used unchanged; otherwise
#     `.venv` in the clone, which the first call creates with the first supported Python among $PYTHON, python3.11,
#     3.12, 3.13, 3.10, python3 and python.
#   - pip runs if nothing is installed yet, if pyproject.toml or requirements/ have changed, or if the version
#     guard reports something missing; otherwise the network is not used, and this takes a second.
#   - An installed torch and a full mmcv are kept if their versions are supported (see tools/_requirements.py).
# The working directory does not change. On failure, one line on stderr gives the reason, and the sourcing script exits
# (in an interactive shell, `source` returns 1). Works with `set -euo pipefail` and reads nothing from stdin.

_vop_root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

_vop_say() { echo "[vop_mm] $*"; }

_vop_fail() { echo "[vop_mm] error: $*" >&2; return 1; }

_vop_in_range() {  # checks that vop_mm/version.py supports an interpreter
    "$1" -c 'import sys; names = {}; exec(open(sys.argv[1]).read(), names)
low, high = names["PYTHON_RANGE"]; sys.exit(not low <= sys.version_info[:2] < high)' "$_vop_root/vop_mm/version.py" \
        > /dev/null 2>&1 < /dev/null
}

_vop_make_venv() {
    local candidate tried=''
    for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3.10 python3 python; do
        command -v "$candidate" > /dev/null 2>&1 || continue
        _vop_in_range "$candidate" || { tried="$tried $candidate"; continue; }
        _vop_say "making .venv with $("$candidate" --version 2>&1)"
        # created in place, since a moved one has broken scripts; an incomplete one has no pip and is created again
        "$candidate" -m venv --clear "$_vop_root/.venv" < /dev/null && return 0
        tried="$tried $candidate (its venv module fails; on Debian: apt install $(basename "$candidate")-venv)"
    done
    _vop_fail "no usable Python 3.10, 3.11, 3.12 or 3.13 on PATH${tried:+; tried and rejected:$tried};" \
              'install one, or name it: PYTHON=/path/to/python3.11'
}

_vop_activate() {
    local env=''
    if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/python" ]; then
        env="$VIRTUAL_ENV"
    elif [ -n "${CONDA_PREFIX:-}" ] && [ "${CONDA_DEFAULT_ENV:-}" != base ]; then
        env="$CONDA_PREFIX"  # `base` is active in many shells by default, so nothing is installed there
    fi
    if [ -z "$env" ]; then
        env="$_vop_root/.venv"
        if ! "$env/bin/python" -m pip --version > /dev/null 2>&1 || ! _vop_in_range "$env/bin/python"; then
            _vop_make_venv || return 1
        fi
        export VIRTUAL_ENV="$env"
        unset PYTHONHOME
    fi
    export PATH="$env/bin:$PATH"
    hash -r
    _vop_in_range python ||
        _vop_fail "$(python --version 2>&1) of $env is not 3.10, 3.11, 3.12 or 3.13; deactivate it, or make another"
}

_vop_pip() { python -m pip install --no-input --disable-pip-version-check --progress-bar off "$@" < /dev/null; }

_vop_install() {
    local prefix stamp wanted log
    prefix="$(python -c 'import sys; print(sys.prefix)')"
    stamp="$prefix/.vop_mm_installed"
    wanted="$(cd "$_vop_root" && { echo "$_vop_root"; cat pyproject.toml vop_mm/version.py requirements/*.txt; } |
              python -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())')"
    if [ "$(cat "$stamp" 2> /dev/null)" = "$wanted" ] && (cd "$_vop_root" && python -c 'import vop_mm') 2> /dev/null; then
        return 0
    fi
    _vop_say "installing into $prefix (a new environment: some minutes, 6 GB)"
    rm -f "$stamp"
    { _vop_pip -r <(python "$_vop_root/tools/_requirements.py" optional tests) && _vop_pip --no-deps -e "$_vop_root"; } ||
        { _vop_fail 'pip failed, see above'; return 1; }
    # checked again: an installed package may have an unsupported version
    (cd "$_vop_root" && python -c 'import vop_mm') || { _vop_fail 'the environment does not fit, see above'; return 1; }
    echo "$wanted" > "$stamp"
    _vop_say 'installed'
}

_vop_activate && _vop_install || { return 1 2> /dev/null || exit 1; }
