# Turns a fresh Debian root into the one that all machines of all labs share.
# Argument: its directory.
set -eu
cd "$1"

# Nothing of the host that built it, and nothing that only one machine may have.
rm -f etc/apt/sources.list etc/apt/sources.list.d/* etc/resolv.conf etc/ssh/ssh_host_* var/log/*.log
: > etc/machine-id
echo 'nameserver 192.0.2.254' > etc/resolv.conf # the outside; nobody answers there, and says so at once

# Work that a namespace cannot or need not do at boot.
mkdir -p etc/systemd/system/sockets.target.wants
for unit in \
    systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket \
    systemd-udev-trigger.service systemd-udev-load-credentials.service \
    systemd-binfmt.service systemd-logind.service systemd-pstore.service \
    systemd-hwdb-update.service systemd-journal-catalog-update.service ldconfig.service \
    systemd-tmpfiles-setup-dev.service systemd-tmpfiles-setup-dev-early.service \
    console-getty.service getty@tty1.service getty-static.service \
    apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer \
    podman-auto-update.timer podman-clean-transient.service podman-restart.service netavark-dhcp-proxy.socket \
    dev-hugepages.mount sys-fs-fuse-connections.mount sys-kernel-config.mount \
    sys-kernel-debug.mount sys-kernel-tracing.mount proc-sys-fs-binfmt_misc.automount; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done

# Journals live in memory: what the product writes to its disk can then be measured.
mkdir -p etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nRuntimeMaxUse=64M\nRateLimitIntervalSec=0\n' > etc/systemd/journald.conf.d/lab.conf

# Keys only. A host key is made when somebody first connects, so that booting need not wait for it.
mkdir -p etc/ssh/sshd_config.d etc/systemd/system/ssh.service.d
printf 'PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nHostKey /etc/ssh/ssh_host_ed25519_key\n' > etc/ssh/sshd_config.d/lab.conf
cat > etc/systemd/system/ssh.service.d/lab.conf <<'UNIT'
[Service]
ExecStartPre=
ExecStartPre=/bin/sh -c '[ -s /etc/ssh/ssh_host_ed25519_key ] || ssh-keygen -q -t ed25519 -N "" -f /etc/ssh/ssh_host_ed25519_key'
ExecStartPre=/usr/sbin/sshd -t
UNIT
rm -f etc/systemd/system/multi-user.target.wants/ssh.service
ln -sf /usr/lib/systemd/system/ssh.socket etc/systemd/system/sockets.target.wants/ssh.socket
rm -f usr/lib/systemd/system-generators/systemd-ssh-generator

# Images come from local archives, never from a registry.
mkdir -p etc/containers/containers.conf.d
printf '{"default":[{"type":"insecureAcceptAnything"}]}\n' > etc/containers/policy.json

# The product's programs are the ones that were built last.
ln -sf /opt/uncloud/bin/uc usr/bin/uc
ln -sf /opt/uncloud/bin/uncloudd usr/bin/uncloudd
