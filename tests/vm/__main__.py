"""./dev vm: runs scenarios of tests/nixos on virtual machines of this host."""

import argparse
import code
import contextlib
import os
import shutil
import signal
import sys
import time
import traceback
import unittest
from collections.abc import Iterator
from pathlib import Path

import bench
import images
import real
from host import Host
from machine import Machine, RequestError, retry
from qemu import QemuError
from seeds import Seeds

SCENARIOS = images.REPOSITORY / "tests/nixos"
LOGS = images.REPOSITORY / ".cache/vm"
STATE = "uc machine ls; uc ls; uc ps; podman ps --all; ip address; nft list ruleset"
MISSING = 3  # exit code where there can be no virtual machines: nothing was shown


def say(text: str) -> None:
    """A line of progress."""
    print(f"vm: {text}", file=sys.stderr, flush=True)


def names() -> list[str]:
    """All scenarios: each has a script, and nodes beside it."""
    return sorted(path.stem for path in SCENARIOS.glob("*.py"))


def about(name: str) -> str:
    """What a scenario is about: the first sentence of its nodes' comment."""
    lines = (SCENARIOS / f"{name}.nix").read_text().splitlines()
    comment = " ".join(line.removeprefix("# ") for line in lines[: next(i for i, l in enumerate(lines) if l[:1] != "#")])
    return comment.split(". ")[0].rstrip(".")


class Scenario:
    """One script on its machines."""

    def __init__(self, name: str, host: Host):
        self.name, self.host = name, host
        self.depth = 0

    @contextlib.contextmanager
    def subtest(self, name: str) -> Iterator[None]:
        """A part of the script with a name and a time."""
        began = time.monotonic()
        self.host.note(f"--- {name}")
        yield
        say(f"{self.name}: {name} ({time.monotonic() - began:.0f} s)")

    def start_all(self) -> None:
        """Powers all machines on."""
        for machine in self.host.machines:
            machine.start()

    def join_all(self) -> None:
        """Waits until all machines have no power."""
        for machine in self.host.machines:
            machine.wait_for_shutdown()

    def names(self) -> dict:
        """What is in scope of a script. Anything else is unknown, and says so."""
        machines = {"".join(c if c.isalnum() else "_" for c in m.name): m for m in self.host.machines}
        return machines | {
            "machines": self.host.machines,
            "start_all": self.start_all,
            "join_all": self.join_all,
            "subtest": self.subtest,
            "retry": retry,
            "os": os,
            "t": unittest.TestCase(),
        }

    def run(self) -> None:
        """Runs the script."""
        path = SCENARIOS / f"{self.name}.py"
        exec(compile(path.read_text(), path, "exec"), self.names())


def fresh(name: str) -> Path:
    """An empty directory for what a run leaves."""
    directory = LOGS / name
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    return directory


def run(name: str, made: images.Images, options: argparse.Namespace) -> bool:
    """Runs one scenario on new machines; tells whether it held."""
    directory = fresh(name)
    began = time.monotonic()
    if options.driver == "nixos":
        held = real.run(made, name, Seeds(name), directory, say)
        told = "ok" if held else f"FAILED, see {directory}/log"
        say(f"{name}: under the NixOS test driver: {told} ({time.monotonic() - began:.0f} s)")
        return held
    with (directory / "log").open("w") as log:
        host = Host(made, Seeds(name), directory, not options.cold, log)
        scenario = Scenario(name, host)
        say(f"{name}: {len(host.machines)} machines" if len(host.machines) > 1 else f"{name}: one machine")
        try:
            scenario.run()
            failure = None
        except Exception as error:
            failure = error
            tell_failure(scenario, error)
        finally:
            if options.keep and sys.exc_info()[0] is None:
                keep(scenario)
            host.close()
    took = time.monotonic() - began
    if failure is None and not options.keep:
        shutil.rmtree(directory)
    say(f"{name}: {'ok' if failure is None else 'FAILED'} ({took:.0f} s)")
    return failure is None


def tell_failure(scenario: Scenario, error: Exception) -> None:
    """Says where the script ended, and keeps what the machines know about it."""
    place = next((f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(str(SCENARIOS))), None)
    where = f"{scenario.name}.py, line {place.lineno}: " if place else ""
    text = str(error) if isinstance(error, (RequestError, AssertionError)) else repr(error)
    say(f"{scenario.name}: {where}{text}")
    scenario.host.note("".join(traceback.format_exception(error)))
    for machine in scenario.host.machines:
        if machine.is_up():
            keep_journal(scenario.host, machine)
    say(f"{scenario.name}: logs are in {scenario.host.directory}")


def keep_journal(host: Host, machine: Machine) -> None:
    try:
        machine.connect()
        _, journal = machine.shell.execute("journalctl -b --no-pager -o short-monotonic | tail -n 2000", timeout=60)
        _, state = machine.shell.execute(STATE, timeout=60)
        (host.directory / f"{machine.name}.journal").write_text(journal)
        (host.directory / f"{machine.name}.state").write_text(state)
    except Exception as error:  # a machine that is beyond asking must not hide why
        host.note(f"{machine.name}: no journal: {error}")


def keep(scenario: Scenario) -> None:
    """Leaves the machines to whoever started them."""
    machines = ", ".join(machine.name for machine in scenario.host.machines)
    banner = f"The machines of {scenario.name} are yours: {machines}. Ctrl-D ends them."
    with contextlib.suppress(SystemExit):
        code.interact(banner, local=scenario.names(), exitmsg="")


def terminated(*_) -> None:
    raise KeyboardInterrupt


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev vm", description=__doc__)
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="all, or some of those below")
    parser.add_argument("--bench-boot", type=int, metavar="RUNS", help="measure boots instead: ./dev bench boot")
    parser.add_argument("--keep", action="store_true", help="at the end, a prompt with the machines in scope")
    which = "nixos: the real NixOS test driver, out of the tree that NIXPKGS names"
    parser.add_argument("--driver", choices=["own", "nixos"], default="own", help=which)
    parser.add_argument("--cold", action="store_true", help="boot the machines, and take none from the snapshot")
    options = parser.parse_args()
    wanted = names() if options.scenarios == ["all"] else options.scenarios
    if unknown := [name for name in wanted if name not in names()]:
        parser.error(f"there is no scenario {unknown[0]}; there are {', '.join(names())}")
    if not wanted and not options.bench_boot:
        parser.print_help()
        print("\nscenarios:")
        for name in names():
            print(f"  {name:12} {about(name)}")
        return 0
    signal.signal(signal.SIGTERM, terminated)
    try:
        made = images.Images(say)
        if options.bench_boot:
            bench.boot(made, fresh("bench-boot"), options.bench_boot, say)
            return 0
        failed = [name for name in wanted if not run(name, made, options)]
    except images.MissingError as error:
        say(f"no virtual machines on this host: {error}")
        return MISSING
    except (images.BrokenError, QemuError) as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        say("interrupted; no machine is left")
        return 130
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
