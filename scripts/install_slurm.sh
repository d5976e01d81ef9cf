#!/usr/bin/env bash
# Slurm, munge and ip for the tests and the dev cluster, through apt as root on Debian or Ubuntu; else does nothing.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
missing=
for program in slurmctld slurmd sbatch munged ip; do
    command -v $program >/dev/null || missing=1
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    exit 0 # pytest says at its end what was skipped and how to get it
fi
echo "install: Slurm, munge and iproute2 through apt" >&2
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends slurm-wlm munge iproute2 >/dev/null
