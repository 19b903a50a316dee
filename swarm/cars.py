"""CAR files into the store, and what stands below a root in words for JSON."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from storage import car
from storage import cid as cids
from storage.errors import CorruptChunkError, ManifestError
from swarm.datasets import Progress, told
from swarm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from protocols.transport import Transport
    from storage.blockstore import Blockstore
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
    """Read a CAR file into a store; pin and announce its roots that are whole.

    Args:
        path: The file.
        store: Where its chunks go.
        transport: Where its roots are announced.
        progress: Told (bytes read, bytes of the file) from this task.
        limiter: Threads; None takes Trio's.

    Returns:
        As `swarm.control.api.NodeApi.import_car` says.

    Raises:
        UsageError: The file is malformed, or a chunk is not what its name says; what was read before stays, pinned by
            nobody.
        QuotaError: It does not fit.
        OSError: It cannot be read.
    """
    counter = Progress()
    roots: list[Json] = []
    with store.lease("car import"):
        imported = await told(counter, progress, partial(_load, path, store, counter), limiter)
        for root in dict.fromkeys(imported.roots):
            missing = await trio.to_thread.run_sync(car.first_missing, root, store, limiter=limiter)
            if missing is None:
                await trio.to_thread.run_sync(store.pin, root, path.name, limiter=limiter)
                await transport.provide(root)
            roots.append(
                {"cid": cids.text(root), "missing": None if missing is None else cids.text(missing)}
            )
    return {
        "roots": roots,
        "chunks": imported.blocks,
        "bytes": imported.size,
        "new_bytes": imported.new_bytes,
    }


def _load(path: Path, store: Blockstore, counter: Progress) -> car.Imported:
    try:
        with path.open("rb") as file:
            return car.load(file, store, counter, path.stat().st_size)
    except (ManifestError, CorruptChunkError) as error:
        message = f"{path.name}: {error}"
        raise UsageError(message) from error


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
