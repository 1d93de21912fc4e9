#!/usr/bin/env bash
# Make a base image NAME with Python from Debian's packages, for machines that cannot reach an image
# registry: base.sh NAME. Needs root, debootstrap and Podman.
set -euo pipefail

. /etc/os-release
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
root=$(mktemp --directory)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$VERSION_CODENAME" "$root" "$mirror" > "$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"
# like the official image: without package lists and archives, manuals and translations
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/{doc,info,man,locale}/*
# trust the certificates of this machine, because its package index may have one of its own
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
tar --create --directory "$root" . | podman import --quiet - "$1" > /dev/null
