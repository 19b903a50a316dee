"""The network of this machine's own: how nodes on one machine find each other with no address given.

Each running node keeps a small file in one folder of the user, and takes it away when it stops.
The first node to start makes the network; a lock keeps two that start at once from making two.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_RECORD_BYTES = 64 * 2**10


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


class Machine:
    """The folder in which this user's nodes find each other.

    Args:
        folder: Made if need be, for this user alone.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder

    @contextlib.contextmanager
    def deciding(self) -> Iterator[None]:
        """Held while a node finds out whether it is the first; waits for another that does so."""
        descriptor = os.open(self._folder / "deciding.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def running(self) -> list[Running]:
        """Nodes that run now; files that dead ones left are removed."""
        found = []
        for path in sorted(self._folder.glob("*.node")):
            record = _read(path)
            if record is not None and _alive(record):
                found.append(record)
            else:
                path.unlink(missing_ok=True)
        return found

    def enter(self, chain_id: bytes, addresses: list[str]) -> None:
        """Say where this process can be reached."""
        own = psutil.Process()
        record = Running(own.pid, own.create_time(), chain_id.hex(), tuple(addresses))
        temporary = self._folder / f"{own.pid}.part"
        temporary.write_text(json.dumps(asdict(record)))
        temporary.replace(self._folder / f"{own.pid}.node")

    def leave(self) -> None:
        """Take the file of this process away."""
        (self._folder / f"{os.getpid()}.node").unlink(missing_ok=True)


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
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alive(record: Running) -> bool:
    try:
        return abs(psutil.Process(record.pid).create_time() - record.created) < 1.0
    except psutil.Error:
        return False
