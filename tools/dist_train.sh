#!/usr/bin/env bash
# Train in several processes on one or more machines: bash tools/dist_train.sh CONFIG GPUS [options of tools/train.py]
# On several machines, set NNODES, NODE_RANK, MASTER_ADDR (and MASTER_PORT) on each.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash $0 CONFIG GPUS [options of tools/train.py]" >&2; exit 2; }
config=$1 gpus=$2
shift 2
here=$(cd "$(dirname "$0")" && pwd)
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
if [ "${NNODES:-1}" = 1 ] && [ -z "${MASTER_PORT:-}" ]; then
    where=(--standalone)  # torchrun chooses a free port
else
    where=(--nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}"
           --master_port="${MASTER_PORT:-29500}")
fi
exec python -m vop_mm.utils.torchrun "${where[@]}" --nproc_per_node="$gpus" \
    "$here/train.py" "$config" --launcher pytorch "$@"
