"""The network of this machine's own: how nodes on one machine find each other with no address given.

Each running node keeps a small file in one folder of the user, and takes it away when it stops.
The first node to start makes the network; a lock keeps two that start at once from making two.
"""

from __future__ import annotations

import fcntl
import json
import os
import warnings
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import platformdirs
import psutil

from swarm.errors import RefusedError

if TYPE_CHECKING:
    from pathlib import Path

MAX_RECORD_BYTES = 64 * 2**10


def runtime_folder() -> Path:
    """Where this user's nodes find each other; a system without such a folder has one below /tmp."""
    with warnings.catch_warnings():
        # That XDG_RUNTIME_DIR is missing is nothing to warn of: `Machine` makes the folder for this user alone.
        warnings.simplefilter("ignore")
        return platformdirs.user_runtime_path("swarm")


@dataclass(frozen=True, slots=True)
class Running:
    """A node of this machine that runs now.

    Attributes:
        pid: Its process.
        created: When that process started, seconds since 1970: a pid is used again.
        chain_id: Its network, hex.
        addresses: Multiaddrs with the peer id.
    """

    pid: int
    created: float
    chain_id: str
    addresses: tuple[str, ...]


class Deciding:
    """The lock, held until it is released; the kernel releases it for a process that ends."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let the next node decide."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Machine:
    """The folder in which this user's nodes find each other.

    A node holds a lock on its file for as long as it runs, which no step of the clock undoes.

    Args:
        folder: Made if need be, for this user alone.

    Raises:
        RefusedError: Another user of the machine made it, or made what it lies in, and could say what stands there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (folder, folder.parent):
            if each.stat().st_uid not in {os.getuid(), 0}:
                message = f"{each} belongs to another user"
                raise RefusedError(message, "set XDG_RUNTIME_DIR to a folder of your own")
        self._folder = folder
        self._held: int | None = None

    def decide(self) -> Deciding | None:
        """Take the lock for finding out whether this node is the first; None while another does so."""
        descriptor = os.open(self._folder / "deciding.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        return Deciding(descriptor)

    def running(self) -> list[Running]:
        """Nodes that run now; files that dead ones left are removed."""
        found = []
        for path in sorted(self._folder.glob("*.node")):
            record = _read(path)
            if record is not None and (_is_held(path) or _alive(record)):
                found.append(record)
            else:
                path.unlink(missing_ok=True)
        return found

    def enter(self, chain_id: bytes, addresses: list[str]) -> None:
        """Say where this process can be reached.

        Raises:
            OSError: The folder cannot be written.
        """
        self._folder.mkdir(
            mode=0o700, parents=True, exist_ok=True
        )  # it goes when the user logs out
        own = psutil.Process()
        record = Running(own.pid, own.create_time(), chain_id.hex(), tuple(addresses))
        temporary = self._folder / f"{own.pid}.part"
        temporary.write_text(json.dumps(asdict(record)))
        held = os.open(temporary, os.O_RDONLY)
        with suppress(OSError):  # a file system without locks: the process's start tells
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        temporary.replace(self._folder / f"{own.pid}.node")
        self._let_go()
        self._held = held

    def leave(self) -> None:
        """Take the file of this process away."""
        (self._folder / f"{os.getpid()}.node").unlink(missing_ok=True)
        self._let_go()

    def _let_go(self) -> None:
        if self._held is not None:
            os.close(self._held)
            self._held = None


def _read(path: Path) -> Running | None:
    try:
        if path.stat().st_size > MAX_RECORD_BYTES:
            return None
        record = json.loads(path.read_text())
        return Running(
            int(record["pid"]),
            float(record["created"]),
            str(record["chain_id"]),
            tuple(str(one) for one in record["addresses"]),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return None


def _is_held(path: Path) -> bool:
    """Whether a process holds the lock on its file."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return False
            # The node has written another meanwhile.
        except BlockingIOError:
            return True
        except OSError:
            return False
        finally:
            os.close(descriptor)


def _alive(record: Running) -> bool:
    """Whether the process of a file that nobody holds is the one that wrote it, such as one of an older version."""
    try:
        return bool(abs(psutil.Process(record.pid).create_time() - record.created) < 1.0)
    except (psutil.Error, ValueError, OverflowError):  # the last two: a number that no process has
        return False
