#!/bin/bash
# A container runtime for the lab, as far as a rank can tell: the command runs in process, mount and IPC namespaces of its
# own, finds the programs of the image (a directory with bin/) first, and hears nothing of the signals that the runtime gets.
#
#   apptainer exec [OPTIONS] IMAGE COMMAND...          as Apptainer
#   srun OPTIONS --container-image=IMAGE COMMAND...    as srun with pyxis
set -u

contained() { # IMAGE DIRECTORY COMMAND...
  local image=$1 directory=$2
  shift 2
  trap : USR1 TERM # and passes none on
  # shellcheck disable=SC2016 # for the shell inside
  unshare --mount --pid --ipc --fork --kill-child --propagation private bash -c '
    mount -t proc proc /proc && cd "$1" && PATH=$0/bin:$PATH && shift && exec "$@"' "$image" "$directory" "$@" &
  local child=$!
  while kill -0 $child 2>/dev/null; do wait $child && exit 0; done
  wait $child
  exit
}

case ${0##*/} in
  apptainer)
    directory=$PWD
    shift # exec
    while [[ $1 == -* ]]; do
      case $1 in
        --pwd) directory=$2 ;;&
        --bind | --pwd) shift ;;
      esac
      shift
    done
    contained "$1" "$directory" "${@:2}"
    ;;
  srun)
    image='' directory=$PWD options=()
    while [[ $1 == -* ]]; do
      case $1 in
        --container-image=*) image=${1#*=} ;;
        --container-workdir=*) directory=${1#*=} ;;
        --container-* | --no-container-*) ;;
        *) options+=("$1") ;;
      esac
      shift
    done
    [[ -n $image ]] || exec /usr/bin/srun "${options[@]}" "$@"
    exec /usr/bin/srun "${options[@]}" "${0%/*}/apptainer" exec --pwd "$directory" "$image" "$@"
    ;;
esac
