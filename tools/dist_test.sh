#!/usr/bin/env bash
# Evaluate in several processes on one or more machines:
# bash tools/dist_test.sh CONFIG CHECKPOINT GPUS [options of tools/test.py]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR (and MASTER_PORT) on each.
set -euo pipefail
[ $# -ge 3 ] || { echo "usage: bash $0 CONFIG CHECKPOINT GPUS [options of tools/test.py]" >&2
                  echo "CHECKPOINT is none for a config that trains nothing" >&2; exit 2; }
config=$1 checkpoint=$2 gpus=$3
shift 3
[ "$checkpoint" = none ] && checkpoint=()  || checkpoint=("$checkpoint")
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ "${NNODES:-1}" = 1 ] && [ -z "${MASTER_PORT:-}" ]; then
    where=(--standalone)  # torchrun chooses a free port
else
    where=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}"
           --master_port="${MASTER_PORT:-29500}")
fi
exec python -m vop_mm.utils.torchrun "${where[@]}" --nproc_per_node="$gpus" \
    "$here/test.py" "$config" "${checkpoint[@]}" --launcher pytorch "$@"
