#!/bin/sh
# node-base.sh FOLDER ARCHIVE: the distribution's part of a node image, as a tar archive.
#
# A minimal Debian with systemd, containerd and what kubelet and kubeadm call, less what a node never reads:
# documentation, and units that would fight with the host (as kind's own image does without them).
set -eu
root=$1 archive=$2

debootstrap --variant=minbase --include=systemd,systemd-sysv,containerd,runc,containernetworking-plugins,\
iptables,nftables,iproute2,conntrack,ethtool,kmod,mount,util-linux,ca-certificates,procps,jq,iputils-ping \
    trixie "$root"

rm -rf "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/*.log \
    "$root"/usr/share/doc "$root"/usr/share/man "$root"/usr/share/locale "$root"/usr/share/info \
    "$root"/usr/share/bash-completion "$root"/usr/lib/udev/hwdb* \
    "$root"/usr/bin/containerd-shim "$root"/usr/bin/containerd-shim-runc-v1 "$root"/usr/bin/containerd-stress
units=$root/usr/lib/systemd/system
rm -f "$root"/etc/systemd/system/*.wants/* \
    "$units"/multi-user.target.wants/* "$units"/local-fs.target.wants/* "$units"/basic.target.wants/* \
    "$units"/sockets.target.wants/*udev* "$units"/sockets.target.wants/*initctl* \
    "$units"/sysinit.target.wants/systemd-tmpfiles-setup.service
ln -sf /dev/null "$root/etc/systemd/system/systemd-binfmt.service"

tar -C "$root" -c . >"$archive.part"
mv "$archive.part" "$archive"
