"""One QEMU process: how it is started, told things, and ended.

Owns the command line, which is the same for a machine that boots and for one
that is taken from a snapshot, and the monitor. Refuses to know what runs inside.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

MEMORY_MIB = 1024
PRIORITY = -10
# Sizes of the second to fourth disk: a snapshot remembers them, so they are fixed.
EMPTY_MIB, PRODUCT_MIB, SEED_MIB = 64, 512, 4

KERNEL = (
    "root=/dev/vda rw console=ttyS0 quiet loglevel=4 panic=-1 net.ifnames=0 mitigations=off nokaslr audit=0 "
    "random.trust_cpu=on nowatchdog no_timer_check tsc=reliable rcupdate.rcu_expedited=1 "
    "systemd.show_status=0 systemd.log_level=notice fsck.mode=skip"
)
SHELL_PORT = ("-device", "virtio-serial-pci", "-device", "virtconsole,chardev=shell")


class QemuError(Exception):
    """QEMU could not be started, or refused what it was told."""


def hardware(base: Path, disks: list[Path], name: str) -> list[str]:
    """What every machine has, without its network cards and its shell.

    disks are the root (qcow2), an empty one, the product and the seed (raw).
    """
    arguments = [
        *("-name", name, "-M", "pc,usb=off,vmport=off", "-accel", "tcg,thread=multi,tb-size=512"),
        *("-cpu", "max", "-smp", "1", "-m", str(MEMORY_MIB), "-nodefaults", "-no-user-config", "-display", "none"),
        *("-kernel", f"{base}/vmlinuz", "-initrd", f"{base}/initrd", "-append", KERNEL),
        # A machine that was taken from a snapshot is told, and makes its random numbers anew.
        *("-device", "vmgenid,guid=auto"),
    ]
    for index, disk in enumerate(disks):
        # A write that the guest has flushed survives the end of QEMU: the host does not lose power.
        options = "format=qcow2,cache=unsafe,discard=unmap" if index == 0 else "format=raw,cache=unsafe"
        if index > 1:
            options += ",readonly=on"
        arguments += ["-drive", f"if=none,id=disk{index},file={disk},{options}"]
        arguments += ["-device", f"virtio-blk-pci,drive=disk{index}"]
    return arguments


def way_out() -> list[str]:
    """eth0: where machines of the NixOS test driver find the world. Here it is empty."""
    return ["-netdev", "user,id=user0,restrict=on", "-device", "virtio-net-pci,netdev=user0,mac=52:54:00:12:34:56"]


def card(listen: Path, send: Path, mac: str) -> list[str]:
    """eth1: on the network that machines have in common. Frames are datagrams between two sockets."""
    netdev = f"dgram,id=vlan1,local.type=unix,local.path={listen},remote.type=unix,remote.path={send}"
    return ["-netdev", netdev, "-device", f"virtio-net-pci,netdev=vlan1,mac={mac}"]


class Qemu:
    """A running QEMU. Its end is waited for by whoever made it."""

    def __init__(self, program: list[str], arguments: list[str], directory: Path, sockets: Path, name: str):
        self.name = name
        self.shell_path, self.monitor_path = sockets / f"{name}.shell", sockets / f"{name}.qmp"
        for path in (self.shell_path, self.monitor_path):
            path.unlink(missing_ok=True)
        command = [
            *program,
            *arguments,
            *("-chardev", f"socket,id=shell,path={self.shell_path},server=on,wait=off", *SHELL_PORT),
            *("-device", "virtio-rng-pci"),
            *("-chardev", f"file,id=console,path={directory / name}.console,append=on", "-serial", "chardev:console"),
            *("-qmp", f"unix:{self.monitor_path},server=on,wait=off"),
        ]
        self.errors = directory / f"{name}.qemu"
        with self.errors.open("wb") as errors:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, preexec_fn=_die_with_parent
            )
        self._first()
        self.monitor = None

    def _first(self) -> None:
        """Goes before other work of this host, which must not look like a machine that is down."""
        try:
            os.setpriority(os.PRIO_PROCESS, self.process.pid, PRIORITY)
            Path(f"/proc/{self.process.pid}/autogroup").write_text(str(PRIORITY))
        except OSError:
            pass  # without root, or without autogroups: as all others

    def alive(self) -> bool:
        return self.process.poll() is None

    def connect(self, path: Path, timeout: float = 30) -> socket.socket:
        """Connects to a socket that QEMU makes when it starts."""
        deadline = time.monotonic() + timeout
        while True:
            connection = socket.socket(socket.AF_UNIX)
            try:
                connection.connect(str(path))
                return connection
            except OSError as error:
                connection.close()
                if not self.alive() or time.monotonic() > deadline:
                    raise QemuError(f"{self.name}: QEMU does not answer: {self.errors.read_text().strip()}") from error
            time.sleep(0.02)

    def tell(self, command: str, **arguments):
        """Sends one command to the monitor and returns its answer."""
        if self.monitor is None:
            self.monitor = self.connect(self.monitor_path).makefile("rw")
            self.monitor.readline()  # a greeting
            self.tell("qmp_capabilities")
        self.monitor.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self.monitor.flush()
        while line := self.monitor.readline():
            answer = json.loads(line)
            if "error" in answer:
                raise QemuError(f"{self.name}: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise QemuError(f"{self.name}: {command}: QEMU has ended: {self.errors.read_text().strip()}")

    def resume(self, timeout: float = 120) -> None:
        """Lets a machine run that is taken from a snapshot, once all of it is there."""
        deadline = time.monotonic() + timeout
        while self.tell("query-status")["status"] == "inmigrate":
            if time.monotonic() > deadline:
                raise QemuError(f"{self.name}: the snapshot is not read within {timeout:.0f} s")
            time.sleep(0.02)
        self.tell("cont")

    def save(self, path: Path, timeout: float = 120) -> None:
        """Stops the machine and writes its memory to a file."""
        self.tell("stop")
        self.tell("migrate", uri=f"exec:cat > {path}")
        deadline = time.monotonic() + timeout
        while (status := self.tell("query-migrate").get("status")) != "completed":
            if status == "failed" or time.monotonic() > deadline:
                raise QemuError(f"{self.name}: the snapshot is not written: {status}")
            time.sleep(0.05)

    def cut_power(self) -> None:
        """Ends the machine at once: what it has not flushed to its disk is lost."""
        if self.alive():
            try:
                self.tell("quit")
            except (QemuError, OSError, ValueError):
                pass  # it ended before it could answer
        if not self.ends(20):
            self.process.kill()
            self.process.wait()

    def ends(self, timeout: float) -> bool:
        """Waits for the end of the process, and tells whether there was one in time."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return False
        return True

    def cpu_seconds(self) -> float:
        """Seconds of a core that the machine has used: a measure that other work hardly blurs."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _die_with_parent() -> None:
    """Also the death of this program ends its machines. Ctrl-C is for this program only."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
