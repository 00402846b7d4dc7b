#!/bin/sh
# Validates the manifests against the schemas of Kubernetes, strictly: each file
# by itself, and what kustomize makes of them. Needs kubernetes-validate on PATH
# (in the development environment). kubectl and hadolint are used where they are.
set -eu
cd "$(dirname "$0")"

# The oldest version that the manifests are meant for, and the newest that is known.
versions="1.30 1.36"

status=0
rendered=$(mktemp)
trap 'rm -f "$rendered"' EXIT

failed() {
    echo "FAILED: $*" >&2
    status=1
}

validate() { # name for people, file
    for version in $versions; do
        # A kind that it does not know is only a warning to the validator, so all it says counts.
        if said=$(kubernetes-validate --strict --quiet --kubernetes-version "$version" "$2" 2>&1) \
            && [ -z "$said" ]; then
            echo "ok: $1 (Kubernetes $version)"
        else
            failed "$1 (Kubernetes $version): $said"
        fi
    done
}

resources=0
for manifest in base/*.yaml; do
    if [ "$manifest" != base/kustomization.yaml ]; then
        validate "$manifest" "$manifest"
        resources=$((resources + $(grep -c '^kind:' "$manifest")))
    fi
done

if ! command -v kubectl >/dev/null; then
    # Skipped in CI as well: Debian's archive has no kubectl, and the files were
    # validated one by one above.
    echo "skipped: rendering, because kubectl is not installed"
elif ! kubectl kustomize base >"$rendered"; then
    failed "kubectl kustomize base"
elif [ "$(grep -c '^kind:' "$rendered")" -ne "$resources" ]; then
    failed "base/kustomization.yaml does not list every file beside it"
else
    validate "base, rendered" "$rendered"
fi

if ! command -v hadolint >/dev/null; then
    echo "skipped: linting the Dockerfile, because hadolint is not installed"
elif hadolint ../Dockerfile; then
    echo "ok: Dockerfile"
else
    failed "Dockerfile"
fi

exit "$status"
