#!/bin/sh
# Writes requirements/*.txt: names, versions and hashes of everything the project's commands install.
# Usage: scripts/lock.sh UV [--upgrade]
set -eu
uv=$1
shift
compile() {
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links -c requirements/held-back.in "$@" 2>&1 | grep -v 'is ignored' || true
}
compile pyproject.toml --extra server --extra uvloop --extra embedded --extra dev -o requirements/dev.txt "$@"
compile pyproject.toml requirements/serve.in --extra server --extra uvloop --extra embedded \
    -c requirements/dev.txt -o requirements/serve.txt
compile pyproject.toml --extra server --extra uvloop -c requirements/dev.txt -o requirements/image.txt
compile requirements/build.in -c requirements/dev.txt -o requirements/build.txt
compile requirements/protos.in -o requirements/protos.txt "$@"
compile pyproject.toml requirements/serve.in requirements/bench.in --extra server --extra uvloop --extra embedded \
    -c requirements/dev.txt -o requirements/bench.txt
