"""The machines of one scenario on this host: their disks, their network, their
QEMU processes, and what makes each of them the machine that its node describes.

Owns two directories while the scenario runs, one with disks and logs, one with
sockets (whose paths must be short). All that it started is gone with close().
"""

import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TextIO

import images
import qemu
from machine import Machine, RequestError
from seeds import Seeds
from shell import Shell
from switch import Switch


class Host:
    """Runs the machines of one scenario."""

    def __init__(self, made: images.Images, seeds: Seeds, directory: Path, warm: bool, log: TextIO):
        self.images, self.seeds, self.directory, self.log = made, seeds, directory, log
        self.warm = made.warm() if warm else None
        made.product(directory / "product")
        self.sockets = Path(tempfile.mkdtemp(prefix="uncloud-vm-", dir="/tmp"))
        self.switch = Switch(self.sockets, list(seeds.nodes))
        self.machines = [Machine(name, self) for name in seeds.nodes]
        self.waking: dict[str, Waking] = {}
        self.began = time.monotonic()

    def note(self, text: str) -> None:
        """Writes a line of the scenario's log."""
        self.log.write(f"[{time.monotonic() - self.began:7.1f}] {text}\n")
        self.log.flush()

    def power_on(self, machine: Machine, allow_reboot: bool) -> tuple[qemu.Qemu, Shell]:
        """Starts the QEMU of a machine: from the snapshot the first time, and from its disk ever after."""
        disk, seed = self.directory / f"{machine.name}.qcow2", self.directory / f"{machine.name}.seed"
        empty = self.directory / f"{machine.name}.empty"
        first = not disk.exists()
        if first:
            backing, form = (self.warm / "disk.qcow2", "qcow2") if self.warm else (self.images.base / "disk.raw", "raw")
            self.images.overlay(disk, backing, form)
            images.blank(empty, qemu.EMPTY_MIB)
            images.archive(seed, qemu.SEED_MIB, self.seeds.of(machine.name))
        arguments = qemu.hardware(self.images.base, [disk, empty, self.directory / "product", seed], machine.name)
        arguments += qemu.way_out() + self.switch.card(machine.name, self.seeds.mac(machine.name))
        if not allow_reboot:
            arguments.append("-no-reboot")
        if first and self.warm:
            arguments += ["-incoming", f"exec:cat {self.warm}/memory"]
        process = qemu.Qemu(self.images.qemu, arguments, self.directory, self.sockets, machine.name)
        shell = Shell(process.connect(process.shell_path), machine.name)
        if first and self.warm:
            self.waking[machine.name] = Waking(process, shell)
        return process, shell

    def awaken(self, machine: Machine) -> bool:
        """Waits until a machine that was taken from the snapshot is itself. False: it boots."""
        waking = self.waking.pop(machine.name, None)
        if waking is None:
            return False
        waking.join()
        return True

    def close(self) -> None:
        """Ends all machines and the network, and removes the disks; logs stay."""
        for machine in self.machines:
            if (waking := self.waking.pop(machine.name, None)) is not None:
                waking.give_up()
            machine.crash()
        self.switch.close()
        shutil.rmtree(self.sockets)
        images.remove_disks(self.directory)


class Waking(threading.Thread):
    """A machine on its way from the snapshot to being itself."""

    def __init__(self, process: qemu.Qemu, shell: Shell):
        super().__init__(name=f"waking {process.name}", daemon=True)
        self.process, self.shell = process, shell
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self.process.resume()
            status, output = self.shell.execute(f"/usr/lib/vm/personalise {time.time():.3f} 2>&1", timeout=300)
            if status != 0:
                raise RequestError(f"{self.process.name} does not become itself: {output}")
        except Exception as error:  # it is raised again where the machine is waited for
            self.error = error

    def join(self, timeout: float | None = None) -> None:
        super().join(timeout)
        if self.error is not None:
            raise self.error

    def give_up(self) -> None:
        """Ends the machine on its way."""
        self.process.process.kill()
        super().join(30)
