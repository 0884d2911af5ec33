#!/usr/bin/env bash
# Starts a SLURM of one machine, this one, to try sweeps on: apt-get install slurm-wlm munge; then, as root, start.sh.
# A configuration that is there already is not touched. `start.sh stop` ends it.
set -euo pipefail

if [ "${1:-}" = stop ]; then
    pkill slurmd || true
    pkill slurmctld || true
    pkill munged || true
    exit
fi

host=$(hostname -s)
if [ ! -e /etc/slurm/slurm.conf ]; then
    cat >/etc/slurm/slurm.conf <<CONF
ClusterName=one
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=/var/spool/slurmctld
SlurmdSpoolDir=/var/spool/slurmd
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
KillWait=30
JobRequeue=1
NodeName=$host CPUs=$(nproc) RealMemory=2000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
fi
mkdir -p /var/spool/slurmctld /var/spool/slurmd /run/munge /var/log/munge
[ -e /etc/munge/munge.key ] || mungekey --create
chown -R munge: /etc/munge /run/munge /var/log/munge /var/lib/munge
runuser -u munge -- munged
slurmctld
slurmd
for _ in $(seq 30); do
    [ "$(sinfo --noheader --format=%t)" = idle ] && break
    sleep 1
done
sinfo
