#!/usr/bin/env bash
# Train on all NVIDIA GPUs of this machine, with data parallelism.
#
#   launch/gpu_local.sh --config=configs/squad.py --workdir=runs/squad \
#     [--config.KEY=VALUE ...]
#
# To use some of the GPUs: CUDA_VISIBLE_DEVICES=0,1 launch/gpu_local.sh ...
set -euo pipefail
cd "$(dirname "$0")/.."

make --silent .venv/base-cuda ACCELERATOR=cuda
exec .venv/bin/python -m flaxbert.run --require=gpu "$@"
