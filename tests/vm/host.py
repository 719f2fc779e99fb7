"""The machines of one scenario on this host: their disks, their network, their
QEMU processes, and what makes each of them the machine that its node describes.

Owns two directories while the scenario runs, one with disks and logs, one with
sockets (whose paths must be short). All that it started is gone with close().
"""

import json
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import TextIO

import images
import qemu
from machine import Machine, RequestError
from shell import Shell
from switch import Switch

GOLDEN = images.REPOSITORY / "nix/golden"


def nodes_of(scenario: str) -> dict[str, str]:
    """The nodes of a scenario, and for each the machine in nix/golden that it evaluates to."""
    return json.loads((GOLDEN / "nodes.json").read_text())[scenario]


class Host:
    """Runs the machines of one scenario."""

    def __init__(self, made: images.Images, nodes: dict[str, str], directory: Path, warm: bool, log: TextIO):
        self.images, self.nodes, self.directory, self.log = made, nodes, directory, log
        self.warm = made.warm() if warm else None
        self.sockets = Path(tempfile.mkdtemp(prefix="uncloud-vm-", dir="/tmp"))
        self.switch = Switch(self.sockets, list(nodes))
        self.machines = [Machine(name, self) for name in nodes]
        self.waking: dict[str, Waking] = {}
        self.began = time.monotonic()
        made.product(directory / "product")

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
            images.archive(seed, qemu.SEED_MIB, self.seed(machine.name))
        arguments = qemu.hardware(self.images.base, [disk, empty, self.directory / "product", seed], machine.name)
        arguments += qemu.way_out() + self.switch.card(machine.name, self.mac(machine.name))
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
                waking.end()
            machine.crash()
        self.switch.close()
        shutil.rmtree(self.sockets)
        for path in self.directory.iterdir():
            if path.suffix in (".qcow2", ".seed", ".empty") or path.name in ("product", "uc", "uncloudd"):
                path.unlink()

    # --- what a machine is told ------------------------------------------------------------

    def number(self, name: str) -> int:
        """Machines are counted from 1 in the order of their names."""
        return sorted(self.nodes).index(name) + 1

    def mac(self, name: str) -> str:
        return f"52:54:00:12:01:{self.number(name):02x}"

    def seed(self, name: str) -> images.Files:
        """The files of one machine: name, network, and what the module makes of its node."""
        number, golden = self.number(name), GOLDEN / self.nodes[name]
        files = system_of(golden)
        if (golden / "specialisation").exists():
            files = {f"usr/lib/vm/systems/current/{path}": file for path, file in whole(files).items()}
            for other in (golden / "specialisation").iterdir():
                for path, file in whole(system_of(other)).items():
                    files[f"usr/lib/vm/systems/{other.name}/{path}"] = file
        files["etc/vm/name"] = name + "\n"
        files["etc/vm/network"] = (
            "eth0 52:54:00:12:34:56 10.0.2.15/24\n"
            f"eth1 {self.mac(name)} 192.168.1.{number}/24 2001:db8:1::{number}/64\n"
        )
        hosts = [f"192.168.1.{self.number(other)} {other}\n" for other in sorted(self.nodes)]
        files["etc/hosts"] = "127.0.0.1 localhost\n::1 localhost\n" + "".join(hosts)
        files["etc/nftables.conf"] = firewall(json.loads((golden / "firewall.json").read_text()))
        return files


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

    def end(self) -> None:
        """Gives up: the machine is about to lose its power."""
        self.process.process.kill()
        super().join(30)


def system_of(golden: Path) -> images.Files:
    """The files of a machine below etc, with the links that say which units are wanted by what: NixOS
    makes them when it builds a system."""
    files: images.Files = {}
    for path in (golden / "etc").rglob("*"):
        if path.is_file():
            files[str(path.relative_to(golden))] = path
    units = golden / "etc/systemd/system"
    for path in list(files.values()):
        if units not in path.parents:
            continue
        changed = path.parent.name.removesuffix(".d") if path.parent != units else None
        unit, place = (changed, "/usr/lib/systemd/system") if changed else (path.name, "..")
        for line in path.read_text().splitlines():
            for by in line.removeprefix("WantedBy=").split() if line.startswith("WantedBy=") else []:
                files[f"etc/systemd/system/{by}.wants/{unit}"] = images.Link(f"{place}/{unit}")
    return files


def whole(system: images.Files) -> images.Files:
    """A system that lacks nothing of the package, as systems of NixOS do: it has the package's units."""
    files = dict(system)
    if "etc/systemd/system/uncloud.service.d/overrides.conf" not in files:
        return files
    for unit in images.UNITS:
        files[f"etc/systemd/system/{unit.name}"] = unit
    for path, file in files.items():
        if isinstance(file, images.Link):
            files[path] = images.Link("../" + Path(file.target).name)
    return files


def firewall(said: dict) -> str:
    """The machine's own firewall, as NixOS makes it of its options: closed but for what is named."""

    def ports(protocol: str, numbers: list[int]) -> str:
        return f"{protocol} dport {{ {', '.join(map(str, numbers))} }} accept" if numbers else ""

    links = ", ".join(f'"{link}"' for link in said["trustedInterfaces"])
    rules = [
        f"iifname {{ {links} }} accept",
        "ct state vmap { invalid : drop, established : accept, related : accept }",
        ports("tcp", said["allowedTCPPorts"]),
        ports("udp", said["allowedUDPPorts"]),
        "icmp type echo-request accept",
        "icmpv6 type != { nd-redirect, 139 } accept",
    ]
    lines = "\n".join(f"\t\t{rule}" for rule in rules if rule)
    chain = f"\tchain input {{\n\t\ttype filter hook input priority filter; policy drop;\n{lines}\n\t}}"
    return f"#!/usr/sbin/nft -f\nflush ruleset\ntable inet nixos-fw {{\n{chain}\n}}\n"
