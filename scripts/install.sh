#!/usr/bin/env bash
# Makes .venv and installs this checkout into it, with the extras `cpu`, `dev` and `docs`. Run by `make install`.
# PYTHON picks the interpreter; pip's settings PIP_FIND_LINKS, PIP_INDEX_URL and PIP_CERT are respected.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=${VENV:-.venv}
lock=requirements/ci.lock # for the Python named below, on Linux x86_64
lock_python=3.11
torch_wheels=https://download.pytorch.org/whl/cpu/torch/ # a page of wheels: torch alone comes from there

stop() { # problem; remedy
    echo "install: $*" >&2
    exit 2
}

is_good() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

find_python() {
    if [ -n "${PYTHON:-}" ]; then
        is_good "$PYTHON" || stop "PYTHON=$PYTHON is not Python 3.11 or newer; give the path of one that is"
        echo "$PYTHON"
        return
    fi
    for name in python$lock_python python3 python3.12 python3.13; do
        if is_good "$name"; then
            echo "$name"
            return
        fi
    done
    stop "no Python 3.11 or newer found; install one, or name it: make install PYTHON=/path/to/python3.11"
}

apt_install() { # packages
    echo "install: getting $* through apt" >&2
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

may_apt() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

make_venv() { # Debian keeps the venv module in a package of its own
    "$1" -m venv --clear "$venv" >/dev/null 2>&1 && return
    if may_apt; then
        apt_install python3-venv
        "$1" -m venv --clear "$venv" >/dev/null 2>&1 && return
    fi
    rm -rf "$venv"
    "$1" -m pip install -q --target "$venv.tmp" virtualenv 2>/dev/null ||
        stop "$1 has neither venv nor pip; install them, on Debian and Ubuntu: apt-get install python3-venv"
    PYTHONPATH="$venv.tmp" "$1" -m virtualenv -q "$venv"
    rm -rf "$venv.tmp"
}

if ! is_good "$venv/bin/python"; then
    python=$(find_python)
    echo "install: making $venv with $("$python" -V)" >&2
    make_venv "$python"
fi
bin=$venv/bin
[ -x "$bin/uv" ] || "$bin/python" -m pip install -q --disable-pip-version-check uv

# uv does not read pip's settings; pass on what they say.
export SSL_CERT_FILE=${SSL_CERT_FILE:-${PIP_CERT:-}} UV_LINK_MODE=${UV_LINK_MODE:-copy}
[ -n "$SSL_CERT_FILE" ] || unset SSL_CERT_FILE
links=${PIP_FIND_LINKS:-$("$bin/python" -m pip config get global.find-links 2>/dev/null || true)}
places=()
for link in ${links:-$torch_wheels}; do places+=(--find-links "$link"); done
[ -z "${PIP_INDEX_URL:-}" ] || places+=(--default-index "$PIP_INDEX_URL")

uv_install() { "$bin/uv" pip install -q --python "$bin/python" "${places[@]}" "$@"; }

here=$("$bin/python" -c 'import sys, sysconfig; print("%d.%d" % sys.version_info[:2], sysconfig.get_platform())')
if [ -f "$lock" ] && [ "$here" = "$lock_python linux-x86_64" ]; then
    echo "install: packages of $lock (about 3.5 GB)" >&2
    uv_install --no-deps -r "$lock"
    uv_install --no-deps --reinstall-package trainwright -e .
else
    echo "install: newest packages that fit (about 3.5 GB); $lock is for Python $lock_python" >&2
    uv_install --override requirements/overrides.txt --reinstall-package trainwright -e '.[cpu,dev,docs]'
fi
"$bin/python" -c 'import trainwright.storage.tokens._gather' 2>/dev/null ||
    echo "install: no C compiler or no Python.h, so tokens are read with NumPy, which is slower" >&2
# vLLM's CPU build needs this library, and its own words without it do not say so.
has_numa() { "$bin/python" -c 'import ctypes; ctypes.CDLL("libnuma.so.1")' 2>/dev/null; }
if ! has_numa && may_apt; then apt_install libnuma1; fi
has_numa || echo "install: serving on CPU needs libnuma; on Debian and Ubuntu: apt-get install libnuma1" >&2
echo "install: done; try $bin/trainwright --help" >&2
