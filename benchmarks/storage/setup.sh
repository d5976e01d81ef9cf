#!/usr/bin/env bash
# Makes build/bench-venv with the peers of requirements/benchmarks.txt; never touches .venv but for its uv.
# pip's settings PIP_FIND_LINKS, PIP_INDEX_URL and PIP_CERT are respected. A peer that cannot be installed is said, and the
# benchmarks that need it say so too.
set -euo pipefail
cd "$(dirname "$0")/../.."
base=${VENV:-.venv}/bin
venv=${BENCH_VENV:-build/bench-venv}
torch_wheels=https://download.pytorch.org/whl/cpu/torch/ # the CPU build: a tenth of the size
list=requirements/benchmarks.txt

[ -x "$base/uv" ] || { echo "setup: $base/uv is missing; run make install" >&2; exit 2; }
[ -x "$venv/bin/python" ] || "$base/uv" venv -q --python "$base/python" "$venv"

export SSL_CERT_FILE=${SSL_CERT_FILE:-${PIP_CERT:-}} UV_LINK_MODE=${UV_LINK_MODE:-copy}
[ -n "$SSL_CERT_FILE" ] || unset SSL_CERT_FILE
links=${PIP_FIND_LINKS:-$("$base/python" -m pip config get global.find-links 2>/dev/null || true)}
places=()
for link in ${links:-$torch_wheels}; do places+=(--find-links "$link"); done
[ -z "${PIP_INDEX_URL:-}" ] || places+=(--default-index "$PIP_INDEX_URL")
install() { "$base/uv" pip install -q --python "$venv/bin/python" "${places[@]}" "$@"; }

if install --override requirements/benchmarks-overrides.txt -r "$list"; then
    echo "setup: $venv is ready" >&2
    exit
fi
echo "setup: not all of $list could be installed together; one by one:" >&2
grep -v '^#' "$list" | while read -r requirement; do
    install --override requirements/benchmarks-overrides.txt "$requirement" ||
        echo "setup: NOT INSTALLED: $requirement" >&2
done
