#!/usr/bin/env bash
# Writes requirements/ci.lock anew: run it after a change of dependencies, in a .venv of Python 3.11 on Linux x86_64.
set -euo pipefail
cd "$(dirname "$0")/.."
places=()
for link in ${PIP_FIND_LINKS:-https://download.pytorch.org/whl/cpu/torch/}; do places+=(--find-links "$link"); done
.venv/bin/uv pip compile -q --python .venv/bin/python --python-version 3.11 "${places[@]}" --no-header --no-annotate \
    --no-emit-index-url --no-emit-find-links --override requirements/overrides.txt --extra cpu --extra dev --extra docs \
    --upgrade -o requirements/ci.lock pyproject.toml
