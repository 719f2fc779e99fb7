"""How long a machine takes from the start of its kernel until the cluster calls
it up, beside the same machine without the agent until it is usable.

Both are booted in turn, since other work on the host blurs them alike. Times
are the guest's own clock from the start of its kernel.
"""

import statistics
from pathlib import Path

import images
from host import Host
from machine import Machine
from seeds import Seeds

AGENT = "uncloud.service uncloud-names.service uncloud-host.service uncloud-host.path"
# Asking costs the machine that is still booting, so there is no asking before there is whom to ask.
UP = """
until [ -S /run/uncloud/uncloud.sock ]; do sleep 0.1; done
until uc machine ls -o json 2>/dev/null | jq -e '.machines[0].state == "up"' >/dev/null; do sleep 0.1; done
cut -d ' ' -f 1 /proc/uptime
"""


def boot(made: images.Images, directory: Path, runs: int, say) -> None:
    """Prints each boot, and the medians."""
    with (directory / "log").open("w") as log:
        host = Host(made, Seeds("single"), directory, True, log)
        try:
            measure(host.machines[0], runs, say)
        finally:
            host.close()


def measure(machine: Machine, runs: int, say) -> None:
    machine.start()
    machine.wait_for_unit("uncloud.service")
    machine.succeed("uc machine init")
    with_agent, without = [], []
    for run in range(1, runs + 1):
        machine.succeed(f"systemctl enable {AGENT}")
        restart(machine)
        up, cpu = float(machine.succeed(UP, timeout=600)), machine.qemu.cpu_seconds()
        with_agent.append(up)
        machine.succeed(f"systemctl disable {AGENT}")
        restart(machine)
        usable = usable_after(machine)
        without.append(usable)
        say(
            f"boot {run}: up in uc machine ls after {up:.1f} s ({cpu:.0f} s of a core);"
            f" without the agent usable after {usable:.1f} s ({machine.qemu.cpu_seconds():.0f} s of a core)"
        )
    up, usable = statistics.median(with_agent), statistics.median(without)
    difference = f"{up - usable:+.1f} s, {up / usable:.2f} times"
    say(f"medians: up after {up:.1f} s, without the agent usable after {usable:.1f} s: {difference}")


def restart(machine: Machine) -> None:
    machine.shutdown()
    machine.start()


def usable_after(machine: Machine) -> float:
    """When multi-user.target was reached."""
    machine.wait_for_unit("multi-user.target")
    return int(machine.get_unit_property("multi-user.target", "ActiveEnterTimestampMonotonic")) / 1e6
