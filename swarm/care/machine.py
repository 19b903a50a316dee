"""What the doctor reads of this machine: disk, files, ports, devices, memory; every look is bounded and changes nothing."""

from __future__ import annotations

import ctypes
import ipaddress
import itertools
import os
import platform
import secrets
import socket
import sqlite3
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Final

import psutil

from storage.files import DISK
from storage.quota import default_keep_free
from swarm.identity import KEY_FILE

PROBES: Final = 5
"""Writes whose time is taken."""
PROBE_BYTES: Final = 4096
DIAL_SECONDS: Final = 2.0
MAX_PORTS: Final = 16
"""Addresses that are tried."""
MAX_GPUS: Final = 16
MAX_PROC_BYTES: Final = 4096
LENT: Final = ("chunks", "shelf", "encodings", "slots")
"""Folders of a data folder whose files count as lent."""
BLOCK: Final = 512
"""Bytes of a block of `stat`."""
MAX_FILES: Final = 100_000
"""Whose sizes are looked at."""
NVIDIA: Final = Path("/proc/driver/nvidia")
AMD: Final = Path("/dev/kfd")


TIMEX_BYTES: Final = 1024
"""More than `struct timex` has anywhere; zeroed, it asks and sets nothing."""
NOT_KEPT: Final = 5
"""TIME_ERROR: no time service keeps the clock."""


def is_clock_kept() -> bool | None:
    """Whether a time service keeps this clock, as the kernel knows; None where it does not say."""
    try:
        told = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):  # another system
        return None
    return None if told < 0 else bool(told != NOT_KEPT)


@dataclass(frozen=True, slots=True)
class DiskFacts:
    """The disk under the data folder.

    Attributes:
        total: Bytes.
        free: Bytes.
        reserve: Bytes that stay free whatever is lent.
        sync_ms: The median time to make a small write durable; None: it was not tried, or failed.
        problem: Why nothing can be written; empty if it can.
    """

    total: int
    free: int
    reserve: int
    sync_ms: float | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class FolderFacts:
    """The data folder and the key in it; a mode of None: it is not there."""

    home: Path
    home_mode: int | None
    is_own: bool
    key: Path
    key_mode: int | None


@dataclass(frozen=True, slots=True)
class PortFacts:
    """An address to listen on, or one that a running node says it listens on.

    Attributes:
        address: Multiaddr.
        is_open: Somebody answers there; None: it was not tried.
        problem: Why it cannot be had, or does not answer; empty if it can, or does.
        holder: Who has it, where that can be seen.
    """

    address: str
    is_open: bool | None
    problem: str = ""
    holder: str = ""


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """Accelerators that the system shows, and the build of torch that is installed.

    Attributes:
        gpus: Names.
        driver: Version of NVIDIA's; empty without.
        torch: Version with its build, `2.13.0+cpu`; empty if it is not installed.
    """

    gpus: tuple[str, ...]
    driver: str
    torch: str


@dataclass(frozen=True, slots=True)
class MemoryFacts:
    """Bytes of memory."""

    total: int
    available: int


def disk(home: Path) -> DiskFacts:
    """The disk of a data folder, or of the folder in which it would be made."""
    there = home
    while not there.exists() and there != there.parent:
        there = there.parent
    total, free = DISK.space(there)
    found = DiskFacts(total, free, default_keep_free(total))
    if there != home:
        return found
    try:
        return DiskFacts(total, free, found.reserve, _sync_ms(home))
    except OSError as error:
        return DiskFacts(total, free, found.reserve, None, error.strerror or str(error))


def taken(home: Path) -> int:
    """What the files of a node that does not run take of what it lends, in bytes, of a bounded number of them."""
    files = (one for name in LENT for one in (home / name).rglob("*"))
    total = 0
    for path in itertools.islice(files, MAX_FILES):
        with suppress(OSError):
            total += path.lstat().st_blocks * BLOCK
    return total


