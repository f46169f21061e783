#!/usr/bin/env bash
# Train on Google Kubernetes Engine, as a JobSet: on a slice of TPUs, or on GPU nodes.
#
#   launch/gke.sh run --name=bert --type=v6e:4x4 --spot --queue=research --image=IMAGE \
#     -- --config=squad --workdir=gs://my-bucket/runs/squad
#
# actions:
#   run      create the JobSet, wait for its nodes and say what it waits for, follow the log
#   logs     follow the log of the training
#   status   print the JobSet, its pods, and why they wait
#   delete   delete the JobSet
#
# The same run command resumes. If the training still runs, it is stopped first, and saves. A run
# that is preempted starts again by itself, with all its pods. It ends with a wrong flag or a loss
# that is not finite, since these would fail again.
#
# The cluster needs the JobSet controller, and nodes of the type or node auto-provisioning; see
# docs/launching.md. kubectl must be set up for the cluster.
#
# flags:
#   --name=NAME          name of the JobSet
#   --type=TYPE          slice or GPUs of a node, such as v5e:2x4 (default) or h100:8; see
#                        launch/accelerators.txt
#   --nodes=N            GPU nodes (default: 1); a slice of TPUs has its own number
#   --image=IMAGE        container image that the cluster can pull
#   --build              first build the image from this checkout, and push it
#   --spot               spot nodes: cheaper, and can be preempted at any time
#   --queue=QUEUE        local queue of Kueue
#   --claim=CLAIM        persistent volume claim, such as a Filestore share, mounted at /claim
#   --account=ACCOUNT    Kubernetes service account, for access to a bucket
#   --max-restarts=N     number of restarts after failures and preemptions (default: 100)
#   --namespace=SPACE    namespace (default: default)
#   --context=CONTEXT    context of kubectl, if not the current one
#   --dry-run            print the commands, and run none
#
# The workdir must be gs:// or s3://, or below /claim. What follows -- are the flags of flaxbert
# train.
name='' type=v5e:2x4 nodes='' image='' build='' spot='' queue='' claim='' account='' max_restarts=100
namespace=default context=''
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"

kube() { # VERB ARGUMENTS...
  act kubectl "$1" --namespace="$namespace" ${context:+"--context=$context"} "${@:2}"
}

# --- the manifest --------------------------------------------------------------------------------

# Print each argument that is not empty as a line.
lines() {
  local line
  for line in "$@"; do [[ ! $line ]] || printf '%s\n' "$line"; done
}

manifest() {
  local platform=gpu distributed=() args
  # GKE gives TPU pods what --distributed=auto needs: TPU_WORKER_ID and TPU_WORKER_HOSTNAMES. GPU
  # pods find the first one by the name that JobSet gives it, and their number by the Job's variable.
  if is_tpu; then
    platform=tpu
    ((hosts == 1)) || distributed=(--distributed=auto)
  elif ((hosts > 1)); then
    distributed=("--distributed=$name-slice-0-0.$name:1234,$hosts,\$(JOB_COMPLETION_INDEX)")
  fi
  args=$(json --require=$platform "${training[@]//\$/\$\$}" ${distributed[@]+"${distributed[@]}"})
  lines "apiVersion: jobset.x-k8s.io/v1alpha2" \
    "kind: JobSet" \
    "metadata:" \
    "  name: $name" \
    "${queue:+"  labels: {kueue.x-k8s.io/queue-name: $queue}"}"
  # The pods of a slice are in one node pool, and in it alone.
  if is_tpu && ((hosts > 1)); then
    lines "  annotations: {alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool}"
  fi
  cat <<END
spec:
  failurePolicy:
    maxRestarts: $max_restarts
    rules:
      - {name: would_fail_again, action: FailJobSet, onJobFailureReasons: [PodFailurePolicy]}
  replicatedJobs:
    - name: slice
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          parallelism: $hosts
          completions: $hosts
          backoffLimit: 0  # a pod that fails, or is preempted, restarts all
          podFailurePolicy:
            rules:  # codes of flaxbert: 2 is a wrong flag, 3 a loss that is not finite
              - {action: FailJob, onExitCodes: {containerName: train, operator: In, values: [2, 3]}}
          template:
            spec:
              restartPolicy: Never
              terminationGracePeriodSeconds: 120  # for the checkpoint
END
  lines "${account:+"              serviceAccountName: $account"}" \
    "              nodeSelector:"
  if is_tpu; then
    lines "                cloud.google.com/gke-tpu-accelerator: $gke" \
      "                cloud.google.com/gke-tpu-topology: ${slice#*:}"
  else
    lines "                cloud.google.com/gke-accelerator: $gke"
  fi
  [[ ! $spot ]] || lines '                cloud.google.com/gke-spot: "true"'
  cat <<END
              containers:
                - name: train
                  image: $image
                  command: [python, -m, flaxbert.run]
                  args: $args
END
  if is_tpu; then
    lines "                  securityContext: {privileged: true}  # for the chips" \
      "                  ports: [{containerPort: 8471}]  # between the hosts of a slice" \
      "                  resources: {limits: {google.com/tpu: $((chips / hosts))}}"
  else
    lines "                  env: [{name: LD_LIBRARY_PATH, value: /usr/local/nvidia/lib64}]  # the driver" \
      "                  ports: [{containerPort: 1234}]  # of the first pod" \
      "                  resources: {limits: {nvidia.com/gpu: $chips}}"
  fi
  volumes
}

