"""The root shell of a machine, as the NixOS test driver speaks it.

Commands go over a virtio console to a bash that reads them as its script, and
come back as base64 and a status, each on a line.
"""

import base64
import shlex
import socket
import time

READY = b"Spawning backdoor root shell..."
SLACK = 120  # seconds that a machine may be late with an answer whose time is up


class ShellError(Exception):
    """The machine does not answer."""


class Shell:
    """A connection to one machine's shell."""

    def __init__(self, connection: socket.socket, name: str):
        self.connection, self.name, self.buffer = connection, name, b""

    def await_ready(self, timeout: float) -> None:
        """Waits for the greeting of a shell that was started just now."""
        deadline = time.monotonic() + timeout
        while READY not in self._line(deadline):
            pass

    def send(self, text: str) -> None:
        self.connection.settimeout(SLACK)
        self.connection.sendall(text.encode())

    def execute(
        self, command: str, check_return: bool = True, check_output: bool = True, timeout: int | None = 900
    ) -> tuple[int, str]:
        """Runs a command and returns its exit code and what it wrote to its standard output."""
        limit = f"timeout {timeout} " if timeout is not None else ""
        script = shlex.quote(f"set -euo pipefail; {command}")
        self.send(f"{limit}bash -c {script} | (base64 -w 0; echo)\n")
        if not check_output:
            return -2, ""
        deadline = time.monotonic() + timeout + SLACK if timeout is not None else None
        output = base64.b64decode(self._line(deadline)).decode(errors="replace")
        if not check_return:
            return -1, output
        self.send("echo ${PIPESTATUS[0]}\n")
        return int(self._line(time.monotonic() + SLACK)), output

    def close(self) -> None:
        self.connection.close()

    def _line(self, deadline: float | None) -> bytes:
        while b"\n" not in self.buffer:
            self.connection.settimeout(None if deadline is None else max(0.01, deadline - time.monotonic()))
            try:
                received = self.connection.recv(65536)
            except TimeoutError as error:
                raise ShellError(f"{self.name} does not answer in time") from error
            if not received:
                raise ShellError(f"{self.name} has ended")
            self.buffer += received
        line, self.buffer = self.buffer.split(b"\n", 1)
        return line.strip()