def _sync_ms(folder: Path) -> float:
    path = folder / f"doctor.{secrets.token_hex(8)}"
    descriptor = DISK.create(path)
    try:
        times = []
        for at in range(PROBES):
            DISK.write_all(descriptor, [bytes(PROBE_BYTES)], at * PROBE_BYTES)
            began = time.perf_counter()
            DISK.sync(descriptor)
            times.append(time.perf_counter() - began)
    finally:
        DISK.close(descriptor)
        DISK.unlink(path)
    return sorted(times)[len(times) // 2] * 1000


def folder(home: Path) -> FolderFacts:
    """Who may enter the data folder, and who may read the key."""
    key = home / KEY_FILE
    found = _mode(home)
    return FolderFacts(
        home,
        None if found is None else found[0],
        found is None or found[1] == os.getuid(),
        key,
        None if (of_key := _mode(key)) is None else of_key[0],
    )


def _mode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mode & 0o777, found.st_uid


def store_problem(home: Path) -> str | None:
    """What is wrong with the databases of a store that no node has open; None where there is no store yet."""
    chunks = home / "chunks"
    if not (chunks / "index.db").exists():
        return None
    for name in ("index.db", "pins.db"):
        try:
            with closing(sqlite3.connect(f"file:{chunks / name}?mode=ro", uri=True)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.Error as error:
            return f"{name}: {error}"
    return ""


def wanted_ports(listen: tuple[str, ...]) -> list[PortFacts]:
    """Whether the addresses of the settings can be had; those with port 0 always can."""
    found = []
    for address in listen[:MAX_PORTS]:
        where = _host_port(address)
        if where is None or where[1] == 0:
            found.append(PortFacts(address, None))
            continue
        family = socket.AF_INET6 if ":" in where[0] else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(where)
            except OSError as error:
                why = error.strerror or str(error)
                found.append(PortFacts(address, None, why, _holder(where[1])))
            else:
                found.append(PortFacts(address, None))
    return found


def open_ports(addresses: list[str]) -> list[PortFacts]:
    """Whether somebody answers on the addresses that a node tells others, tried from this machine."""
    found = []
    for address in addresses[:MAX_PORTS]:
        where = _host_port(address)
        if where is None:
            found.append(PortFacts(address, None))
            continue
        try:
            socket.create_connection(where, DIAL_SECONDS).close()
        except OSError as error:
            found.append(PortFacts(address, False, error.strerror or str(error) or "no answer"))
        else:
            found.append(PortFacts(address, True))
    return found


def _host_port(address: str) -> tuple[str, int] | None:
    """Host and port of a multiaddr with an IP; None for another."""
    parts = address.split("/")
    try:
        if parts[1] in {"ip4", "ip6"} and parts[3] == "tcp":
            return str(ipaddress.ip_address(parts[2])), int(parts[4])
    except (IndexError, ValueError):
        pass
    return None


def _holder(port: int) -> str:
    """The process that listens on a port, where this user may see it."""
    try:
        for one in psutil.net_connections("tcp"):
            if one.laddr and one.laddr.port == port and one.status == psutil.CONN_LISTEN:
                if one.pid is None:
                    return "a process of another user"
                return f"{psutil.Process(one.pid).name()}, process {one.pid}"
    except psutil.Error:
        pass
    return ""


def device(nvidia: Path = NVIDIA, amd: Path = AMD) -> DeviceFacts:
    """Accelerators as the kernel shows them; torch is not loaded for it."""
    gpus = []
    for path in sorted(nvidia.glob("gpus/*/information"))[:MAX_GPUS]:
        lines = dict(line.split(":", 1) for line in _text(path).splitlines() if ":" in line)
        gpus.append(lines.get("Model", "NVIDIA").strip())
    if amd.exists():
        gpus.append("AMD")
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        gpus.append("Apple")
    words = _text(nvidia / "version").partition("\n")[0].split()
    driver = next((word for word in words if word[:1].isdigit() and "." in word), "")
    try:
        torch = metadata.version("torch")
    except metadata.PackageNotFoundError:
        torch = ""
    return DeviceFacts(tuple(gpus), driver, torch)


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(MAX_PROC_BYTES)
    except OSError:
        return ""


def memory() -> MemoryFacts:
    """Memory of this machine."""
    found = psutil.virtual_memory()
    return MemoryFacts(found.total, found.available)
