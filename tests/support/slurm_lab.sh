#!/bin/bash
# A SLURM cluster of several hosts on this machine, each host a set of namespaces. Needs root, and the Debian packages
# slurmctld slurmd slurm-client munge iproute2 util-linux.
#
#   LAB=/absolute/directory NODES=3 PROCTRACK=cgroup|pgid slurm_lab.sh up
#   ... slurm_lab.sh in ctl|nodeN COMMAND...    run a command on a host
#   ... slurm_lab.sh off nodeN | on nodeN       cut a host's power, and give it back
#   ... slurm_lab.sh link nodeN up|down         unplug its network, and plug it in
#   ... slurm_lab.sh kill HOST PATTERN          kill -9 what matches, such as slurmd or the rank's slurmstepd
#   ... slurm_lab.sh daemon HOST                start its daemon again
#   ... slurm_lab.sh down
#
# Everything lives in $LAB, and in a control group of its own; names and addresses are those of its namespaces alone, so
# that labs run side by side. Daemons run in the foreground under the first process of their host's pid namespace, so that
# killing that one process ends a host as a power cut does. `down` also ends what an interrupted lab left behind.
set -u
: "${LAB:?a directory}" "${NODES:=3}" "${PROCTRACK:=cgroup}"
: "${CPUS:=16}" "${GPUS:=0}" "${MEMORY:=100000}" "${PARTITION:=main}" # of a node; the partition is the default one
net=10.77.0
gres=
[ "$GPUS" = 0 ] || gres=Gres=gpu:$GPUS
run=$LAB/run
groups=/sys/fs/cgroup/freezer/$(basename "$LAB")
self=$(readlink -f "$0")
export LAB NODES CPUS GPUS MEMORY PARTITION PROCTRACK SLURM_CONF=$LAB/etc/slurm.conf

first_process() { cat "$run/$1.pid"; }

inside() { # HOST COMMAND...: in the namespaces of a host
  local host=$1
  shift
  nsenter --target "$(first_process "$host")" --net --uts --mount --pid --wdns="$PWD" -- "$@"
}

