#!/usr/bin/env bash
# Makes a base image with Python from Debian's packages, for machines that reach no registry of images:
# base.sh NAME. Needs root, debootstrap and Podman.
set -euo pipefail

. /etc/os-release
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | head -n 1)
root=$(mktemp --directory)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    "$VERSION_CODENAME" "$root" "$mirror" > "$root.log" 2>&1 || { tail -n 20 "$root.log" >&2; exit 1; }
rm -f "$root.log"
# as an official image is: without lists and archives of packages, manuals and translations
rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/* \
    "$root"/usr/share/{doc,info,man,locale}/*
# what this machine trusts, the image trusts: its package index may have a certificate of its own
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
tar --create --directory "$root" . | podman import --quiet - "$1" > /dev/null
