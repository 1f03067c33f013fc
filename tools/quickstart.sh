#!/usr/bin/env bash
# Train and evaluate a first model from a fresh clone: bash tools/quickstart.sh [--quick]
# Renders the demo clips, tunes VoP on them with the mini CLIP of this project, compares it with zero-shot, prints a
# table, draws a picture and indexes the test clips for search. A second run reuses existing results. --quick trains a
# quarter as long.
set -euo pipefail
cd "$(dirname "$0")/.."

quick=no
case "${1:-}" in
    '') ;;
    --quick) quick=yes ;;
    *) echo "usage: bash tools/quickstart.sh [--quick]" >&2; exit 2 ;;
esac

active="${VIRTUAL_ENV:-}"
source tools/_env.sh
# the commands printed at the end have to work in the calling shell
python=python
[ "${VIRTUAL_ENV:-}" = "$active" ] || python=.venv/bin/python
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
SECONDS=0

data=data/demo out=work_dirs/quickstart
options=()
if [ "$quick" = yes ]; then
    out=work_dirs/quickstart_quick
    options=(--max-epochs 2)
fi

echo "== 1/4 demo clips: colored shapes that move, in $data"
python tools/data/make_demo.py "$data"

echo "== 2/4 zero-shot, VoP and VoP^F+P: training and evaluation, in $out"
python tools/analysis_tools/compare_methods.py configs/baselines/zero_shot_demo.py configs/vop/vop_demo.py \
    configs/vop/vop_f_p_demo.py --out "$out" "${options[@]}"

echo "== 3/4 a picture of some queries"
python tools/visualizations/vis_retrieval.py configs/vop/vop_demo.py "$out/retrieval.png" \
    --features "zero-shot=$out/zero_shot_demo/seed_0/test_features.npz" \
               "VoP=$out/vop_demo/seed_0/test_features.npz" \
               "VoP^F+P=$out/vop_f_p_demo/seed_0/test_features.npz"

best=$(ls "$out"/vop_demo/seed_0/best_*.pth | head -n 1)

echo "== 4/4 an index of the test clips for search"
clips="$out/test_clips"
mkdir -p "$clips"
# copies that keep their times: the web page serves no links that lead out of the folder
cp -pf --remove-destination "$PWD/$data"/videos/test_*.mp4 "$clips/"
python tools/index_videos.py "$clips" "$out/index" --config configs/vop/vop_f_p_demo.py \
    --checkpoint "$(ls "$out"/vop_f_p_demo/seed_0/best_*.pth | head -n 1)"
cat <<EOF

Done in $((SECONDS / 60)) min $((SECONDS % 60)) s (installation apart).

  table     $out/table.md
  pictures  $out/retrieval.png (or $out/retrieval.html, in a browser), $out/comparison.png

Most test clips have a twin: the same frames in reverse, with the opposite caption. Zero-shot and VoP average over frames
and can't tell a clip from its reverse: about 50% pair accuracy is what they get by design. VoP^F+P knows about order.

Next:
  $python tools/search.py $out/index "a red triangle becomes blue"
  $python demo/app.py $out/index    # the same as a web page
  $python tools/test.py configs/vop/vop_demo.py $best
  $python tools/train.py configs/vop/vop_demo.py --work-dir work_dirs/mine
  bash tools/run_tests.sh
  real CLIP and MSR-VTT: see README.md
EOF
