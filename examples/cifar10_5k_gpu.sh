#!/usr/bin/env bash
# The recipe cifar10-5k in a quarter of an hour of one GPU, in commands of at most ten minutes; repeat `run` to go on.
#
#   bash examples/cifar10_5k_gpu.sh rates   2 minutes   tests that need a GPU, then measured rates
#   bash examples/cifar10_5k_gpu.sh run     9 minutes   the recipe, as far as it gets in SECONDS; then its records
#
# Before, on any machine: cut the packed images into pieces that can be sent one with each command.
#   python benchmarks/unpack_cifar10.py cifar10_train.npz --cut 2 --into PIECES && cp cifar10_test_0_7999.npz PIECES/test.npz
#
# PIECES   folder of train-0.npz, train-1.npz, test.npz   [.gpu]
# RESULTS  folder for rates.json, records.tar.gz           [$OUT, or results]
# SECONDS_LEFT  seconds for the tests, or for the recipe  [60, 540]
# TINY=1   the same commands at a tiny scale, on a CPU
set -u
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1
PIECES=${PIECES:-.gpu} RESULTS=${RESULTS:-${OUT:-results}} RUN=${RUN:-runs/cifar10-5k} DATA=${DATA:-data/cifar10}
PYTHON=${PYTHON:-python3} TINY=${TINY:-}
mkdir -p "$RESULTS"

rates() {
  timeout "${SECONDS_LEFT:-60}" "$PYTHON" -m pytest -q -m accelerator tests || [ $? -eq 5 ] || echo "tests failed: see above"
  "$PYTHON" benchmarks/rates.py --into "$RESULTS/rates.json" --seconds 60 ${TINY:+--tiny}
}

records() {
  [ -d "$RUN" ] || return 0
  (cd "$RUN" && find . \( -name '*.json' -o -name '*.done' -o -name 'report.html' -o -name 'validation.npz' \
    -o -name 'history.npz' -o -path './evaluation/*.npz' -o -path './generators/*/grids/*.png' \) \
    ! -path './proxies/*' -print0 | tar --null -czf - -T -) > "$RESULTS/records.tar.gz"
  ls -l "$RESULTS/records.tar.gz"
}

run() {
  if [ ! -d "$DATA" ]; then
    "$PYTHON" benchmarks/unpack_cifar10.py "$PIECES/train-0.npz" "$PIECES/train-1.npz" "$PIECES/test.npz" \
      --into "$DATA" || exit 1
  fi
  timeout --signal TERM --kill-after 30 "${SECONDS_LEFT:-540}" \
    "$PYTHON" -m robustgen run cifar10-5k --data "cifar10=$DATA" --into "$RUN" ${TINY:+--scale tiny --jobs 1}
  local code=$?
  records
  exit $code
}

case "${1:-}" in
  rates | run) "$1" ;;
  *) echo "usage: $0 rates|run" >&2; exit 2 ;;
esac
