#!/bin/sh
# Prints the path of a uv: the one on PATH, or one that is installed privately, once, into the cache
# folder. Nothing outside that folder is touched, so a machine needs nothing but Python.
set -eu

if command -v uv; then exit 0; fi

pinned=$(dirname "$0")/uv.txt
version=$(sed -n 's/^uv==\([^ ]*\).*/\1/p' "$pinned")
home=${XDG_CACHE_HOME:-$HOME/.cache}/wholepod/uv-$version
if [ ! -e "$home/complete" ]; then
    if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "Wholepod needs Python 3.11 or newer as python3, or uv (https://docs.astral.sh/uv/)" >&2
        exit 1
    fi
    echo "Installing uv $version into $home" >&2
    if ! python3 -m venv --clear "$home" >&2; then
        echo "python3 can't make environments: install its venv module (Debian: python3-venv), or uv" >&2
        exit 1
    fi
    "$home/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$pinned" >&2
    touch "$home/complete"
fi
echo "$home/bin/uv"
