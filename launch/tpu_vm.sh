#!/usr/bin/env bash
# Create a Cloud TPU VM (one host, or a slice of several), install flaxbert on it, and train.
#
#   PROJECT=my-project ZONE=us-west4-a NAME=bert TYPE=v5litepod-8 \
#     launch/tpu_vm.sh --config=configs/squad.py --workdir=runs/squad \
#     [--config.KEY=VALUE ...]
#
# TYPE is the accelerator type (default: v5litepod-8). VERSION is the image of the VM and must fit
# TYPE: v2-alpha-tpuv5-lite (the default) for v5litepod, v2-alpha-tpuv6e for v6e, v2-alpha-tpuv5 for
# v5p, tpu-ubuntu2204-base for v4 and older.
#
# SPOT=1 creates a spot VM. SETUP is a command that every host runs first, such as one that mounts a
# bucket.
#
# To resume an interrupted run, run the same command again. If the run still runs on the VM, because
# only the connection was lost, it is stopped first. A VM that was preempted is deleted and created
# again, with an empty disk. So the workdir of a spot VM must be in a mounted bucket. The workdir of
# a slice of several hosts must be in a bucket or a Filestore share that all hosts mount. A run
# renames directories, which a bucket supports only if it was created like this:
#
#   gcloud storage buckets create gs://BUCKET --location=LOCATION \
#     --uniform-bucket-level-access --enable-hierarchical-namespace
#
# Then mount it (SETUP must also install gcsfuse if the image lacks it):
#
#   SPOT=1 SETUP='mkdir -p ~/bucket; mountpoint -q ~/bucket || gcsfuse BUCKET ~/bucket' ... \
#     launch/tpu_vm.sh --workdir='~/bucket/runs/squad' ...
#
# The environment variables JAX_DEFAULT_MATMUL_PRECISION and LIBTPU_INIT_ARGS are passed on to the VM.
#
# The VM keeps running after the training. A workdir such as runs/squad is in ~/flaxbert on the VM.
# Copy its results:
#   gcloud compute tpus tpu-vm scp --recurse $NAME:flaxbert/runs/squad/export export \
#     --project=$PROJECT --zone=$ZONE
#
# Delete the VM:
#   gcloud compute tpus tpu-vm delete $NAME --project=$PROJECT --zone=$ZONE
set -euo pipefail
cd "$(dirname "$0")/.."

: "${PROJECT:?set it to a Google Cloud project}" "${ZONE:?set it to a zone with TPUs}"
: "${NAME:?set it to a name for the VM}"
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

# The last --workdir counts; its value may be the next argument.
workdir= previous=
for argument in "$@"; do
  case $previous in --workdir | -workdir) workdir=$argument ;; esac
  case $argument in --workdir=* | -workdir=*) workdir=${argument#*=} ;; esac
  previous=$argument
done
if [[ $SPOT && $workdir != [/~]* ]]; then
  fail "--workdir=${workdir:=runs/NAME} is on the disk of a spot VM, which is lost when the VM is preempted." \
    "Give a directory of a mounted bucket, such as --workdir='~/bucket/$workdir' (see the top of $0)."
fi

vm() {
  gcloud compute tpus tpu-vm "$1" "$NAME" "${at[@]}" "${@:2}"
}
create() {
  vm create --accelerator-type="$TYPE" --version="$VERSION" ${SPOT:+--spot}
}

while true; do
  # No output means that there is no such VM. If describe fails for another reason, create fails
  # too and reports it.
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

# Copy the committed files to every host.
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
archive=$folder/flaxbert.tar.gz
git archive --format=tar.gz --prefix=flaxbert/ --output="$archive" HEAD
gcloud compute tpus tpu-vm scp "$archive" "$NAME":flaxbert.tar.gz "${at[@]}" --worker=all

arguments=$(printf ' %q' --require=tpu "$@" --distributed=auto)
settings=
for name in JAX_DEFAULT_MATMUL_PRECISION LIBTPU_INIT_ARGS; do
  [[ -z ${!name:-} ]] || settings+=$(printf ' %q' "$name=${!name}")
done
vm ssh --worker=all --command="
  set -e
  # A run saves a checkpoint on SIGTERM; give it time.
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
