"""A machine as scenarios see it: the contract of the NixOS test driver.

Every name, argument and meaning here is that driver's, so that one script runs
on both. What is not here is refused by name. How a machine comes to be is in
host.py.
"""

import base64
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

from shell import Shell

BOOT = 600  # seconds: emulated, and beside other machines
CHUNK = 60_000  # bytes of a file that fit into one command


class RequestError(Exception):
    """What a scenario demanded of a machine did not come about."""


class LateError(RequestError):
    """Nor would it have later, as far as one waits."""


def retry(fn: Callable[[bool], bool], timeout_seconds: int = 900) -> None:
    """Calls fn every second until it is true; the last call is told so."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if fn(False):
            return
        time.sleep(1)
    if not fn(True):
        raise LateError(f"not within {timeout_seconds} s")


class Machine:
    """One virtual machine of a scenario. Its lab makes its QEMU processes."""

    def __init__(self, name: str, lab):
        self.name, self.lab = name, lab
        self.qemu = None
        self.shell: Shell | None = None
        self.connected = False

    def __getattr__(self, name: str):
        raise AttributeError(f"the driver of ./dev vm has no {name}; see tests/vm/machine.py")

    def log(self, message: str) -> None:
        self.lab.note(f"{self.name}: {message}")

    # --- life ------------------------------------------------------------------------------

    def start(self, allow_reboot: bool = False) -> None:
        """Powers the machine on, and does not wait for it."""
        if self.is_up():
            return
        self.log("is started")
        self._off()  # it may have ended by itself
        self.qemu, self.shell = self.lab.power_on(self, allow_reboot)

    def is_up(self) -> bool:
        """Tells whether the machine has power."""
        return self.qemu is not None and self.qemu.alive()

    def connect(self) -> None:
        """Waits for the machine's shell."""
        if self.connected:
            return
        self.start()
        began = time.monotonic()
        if self.lab.awaken(self):
            self.log(f"was taken from the snapshot ({time.monotonic() - began:.1f} s)")
        else:
            self.shell.await_ready(BOOT)
            self.log(f"has a shell ({time.monotonic() - began:.1f} s)")
        self.connected = True

    def shutdown(self) -> None:
        """Shuts the machine down in order, and waits."""
        if not self.is_up():
            return
        self.connect()
        self.log("is shut down")
        self.shell.send("poweroff\n")
        self.wait_for_shutdown()

    def crash(self) -> None:
        """Cuts the machine's power. Its disk stays."""
        if not self.is_up():
            return
        self.lab.awaken(self)
        self.log("loses power")
        self.qemu.cut_power()
        self._off()

    def reboot(self) -> None:
        """Presses ctrl-alt-del; the machine must have been started with allow_reboot."""
        self.connect()
        self.log("is rebooted")
        keys = [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]
        self.qemu.tell("send-key", keys=keys)
        self.connected = False

    def wait_for_shutdown(self) -> None:
        """Waits until the machine has no power any more."""
        if self.is_up() and not self.qemu.ends(BOOT):
            raise RequestError(f"{self.name} has not shut down within {BOOT} s")
        self._off()

    def _off(self) -> None:
        if self.shell:
            self.shell.close()
        self.shell, self.connected = None, False

    # --- commands --------------------------------------------------------------------------

    def execute(
        self, command: str, check_return: bool = True, check_output: bool = True, timeout: int | None = 900
    ) -> tuple[int, str]:
        """Runs a command; returns its exit code, 124 when its time is up, and its standard output."""
        self.connect()
        began = time.monotonic()
        status, output = self.shell.execute(command, check_return, check_output, timeout)
        self.log(f"{command!r}: status {status} after {time.monotonic() - began:.1f} s")
        if output.strip():
            self.lab.note(output.rstrip())
        return status, output

    def succeed(self, *commands: str, timeout: int | None = None) -> str:
        """Demands that each command ends with 0; returns all they wrote."""
        return self._each(commands, timeout, lambda status: status == 0)

    def fail(self, *commands: str, timeout: int | None = None) -> str:
        """Demands that each command ends with another status than 0."""
        return self._each(commands, timeout, lambda status: status != 0)

    def _each(self, commands: tuple[str, ...], timeout: int | None, right: Callable[[int], bool]) -> str:
        written = ""
        for command in commands:
            status, output = self.execute(command, timeout=timeout)
            if not right(status):
                raise RequestError(f"{self.name}: {command!r} ended with {status}: {output.strip()[-2000:]}")
            written += output
        return written

    def wait_until_succeeds(self, command: str, timeout: int = 900) -> str:
        """Repeats a command every second until it ends with 0."""
        return self._until(command, timeout, lambda status: status == 0)

    def wait_until_fails(self, command: str, timeout: int = 900) -> str:
        """Repeats a command every second until it does not end with 0."""
        return self._until(command, timeout, lambda status: status != 0)

    def _until(self, command: str, timeout: int, right: Callable[[int], bool]) -> str:
        last = -1, ""

        def once(_: bool) -> bool:
            nonlocal last
            last = self.execute(command, timeout=timeout)
            return right(last[0])

        try:
            retry(once, timeout)
        except LateError as error:
            raise RequestError(
                f"{self.name}: {command!r} for {timeout} s; at last {last[0]}: {last[1].strip()[-2000:]}"
            ) from error
        return last[1]

    def sleep(self, secs: int) -> None:
        """Lets time pass for the machine."""
        self.succeed(f"sleep {secs}")

    # --- units -----------------------------------------------------------------------------

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Runs systemctl, for a user with that user's own manager."""
        if user is None:
            return self.execute(f"systemctl {q}")
        inner = shlex.quote(f"XDG_RUNTIME_DIR=/run/user/`id -u` systemctl --user {q}")
        return self.execute(f"su -l {user} --shell /bin/sh -c {inner}")

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """The properties of a unit."""
        status, lines = self.systemctl(f'--no-pager show "{unit}"', user)
        if status != 0:
            raise RequestError(f"{self.name}: systemctl show {unit} ended with {status}")
        return dict(line.split("=", 1) for line in lines.split("\n") if "=" in line)

    def get_unit_property(self, unit: str, property: str, user: str | None = None) -> str:
        """One property of a unit."""
        status, lines = self.systemctl(f'--no-pager show "{unit}" --property="{property}"', user)
        if status != 0 or "=" not in lines:
            raise RequestError(f"{self.name}: no property {property} of {unit}")
        return lines.split("=", 1)[1].strip()

    def require_unit_state(self, unit: str, require_state: str = "active") -> None:
        """Demands a unit's state now."""
        state = self.get_unit_info(unit)["ActiveState"]
        if state != require_state:
            raise RequestError(f"{self.name}: {unit} is {state}, and not {require_state}")

    def wait_for_unit(self, unit: str, user: str | None = None, timeout: int = 900) -> None:
        """Waits until a unit is active; fails at once when it cannot become so."""

        def active(_: bool) -> bool:
            state = self.get_unit_property(unit, "ActiveState", user)
            if state == "failed":
                _, log = self.execute(f"journalctl -u {unit} -n 30 --no-pager -o cat")
                raise RequestError(f"{self.name}: {unit} has failed: {log.strip()}")
            if state == "inactive":
                _, jobs = self.systemctl("list-jobs --full 2>&1", user)
                if "No jobs" in jobs and self.get_unit_info(unit, user)["ActiveState"] == "inactive":
                    raise RequestError(f"{self.name}: {unit} is inactive, and nothing is about to start it")
            return state == "active"

        self._await(active, timeout, f"{unit} is not active")

    def start_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Starts a unit."""
        return self.systemctl(f"start {jobname}", user)

    def stop_job(self, jobname: str, user: str | None = None) -> tuple[int, str]:
        """Stops a unit."""
        return self.systemctl(f"stop {jobname}", user)

    # --- waiting ---------------------------------------------------------------------------

    def _await(self, condition: Callable[[bool], bool], timeout: int, otherwise: str) -> None:
        try:
            retry(condition, timeout)
        except LateError as error:
            raise RequestError(f"{self.name}: {otherwise} within {timeout} s") from error

    def wait_for_file(self, filename: str, timeout: int = 900) -> None:
        """Waits until a file is there."""
        self.wait_until_succeeds(f"test -e {shlex.quote(filename)}", timeout)

    def wait_for_open_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        """Waits until somebody accepts connections at a TCP port."""
        self.wait_until_succeeds(f"nc -z {addr} {port}", timeout)

    def wait_for_closed_port(self, port: int, addr: str = "localhost", timeout: int = 900) -> None:
        """Waits until nobody accepts connections at a TCP port."""
        self.wait_until_fails(f"nc -z {addr} {port}", timeout)

    def wait_for_open_unix_socket(self, addr: str, is_datagram: bool = False, timeout: int = 900) -> None:
        """Waits until somebody accepts connections at a unix socket."""
        self.wait_until_succeeds(f"nc -z {'-uU' if is_datagram else '-U'} {addr}", timeout)

    def get_console_log(self) -> str:
        """All that the machine has written to its console."""
        path = self.lab.directory / f"{self.name}.console"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_for_console_text(self, regex: str, timeout: int | None = None) -> None:
        """Waits until the console has shown a text."""
        pattern = re.compile(regex)
        seen = lambda _: pattern.search(self.get_console_log()) is not None  # noqa: E731
        self._await(seen, timeout or 900, f"no {regex!r} on the console")

    # --- network and files -----------------------------------------------------------------

    def block(self) -> None:
        """Pulls the cable of the network that machines have in common."""
        self.log("is cut off")
        self.qemu.tell("set_link", name="vlan1", up=False)

    def unblock(self) -> None:
        """Plugs the cable in again."""
        self.log("is connected again")
        self.qemu.tell("set_link", name="vlan1", up=True)

    def copy_from_host(self, source: str, target: str) -> None:
        """Copies a file or directory of the host into the machine."""
        top = Path(source)
        for path in [top, *sorted(top.rglob("*"))] if top.is_dir() else [top]:
            place = Path(target) / path.relative_to(top) if path != top else Path(target)
            if path.is_dir():
                self.succeed(f"mkdir -p {shlex.quote(str(place))}")
            else:
                self._copy_file(path, place)

    copy_from_host_via_shell = copy_from_host

    def _copy_file(self, source: Path, target: Path) -> None:
        content, place = source.read_bytes(), shlex.quote(str(target))
        self.succeed(f"mkdir -p {shlex.quote(str(target.parent))}; : > {place}")
        for begin in range(0, len(content), CHUNK):
            text = base64.b64encode(content[begin : begin + CHUNK]).decode()
            self.succeed(f"echo {text} | base64 -d >> {place}")
        if source.stat().st_mode & 0o100:
            self.succeed(f"chmod +x {place}")

    def copy_from_machine(self, source: str, target_dir: str = "") -> None:
        """Copies a file of the machine to where the run keeps what it made."""
        text = self.succeed(f"base64 -w 0 {shlex.quote(source)}")
        directory = self.lab.directory / "out" / target_dir
        directory.mkdir(parents=True, exist_ok=True)
        (directory / Path(source).name).write_bytes(base64.b64decode(text))
