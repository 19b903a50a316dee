"""Working folders for an operation: looked at and changed in threads, with progress; see `working`."""

from __future__ import annotations

import os
from contextlib import asynccontextmanager
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import trio

from storage import unixfs
from storage.errors import ChunkNotFoundError
from storage.unixfs_nodes import folder_node
from swarm.datasets import Progress as Counter
from swarm.datasets import told  # the wait for a thread that publishing has
from swarm.errors import RefusedError
from swarm.versions import working
from swarm.versions.diff import changes
from swarm.versions.working import Snapshot, Switch, Switched

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from storage.blockstore import Blockstore
    from storage.cid import Cid
    from storage.importer import Added
    from swarm.control.api import Progress
    from swarm.versions.tree import Get
    from swarm.versions.working import Marker

NAMED = 5
"""Paths named in an error."""
_BUILT, _BLOCK = folder_node([])
EMPTY = _BUILT.cid
"""The empty folder, which no store has to hold."""


def with_empty(get: Get) -> Get:
    """Gives the empty folder too."""
    return lambda cid: _BLOCK if cid == EMPTY else get(cid)


class Folders:
    """What operations do to working folders.

    Args:
        store: Where the versions are.
    """

    def __init__(self, store: Blockstore) -> None:
        self._store = store
        self._locks: dict[str, trio.Lock] = {}

    @asynccontextmanager
    async def held(self, folder: Path) -> AsyncIterator[None]:
        """Nobody else of this node looks at a folder or changes it while the block runs.

        What one operation stages in it, the next one clears away. Taken before the lock of a dataset.
        """
        path = await trio.to_thread.run_sync(os.path.realpath, folder)
        lock = self._locks.setdefault(path, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked() and not lock.statistics().tasks_waiting:
                self._locks.pop(path, None)

    async def add(self, folder: Path, progress: Progress) -> Added:
        """Put what a folder holds into the store."""
        counter = Counter()
        work = partial(working.add, folder, self._store, counter)
        return await told(counter, partial(progress, "store"), work, None)

    async def snapshot(self, folder: Path, progress: Progress) -> Snapshot:
        """What a folder holds now."""
        counter = Counter()
        work = partial(Snapshot, folder, counter)
        return await told(counter, partial(progress, "hash"), work, None)

    async def clean(
        self, folder: Path, held: Cid, progress: Progress, or_else: Cid | None = None
    ) -> Snapshot:
        """What a folder holds now, where that is a version that is kept.

        Raises:
            RefusedError: It is neither `held` nor `or_else`; the first paths are named.
        """
        snapshot = await self.snapshot(folder, progress)
        if snapshot.root in {held, or_else}:
            return snapshot
        get = snapshot.over(with_empty(self._store.get))

        def first() -> list[str]:
            found = (one.path for one in changes(held, snapshot.root, get) if not one.is_folder)
            return list(islice(found, NAMED))

        try:
            paths = ", ".join(await trio.to_thread.run_sync(first))
        except ChunkNotFoundError:
            paths = "what it came from is not here any more"
        message = f"{folder} holds what was not committed: {paths}"
        raise RefusedError(message, "commit it first; `checkout --force` gives it up")

    async def prepare(
        self, folder: Path, snapshot: Snapshot, root: Cid, progress: Progress
    ) -> Switch:
        """Have everything on the disk that makes a folder hold another tree, which the store holds."""
        counter = Counter()
        work = partial(Switch, folder, snapshot, root, self._store, counter)
        return await told(counter, partial(progress, "write"), work, None)

    async def apply(self, switch: Switch) -> Switched:
        """Make the folder hold it."""
        return await trio.to_thread.run_sync(switch.apply)

    async def mark(self, folder: Path, marker: Marker) -> None:
        """Say what a folder holds."""
        await trio.to_thread.run_sync(working.write_marker, folder, marker)

    async def show(
        self,
        target: Path,
        held: Cid | None,
        root: Cid,
        progress: Progress,
        *,
        force: bool,
    ) -> Switched:
        """Make a folder hold a tree.

        Args:
            target: The folder; it need not be there.
            held: The tree that it was left with; None if it is no working folder.
            root: The tree, held by the store.
            progress: Told of what is hashed and written.
            force: Give up what was not committed.

        Raises:
            RefusedError: It holds what was not committed, or something else is there.
        """
        await trio.to_thread.run_sync(working.check_tree, root, self._store.get)
        if held is None and await trio.to_thread.run_sync(_is_taken, target):
            message = f"{target} is there already, and no working folder"
            raise RefusedError(message, "give another folder with -o")
        if not await trio.Path(target).exists():
            return await self._write(target, root, progress)
        if root == held and not force:
            return Switched(0, 0)
        if force:
            snapshot = await self.snapshot(target, progress)
        else:
            snapshot = await self.clean(target, held or EMPTY, progress, or_else=root)
        return await self.apply(await self.prepare(target, snapshot, root, progress))

    async def count(self, before: Cid, after: Cid) -> dict[str, int]:
        """How many files were `added`, `removed` and `changed`; nothing where an old tree is not here."""
        get = with_empty(self._store.get)

        def count() -> dict[str, int]:
            counts = {"added": 0, "removed": 0, "changed": 0}
            for change in changes(before, after, get):
                counts[change.kind] += not change.is_folder
            return counts

        try:
            return await trio.to_thread.run_sync(count)
        except ChunkNotFoundError:
            return {}

    async def _write(self, target: Path, root: Cid, progress: Progress) -> Switched:
        counter = Counter()
        work = partial(unixfs.write_path, root, self._store, target, counter)
        await told(counter, partial(progress, "write"), work, None)
        return Switched((await self.count(EMPTY, root)).get("added", 0), 0)


def _is_taken(target: Path) -> bool:
    return target.exists() and (not target.is_dir() or any(target.iterdir()))
