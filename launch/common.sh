# shellcheck shell=bash
# What the launchers share: arguments, names of accelerators, dry runs. They source this file.
#
# A launcher is a comment at its top, which is its help, a function for each action (run, logs,
# status, delete), and `launch "$@"`. A flag is allowed if the help has a line for it, and sets the
# variable of its name. Nothing here is newer than bash 3.2, the one of macOS.
set -euo pipefail
launcher=$0
[[ $launcher == /* ]] || launcher=$PWD/$launcher
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${name=}" # each launcher has it
dry_run=
training=() # the flags of flaxbert: what follows -- on the command line
workdir=runs/NAME
poll_seconds=${POLL_SECONDS:-10} # between two looks at a state
# shellcheck disable=SC2034 # not every launcher installs
buckets=gcs,s3 # the extras for gs:// and s3://, which launch/Dockerfile installs too

note() { echo "$*" >&2; }
fail() {
  note "error: $*"
  exit 2
}

# --- arguments -----------------------------------------------------------------------------------

help() { sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$launcher"; }

# Do the action that the command line names, with its flags.
launch() {
  local action=${1:-help}
  case $action in
    help | -h | --help) help && return ;;
    run | logs | status | delete) shift ;;
    *) fail "$action: unknown action; expected run, logs, status or delete. See ${launcher##*/} --help." ;;
  esac
  read_flags "$@"
  require name
  [[ $name =~ ^[a-z]([-a-z0-9]{0,38}[a-z0-9])?$ ]] ||
    fail "--name=$name: use at most 40 lowercase letters, digits and dashes, beginning with a letter."
  [[ $action != run ]] || read_training
  "$action"
}

read_flags() {
  # The flags of the help; "name=" for one that takes a value.
  local flags flag key
  flags=" $(sed -n 's/^#   --\([a-z-]*=\{0,1\}\).*/\1/p' "$launcher" | tr '\n' ' ')"
  while (($#)); do
    case $1 in
      --)
        training=("${@:2}")
        return
        ;;
      --help) help && exit ;;
      --*=*) flag=${1%%=*}= ;;
      *) flag=$1 ;;
    esac
    key=${flag#--}
    if [[ $flag != --* || $flags != *" $key "* ]]; then
      [[ $flags != *" $key= "* ]] || fail "$flag needs a value: $flag=VALUE."
      fail "$1: unknown flag; see ${launcher##*/} --help. Flags of flaxbert follow after --."
    fi
    key=${key%=}
    case $flag in
      *=) printf -v "${key//-/_}" %s "${1#*=}" ;;
      *) printf -v "${key//-/_}" yes ;;
    esac
    shift
  done
}

require() {
  local key
  for key in "$@"; do
    [[ ${!key} ]] || fail "--${key//_/-} is missing. See ${launcher##*/} --help."
  done
}

# Find the workdir in the flags of flaxbert; the last one counts, and its value may be the next one.
read_training() {
  ((${#training[@]})) ||
    fail "the flags of flaxbert are missing. Give them after --, such as -- --config=squad --workdir=DIR."
  local argument previous=
  for argument in "${training[@]}"; do
    case $previous in --workdir | -workdir) workdir=$argument ;; esac
    case $argument in --workdir=* | -workdir=*) workdir=${argument#*=} ;; esac
    [[ $argument != --dry-run ]] || fail "--dry-run is a flag of the launcher: give it before --."
    previous=$argument
  done
}

# Fail if the workdir is on the disk of one machine: not a URL, nor a path from / or ~, which may be
# a mount.
require_durable_workdir() { # WHY
  [[ $workdir == *://* || $workdir == [/~]* ]] ||
    fail "--workdir=$workdir is on the disk of one machine, but $1." \
      "Give a URL such as --workdir=gs://BUCKET/runs/$name, or a directory of a mounted share."
}

# --- accelerators --------------------------------------------------------------------------------

# Set the variables slice, chips, hosts, tpu_type, runtime, gke, machine and sky, for any name that
# accelerators.txt has in a row.
look_up() { # NAME
  local names=launch/accelerators.txt wanted row
  wanted=$(tr '[:upper:]' '[:lower:]' <<<"${1#tpu-}")
  case $wanted in v5e-* | v5lite-*) wanted=v5litepod-${wanted#*-} ;; esac
  row=$(awk -v wanted="$wanted" \
    '!/^#/ && (tolower($1) == wanted || $4 == wanted || tolower($8) == wanted)' $names)
  if [[ ! $row ]]; then
    # The slices of the same chip, or else the chips.
    local chip=${wanted%%[:-]*} known
    [[ $chip != v5litepod ]] || chip=v5e
    known=$(awk -v chip="$chip" '!/^#/ && index($1, chip ":") == 1 { print $1 " (" ($4 == "-" ? $8 : $4) ")" }' $names)
    [[ $known ]] || known=$(awk -F: '!/^#/ { print $1 }' $names | uniq)
    fail "--type=$1: unknown; expected one of $(paste -sd, - <<<"$known" | sed 's/,/, /g')." \
      "All names are in $names."
  fi
  # shellcheck disable=SC2034 # each launcher uses some of them
  read -r slice chips hosts tpu_type runtime gke machine sky <<<"$row"
}

is_tpu() { [[ $slice == *x* ]]; }

# --- dry runs ------------------------------------------------------------------------------------

# Run a command; in a dry run, print it.
act() {
  if [[ $dry_run ]]; then quoted "$@"; else "$@"; fi
}

# Run a command with a text as its input; in a dry run, print both.
act_on() { # TEXT COMMAND...
  if [[ $dry_run ]]; then
    quoted "${@:2}" "<<'END'"
    printf '%s\nEND\n' "$1"
  else
    "${@:2}" <<<"$1"
  fi
}

# In a dry run, say what the launcher would wait for.
dry() {
  [[ ! $dry_run ]] || echo "# $*"
}

# Print words as a command of shell, quoted where they need it; a script among them stays readable.
quoted() {
  local word line='' quote="'\\''"
  for word in "$@"; do
    case $word in
      "<<'END'") ;;
      *$'\n'*) word="${word%%=*}=\"\$(cat <<'SCRIPT'"$'\n'"${word#*=}"$'\nSCRIPT\n)"' ;;
      *[!-A-Za-z0-9_./:=,@%+]* | '') word="'${word//\'/$quote}'" ;;
    esac
    line+=" $word"
  done
  echo "${line# }"
}

# Print words as a list of JSON, which is one of YAML too.
json() {
  local word line=''
  for word in "$@"; do
    word=${word//\\/\\\\}
    line+=", \"${word//\"/\\\"}\""
  done
  echo "[${line#, }]"
}

pause() { sleep "$poll_seconds"; }

# Write the committed files of the checkout to an archive, without the changes since.
pack() { # ARCHIVE
  [[ -z $(git status --porcelain 2>/dev/null) ]] ||
    note "note: changes that are not committed are left out"
  act mkdir -p "$(dirname "$1")"
  act git archive --format=tar.gz --prefix=flaxbert/ --output="$1" HEAD
}

# Print the commands that install Python 3.11 on a machine that lacks it.
install_python() {
  cat <<'END'
command -v python3.11 >/dev/null || {
  sudo apt-get -o DPkg::Lock::Timeout=600 update -qq
  sudo apt-get -o DPkg::Lock::Timeout=600 install -y -qq python3.11 python3.11-venv make
}
END
}
