#!/usr/bin/env bash
# Train on a Cloud TPU VM, or on a slice of several, which a queued resource creates.
#
#   launch/tpu_vm.sh run --project=my-project --zone=us-west4-a --name=bert --type=v5e:2x4 --spot \
#     -- --config=squad --workdir=gs://my-bucket/runs/squad
#
# actions:
#   run      create the VM unless it exists, install the committed files, train, follow the log
#   logs     follow the log of the training
#   status   print the states of the request and the VM, and requests that only take up quota
#   delete   delete the request and the VM with its disk
#
# The same run command resumes. If the training still runs, it is stopped first, and saves. If the VM
# is preempted, it is deleted and created again, with an empty disk, as long as this command runs. The
# training does not end when this command does: if the connection is lost, see logs.
#
# The VM costs money until it is deleted. Requests that are FAILED or SUSPENDED count toward the
# quota: run deletes one of this name, and status lists the others.
#
# flags:
#   --project=ID      Google Cloud project
#   --zone=ZONE       zone that has the chips
#   --name=NAME       name of the request and of the VM
#   --type=TYPE       slice, such as v5e:2x4 or v5litepod-8 (default); see launch/accelerators.txt
#   --spot            a spot VM: cheaper, and can be preempted at any time
#   --reserved        a VM of a reservation
#   --existing        train on a VM that exists; never create or delete one
#   --setup=COMMAND   run by every host first, such as a command that mounts a share
#   --stale           delete: all FAILED and SUSPENDED requests of the zone instead
#   --dry-run         print the commands, and run none
#
# The workdir must outlive a spot VM, and be shared by the hosts of a slice: gs://, or a mount.
# JAX_DEFAULT_MATMUL_PRECISION and LIBTPU_INIT_ARGS are passed on. What follows -- are the flags of
# flaxbert train.
project='' zone='' name='' type=v5e:2x4 spot='' reserved='' existing='' setup='' stale=''
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

request() { # VERB FLAGS...
  act gcloud compute tpus queued-resources "$1" "$name" --project="$project" --zone="$zone" "${@:2}"
}
vm() { # VERB FLAGS...
  act gcloud compute tpus tpu-vm "$1" "$name" --project="$project" --zone="$zone" "${@:2}"
}
list_stale() { # act or command
  "$1" gcloud compute tpus queued-resources list --project="$project" --zone="$zone" \
    --filter='state.state:(FAILED SUSPENDED)' --format='value(name.basename())'
}

# --- from any state to a VM that is ready --------------------------------------------------------

# The state of the request and that of the VM; "absent" for what is not there. If describe fails for
# another reason, create fails too and reports it.
states() {
  local request_state vm_state
  request_state=$(request describe --format='value(state.state)' 2>/dev/null) || request_state=
  vm_state=$(vm describe --format='value(state)' 2>/dev/null) || vm_state=
  echo "${request_state:-absent} ${vm_state:-absent}"
}

create() {
  request create --node-id="$name" --accelerator-type="$tpu_type" --runtime-version="$runtime" \
    ${spot:+--spot} ${reserved:+--reserved}
}

# The request, or a VM without one: either has the whole slice, and its disks.
remove() { # STATES
  case $1 in
    absent\ *) vm delete --quiet ;;
    *) request delete --force --quiet ;;
  esac
}

recreate() { # STATES WHY
  note "$name is $2: deleting it and creating it again"
  remove "$1"
  create
}

is_ready() { [[ $1 == "absent READY" || $1 == "ACTIVE READY" ]]; } # STATES

make_ready() {
  local now='' before='' created=''
  if [[ $dry_run && ! $existing ]]; then create; fi
  dry "wait until the VM is READY"
  while [[ ! $dry_run ]]; do
    now=$(states)
    if is_ready "$now"; then return; fi
    [[ ! $existing ]] || fail "--existing: the VM $name is ${now#* }, not READY. Start it, or leave --existing out."
    case $now in
      "absent absent")
        create
        created=yes
        ;;
      FAILED*)
        # One that this command has just made would fail again: a wrong name, or no quota.
        if [[ $created ]]; then
          note "$(request describe --format='value(state.failedData.error.message)')"
          remove "$now"
          fail "the request $name FAILED, and was deleted. Check --type, --zone and the quota."
        fi
        recreate "$now" "FAILED, and counts toward the quota"
        created=yes
        ;;
      SUSPENDED*) recreate "$now" "SUSPENDED, which means preempted, and counts toward the quota" ;;
      *PREEMPTED | *TERMINATED) recreate "$now" "${now#* }" ;;
      *STOPPED) vm start ;; # its disk is kept
      ACCEPTED* | CREATING* | PROVISIONING* | WAITING_FOR_RESOURCES* | DELETING* | SUSPENDING* | \
        ACTIVE\ absent | *\ CREATING | *STARTING | *REPAIRING | *REIMAGING | *STOPPING | *\ DELETING)
        [[ $now == "$before" ]] || note "waiting: the request $name is ${now% *}, the VM is ${now#* }"
        pause
        ;;
      *) fail "the request $name is ${now% *}, and the VM is ${now#* }. Wait, or delete it and run this again." ;;
    esac
    before=$now
  done
}

