"""What machines are told: names, addresses, and the files that the NixOS module
makes of each node of a scenario, as they lie in nix/golden.
"""

import json
from pathlib import Path

import images

GOLDEN = images.REPOSITORY / "nix/golden"


class Seeds:
    """What each machine of a scenario is told: its name, its network, and what the module makes of its node."""

    def __init__(self, scenario: str):
        self.nodes: dict[str, str] = json.loads((GOLDEN / "nodes.json").read_text())[scenario]

    def number(self, name: str) -> int:
        """Machines are counted from 1 in the order of their names."""
        return sorted(self.nodes).index(name) + 1

    def mac(self, name: str) -> str:
        return f"52:54:00:12:01:{self.number(name):02x}"

    def of(self, name: str) -> images.Files:
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
    chain = f"\tchain input {{\n\t\ttype filter hook input priority filter; policy drop;\n{lines}\n\t}}\n"
    if "extraForwardRules" in said:
        chain += forwarding(said["extraForwardRules"])
    return f"#!/usr/sbin/nft -f\nflush ruleset\ntable inet nixos-fw {{\n{chain}}}\n"


def forwarding(extra: str) -> str:
    """The chain that judges what is forwarded, where a machine has one: NixOS's own rules, and those it was given."""
    rules = [
        "ct state vmap { invalid : drop, established : accept, related : accept }",
        "icmpv6 type != { router-renumbering, 139 } accept",
        "ct status dnat accept",
        *extra.splitlines(),
    ]
    lines = "\n".join(f"\t\t{rule}" for rule in rules)
    return f"\tchain forward {{\n\t\ttype filter hook forward priority filter; policy drop;\n{lines}\n\t}}\n"
