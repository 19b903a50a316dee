"""This node's branches: moving them, and keeping and announcing what they point to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from storage import cid as cids
from storage.errors import StorageError
from swarm.errors import RefusedError, SwarmError
from swarm.versions.commit import encode, make
from swarm.versions.repository import Dataset, Repository
from swarm.versions.working import Marker

if TYPE_CHECKING:
    from collections.abc import Callable

    from storage.cid import Cid
    from swarm.versions.commit import Commit
    from swarm.versions.source import Door, Version

PIN = "dataset "
"""How the labels of our pins begin."""

_log = structlog.get_logger("swarm.versions")


def _nothing(_dataset: Dataset) -> None:
    """Saves nothing."""


class Branches:
    """The branches of every dataset of a node.

    Args:
        door: The node.
        repository: Its datasets.
    """

    def __init__(self, door: Door, repository: Repository) -> None:
        self._door = door
        self._repository = repository
        self._locks: dict[str, trio.Lock] = {}
        self._pinning = trio.Lock()

    def lock(self, dataset: str) -> trio.Lock:
        """Held by whoever is about to move a branch of a dataset, from the look at it on."""
        return self._locks.setdefault(dataset, trio.Lock())

    def followed(self, marker: Marker) -> tuple[Dataset, str]:
        """The dataset and branch that a working folder may move.

        Raises:
            RefusedError: It follows no branch, or the branch has moved on without it.
        """
        dataset = self._repository.load(marker.dataset)
        hint = (
            "swarm dataset branch NEW, then swarm dataset checkout NEW, keeps what is in the folder"
        )
        if marker.branch is None:
            message = "this folder holds a commit and follows no branch"
            raise RefusedError(message, hint)
        if dataset.branches.get(marker.branch) != marker.commit:
            message = (
                f"the branch {marker.branch!r} of {dataset.name} is not where this folder left it"
            )
            raise RefusedError(message, hint)
        return dataset, marker.branch

    async def commit(
        self,
        dataset: Dataset,
        branch: str,
        root: Cid,
        parents: list[tuple[Cid, Commit]],
        message: str,
    ) -> tuple[Cid, Commit]:
        """Sign and keep a commit, and move a branch to it."""
        commit = make(self._door.signer, root, parents, message, int(self._door.now()))
        block = encode(commit)
        cid = cids.of_dag_cbor(block)
        await trio.to_thread.run_sync(self._door.store.put_many, [(cid, block)])
        await self.move(dataset, branch, cid)
        return cid, commit

    async def move(self, dataset: Dataset, branch: str, commit: Cid | None) -> None:
        """Let a branch point to a commit, or to none; durable, pinned and announced when this returns."""
        await self._pin(dataset.with_branch(branch, commit), self._repository.save)

    async def create(self, dataset: Dataset) -> None:
        """Keep a new dataset with its branches.

        Raises:
            RefusedError: There is one of that name.
        """
        await self._pin(dataset, self._repository.create)

    async def adopt(self, name: str, at: Version) -> Marker:
        """What a folder that holds a version follows; a dataset from the ledger becomes one of this node."""
        async with self.lock(name):
            if self._repository.has(name):
                return Marker(name, at.branch, at.cid)
            dataset = Dataset(name)
            await self.create(dataset.with_branch(dataset.head, at.cid))
            return Marker(name, dataset.head, at.cid)

    async def keep(self) -> None:
        """Pin what branches point to, after a start: whatever stopped the node before, nothing of it may be collected."""
        try:
            await self._pin(None)
        except (SwarmError, StorageError, OSError) as error:
            _log.warning("dataset.not_pinned", error=str(error))

    async def let_go(self, root: Cid) -> str | None:
        """End a person's pin; where a branch points to the root, the pin is the branch's from then on.

        Returns:
            The label that it has now; None where it is gone.
        """

        def unpin() -> str | None:
            label = self._wanted().get(root)
            if label is None:
                self._door.store.unpin(root)
            else:
                self._door.store.pin(root, label)
            return label

        async with self._pinning:
            return await trio.to_thread.run_sync(unpin)

    def _wanted(self) -> dict[Cid, str]:
        """What branches point to, with the labels of our pins."""
        return {
            cid: PIN + one.name
            for one in reversed(self._repository.all())
            for cid in one.branches.values()
        }

    async def _pin(
        self, dataset: Dataset | None, save: Callable[[Dataset], None] = _nothing
    ) -> None:
        """Pin what branches point to and nothing else of ours; announce what is new.

        What a dataset is to point to is pinned before it is saved, and what it pointed to is let go after that: wherever
        this node is stopped, what its branches point to is pinned.
        """
        store = self._door.store

        def add(wanted: dict[Cid, str]) -> set[Cid]:
            fresh = wanted.keys() - store.pins().keys()
            for cid in sorted(fresh):
                store.pin(cid, wanted[cid])
            return fresh

        def pin() -> list[Cid]:
            self._wanted()  # a file that cannot be read is told before a branch moves, not after
            fresh: set[Cid] = set()
            try:
                if dataset is not None:
                    fresh |= add(dict.fromkeys(dataset.branches.values(), PIN + dataset.name))
                    save(dataset)
            finally:
                wanted = self._wanted()
                fresh |= add(wanted)
                for cid, label in store.pins().items():
                    if label.startswith(PIN) and cid not in wanted:
                        store.unpin(cid)
            return sorted(fresh)

        async with self._pinning:  # what one reads of all datasets, another may be about to change
            fresh = await trio.to_thread.run_sync(pin)
        for cid in fresh:
            await self._door.transport.provide(cid)
