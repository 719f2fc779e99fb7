#!/usr/bin/env bash
# Runs install.sh on a disk that is a file. Real are the partitions, the file
# systems and the mounts, all in a namespace of this test; nixos-install and
# reboot only write down how they were called.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")"

if [ "$(id -u)" != 0 ] || ! losetup --find >/dev/null 2>&1; then
    echo 'skipped: install.sh is tested as root, with a loop device'
    exit 0
fi
[ -n "${1:-}" ] || exec unshare --mount --propagation private "./${0##*/}" apart
if [ "$1" = apart ]; then
    # Like the live system, which has no /mnt: all the rest of this one, under another root.
    mount -t tmpfs none /mnt
    for entry in /*; do
        [ "$entry" != /mnt ] || continue
        if [ -L "$entry" ]; then
            cp -P "$entry" /mnt/
        elif [ -d "$entry" ]; then
            mkdir "/mnt$entry"
            mount --rbind "$entry" "/mnt$entry"
        fi
    done
    exec chroot /mnt "$PWD/${0##*/}" inside
fi
[ ! -e /mnt ] || { echo 'install.sh: the test has a /mnt, which the live system has not' >&2; exit 1; }

work=$(mktemp -d)
disk=
trap '! mountpoint --quiet /mnt || umount --recursive /mnt
[ -z "$disk" ] || { partx --delete "$disk" 2>/dev/null || true; losetup --detach "$disk"; }; rm -rf "$work"' EXIT
mkdir "$work/bin"
mount -t tmpfs none /sys/firmware

# program NAME TEXT: a program that the installer finds before the real one.
program() {
    printf '#!/usr/bin/env bash\n%s\n' "$2" >"$work/bin/$1"
    chmod +x "$work/bin/$1"
}
# The kernel of this machine may know no GPT, and is told of each partition.
program udevadm "partx --delete \$(cat $work/loop) 2>/dev/null; partx --add \$(cat $work/loop)"
program reboot "echo reboot >>$work/called"
# The file is a loop device, and the installer wants a disk.
# Labels are udev's to tell, which may not be here.
program lsblk "case \"\$*\" in *LABEL) exec cat $work/labels ;; esac
$(command -v lsblk) \"\$@\" | sed 's/^loop\$/disk/'; exit \${PIPESTATUS[0]}"
program nixos-install "echo nixos-install \"\$@\" >>$work/called
findmnt -no FSTYPE /mnt >>$work/called
stat -c '%A %n' /mnt/boot >>$work/called
exit \$(cat $work/status)"
if ! grep -qw vfat /proc/filesystems && ! modprobe vfat 2>/dev/null; then
    echo 'this kernel has no FAT, and ext4 stands in for it'
    program mkfs.vfat "mkfs.ext4 -q -F -L ESP \"\${@: -1}\""
    program mount "$(command -v mount) \"\${@/umask=0077/defaults}\" && case \"\$*\" in *umask=0077*) chmod 700 /mnt/boot ;; esac"
fi

# install TEXT...: the installer as writeShellApplication makes it, told these lines.
install() {
    : >"$work/called"
    printf '%s\n' "$@" | PATH=$work/bin:$PATH SYSTEM=/nix/store/system \
        bash -o errexit -o nounset -o pipefail install.sh >"$work/said" 2>&1
}
# typed DISK TEXT...: the same at a terminal, where each answer is typed when it is asked for.
typed() {
    : >"$work/called"
    : >"$work/said"
    mkfifo "$work/keys"
    PATH=$work/bin:$PATH SYSTEM=/nix/store/system script --quiet --return --flush --command \
        'bash -o errexit -o nounset -o pipefail install.sh' "$work/said" <"$work/keys" >/dev/null 2>&1 &
    local session=$! status=0
    exec 3>"$work/keys"
    printf '%s\n' "$1" >&3
    types 'Only an empty line' "${@:2}"
    types 'Erasing' ''
    exec 3>&-
    rm "$work/keys"
    wait "$session" || status=$?
    return $status
}
types() { # types SENTENCE TEXT...: once it was said, or never will be
    ! grep -qF "$1" < <(tail --lines=+1 --follow --pid="$session" "$work/said") || printf '%s\n' "${@:2}" >&3
}
wrong() {
    echo "install.sh: $*; it said:" >&2
    cat "$work/said" >&2
    exit 1
}
refused() { # refused SENTENCE TEXT...
    ! install "${@:2}" || wrong "went on after $2"
    grep -qF "$1" "$work/said" || wrong "did not say: $1"
    [ ! -s "$work/called" ] || wrong "installed all the same"
}
is() { [ "$1" = "$2" ] || wrong "$3 is '$1' and not '$2'"; }

truncate -s 9G "$work/disk"
disk=$(losetup --find --show --partscan "$work/disk")
name=${disk#/dev/}
echo "$disk" >"$work/loop"
echo 0 >"$work/status"
: >"$work/labels"

refused 'choose UEFI' "$name"
mkdir /sys/firmware/efi
install '' || wrong 'an empty answer is no error'
refused '/dev/nothing is no disk' nothing
truncate -s 4G "$work/disk"
losetup --set-capacity "$disk"
refused 'less than 8 GB' "$name"
truncate -s 9G "$work/disk"
losetup --set-capacity "$disk"

install "/dev/$name" 'name = pi-1' 'label = a b' '' '' || wrong 'failed'
is "$(cat "$work/called")" "nixos-install --system /nix/store/system --root /mnt --no-root-passwd --no-channel-copy
ext4
drwx------ /mnt/boot
reboot" 'what was called'
! mountpoint --quiet /mnt || wrong 'something stays mounted'
is "$(blkid -s LABEL -o value "${disk}p1") $(blkid -s LABEL -o value "${disk}p2")" 'ESP nixos' 'the labels'
is "$(sfdisk --dump "$disk" | grep -c 'C12A7328-F81F-11D2-BA4B-00A0C93EC93B')" 1 'the number of EFI partitions'
mount "${disk}p1" /mnt
is "$(cat /mnt/uncloud.txt)" "name = pi-1
label = a b" 'uncloud.txt'
refused "/dev/$name is in use" "$name"
umount /mnt

# A ticket that names many members is longer than a line of a terminal.
long=uncloud-ticket-$(printf 'x%.0s' {1..6000})
typed "$name" $'name = pi-22\177' "$long" $'\004' || wrong 'failed at a terminal'
mount "${disk}p1" /mnt
is "$(cat /mnt/uncloud.txt)" "name = pi-2
$long" 'uncloud.txt, typed,'
umount /mnt

# Another disk has such a system already.
echo '/dev/other2 nixos' >"$work/labels"
refused '/dev/other2 has the label nixos' "$name"
echo "${disk}p2 nixos" >"$work/labels"

# Once more over what is there: what failed, and what lost its power.
echo 1 >"$work/status"
! install "$name" 'ticket' '' || wrong 'hides that nixos-install failed'
! mountpoint --quiet /mnt || wrong 'something stays mounted after a failure'
echo 0 >"$work/status"
install "$name" '' '' || wrong 'fails over a half installed disk'
mount "${disk}p1" /mnt
[ ! -e /mnt/uncloud.txt ] || wrong 'leaves the text of somebody else'
umount /mnt
