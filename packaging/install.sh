#!/bin/sh
# Installs bin/uc, bin/uncloudd and what they need on a Linux with systemd that is
# not NixOS. DESTDIR is put before each place. After an upgrade, once more.
set -eu
cd "$(dirname "$0")/.."

# place MODE FILE PLACE
place() { install -D -m "$1" "$2" "${DESTDIR:-}$3"; }

for program in uc uncloudd; do place 755 bin/$program /usr/bin/$program; done
place 755 packaging/uncloud-names /usr/libexec/uncloud/uncloud-names
for unit in packaging/*.service packaging/*.path; do place 644 "$unit" "/usr/lib/systemd/system/${unit#packaging/}"; done
place 644 packaging/sysctl.conf /usr/lib/sysctl.d/60-uncloud.conf
place 644 packaging/sysusers.conf /usr/lib/sysusers.d/uncloud.conf
place 644 packaging/containers.conf /etc/containers/containers.conf.d/60-uncloud.conf
place 644 packaging/podman.conf /usr/lib/systemd/system/podman.service.d/60-uncloud.conf
[ -z "${DESTDIR:-}" ] || exit 0

systemd-sysusers uncloud.conf
sysctl --quiet --load /usr/lib/sysctl.d/60-uncloud.conf
systemctl daemon-reload
systemctl --quiet enable podman.socket uncloud.service uncloud-names.service
systemctl start podman.socket
systemctl try-restart podman.service # containers stay
systemctl restart uncloud.service uncloud-names.service # containers and tunnels stay
