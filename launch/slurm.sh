#!/usr/bin/env bash
# Train on a SLURM cluster, on GPU nodes that share this directory.
#
#   launch/slurm.sh run --name=bert --nodes=2 --gpus=8 --partition=gpu \
#     -- --config=squad --workdir=runs/squad
#
# actions:
#   run      install into .venv, submit the job, follow the log
#   logs     follow the log of the job
#   status   print the state of the job, and why it waits
#   delete   cancel the job
#
# The same run command resumes. If a job of this name still runs, it is canceled first, and saves. A
# job that is preempted, or reaches its time limit, saves and is queued again by itself.
#
# flags:
#   --name=NAME            name of the job; its log is runs/NAME.log
#   --nodes=N              nodes (default: 1)
#   --gpus=N               GPUs of each node (default: 8)
#   --process-per=UNIT     host (default), or gpu: a process for each GPU
#   --partition=PARTITION  partition, if not the default one
#   --account=ACCOUNT      account that is charged, if not the default one
#   --time=TIME            time limit, such as 24:00:00 (default); then the job is queued again
#   --options=OPTIONS      more options of sbatch, such as '--cpus-per-task=16 --mem=0'
#   --setup=COMMAND        run on the first node first; its variables reach all nodes, such as those
#                          of 'module load cuda'
#   --dry-run              print the commands, and run none
#
# To install with another Python, set PYTHON, such as PYTHON=python3.12. What follows -- are the
# flags of flaxbert train.
name='' nodes=1 gpus=8 process_per=host partition='' account='' time=24:00:00 options='' setup=''
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

# JAX finds the processes by the variables that srun sets. It gives each one the GPU of its number in
# the node, unless JAX_LOCAL_DEVICE_IDS says that it has them all.
script() {
  local tasks=1 devices=''
  case $process_per in
    host) devices="export JAX_LOCAL_DEVICE_IDS=$(seq 0 $((gpus - 1)) | paste -sd, -)" ;;
    gpu) tasks=$gpus ;;
    *) fail "--process-per=$process_per: expected host or gpu." ;;
  esac
  cat <<END
#!/usr/bin/env bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$tasks
#SBATCH --gpus-per-node=$gpus
#SBATCH --time=$time
#SBATCH --signal=TERM@300
#SBATCH --requeue
#SBATCH --dependency=singleton
#SBATCH --open-mode=append
#SBATCH --output=runs/$name.log
END
  [[ ! $partition ]] || echo "#SBATCH --partition=$partition"
  [[ ! $account ]] || echo "#SBATCH --account=$account"
  [[ ! $options ]] || echo "#SBATCH $options"
  [[ ! $setup ]] || echo "$setup"
  [[ ! $devices ]] || echo "$devices"
  cat <<END
code=0
srun --wait=60 --gpu-bind=none .venv/bin/python -m flaxbert.run$(printf ' %q' --require=gpu "${training[@]}" --distributed=auto) || code=\$?
# 75: a signal stopped the run, and it has saved.
[[ \$code != 75 ]] || scontrol requeue "\$SLURM_JOB_ID"
exit \$code
END
}

# The numbers of the jobs of this name that wait or run.
job_numbers() { act squeue --noheader --me --name="$name" --format=%i; }

# Follow the log of a job until it ends, and end with its code.
follow() { # JOB
  local job=$1 line state now='' before=''
  tail -n 0 -F "runs/$name.log" 2>/dev/null &
  # shellcheck disable=SC2064 # the number of this process, not of a later one
  trap "kill $!" EXIT
  while true; do
    line=$(scontrol show job "$job" --oneliner) || fail "the job $job is gone. Its log is runs/$name.log."
    state=$(field JobState "$line")
    case $state in
      COMPLETED) return ;;
      PENDING | CONFIGURING | REQUEUED | REQUEUE_HOLD | SUSPENDED | PREEMPTED)
        now="the job $job is $state: $(field Reason "$line")" ;;
      RUNNING | COMPLETING | STOPPED | RESIZING | SIGNALING | STAGE_OUT) now="the job $job is $state on $(field NodeList "$line")" ;;
      *)
        note "the job $job is $state"
        line=$(field ExitCode "$line")
        line=${line%:*}
        return "$((line ? line : 1))"
        ;;
    esac
    [[ $now == "$before" ]] || note "$now"
    before=$now
    pause
  done
}

field() { # NAME LINE
  local pattern=" $1=([^ ]*)"
  [[ ! " $2" =~ $pattern ]] || echo "${BASH_REMATCH[1]}"
}

# --- actions -------------------------------------------------------------------------------------

run() {
  local text job
  text=$(script)
  act make --silent ".venv/base-cuda,$buckets" ACCELERATOR="cuda,$buckets"
  act mkdir -p runs
  delete
  job=$(act_on "$text" sbatch --parsable)
  if [[ $dry_run ]]; then
    echo "$job"
    dry "follow runs/$name.log until the job ends"
    return
  fi
  note "submitted the job ${job%%;*}"
  follow "${job%%;*}"
}

logs() {
  local job
  job=$(job_numbers | tail -n 1)
  if [[ $dry_run ]]; then
    echo "$job"
    act tail -n 0 -F "runs/$name.log"
    return
  fi
  [[ $job ]] || fail "no job $name waits or runs. Its log is runs/$name.log."
  follow "$job"
}

status() { act squeue --me --name="$name" --format='%i %T %r %M %l %D %R'; }

delete() { act scancel --quiet --me --name="$name"; }

launch "$@"
