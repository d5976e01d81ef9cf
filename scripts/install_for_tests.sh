#!/usr/bin/env bash
# What the tests need beside .venv, through apt as root on Debian or Ubuntu; else does nothing: Slurm, munge and ip for
# the dev cluster, curl as users call an endpoint, pkill, and gcc for a library that plays NVML.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
missing=
for program in slurmctld slurmd sbatch munged ip curl pkill gcc; do
    command -v $program >/dev/null || missing=1
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    exit 0 # pytest says at its end what was skipped and how to get it
fi
packages="slurm-wlm munge iproute2 curl procps gcc libc6-dev"
echo "install: $packages through apt" >&2
apt-get update -qq
# shellcheck disable=SC2086 # words on purpose
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >/dev/null
