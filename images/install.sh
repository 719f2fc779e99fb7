# Puts this system on a disk. Two questions: which disk, and who the machine is.

lsblk --nodeps --exclude 7,11 --output NAME,SIZE,MODEL
read -r -p 'Disk to erase and install to (empty for a shell): ' name
[ -n "$name" ] || exit 0
disk=/dev/${name#/dev/}
[ "$(lsblk --nodeps --noheadings --output TYPE "$disk")" = disk ] || { echo "$disk is no disk" >&2; exit 1; }
! findmnt --source "$disk*" >/dev/null || { echo "$disk is in use" >&2; exit 1; }

echo 'Paste uncloud.txt or a ticket, and end with an empty line (at once for none):'
told=
while IFS= read -r line && [ -n "$line" ]; do told+=$line$'\n'; done

echo "Erasing $disk"
wipefs --all --quiet "$disk"
sgdisk --clear \
    --new=1:0:+1G --typecode=1:ef00 --change-name=1:ESP \
    --new=2:0:0 --typecode=2:8304 --change-name=2:nixos "$disk" >/dev/null
udevadm settle
part() { lsblk --list --noheadings --paths --output NAME,PARTLABEL "$disk" | awk -v label="$1" '$2 == label {print $1}'; }
mkfs.vfat -n ESP "$(part ESP)" >/dev/null
mkfs.ext4 -q -F -L nixos "$(part nixos)"
mount "$(part nixos)" /mnt
mount --mkdir -o umask=0077 "$(part ESP)" /mnt/boot

nixos-install --system "$SYSTEM" --root /mnt --no-root-passwd --no-channel-copy
[ -z "$told" ] || printf '%s' "$told" >/mnt/boot/uncloud.txt
umount --recursive /mnt
sync
read -r -p 'Done. Take the medium out and press return to start the new machine.' _
reboot
