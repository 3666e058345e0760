#!/usr/bin/env bash
# All that needs a GPU, in ten minutes: scripts/gpu_checks.sh [OUT]. It writes into OUT (runs/gpu_checks)
# the tests marked gpu, the benchmark, and what one rank under torchrun costs over the plain loop. A part
# that fails or takes too long leaves its log, and the next one runs.
set -uo pipefail
cd "$(dirname "$0")/.."
out=${1:-runs/gpu_checks}
python=${PYTHON:-.venv/bin/python}
mkdir -p "$out"
failed=0

part() {  # NAME SECONDS COMMAND...
    local name=$1 seconds=$2
    shift 2
    echo "$name, at most $seconds s"
    timeout "$seconds" "$@" > "$out/$name.txt" 2> "$out/$name.log"
    local code=$?
    echo "$code" > "$out/$name.code"
    if [ "$code" -ne 0 ]; then
        echo "$name failed with code $code; see $out/$name.txt and $out/$name.log"
        failed=1
    fi
}

if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "$python sees no CUDA device; run this on a machine with a GPU, or give PYTHON=." >&2
    exit 1
fi
nvidia-smi > "$out/gpu.txt" 2>&1
"$python" -m pip freeze > "$out/installed.txt" 2>&1
part tests 120 "$python" -m pytest -n 0 -m gpu
part one_rank 120 "$python" scripts/weak_scaling.py --ranks 1 --device cuda --models 5M 48M --batch 256
part pretraining 110 "$python" scripts/benchmark.py device=cuda only=pretraining
part extraction 140 "$python" scripts/benchmark.py device=cuda only=extraction
part sampling 80 "$python" scripts/benchmark.py device=cuda only=sampling
exit "$failed"
