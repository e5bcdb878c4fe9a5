#!/bin/sh
# preload-images.sh ROOT IMAGES: put the image archives in the folder IMAGES into the containerd of the node
# image that is being made in ROOT. Run it by `unshare --mount`: what it mounts goes with its namespace.
set -eu
root=$1 images=$2

mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t sysfs -o ro sysfs "$root/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
mkdir -p "$root/mnt/images"
mount --bind "$images" "$root/mnt/images"

chroot "$root" containerd --log-level warn &
containerd=$!
trap 'kill $containerd 2>/dev/null; wait $containerd || true' EXIT
for _ in $(seq 150); do
    chroot "$root" ctr version >/dev/null 2>&1 && break
    sleep 0.2
done
for archive in "$root"/mnt/images/*.tar; do
    chroot "$root" ctr --namespace k8s.io images import "/mnt/images/${archive##*/}" >/dev/null
done
# Unpacked they are all that is needed; the archives' layers would be a second copy.
chroot "$root" ctr --namespace k8s.io content prune references >/dev/null
