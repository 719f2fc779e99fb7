"""What machines are made of, made once and kept: QEMU, the base disk, the
product as an archive, and the snapshot of a machine that has booted.

A directory's name follows from all that went into it, and it is moved to its
place when it is whole, so that what was killed half way is never used.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import qemu
from shell import Shell

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent
BUILD_TIMEOUT = 1800
KINDS = {
    "qemu": "QEMU of Debian trixie",
    "base": "the disk of a Debian trixie machine",
    "driver": "a root for the NixOS test driver",
}
KEPT = 24 * 3600  # seconds that what was used last so long ago stays: another run may use it now


UNITS = sorted(path for path in (REPOSITORY / "packaging").iterdir() if path.suffix in (".service", ".path"))


@dataclasses.dataclass(frozen=True)
class Link:
    """A symbolic link in an archive."""

    target: str


Files = dict[str, Path | str | Link]


class MissingError(Exception):
    """This host cannot have virtual machines; the text says why."""


def cache_directory() -> Path:
    """Beside what the lab keeps, and moved with it."""
    if moved := os.environ.get("UNCLOUD_LAB_CACHE"):
        return Path(moved)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uncloud-lab"


class BrokenError(Exception):
    """What machines are made of does not work: no fault of this host."""


class Images:
    """The cache, and the programs of QEMU."""

    def __init__(self, say: Callable[[str], None]):
        self.say = say
        self.cache = cache_directory()
        self.cache.mkdir(parents=True, exist_ok=True)
        self.qemu, self.qemu_img = self._programs()
        self.base = self._kept("vm-base", self._script_digest("base"), lambda part: self._script("base", part))

    # --- the cache -------------------------------------------------------------------------

    def _kept(self, kind: str, digest: str, make: Callable[[Path], None]) -> Path:
        place = self.cache / f"{kind}-{digest}"
        with _locked(self.cache / f"{kind}.lock"):
            if not place.exists():
                make(place)
            os.utime(place)
            for old in self.cache.glob(f"{kind}-*"):
                if time.time() - old.stat().st_mtime > KEPT:
                    shutil.rmtree(old, ignore_errors=True)
        return place

    def _script_digest(self, what: str) -> str:
        parts = [what.encode(), (HERE / "image.sh").read_bytes(), (HERE / "run-qemu").read_bytes()]
        if what == "base":
            parts.append((HERE / "masked-units").read_bytes())
            for path in sorted((HERE / "guest").rglob("*")):
                parts += [str(path).encode(), path.read_bytes() if path.is_file() else b""]
        return _digest(*parts)

    def _script(self, what: str, place: Path) -> None:
        self.say(f"making {KINDS[what]} (once, a minute)")
        log = self.cache / f"vm-{what}.log"
        with log.open("wb") as out:
            done = subprocess.run(
                [HERE / "image.sh", what, place],
                env=os.environ | {"MIRROR": _mirror()},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                timeout=BUILD_TIMEOUT,
            )
        if done.returncode != 0:
            last = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise MissingError(f"{KINDS[what]} could not be made; {log} ends with:\n" + "\n".join(last))

    def _programs(self) -> tuple[list[str], list[str]]:
        """The host's QEMU from version 10, otherwise Debian's: version 7 lets guests of today oops."""
        if os.uname().machine != "x86_64":
            raise MissingError("virtual machines of the tests are x86-64, and this host is not")
        if _major(shutil.which("qemu-system-x86_64")) >= 10 and shutil.which("qemu-img"):
            return ["qemu-system-x86_64"], ["qemu-img"]
        root = self._kept("vm-qemu", self._script_digest("qemu"), lambda part: self._script("qemu", part))
        return [f"{root}/run", "qemu-system-x86_64"], [f"{root}/run", "qemu-img"]

    def overlay(self, path: Path, backing: Path, form: str) -> None:
        """Makes a disk that begins as another one."""
        subprocess.run([*self.qemu_img, "create", "-q", "-f", "qcow2", "-F", form, "-b", backing, path], check=True)

    def driver_root(self) -> Path:
        """A Debian root with what the real NixOS test driver needs."""
        return self._kept("vm-driver", self._script_digest("driver"), lambda place: self._script("driver", place))

    # --- the snapshot ----------------------------------------------------------------------

    def warm(self) -> Path:
        """The directory with the memory and the disk of a machine that has booted, has run a
        container, has the scenarios' image, and has no identity yet."""
        app = self._app()
        version = subprocess.run([*self.qemu, "--version"], check=True, capture_output=True).stdout
        arguments = qemu.hardware(self.base, [Path(d) for d in "abcd"], "warm") + qemu.way_out() + list(qemu.SHELL_PORT)
        digest = _digest(version, repr(arguments).encode(), app.read_bytes(), WARM_UP.encode())
        return self._kept("vm-warm", digest, lambda place: self._warm_up(place, app))

    def _warm_up(self, place: Path, app: Path) -> None:
        self.say("booting a machine for the snapshot that all begin from (once, two minutes)")
        with tempfile.TemporaryDirectory(prefix="uncloud-vm-", dir="/tmp") as sockets:
            part = place.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            self.overlay(part / "disk.qcow2", self.base / "disk.raw", "raw")
            empty, product, seed = part / "empty", part / "product", part / "seed"
            blank(empty, qemu.EMPTY_MIB)
            archive(product, qemu.PRODUCT_MIB, {"usr/lib/vm/app": app})
            blank(seed, qemu.SEED_MIB)
            disks = [part / "disk.qcow2", empty, product, seed]
            arguments = qemu.hardware(self.base, disks, "warm") + qemu.way_out()
            arguments += qemu.card(Path(sockets) / "card", Path(sockets) / "nowhere", "52:54:00:12:01:ff")
            machine = qemu.Qemu(self.qemu, arguments, part, Path(sockets), "warm")
            try:
                shell = Shell(machine.connect(machine.shell_path), "the machine for the snapshot")
                shell.await_ready(600)
                status, output = shell.execute(WARM_UP, timeout=600)
                if status != 0:
                    raise BrokenError(f"the machine for the snapshot did not become warm: {output}")
                machine.save(part / "memory")
            finally:
                machine.cut_power()
            for path in (empty, product, seed):
                path.unlink()
        part.rename(place)

    def _app(self) -> Path:
        """The program that scenarios deploy, static."""
        source = REPOSITORY / "tests/stories/app"
        app = REPOSITORY / ".cache/vm-app"
        command = ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", app, "."]
        subprocess.run(command, cwd=source, env=os.environ | {"CGO_ENABLED": "0"}, check=True)
        return app

    # --- the product -----------------------------------------------------------------------

    def product(self, place: Path) -> None:
        """Writes what an installation of the product places, and the scenarios' program, as an archive."""
        for program in ("uc", "uncloudd"):
            if not (REPOSITORY / "bin" / program).exists():
                raise BrokenError(f"bin/{program} is not built: ./dev build")
        with tempfile.TemporaryDirectory(dir=place.parent) as root:
            subprocess.run([REPOSITORY / "packaging/install.sh"], env=os.environ | {"DESTDIR": root}, check=True)
            subprocess.run(["strip", f"{root}/usr/bin/uc", f"{root}/usr/bin/uncloudd"], check=True)
            files: Files = {str(path.relative_to(root)): path for path in Path(root).rglob("*") if path.is_file()}
            archive(place, qemu.PRODUCT_MIB, files | {"usr/lib/vm/app": self._app()})


