#!/usr/bin/env bash
# What the tests need beside .venv, through apt as root on Debian or Ubuntu; else does nothing: Slurm, munge and ip for
# the dev cluster, slurmdbd and MariaDB for its accounts, sshd for --host, curl as users call an endpoint, pkill, gcc for
# a library that plays NVML, and with Python.h for the compiled parts, which are made now if they could not be before.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${VENV:-.venv}/bin/python
PATH=$PATH:/usr/sbin:/sbin
missing=
for program in slurmctld slurmd sbatch munged slurmdbd mariadbd sshd ip curl pkill gcc; do
    command -v $program >/dev/null || missing=1
done
has_parts() { "$python" -c 'import trainwright.storage.tokens._gather, trainwright.storage.loading._order' 2>/dev/null; }
has_parts || missing=1
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    exit 0 # pytest says at its end what was skipped and how to get it
fi
packages="slurm-wlm munge slurmdbd mariadb-server openssh-server iproute2 curl procps gcc libc6-dev python3-dev"
echo "install: $packages through apt" >&2
had_sshd=$(command -v sshd || true)
# The tests start their own daemons: the packages start none, and nobody can log in here who could not before.
policy=/usr/sbin/policy-rc.d
[ -e $policy ] || { printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && trap 'rm -f $policy' EXIT; }
apt-get update -qq
# shellcheck disable=SC2086 # words on purpose
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
if [ -z "$had_sshd" ] && command -v systemctl >/dev/null; then
    systemctl --quiet disable ssh.service ssh.socket 2>/dev/null || true
fi
has_parts || scripts/install.sh
