#!/bin/sh
# Everything that can be told without running the product. Usage: scripts/check.sh BIN PROTOS_BIN
set -eu
bin=$1
protos_bin=$2
step() {
    echo "check: $1"
    shift
    "$@"
}
# What is committed is what the protos say.
stubs_are_current() {
    fresh=$(mktemp -d)
    trap 'rm -rf "$fresh"' EXIT
    mkdir -p "$fresh/agent_sessions/v1"
    scripts/protos.sh "$protos_bin" "$fresh"
    cp client/agent_sessions/v1/__init__.py "$fresh/agent_sessions/v1/"
    diff -r -x __pycache__ "$fresh/agent_sessions/v1" client/agent_sessions/v1 || {
        echo "the stubs differ from the protos: run make protos" >&2
        return 1
    }
}
step "ruff" "$bin/ruff" check --quiet .
step "ruff format" "$bin/ruff" format --quiet --check .
step "mypy --strict" "$bin/mypy" --no-error-summary
step "import rules" "$bin/lint-imports" --no-cache
step "buf lint" "$bin/buf" lint protos
step "buf format" "$bin/buf" format --diff --exit-code protos
step "buf breaking" "$bin/buf" breaking protos --against protos/released.binpb
step "stubs" stubs_are_current
step "manifests" env PATH="$PWD/$bin:$PATH" deploy/check.sh
