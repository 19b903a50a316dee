"""Roots unpacked to files, as the worker reads them: datasets, pools, checkpoints, updates.

A shelf is a cache: every entry can be fetched and written again from its CID, so the least recently
used ones go when it holds more bytes than it may.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

import trio

from storage import cid as cids
from swarm.datasets import get

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from protocols.exchange.service import ExchangeService
    from storage.blockstore import Blockstore
    from storage.cid import Cid

DEFAULT_BYTES = 4 * 2**30
"""How much a shelf holds before it lets the oldest go."""


class Shelf:
    """A folder with one entry a root.

    Args:
        folder: Where the entries are; made if need be.
        store: Where chunks are read from.
        exchange: Fetches what the store lacks.
        limit: Bytes to hold; the entries in use are never removed.
    """

    def __init__(
        self, folder: Path, store: Blockstore, exchange: ExchangeService, limit: int = DEFAULT_BYTES
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._store = store
        self._exchange = exchange
        self._limit = limit
        self._locks: dict[Cid, trio.Lock] = {}

    async def take(
        self,
        root: Cid,
        providers: Sequence[str] | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        max_bytes: int | None = None,
    ) -> Path:
        """The path of a root's file or folder, fetched and unpacked if it is not there yet.

        Args:
            root: What to take.
            providers: Who is asked first; None looks for them.
            progress: Told (bytes here, bytes in total).
            max_bytes: Refuse content that is larger.

        Raises:
            ContentNotFoundError: Nobody that was asked holds it.
            QuotaError: It does not fit into what this node lends.
        """
        path = self._folder / cids.text(root)
        lock = self._locks.setdefault(root, trio.Lock())
        try:
            async with lock:
                if not path.exists():
                    await get(
                        root,
                        self._exchange,
                        self._store,
                        path,
                        providers=providers,
                        progress=progress,
                        max_bytes=max_bytes,
                    )
                    await trio.to_thread.run_sync(self._trim, path)
                with contextlib.suppress(OSError):
                    path.touch()
        finally:
            if not lock.statistics().tasks_waiting:
                self._locks.pop(root, None)
        return path

    def _trim(self, keep: Path) -> None:
        entries = sorted(self._folder.iterdir(), key=lambda one: one.stat().st_mtime)
        sizes = {one: _size(one) for one in entries}
        held = sum(sizes.values())
        for entry in entries:
            if held <= self._limit:
                return
            if entry != keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
                held -= sizes[entry]


def _size(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
