"""The network that machines have in common: an Ethernet switch in this process.

Frames travel in datagrams over unix sockets, so nothing of it is on the host's
network. It floods like a hub what it has not learned yet.
"""

import selectors
import socket
import threading
from pathlib import Path

import qemu

FRAME = 70000  # segments that a guest leaves to the card to cut are larger than the MTU


class Switch:
    """One virtual LAN. A machine sends to its port and listens beside it."""

    def __init__(self, directory: Path, names: list[str]):
        self.directory = directory
        self.ports = {}
        self.learned = {}
        self.selector = selectors.DefaultSelector()
        for name in names:
            port = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            port.bind(str(directory / f"{name}.port"))
            port.setblocking(False)
            port.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
            self.ports[name] = port
            self.selector.register(port, selectors.EVENT_READ, name)
        self.stopped, self.stop = socket.socketpair()
        self.selector.register(self.stopped, selectors.EVENT_READ, None)
        self.thread = threading.Thread(target=self._run, name="switch", daemon=True)
        self.thread.start()

    def card(self, name: str, mac: str) -> list[str]:
        """QEMU's arguments for a network card that is plugged into the machine's port."""
        listen, send = self.directory / f"{name}.card", self.directory / f"{name}.port"
        listen.unlink(missing_ok=True)
        return qemu.card(listen, send, mac)

    def close(self) -> None:
        self.stop.send(b"x")
        self.thread.join()
        for port in (*self.ports.values(), self.stopped, self.stop):
            port.close()
        self.selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self.selector.select():
                if key.data is None:
                    return
                try:
                    frame = key.fileobj.recv(FRAME)
                except OSError:
                    continue
                if len(frame) >= 14:
                    self._forward(key.data, frame)

    def _forward(self, source: str, frame: bytes) -> None:
        destination, self.learned[frame[6:12]] = frame[:6], source
        known = None if destination[0] & 1 else self.learned.get(destination)
        for name in [known] if known else self.ports:
            if name == source:
                continue
            try:
                self.ports[name].sendto(frame, str(self.directory / f"{name}.card"))
            except OSError:
                pass  # a machine that is off, or that does not keep up, loses it as on any wire