# --- install, train, follow ----------------------------------------------------------------------

on_all_hosts() { vm ssh --worker=all --command="$1"; } # SCRIPT

# Start the training, or start it again with these files and flags.
start() {
  local arguments settings=''
  arguments=$(printf ' %q' --require=tpu "${training[@]}" --distributed=auto)
  for setting in JAX_DEFAULT_MATMUL_PRECISION LIBTPU_INIT_ARGS; do
    [[ -z ${!setting:-} ]] || settings+=$(printf ' %q' "$setting=${!setting}")
  done
  act gcloud compute tpus tpu-vm scp "$archive" "$name":flaxbert.tar.gz --project="$project" \
    --zone="$zone" --worker=all
  on_all_hosts "set -e
# Stop a training run in progress. It saves a checkpoint on SIGTERM; give it time. A process that
# follows it exits with 143.
ours='^[.]venv/bin/python -m flaxbert'
if pgrep -f \"\$ours\" >/dev/null; then
  echo 143 >flaxbert/train.code
  pkill -f \"\$ours\"
  timeout 120 sh -c \"while pgrep -f '\$ours' >/dev/null; do sleep 1; done\" || pkill -KILL -f \"\$ours\"
fi
$(install_python)
${setup:+($setup)
}tar xzf flaxbert.tar.gz && cd flaxbert
make --silent .venv/base-tpu,$buckets ACCELERATOR=tpu,$buckets PYTHON=python3.11
cat >train.sh <<'END'
code=0
env$settings .venv/bin/python -m flaxbert.run$arguments || code=\$?
[ -e train.code ] || echo \$code >train.code
END
rm -f train.code
nohup setsid bash train.sh >train.log 2>&1 </dev/null &
echo \$! >train.pid"
}

# Follow the log until the training ends, and end with its code. Only the first host logs.
follow() {
  # shellcheck disable=SC2016 # the host expands these
  on_all_hosts 'cd flaxbert && tail -n +1 -F --pid="$(cat train.pid)" train.log
exit "$(cat train.code 2>/dev/null || echo 1)"'
}

# Whether the VM is still ready, and stays so: a preempted one is stopped before its state says so.
stays_ready() {
  for _ in 1 2 3 4 5 6; do
    is_ready "$(states)" || return
    pause
  done
}

# --- actions -------------------------------------------------------------------------------------

run() {
  require project zone
  look_up "$type"
  [[ $runtime != - ]] || fail "--type=$type: the Cloud TPU API does not have $slice. See launch/accelerators.txt."
  [[ ! $spot ]] || require_durable_workdir "a spot VM loses its disk when it is preempted"
  ((hosts == 1)) || require_durable_workdir "$slice has several"
  archive=runs/$name.tar.gz
  pack "$archive"
  local code
  while true; do
    make_ready
    start
    code=0
    follow || code=$?
    case $code in
      0)
        [[ $dry_run ]] || note "done. The VM costs money until it is deleted: see ${launcher##*/} delete."
        return
        ;;
      2 | 3) exit "$code" ;; # a wrong flag, or a loss that is not finite
    esac
    if [[ ! $existing ]] && ! stays_ready; then
      note "$name was preempted: resuming on a new VM"
    elif [[ $code == 75 ]]; then # for example by a notice of maintenance
      note "a signal stopped the training, and it has saved: resuming"
    else
      note "the training or the connection to it ended with code $code, and the VM is READY. To follow" \
        "a training that goes on, use logs; to resume one that has ended, run this again."
      exit "$code"
    fi
  done
}

logs() { require project zone && follow; }

status() {
  require project zone
  request describe --format='value(state.state)' || true
  vm describe --format='value(state)' || true
  dry "requests that only take up quota:"
  list_stale act
}

delete() {
  require project zone
  if [[ $stale && $dry_run ]]; then
    dry "delete each request of this list:"
    list_stale act
  elif [[ $stale ]]; then
    for name in $(list_stale command); do
      note "deleting the request $name"
      request delete --force --quiet
    done
  elif [[ $existing ]]; then
    fail "--existing: delete only deletes what run has created."
  elif [[ $dry_run ]]; then
    remove ACTIVE
  else
    remove "$(states)"
  fi
}

launch "$@"
