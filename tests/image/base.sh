#!/bin/sh
# base.sh FOLDER BASE BUILD_BASE TRUSTED: two base images as tar archives, made from Debian's packages.
#
# BASE has Python and little else. BUILD_BASE has the means to make environments (venv) as well, and trusts the
# authorities in the file TRUSTED, as this machine does: it may reach the package index by way of a proxy that
# has a certificate of its own. It runs nothing but the build.
set -eu
root=$1 base=$2 build_base=$3 trusted=$4
for_building="python3-venv python3.13-venv python3-pip-whl python3-setuptools-whl"

# Kept: the licences of all packages (copyright), and dpkg's list of what is installed, for scanners.
tidy() {
    rm -rf "$root"/var/cache/apt/* "$root"/var/cache/debconf/*-old "$root"/var/lib/apt/lists/* "$root"/var/log/* \
        "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/info "$root"/etc/resolv.conf \
        "$root"/etc/hostname "$root"/etc/machine-id
    find "$root/usr/share/doc" -type f ! -name copyright -delete
}

pack() {
    tar -C "$root" --sort=name --numeric-owner -c . >"$1.part"
    mv "$1.part" "$1"
}

debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie "$root"
tidy
own=$(cat "$root/etc/ssl/certs/ca-certificates.crt")
cp "$trusted" "$root/etc/ssl/certs/ca-certificates.crt"
pack "$build_base"
printf "%s\n" "$own" >"$root/etc/ssl/certs/ca-certificates.crt"
# shellcheck disable=SC2086 # several names
chroot "$root" dpkg --purge $for_building
tidy
pack "$base"
