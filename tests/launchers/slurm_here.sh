#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, of Debian's packages: for trying hydra/launcher=submitit_slurm, not for use.
#
#     apt-get install slurm-wlm munge
#     eval "$(tests/launchers/slurm_here.sh start)"       # sets SLURM_CONF, which sbatch, squeue and scancel look at
#     make launcher-test ARGS="-k slurm"
#     tests/launchers/slurm_here.sh stop
#
# Everything (keys, sockets, state, logs) lies in the folder given, ${TMPDIR:-/tmp}/slurm-here-$USER by default, and belongs to whoever starts
# it: root is not needed, and jobs can be run by that user alone. There is no accounting and no memory limit (no cgroups).
set -euo pipefail

usage() {
    printf 'usage: %s start|stop [FOLDER]\n' "$0" >&2
    exit 2
}

say() {
    printf '%s\n' "$*" >&2
}

alive() { # whether the process whose id is in a file runs
    [[ -s $1 ]] && kill -0 "$(<"$1")" 2>/dev/null
}

start() {
    local tool node cores memory_mb user
    for tool in munged slurmctld slurmd sbatch squeue scontrol; do
        if [[ -z $(command -v "$tool") ]]; then
            say "$tool is not installed: apt-get install slurm-wlm munge"
            exit 1
        fi
    done
    if alive "$folder/slurmctld.pid"; then
        say "it runs already: $0 stop $folder"
        exit 1
    fi
    mkdir -p "$folder"/{state,spool,log}
    # munged refuses a folder that others can write to.
    chmod 755 "$folder"
    node=$(hostname -s)
    cores=$(nproc)
    memory_mb=$(awk '/^MemTotal/ { print int($2 / 1024 * 0.9) }' /proc/meminfo)
    user=$(id -un)
    if [[ ! -s $folder/munge.key ]]; then
        (umask 077 && head -c 1024 /dev/urandom > "$folder/munge.key")
    fi
    cat > "$folder/slurm.conf" <<CONF
ClusterName=here
SlurmctldHost=$node(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
# Ports of its own: a Slurm that this machine is a part of is left alone.
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
# Jobs are short: look for work often.
SchedulerParameters=sched_interval=1,batch_sched_delay=0
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
JobCompType=jobcomp/none
ReturnToService=2
KillWait=5
MinJobAge=300
SlurmdParameters=config_overrides
DefMemPerCPU=$((memory_mb / cores))
NodeName=$node NodeAddr=127.0.0.1 CPUs=$cores RealMemory=$memory_mb State=UNKNOWN
PartitionName=here Nodes=$node Default=YES MaxTime=INFINITE State=UP
CONF
    export SLURM_CONF=$folder/slurm.conf
    munged --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/log/munged.log" --seed-file="$folder/munge.seed" >&2
    slurmctld >&2
    slurmd >&2
    for _ in {1..60}; do
        if sinfo --noheader --format=%T 2>/dev/null | grep -qE 'idle|mixed|allocated'; then
            say "one node, $cores cores, partition here; logs in $folder/log"
            printf 'export SLURM_CONF=%q\n' "$SLURM_CONF"
            return
        fi
        sleep 0.5
    done
    say "the node does not come up; see $folder/log"
    stop
    exit 1
}

stop() {
    local daemon
    for daemon in slurmd slurmctld munged; do
        if alive "$folder/$daemon.pid"; then
            kill "$(<"$folder/$daemon.pid")"
        fi
    done
    for daemon in slurmd slurmctld munged; do
        for _ in {1..60}; do
            alive "$folder/$daemon.pid" || break
            sleep 0.5
        done
    done
    rm -rf "$folder"
}

(($# == 1 || $# == 2)) || usage
folder=$(realpath -m "${2:-${TMPDIR:-/tmp}/slurm-here-$(id -un)}")
case $1 in
start) start ;;
stop) stop ;;
*) usage ;;
esac
