#!/bin/bash
# Submit a run with a cluster's settings:   launch/submit.sh PROFILE [sbatch options] -- CONFIG [key=value ...]
#
# The profile (launch/profiles/PROFILE.sh, or a path) sets SBATCH_* variables, which sbatch reads as options, and the
# environment of the ranks. Options on this line win over both.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
usage() {
  sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
  exit 2
}

(($# >= 3)) || usage
profile=$1
shift
[[ $profile == */* ]] || profile=$root/launch/profiles/$profile.sh
if [[ ! -f $profile ]]; then
  echo "launch/submit.sh: no profile $profile; there are:" "$root"/launch/profiles/*.sh >&2
  exit 2
fi

options=()
while (($# > 0)) && [[ $1 != -- ]]; do
  options+=("$1")
  shift
done
(($# >= 2)) || usage
shift # the --

# shellcheck source=/dev/null
source "$profile"
export SALAMANDRA_PROFILE=$profile SALAMANDRA_ROOT=$root
cd "$root"
mkdir -p logs # sbatch does not create the directory of --output, and a job without it ends at once
# Of two --output sbatch takes the last: that of the caller's options, if there is one.
exec sbatch --output="${SBATCH_OUTPUT:-logs/%x-%j.log}" "${options[@]}" launch/pretrain.sbatch "$@"
