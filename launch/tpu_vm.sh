#!/usr/bin/env bash
# Create a Cloud TPU VM (one host or a slice of many), install flaxbert there, and train.
#
#   PROJECT=my-project ZONE=us-west4-a NAME=bert TYPE=v5litepod-8 \
#     launch/tpu_vm.sh --config=configs/squad.py --workdir=runs/squad \
#     --config.model.dtype=bfloat16 [--config.KEY=VALUE ...]
#
# On a slice of several hosts, --workdir is a directory that all of them share (Filestore, or a
# bucket mounted with gcsfuse).
#
# VERSION is the VM's image: v2-alpha-tpuv5-lite (v5litepod), v2-alpha-tpuv6e (v6e),
# v2-alpha-tpuv5 (v5p), tpu-ubuntu2204-base (v4 and older).
#
# JAX_DEFAULT_PRNG_IMPL, JAX_DEFAULT_MATMUL_PRECISION and LIBTPU_INIT_ARGS of the environment count
# there too.
#
# The VM is kept: run the same command again to continue an interrupted run (it resumes from its
# workdir). A run that lost its connection is stopped first. Delete the VM with:
#   gcloud compute tpus tpu-vm delete $NAME --project=$PROJECT --zone=$ZONE
set -euo pipefail
cd "$(dirname "$0")/.."

: "${PROJECT:?a Google Cloud project}" "${ZONE:?a zone with TPUs}" "${NAME:?a name for the VM}"
TYPE=${TYPE:-v5litepod-8}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
at=(--project="$PROJECT" --zone="$ZONE")

gcloud compute tpus tpu-vm describe "$NAME" "${at[@]}" >/dev/null 2>&1 ||
  gcloud compute tpus tpu-vm create "$NAME" "${at[@]}" --accelerator-type="$TYPE" --version="$VERSION"

# The committed files, to every host.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
archive=$folder/flaxbert.tar.gz
git archive --format=tar.gz --prefix=flaxbert/ --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$NAME":flaxbert.tar.gz "${at[@]}" --worker=all

arguments=$(printf ' %q' "$@" --distributed=auto)
settings=
for name in JAX_DEFAULT_MATMUL_PRECISION JAX_DEFAULT_PRNG_IMPL LIBTPU_INIT_ARGS; do
  [[ -z ${!name:-} ]] || settings+=$(printf ' %q' "$name=${!name}")
done
gcloud compute tpus tpu-vm ssh "$NAME" "${at[@]}" --worker=all --command="
  set -e
  # It saves when told to stop; give it the time.
  ours='^[.]venv/bin/python -m flaxbert'
  if pkill -f \"\$ours\"; then
    timeout 120 sh -c \"while pgrep -f '\$ours' >/dev/null; do sleep 1; done\" || pkill -KILL -f \"\$ours\"
  fi
  command -v python3.11 >/dev/null || {
    sudo apt-get -o DPkg::Lock::Timeout=600 update -qq
    sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq python3.11 python3.11-venv make
  }
  tar xzf flaxbert.tar.gz && cd flaxbert
  make --silent .venv/base-tpu ACCELERATOR=tpu PYTHON=python3.11
  env$settings .venv/bin/python -m flaxbert.run$arguments
"
