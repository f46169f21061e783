#!/usr/bin/env bash
# Train on the GPUs of this machine, in a container.
#
#   launch/docker.sh run --name=bert -- --config=squad --workdir=runs/squad
#
# actions:
#   run      build the image, start the container, follow the log
#   logs     follow the log of the training
#   status   print the state of the container
#   delete   stop and delete the container; the workdir stays
#
# The same run command resumes, for example after the machine was restarted. If the training still
# runs, it is stopped first, and saves.
#
# The machine needs Docker with Compose, the driver and NVIDIA's container toolkit. This directory is
# /flaxbert in the container, and the one to start in; give paths relative to it. ~/.cache is shared,
# so that models are downloaded and programs compiled once.
#
# flags:
#   --name=NAME    name of the container
#   --dry-run      print the commands, and run none
#
# To use some of the GPUs, set CUDA_VISIBLE_DEVICES. What follows -- are the flags of flaxbert train.
name=''
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

run() {
  [[ $workdir == *://* || $workdir != [/~]* ]] ||
    fail "--workdir=$workdir is not in the container. Give a path below this directory, such as --workdir=runs/$name."
  delete
  act docker compose --file=launch/compose.yaml run --build --detach --name="$name" \
    --user="$(id -u):$(id -g)" train --require=gpu "${training[@]}"
  logs
  if [[ $dry_run ]]; then act docker wait "$name"; else return "$(docker wait "$name")"; fi
}

logs() { act docker logs --follow "$name"; }

status() { act docker container ls --all --filter="name=^$name\$"; }

delete() {
  dry "if there is such a container:"
  if [[ $dry_run ]] || docker container inspect "$name" >/dev/null 2>&1; then
    act docker stop --time=120 "$name" # it saves
    act docker rm "$name"
  fi
}

launch "$@"