volumes() {
  local mounts='' list=''
  is_tpu || { # GPUs of a node exchange through shared memory
    mounts+=", {name: memory, mountPath: /dev/shm}"
    list+=", {name: memory, emptyDir: {medium: Memory}}"
  }
  [[ ! $claim ]] || {
    mounts+=", {name: claim, mountPath: /claim}"
    list+=", {name: claim, persistentVolumeClaim: {claimName: $claim}}"
  }
  [[ ! $mounts ]] || lines "                  volumeMounts: [${mounts#, }]" "              volumes: [${list#, }]"
}

# --- waiting and following -----------------------------------------------------------------------

# The newest pod of the first host: its name, its phase, and what it waits for.
first_pod() {
  kube get pods --selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0" \
    --sort-by=.metadata.creationTimestamp --output=jsonpath='{range .items[*]}{.metadata.name} {.status.phase} {.status.containerStatuses[*].state.waiting.reason} {.status.conditions[?(@.type=="PodScheduled")].message}{"\n"}{end}' |
    if [[ $dry_run ]]; then cat; else tail -n 1; fi
}

# What Kueue says about a JobSet that it holds back; nothing if there is no Kueue.
held_back() {
  kube get workloads.kueue.x-k8s.io --output=jsonpath="{range .items[?(@.metadata.ownerReferences[0].name==\"$name\")]}{.status.conditions[?(@.type==\"QuotaReserved\")].message}{end}" 2>/dev/null || true
}

# Follow the log, through restarts, until the JobSet ends.
follow() {
  local state pod phase why now='' before='' followed=''
  while true; do
    state=$(kube get jobset "$name" --output=jsonpath='{.status.terminalState}') ||
      fail "there is no JobSet $name in the namespace $namespace"
    case $state in
      Completed) return ;;
      Failed)
        note "the JobSet $name failed: $(kube get jobset "$name" \
          --output=jsonpath='{.status.conditions[?(@.type=="Failed")].message}')"
        return 1
        ;;
    esac
    read -r pod phase why <<<"$(first_pod)"
    case $phase in
      Running)
        # After a lost connection, follow the same pod without the lines that were shown.
        kube logs --follow --tail="$([[ $pod == "$followed" ]] && echo 0 || echo -1)" "$pod" || true
        followed=$pod
        ;;
      Pending | '')
        now="waiting: ${pod:-no pod yet}${phase:+ is $phase}: ${why:-$(held_back)}"
        [[ $now == "$before" ]] || note "$now"
        before=$now
        ;;
    esac
    pause
  done
}

# --- actions -------------------------------------------------------------------------------------

run() {
  require image
  look_up "$type"
  [[ $gke != - ]] || fail "--type=$type: GKE does not have $slice. See launch/accelerators.txt."
  if is_tpu; then
    [[ ! $nodes ]] || fail "--nodes=$nodes: $slice has $hosts. Choose a larger slice with --type, or leave --nodes out."
  else
    hosts=${nodes:-1}
  fi
  [[ $workdir != /claim/* || $claim ]] || fail "--workdir=$workdir: give --claim=CLAIM, which is mounted at /claim."
  [[ $workdir == *://* || $workdir == /claim/* ]] || fail "--workdir=$workdir is lost with the pod." \
    "Give a URL such as --workdir=gs://BUCKET/runs/$name, or --claim=CLAIM --workdir=/claim/runs/$name."
  if [[ $build ]]; then
    act docker build --file=launch/Dockerfile --build-arg=ACCELERATOR="$(is_tpu && echo tpu || echo cuda)" --tag="$image" .
    act docker push "$image"
  fi
  delete
  act_on "$(manifest)" kubectl apply --namespace="$namespace" ${context:+"--context=$context"} --filename=-
  logs
}

logs() {
  if [[ $dry_run ]]; then
    dry "wait until the first pod runs; follow it, and those that replace it, until the JobSet ends"
    kube logs --follow --tail=-1 --selector="jobset.sigs.k8s.io/jobset-name=$name,batch.kubernetes.io/job-completion-index=0"
  else
    follow
  fi
}

status() {
  kube get jobset "$name"
  kube get pods --selector="jobset.sigs.k8s.io/jobset-name=$name" --output=wide
  dry "why they wait:"
  first_pod
  held_back
}

delete() { kube delete jobset "$name" --ignore-not-found --cascade=foreground; }

launch "$@"
