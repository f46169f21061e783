#!/usr/bin/env bash
# Create a Cloud TPU VM (one host or a slice of many), install flaxbert there, and train.
#
#   PROJECT=my-project ZONE=us-west4-a NAME=bert TYPE=v5litepod-8 \
#     launch/tpu_vm.sh --config=configs/squad.py --workdir=runs/squad \
#     --config.model.dtype=bfloat16 [--config.KEY=VALUE ...]
#
# VERSION is the VM's image: v2-alpha-tpuv5-lite (v5litepod), v2-alpha-tpuv6e (v6e),
# v2-alpha-tpuv5 (v5p), tpu-ubuntu2204-base (v4 and older).
#
# SPOT=1 creates a spot VM (SPOT=0 does not). SETUP is a command that every host runs first, such as
# one that mounts a bucket.
#
# Run the same command again to continue an interrupted run: it resumes from its workdir. A run
# that lost its connection is stopped first, and a VM that was preempted is deleted and created
# again, with an empty disk. So the workdir of a spot VM must be in a mounted bucket, and that of a
# slice of several hosts in a bucket or a Filestore share that all of them mount. A run renames
# directories, which buckets allow only if they were created like this:
#
#   gcloud storage buckets create gs://BUCKET --location=LOCATION \
#     --uniform-bucket-level-access --enable-hierarchical-namespace
#
# and then (with gcsfuse installed on the VM, by SETUP too if it is not)
#
#   SPOT=1 SETUP='mkdir -p ~/bucket; mountpoint -q ~/bucket || gcsfuse BUCKET ~/bucket' ... \
#     launch/tpu_vm.sh --workdir='~/bucket/runs/squad' ...
#
# JAX_DEFAULT_PRNG_IMPL, JAX_DEFAULT_MATMUL_PRECISION and LIBTPU_INIT_ARGS of the environment are
# passed on to the VM.
#
# Otherwise the VM is kept. Delete it with:
#   gcloud compute tpus tpu-vm delete $NAME --project=$PROJECT --zone=$ZONE
set -euo pipefail
cd "$(dirname "$0")/.."

: "${PROJECT:?a Google Cloud project}" "${ZONE:?a zone with TPUs}" "${NAME:?a name for the VM}"
TYPE=${TYPE:-v5litepod-8}
VERSION=${VERSION:-v2-alpha-tpuv5-lite}
SPOT=${SPOT:-}
case $SPOT in 0 | no | false) SPOT= ;; esac
SETUP=${SETUP:-true}
POLL_SECONDS=${POLL_SECONDS:-10}
at=(--project="$PROJECT" --zone="$ZONE")

fail() {
  echo "error: $*" >&2
  exit 2
}

# The last --workdir counts; its value may be an argument of its own.
workdir= previous=
for argument in "$@"; do
  case $previous in --workdir | -workdir) workdir=$argument ;; esac
  case $argument in --workdir=* | -workdir=*) workdir=${argument#*=} ;; esac
  previous=$argument
done
if [[ $SPOT && $workdir && $workdir != [/~]* ]]; then
  fail "--workdir=$workdir is on the disk of a spot VM, which is lost when the VM is preempted." \
    "Give a directory of a mounted bucket, such as --workdir='~/bucket/$workdir' (see the top of $0)."
fi

vm() {
  gcloud compute tpus tpu-vm "$1" "$NAME" "${at[@]}" "${@:2}"
}
create() {
  vm create --accelerator-type="$TYPE" --version="$VERSION" ${SPOT:+--spot}
}

while true; do
  # Without output there is no such VM. If it is something else, create says what.
  state=$(vm describe --format='value(state)' 2>/dev/null) || state=
  case $state in
    READY) break ;;
    "") create ;;
    CREATING | STARTING | RESTARTING | REPAIRING | REIMAGING | STOPPING | DELETING)
      echo "$NAME is $state; waiting" >&2
      sleep "$POLL_SECONDS"
      ;;
    STOPPED) vm start ;; # its disk is kept
    PREEMPTED | TERMINATED)
      echo "$NAME is $state: deleting it and creating it again" >&2
      vm delete --quiet
      create
      ;;
    *) fail "$NAME is in state $state; wait, or delete it (see the top of $0) and run this again." ;;
  esac
done

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
vm ssh --worker=all --command="
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
  ($SETUP)
  tar xzf flaxbert.tar.gz && cd flaxbert
  make --silent .venv/base-tpu ACCELERATOR=tpu PYTHON=python3.11
  env$settings .venv/bin/python -m flaxbert.run$arguments
"
