# Runs as the first process of a machine's namespaces, with the host's programs,
# and becomes its PID 1. Arguments: root tree, disk, product binaries, PID 1...
set -eu
tree=$1 disk=$2 bin=$3
shift 3

mount --make-rprivate /
cd "$disk/root"
mount -t overlay uncloud-lab -o "lowerdir=$tree,upperdir=$disk/up,workdir=$disk/work" .
cd "$disk/root" # the directory that was entered above is now below the mount
mkdir -p var/lib/containers opt/uncloud/bin .host

mount -t proc proc proc
cat etc/hostname > proc/sys/kernel/hostname
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup

# Of the host's kernel only the network settings are the machine's own to change.
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys

# Podman's overlay cannot lie on an overlay.
mount --bind "$disk/containers" var/lib/containers
mount --bind "$bin" opt/uncloud/bin
mount -o remount,bind,ro opt/uncloud/bin

mount -t tmpfs -o mode=755 dev dev
mkdir -p dev/net dev/pts dev/shm dev/mqueue
for node in null zero full random urandom tty fuse net/tun; do
    [ -e "/dev/$node" ] || continue
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts dev/pts
mount -t tmpfs -o mode=1777 shm dev/shm
mount -t mqueue mqueue dev/mqueue
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s /proc/self/fd/0 dev/stdin
ln -s /proc/self/fd/1 dev/stdout
ln -s /proc/self/fd/2 dev/stderr
touch dev/console
mount -t tmpfs -o mode=755 run run
touch run/lab-machine # seen below the new root, it says that the machine is itself

pivot_root . .host
cd /
umount -l /.host
exec "$@"