configure() {
  mkdir -p "$LAB"/etc "$LAB"/run "$LAB"/log "$LAB"/state "$LAB"/small
  chmod 755 "$LAB" "$LAB"/*/
  head -c 1024 /dev/urandom >"$LAB/etc/munge.key"
  chmod 400 "$LAB/etc/munge.key"
  {
    echo 127.0.0.1 localhost
    echo $net.1 ctl
    for i in $(seq "$NODES"); do
      echo "$net.$((10 + i)) node$i"
      mkdir -p "$LAB/spool/node$i"
    done
  } >"$LAB/etc/hosts"
  cat >"$LAB/etc/cgroup.conf" <<X
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainDevices=no
ConstrainRAMSpace=no
X
  : >"$LAB/etc/gres.conf"
  mkdir -p "$LAB/gpus"
  for i in $(seq "$GPUS"); do # SLURM counts their files
    : >"$LAB/gpus/$i"
    echo "Name=gpu File=$LAB/gpus/$i" >>"$LAB/etc/gres.conf"
  done
  cat >"$SLURM_CONF" <<X
ClusterName=lab
SlurmctldHost=ctl($net.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$run/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation=$LAB/state
SlurmdSpoolDir=$LAB/spool/%n
SlurmctldPidFile=$run/slurmctld.pid
SlurmdPidFile=$run/slurmd.%n.pid
SlurmctldLogFile=$LAB/log/slurmctld.log
SlurmdLogFile=$LAB/log/%n.log
ProctrackType=proctrack/$PROCTRACK
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=sched_min_interval=100000,sched_interval=2,bf_interval=1,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/filetxt
JobCompLoc=$LAB/log/jobcomp.txt
ReturnToService=1
SlurmdTimeout=5
SlurmctldTimeout=10
MessageTimeout=5
TCPTimeout=2
KillWait=8
PropagatePrioProcess=1
MinJobAge=600
$([ "$PROCTRACK" = cgroup ] || echo RequeueExit=75)
${gres:+GresTypes=gpu}
NodeName=node[1-$NODES] CPUs=$CPUS Boards=1 SocketsPerBoard=2 CoresPerSocket=$((CPUS / 2)) ThreadsPerCore=1 RealMemory=$MEMORY${gres:+ $gres} State=UNKNOWN
PartitionName=$PARTITION Nodes=ALL Default=YES MaxTime=INFINITE DefMemPerCPU=1 PriorityTier=10 PreemptMode=OFF
PartitionName=low Nodes=ALL MaxTime=INFINITE DefMemPerCPU=1 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
X
}

machine() { # HOST: its namespaces, with this script as their first process
  # SLURM answers in time also when ranks, which keep the priority of their sbatch, use all cores.
  setsid nice -n -5 unshare --net --uts --mount --pid --fork --kill-child --propagation private \
    bash "$self" first-process "$1" </dev/null >"$LAB/log/$1.console" 2>&1 &
  local outer=$! child=
  for _ in $(seq 250); do
    child=$(cat "/proc/$outer/task/$outer/children" 2>/dev/null)
    child=${child%% *}
    [ -z "$child" ] || break
    sleep .02
  done
  echo "$child" >"$run/$1.pid"
}

on() {
  local i=${1#node} controller this
  rm -f "$run/$1.wired"
  machine "$1"
  controller=$(first_process ctl)
  this=$(first_process "$1")
  nsenter -t "$controller" -n ip link del "vn$i" 2>/dev/null # left over from a power cut
  # A fixed address, or the others would go on talking to the host that is gone.
  nsenter -t "$controller" -n ip link add "vn$i" type veth peer name eth0 \
    address "02:00:0a:4d:00:$(printf %02x $((10 + i)))" netns "$this"
  nsenter -t "$controller" -n ip link set "vn$i" master br0 up
  nsenter -t "$this" -n sh -c "ip link set lo up; ip addr add $net.$((10 + i))/24 dev eth0; ip link set eth0 up"
  : >"$run/$1.wired"
}

off() {
  kill -9 "$(first_process "$1")" 2>/dev/null
  rm -f "$run/$1".*
}

link() {
  nsenter -t "$(first_process ctl)" -n ip link set "vn${1#node}" "$2"
  [ "$2" != up ] || inside ctl scontrol reconfigure
}

kill-on() { inside "$1" pkill -KILL --full -- "$2"; }

daemon() {
  case $1 in
    ctl) set -- ctl slurmctld -D ;;
    *) set -- "$1" slurmd -D -N "$1" ;;
  esac
  inside "$1" setsid "${@:2}" </dev/null >>"$LAB/log/$1.console" 2>&1 &
}

up() {
  configure
  mount -t tmpfs -o size=1m tmpfs "$LAB/small" # that all hosts see, because they are made after it
  [ "$PROCTRACK" != cgroup ] || mkdir "$groups"
  machine ctl
  nsenter -t "$(first_process ctl)" -n sh -c \
    "ip link set lo up; ip link add br0 type bridge; ip addr add $net.1/24 dev br0; ip link set br0 up"
  : >"$run/ctl.wired"
  for i in $(seq "$NODES"); do on "node$i"; done
  for _ in $(seq 600); do
    [ "$(inside ctl sinfo -h -p "$PARTITION" -t idle -o %D 2>/dev/null)" != "$NODES" ] || return 0
    sleep .1
  done
  inside ctl sinfo
  tail -n 5 "$LAB"/log/*
  return 1
}

down() {
  local host
  # What is frozen cannot be killed.
  find "$groups" -name freezer.state -exec sh -c 'for state; do echo THAWED >"$state"; done' thaw {} + 2>/dev/null
  for host in $(hosts); do kill -9 "$host" 2>/dev/null; done
  for _ in $(seq 100); do
    [ -n "$(hosts)" ] || break
    sleep .1
  done
  for _ in $(seq 100); do # processes that are ending keep their groups for a moment
    find "$groups" -mindepth 0 -depth -type d -exec rmdir {} + 2>/dev/null
    [ -d "$groups" ] || break
    sleep .1
  done
  umount --lazy "$LAB/small" 2>/dev/null
  return 0
}

hosts() { # first processes of this lab that live, whatever its files say
  local process
  for process in $(pgrep --full 'slurm_lab.sh first-process'); do
    ! grep -qzxF "LAB=$LAB" "/proc/$process/environ" || echo "$process"
  done 2>/dev/null
}

first-process() {
  mount -t proc proc /proc
  hostname "$1"
  mount --bind "$LAB/etc/hosts" /etc/hosts
  mount -t tmpfs -o mode=1777,size=4g tmpfs /dev/shm
  # SLURM names its groups after nodes alone.
  [ "$PROCTRACK" != cgroup ] || mount --bind "$groups" /sys/fs/cgroup/freezer
  while [ ! -e "$run/$1.wired" ]; do sleep .02; done
  local socket=$run/munge.socket
  if [ "$1" = ctl ]; then
    munged -F --key-file="$LAB/etc/munge.key" --socket="$socket" --pid-file="$run/munged.pid" \
      --log-file="$LAB/log/munged.log" --seed-file="$run/munge.seed" &
    while [ ! -S "$socket" ]; do sleep .02; done
    slurmctld -D &
  else
    while [ ! -S "$socket" ]; do sleep .02; done
    slurmd -D -N "$1" &
  fi
  while :; do
    wait -n 2>/dev/null
    sleep .2
  done
}

command=$1
shift
case $command in
  up | down) "$command" ;;
  on | off | link | daemon | first-process) "$command" "$@" ;;
  kill) kill-on "$@" ;;
  in) inside "$@" ;;
  *) exit 2 ;;
esac
