#!/usr/bin/env bash
# Train with SkyPilot, as a managed job, on whichever cloud has the accelerators.
#
#   launch/sky.sh run --name=bert --type=h100:8 --spot \
#     -- --config=squad --workdir=s3://my-bucket/runs/squad
#
# actions:
#   run      write the task to runs/NAME.sky.yaml, launch it, follow the log
#   logs     follow the log of the training
#   status   print the managed jobs
#   delete   cancel the job, and with it delete its machines
#
# The same run command resumes. If the training still runs, it is canceled first. SkyPilot starts a
# job again that is preempted, elsewhere if need be, and deletes the machines when the job ends.
#
# flags:
#   --name=NAME      name of the job
#   --type=TYPE      slice or GPUs of a node, such as v5e:2x4 or h100:8 (default); see
#                    launch/accelerators.txt
#   --nodes=N        GPU nodes (default: 1); a slice of TPUs has its own number
#   --infra=INFRA    cloud, region or zone, such as gcp/us-west4; SkyPilot chooses by default
#   --spot           spot machines: cheaper, and can be preempted at any time
#   --dry-run        print the commands, and run none
#
# The workdir must outlive the machines: gs://, s3://, or a mount. What follows -- are the flags of
# flaxbert train.
name='' type=h100:8 nodes='' infra='' spot=''
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

task() {
  local extras=cuda,$buckets platform=gpu distributed=''
  if is_tpu; then
    extras=tpu,$buckets platform=tpu distributed=' --distributed=auto'
  elif ((${nodes:-1} > 1)); then
    # shellcheck disable=SC2016 # the machine expands these
    distributed=' --distributed="$(head -n 1 <<<"$SKYPILOT_NODE_IPS"):1234,$SKYPILOT_NUM_NODES,$SKYPILOT_NODE_RANK"'
  fi
  cat <<END
name: $name
workdir: .
num_nodes: ${nodes:-1}
resources:
  accelerators: $sky
END
  ! is_tpu || echo "  accelerator_args: {tpu_vm: true, runtime_version: $runtime}"
  [[ ! $infra ]] || echo "  infra: $infra"
  [[ ! $spot ]] || echo "  use_spot: true"
  cat <<END
  job_recovery: {recover_on_exit_codes: [75]}  # stopped by a signal, and saved
setup: |
$(install_python | sed 's/^/  /')
  make --silent .venv/base-$extras ACCELERATOR=$extras PYTHON=python3.11
run: |
  .venv/bin/python -m flaxbert.run$(printf ' %q' --require=$platform "${training[@]}")$distributed
END
}

run() {
  look_up "$type"
  [[ $sky != - ]] || fail "--type=$type: SkyPilot does not have $slice. See launch/accelerators.txt."
  ! is_tpu || [[ ! $nodes ]] || fail "--nodes=$nodes: $slice has $hosts. Choose a larger slice with --type, or leave --nodes out."
  require_durable_workdir "SkyPilot deletes it at the end"
  act mkdir -p runs
  act_on "$(task)" tee "runs/$name.sky.yaml"
  delete || true # there may be none
  act sky jobs launch --name="$name" --yes --detach-run "runs/$name.sky.yaml"
  logs
}

logs() { act sky jobs logs --name="$name" --follow; }

status() { act sky jobs queue; }

delete() { act sky jobs cancel --name="$name" --yes; }

launch "$@"
