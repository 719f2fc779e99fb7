"""The scenarios under the real NixOS test driver, unmodified, on the same
machines: shows that the scripts keep to its contract.

The driver is Python of a nixpkgs tree. It runs in a Debian root of its own,
and in namespaces, so that its switches and machines end with it and are on no
network of the host. Its machines boot; they are taken from no snapshot.
"""

import os
import shlex
import subprocess
from pathlib import Path

import images
import qemu
from seeds import Seeds

INSIDE = images.HERE / "real_inside.py"
TIMEOUT = 3600
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}

ENTER = """
root=$1 nixpkgs=$2
shift 2
mount --make-rprivate /
mount -t proc proc "$root/proc"
mount -t tmpfs tmpfs "$root/tmp" # before what is shared: that may be below it
bind() { mkdir -p "$root/$2" && mount --rbind "$1" "$root/$2"; }
bind "$nixpkgs" nixpkgs
bind /dev dev
for shared; do
    [ "$shared" != -- ] || break
    bind "$shared" "$shared"
    shift
done
shift
ip link set lo up
exec chroot "$root" "$@"
"""


def run(made: images.Images, name: str, seeds: Seeds, directory: Path, say) -> bool:
    """Runs one scenario; tells whether the driver was content."""
    nixpkgs = Path(os.environ.get("NIXPKGS", ""))
    if not (nixpkgs / "nixos/lib/test-driver/src").is_dir():
        raise images.BrokenError("NIXPKGS names no tree of nixpkgs, which has the driver; ./dev nix help says how to get one")
    made.product(directory / "product")
    scripts = [start_script(made, seeds, node, directory) for node in seeds.nodes]
    command = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "bash", "-ec", ENTER, "enter"]
    command += [made.driver_root(), nixpkgs.resolve(), made.cache, images.REPOSITORY, "--"]
    command += ["python3", INSIDE, images.REPOSITORY / f"tests/nixos/{name}.py", directory, *scripts]
    with (directory / "log").open("w") as log:
        process = subprocess.Popen(
            command,
            env=ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            for line in process.stdout:
                log.write(line)
                if "(finished: subtest:" in line:
                    say(f"{name}: {line.strip()}")
            return process.wait(TIMEOUT) == 0
        finally:
            process.kill()
            process.wait()
            images.remove_disks(directory)


def start_script(made: images.Images, seeds: Seeds, name: str, directory: Path) -> Path:
    """A program that starts a machine with what the driver adds, on a disk that stays."""
    disk, empty, seed = (directory / f"{name}.{kind}" for kind in ("qcow2", "empty", "seed"))
    made.overlay(disk, made.base / "disk.raw", "raw")
    images.blank(empty, qemu.EMPTY_MIB)
    images.archive(seed, qemu.SEED_MIB, seeds.of(name))
    arguments = made.qemu + qemu.hardware(made.base, [disk, empty, directory / "product", seed], name) + qemu.way_out()
    mac = seeds.mac(name)
    script = directory / f"run-{name}-vm"
    script.write_text(
        "#!/bin/bash\n"
        f"renice -n {qemu.PRIORITY} $$; echo {qemu.PRIORITY} >/proc/$$/autogroup\n"
        f"exec {shlex.join(map(str, arguments))} -netdev vde,id=vlan1,sock=$QEMU_VDE_SOCKET_1"
        f' -device virtio-net-pci,netdev=vlan1,mac={mac} "$@"\n'
    )
    script.chmod(0o755)
    return script

