#!/bin/bash
# One rank: what srun starts on each GPU. From SLURM's variables to those of torch.distributed, into the container if
# there is one, then training. Arguments: CONFIG [key=value ...].
set -euo pipefail

export RANK=$SLURM_PROCID
export LOCAL_RANK=$SLURM_LOCALID
export WORLD_SIZE=$SLURM_NTASKS
export LOCAL_WORLD_SIZE=${SLURM_NTASKS_PER_NODE:-1}
: "${MASTER_ADDR:?set by launch/pretrain.sbatch}" "${MASTER_PORT:?set by launch/pretrain.sbatch}"

root=${SALAMANDRA_ROOT:-$PWD}
cd "$root" # pyxis has put us into the image's own directory
python=${SALAMANDRA_PYTHON:-}
if [[ -z $python && -z ${SALAMANDRA_CONTAINER:-} ]]; then
  for candidate in "$root"/.venv/bin/python "$root"/.venv/*/bin/python; do
    [[ ! -x $candidate ]] || python=$candidate
  done
fi
python=${python:-python3}
command=("$python" -u -m megatron_salamandra.train "$@")
if [[ -n ${SALAMANDRA_CONTAINER:-} ]]; then
  # -P keeps the working directory off the module path: the image's project runs, not a mixture with the checkout.
  command=("$python" -P "${command[@]:1}")
fi

mounts=${SALAMANDRA_CONTAINER_MOUNTS:+$SALAMANDRA_CONTAINER_MOUNTS,}$root
case ${SALAMANDRA_CONTAINER:+${SALAMANDRA_CONTAINER_RUNTIME:-singularity}} in
  "" | pyxis) ;; # no container, or srun has put us into it already
  singularity | apptainer)
    command=("${SALAMANDRA_CONTAINER_RUNTIME:-singularity}" exec --nv --bind "$mounts" --pwd "$root"
      "$SALAMANDRA_CONTAINER" "${command[@]}")
    ;;
  enroot)
    options=()
    IFS=, read -ra pairs <<<"$mounts"
    for pair in "${pairs[@]}"; do
      [[ $pair == *:* ]] || pair=$pair:$pair
      options+=(--mount "$pair")
    done
    # enroot starts with an empty environment: hand over what the job and its profile set.
    while read -r name; do
      options+=(--env "$name")
    done < <(compgen -e | grep -E '^(RANK$|LOCAL_|WORLD_SIZE$|MASTER_|SLURM_|SALAMANDRA_|NCCL_|NVTE_|TORCH_|CUDA_|OMP_|HF_|TRANSFORMERS_|UCX_)')
    # enroot has no option for the working directory.
    # shellcheck disable=SC2016  # the shell in the container expands these
    command=(enroot start "${options[@]}" "$SALAMANDRA_CONTAINER"
      bash -c 'cd "$1" && shift && exec "$@"' _ "$root" "${command[@]}")
    ;;
  *)
    echo "launch/task.sh: SALAMANDRA_CONTAINER_RUNTIME = $SALAMANDRA_CONTAINER_RUNTIME is not known" >&2
    echo "  allowed: singularity, apptainer, enroot, pyxis" >&2
    exit 2
    ;;
esac

# Under proctrack/cgroup SLURM signals only the task itself, this shell, so it passes on what it gets; where SLURM
# signals every process of the step, training gets it twice and does not mind. A handler rather than '', because
# training would inherit that a signal is ignored.
training=
asked=
# shellcheck disable=SC2329  # called by the traps
pass_on() {
  signalled=1
  asked=$1
  [[ -z $training ]] || kill -s "$1" "$training" 2>/dev/null || true
}
trap 'pass_on USR1' USR1
trap 'pass_on TERM' TERM
"${command[@]}" &
training=$!
[[ -z $asked ]] || kill -s "$asked" "$training" 2>/dev/null || true # it came while training was being started
code=127 # also what wait says of a process that it has told about before
while :; do
  signalled=0
  wait "$training" && waited=0 || waited=$?
  ((waited == 127)) || code=$waited
  ((signalled)) || break
done

# From its first line on training catches these signals. If one killed it all the same, nothing was begun.
if [[ -n $asked ]] && ((code == 128 + $(kill -l "$asked"))); then
  code=75
fi

# 75 says "saved, run me again". Given to srun with --kill-on-bad-exit it would kill ranks that are still leaving, and
# the job's code would be theirs. So the ranks end well and rank 0 leaves word for launch/pretrain.sbatch.
if ((code == 75)) && [[ -n ${SALAMANDRA_STOP_FILE:-} ]]; then
  # Training has written why it stopped, if the file can be reached from where it runs.
  ((RANK != 0)) || : >>"$SALAMANDRA_STOP_FILE"
  exit 0
fi
exit "$code"
