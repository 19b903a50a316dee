"""CAR files into the store, and what stands below a root in words for JSON."""

from __future__ import annotations

import os
import stat
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from storage import car
from storage import cid as cids
from storage.errors import CorruptChunkError, ManifestError
from storage.unixfs_sizes import check_sizes
from swarm.datasets import Progress, told
from swarm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocols.transport import Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid
    from storage.unixfs import Entry
    from swarm.ranges import Reading

    Json = dict[str, Any]


async def load(
    path: Path,
    store: Blockstore,
    transport: Transport,
    progress: Callable[[int, int], None] | None = None,
    limiter: trio.CapacityLimiter | None = None,
) -> Json:
    """Read a CAR file into a store; pin and announce its roots, if each of them is whole and as large as it says.

    Args:
        path: The file.
        store: Where its chunks go.
        transport: Where its roots are announced.
        progress: Told (bytes read, bytes of the file) from this task.
        limiter: Threads; None takes Trio's.

    Returns:
        As `swarm.control.api.NodeApi.import_car` says.

    Raises:
        UsageError: It is no regular file, the file is malformed, or a chunk is not what its name says.
        RefusedError: Of a root, a chunk is neither in the file nor in the store; or a manifest claims more than there is.
            What was read before a fault stays, pinned by nobody: another file may hold the rest.
        QuotaError: It does not fit.
        OSError: It cannot be read.
    """
    counter = Progress()
    sizes: dict[Cid, int] = {}
    with store.lease("car import"):
        imported = await told(counter, progress, partial(_load, path, store, counter), limiter)
        for root in dict.fromkeys(imported.roots):
            check = partial(_check, path.name, root, store)
            sizes[root] = await trio.to_thread.run_sync(check, limiter=limiter)
        for root in sizes:
            await trio.to_thread.run_sync(store.pin, root, path.name, limiter=limiter)
            await transport.provide(root)
    return {
        "roots": [{"cid": cids.text(root), "size": size} for root, size in sizes.items()],
        "chunks": imported.blocks,
        "bytes": imported.size,
        "new_bytes": imported.new_bytes,
    }


def _unwaiting(path: str, flags: int) -> int:
    """Open without waiting: a pipe to which nobody writes would hold the thread for ever."""
    return os.open(path, flags | os.O_NONBLOCK)


def _load(path: Path, store: Blockstore, counter: Progress) -> car.Imported:
    try:
        with open(path, "rb", opener=_unwaiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                message = f"{path.name} is not a file"
                raise UsageError(message, "a CAR file is read from a disk, not from a pipe")
            return car.load(file, store, counter, status.st_size)
    except (ManifestError, CorruptChunkError) as error:
        message = f"{path.name}: {error}"
        raise UsageError(message) from error


def _check(name: str, root: Cid, store: Blockstore) -> int:
    """Bytes held of a root, which is whole and tells the truth of itself."""
    try:
        missing = car.first_missing(root, store)
        size = 0 if missing is not None else check_sizes(root, store)
    except ManifestError as error:
        message = f"{name}: {cids.text(root)} is not what it says: {error}"
        raise RefusedError(message, "nothing is pinned") from error
    if missing is not None:
        message = f"{name}: {cids.text(root)} is not whole: chunk {cids.text(missing)} is missing"
        raise RefusedError(message, "nothing is pinned; import the file that has the rest")
    return size


async def look(reading: Reading, path: str) -> Json:
    """What stands at a path below a root, or below the files of a commit."""
    return _told(await reading.look(await reading.find(path)))


async def entries(reading: Reading, path: str) -> list[Json]:
    """What stands in a folder at a path below a root, or below the files of a commit."""
    found = await reading.listing(await reading.find(path))
    return [{"name": entry.name, **_told(entry)} for entry in found]


def _told(entry: Entry) -> Json:
    told = asdict(entry)
    del told["name"]
    return told | {"cid": cids.text(entry.cid)}
