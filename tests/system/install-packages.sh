#!/bin/sh
# Installs the Debian packages that the system tests need. Does nothing when
# they are there already, so that a second run needs neither network nor root.
set -eu

packages="buildah podman runc debootstrap"

missing=""
for package in $packages; do
    dpkg-query --show --showformat='${db:Status-Status}\n' "$package" 2>/dev/null \
        | grep --quiet --line-regexp installed || missing="$missing $package"
done

if [ -z "$missing" ]; then
    echo "system packages: all there ($packages)"
    exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
    echo "system packages: missing$missing; run as root, or install them yourself" >&2
    exit 1
fi

echo "system packages: installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086  # a list of names, split on purpose
apt-get install --yes --quiet --quiet --no-install-recommends $missing >/dev/null 2>&1 || {
    # Package lists may be absent or old: only then pay for an update.
    apt-get update --quiet --quiet
    # shellcheck disable=SC2086  # as above
    apt-get install --yes --quiet --quiet --no-install-recommends $missing
}
