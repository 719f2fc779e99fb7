#!/usr/bin/env bash
# What the virtual machines of scenarios are made of, built once and kept:
#
#   image.sh qemu DIR    QEMU of Debian trixie in a directory of its own; DIR/run PROGRAM runs it
#   image.sh driver DIR  a Debian root with what the NixOS test driver needs
#   image.sh base DIR    DIR/disk.raw, DIR/vmlinuz and DIR/initrd of a small Debian trixie server
#
# Nothing of the product is in them. MIRROR names a Debian mirror.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
suite=trixie

# What a small Debian server has, what the product needs, and what scenarios look with.
packages=systemd,systemd-sysv,systemd-resolved,dbus,udev,kmod,procps,mount,util-linux,busybox-static
packages+=,linux-image-cloud-amd64,podman,netavark,crun,conmon,nftables,iproute2,wireguard-tools,ca-certificates
packages+=,iputils-ping,netcat-openbsd,curl,jq,dosfstools,nix-bin

bootstrap() {
    mmdebstrap -q --mode=root --aptopt='Apt::Install-Recommends "false"' --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' "$@" "$suite" "$part" ${MIRROR:+"deb $MIRROR $suite main"}
}

# It is not installed but unpacked, and started by the loader and with the libraries that it came with.
qemu() {
    bootstrap --format=directory --variant=extract --include=qemu-system-x86,qemu-utils
    install -m 755 "$here/run-qemu" "$part/run"
    "$part/run" qemu-system-x86_64 --version
}

# A root in which the NixOS test driver runs.
driver() {
    bootstrap --format=directory --variant=minbase \
        --include=python3,python3-pydantic,python3-colorama,python3-junit.xml,vde2,mount,iproute2
}

base() {
    local root=$part/root
    part=$root bootstrap --format=directory --variant=minbase --include=$packages
    prepare "$root"
    cp "$root"/boot/vmlinuz-* "$part/vmlinuz"
    rm -rf "${root:?}"/boot/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/*
    make_initrd "$root"
    mke2fs -q -t ext4 -E lazy_itable_init=1,root_owner=0:0 -d "$root" "$part/disk.raw" 4G
    rm -rf "$root"
}

prepare() {
    local root=$1 unit
    rm -f "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/*
    cp -r "$here/guest/." "$root/"
    : >"$root/etc/machine-id"
    echo unnamed >"$root/etc/hostname"
    echo '# the root is named by the kernel command line' >"$root/etc/fstab"
    touch "$root/etc/.updated" "$root/var/.updated"
    # xz costs seconds of every boot where instructions are emulated.
    find "$root/usr/lib/modules" -name '*.ko.xz' -exec xz -d {} +
    chroot "$root" depmod "$(ls "$root/usr/lib/modules")"
    # What such a machine does not need, and what would cost seconds.
    while read -r unit; do ln -sf /dev/null "$root/etc/systemd/system/$unit"; done <"$here/masked-units"
    chroot "$root" systemctl -q set-default multi-user.target
    chroot "$root" systemctl -q enable podman.socket nftables.service systemd-resolved.service \
        vm-personalise.service vm-nixos.service vm-network.service app-image.service backdoor.service
}

# A disk controller that a snapshot can hold is a module, so something must load it.
make_initrd() {
    local root=$1 initrd=$part/initrd.d
    mkdir -p "$initrd"/{bin,dev,root}
    cp "$root/usr/bin/busybox" "$initrd/bin/"
    ln -s busybox "$initrd/bin/sh"
    cp "$(find "$root/usr/lib/modules" -name virtio_blk.ko)" "$initrd/"
    mknod "$initrd/dev/console" c 5 1
    cat >"$initrd/init" <<'INIT'
#!/bin/sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox insmod /virtio_blk.ko
/bin/busybox mount -t ext4 -o noatime /dev/vda /root
exec /bin/busybox switch_root /root /sbin/init
INIT
    chmod +x "$initrd/init"
    (cd "$initrd" && find . | cpio --quiet -o -H newc) >"$part/initrd"
    rm -rf "$initrd"
}

# What was killed half way is never used.
final=$2 part=$2.part
rm -rf "$part"
mkdir -p "$part"
"$1"
mv "$part" "$final"
