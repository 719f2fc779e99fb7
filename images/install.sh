# Puts this system on a disk. Two questions: which disk, and who the machine is.
# When power is lost the disk holds what it held, or the new machine, or something
# that does not boot: the boot loader comes last. Then it is done once more.

refuse() { echo "uncloud-install: $*" >&2; exit 1; }

[ -d /sys/firmware/efi ] || refuse 'this computer was started in the old way; choose UEFI in its settings'
lsblk --nodeps --exclude 7,11 --output NAME,SIZE,MODEL
read -r -p 'Disk to erase and install to (empty for a shell): ' name || name=
[ -n "$name" ] || exit 0
disk=/dev/${name#/dev/}
[ "$(lsblk --nodeps --noheadings --output TYPE "$disk" 2>/dev/null)" = disk ] || refuse "$disk is no disk"
[ -z "$(lsblk --noheadings --output MOUNTPOINTS "$disk" | tr -d '[:space:]')" ] || refuse "$disk is in use"
[ "$(lsblk --nodeps --noheadings --bytes --output SIZE "$disk")" -ge 8000000000 ] || refuse "$disk has less than 8 GB"
# The new system finds its volumes by their labels, and would take another one's.
while read -r part label; do
    [[ $part = "$disk"* || $label != ESP && $label != nixos ]] ||
        refuse "$part has the label $label, and the new machine would take it for its own: erase it, or take its disk out"
done < <(lsblk --list --noheadings --paths --output NAME,LABEL)

# A terminal that gathers lines drops what one has beyond 4095 bytes, and a ticket
# may be longer. One that does not leaves it to us to take back what was erased,
# and to know the end of a text (Ctrl-D).
if [ -t 0 ]; then
    terminal=$(stty -g)
    trap 'stty "$terminal"' EXIT
    stty -icanon min 1 time 0
fi
echo 'Paste uncloud.txt or a ticket, and end with an empty line.'
echo 'Only an empty line for none; a stick with the label UNCLOUD does as well.'
told=
while IFS= read -r line; do
    line=${line//$'\004'/}
    while [[ $line == *$'\177'* ]]; do
        before=${line%%$'\177'*}
        line=${before%?}${line#*$'\177'}
    done
    [ -n "$line" ] || break
    told+=$line$'\n'
done
if [ -t 0 ]; then
    stty "$terminal"
    trap - EXIT
fi

echo "Erasing $disk"
sfdisk --quiet --wipe always --wipe-partitions always "$disk" <<'TABLE'
label: gpt
size=1GiB, type=uefi, name=ESP
type=linux, name=nixos
TABLE
udevadm settle
mapfile -t parts < <(lsblk --list --noheadings --paths --output NAME "$disk")
mkfs.vfat -n ESP "${parts[1]}" >/dev/null
mkfs.ext4 -q -F -L nixos "${parts[2]}"
trap 'mountpoint --quiet /mnt && umount --recursive /mnt' EXIT
mount --mkdir "${parts[2]}" /mnt # the live system has no such folder
mount --mkdir -o umask=0077 "${parts[1]}" /mnt/boot
if [ -n "$told" ]; then
    printf '%s' "$told" >/mnt/boot/uncloud.txt
    sync
fi

nixos-install --system "$SYSTEM" --root /mnt --no-root-passwd --no-channel-copy
umount --recursive /mnt
sync
read -r -p 'Done. Take the medium out and press return to start the new machine.' _ || true
reboot