# Run in the machine of the snapshot. What has been read is forgotten: the disks under a machine
# that is taken from the snapshot are others.
WARM_UP = """
tar -xf /dev/vdc -C / --no-overwrite-dir
systemctl is-system-running --wait || systemctl --failed >&2
/usr/lib/vm/image
podman network create --subnet 10.250.0.0/24 warm
podman run --rm --network warm localhost/app:1 lookup localhost
podman network rm warm
podman ps
curl -s --unix-socket /run/podman/podman.sock http://d/v5.0.0/libpod/info | jq -r .version.Version
modprobe -a wireguard bridge veth nf_tables
rm -f /usr/lib/vm/app
blockdev --flushbufs /dev/vdc
sync
echo 3 >/proc/sys/vm/drop_caches
"""


def archive(path: Path, mebibytes: int, files: Files) -> None:
    """Writes a tar archive as a disk of a fixed size. A file is given by its path, its text or as a link."""
    with tarfile.open(path, "w") as out:
        for name, source in sorted(files.items()):
            member = tarfile.TarInfo(name)
            if isinstance(source, Link):
                member.type, member.linkname = tarfile.SYMTYPE, source.target
                out.addfile(member)
                continue
            content = source.encode() if isinstance(source, str) else source.read_bytes()
            member.size, member.mode = len(content), 0o644
            if isinstance(source, Path) and source.stat().st_mode & 0o100:
                member.mode = 0o755
            out.addfile(member, io.BytesIO(content))
    blank(path, mebibytes)


def blank(path: Path, mebibytes: int) -> None:
    """Gives a disk its size. It takes room only for what is written."""
    path.touch()
    if path.stat().st_size > mebibytes << 20:
        raise BrokenError(f"{path.name} is larger than {mebibytes} MiB")
    os.truncate(path, mebibytes << 20)


def remove_disks(directory: Path) -> None:
    """Removes what machines had, and leaves what they said."""
    for path in directory.iterdir():
        if path.suffix in (".qcow2", ".seed", ".empty") or path.name == "product":
            path.unlink()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _digest(*parts: bytes) -> str:
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8, "big") + part)
    return whole.hexdigest()[:12]


def _major(program: str | None) -> int:
    if program is None:
        return 0
    words = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()
    return int(words[3].split(".")[0]) if len(words) > 3 else 0


def _mirror() -> str:
    """Where packages come from: the mirror of the host itself, as for the lab."""
    if chosen := os.environ.get("UNCLOUD_LAB_MIRROR"):
        return chosen
    command = ["apt-get", "indextargets", "--format", "$(REPO_URI)"]
    command += ["Created-By: Packages", "Origin: Debian", "Label: Debian"]
    try:
        found = subprocess.run(command, capture_output=True, text=True).stdout.split()
    except FileNotFoundError:
        return ""
    return found[0].rstrip("/") if found else ""
