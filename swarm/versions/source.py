"""Commits and trees, from this node's store or from peers; and what a version that a person writes means.

A person who checks out a version wants its tree and the commits before it, and not every old tree: so commits are fetched
one block at a time along their parents, and of trees only the one that is asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from protocols.exchange.notes import LOOKING
from storage import cid as cids
from storage.errors import ChunkNotFoundError, CidError, CorruptChunkError
from swarm.errors import NotFoundError, UsageError
from swarm.versions import history
from swarm.versions.commit import MAX_COMMIT_BYTES, decode
from swarm.versions.reference import HEAD, LATEST, MIN_PREFIX, parse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from protocols.exchange.service import ExchangeService
    from protocols.progress import Tell
    from protocols.signing import Signer
    from protocols.transport import PeerId, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid
    from storage.importer import Added
    from swarm.control.api import Json, Progress
    from swarm.datasets import Published
    from swarm.versions.commit import Commit
    from swarm.versions.history import Steps
    from swarm.versions.reference import Reference
    from swarm.versions.repository import Repository
    from swarm.versions.working import Marker

    RoomFor = Callable[[Callable[[], Awaitable[Added]], Callable[[str], None]], Awaitable[Added]]

T = TypeVar("T")

LOOKUP_SECONDS = 10.0
"""For one search of who has a history."""
REMEMBER_SECONDS = 60.0
MAX_REMEMBERED = 64
"""Histories whose providers are remembered."""


async def _at_once(work: Callable[[], Awaitable[Added]], say: Callable[[str], None]) -> Added:
    del say
    return await work()


@dataclass(frozen=True, slots=True)
class Door:
    """What versions need of a node.

    Attributes:
        signer: Signs commits.
        store: Where chunks are.
        exchange: Fetches what is not here.
        transport: Where what is new is announced.
        folder: Where the branches are kept.
        point: Lets a name on the ledger point to a root: (name, what it is to point to) -> `name`, `version`.
        look_up: What a name on the ledger points to: (name, version or None) -> its root.
        now: UTC seconds.
        room_for: Does what writes much, after slots have given way to it if they must: (what, told what is waited for).
    """

    signer: Signer
    store: Blockstore
    exchange: ExchangeService
    transport: Transport
    folder: Path
    point: Callable[[str, Published], Awaitable[Json]]
    look_up: Callable[[str, int | None, Progress], Awaitable[Cid]]
    now: Callable[[], float]
    room_for: RoomFor = _at_once


@dataclass(frozen=True, slots=True)
class Version:
    """What a person meant.

    Attributes:
        cid: The commit.
        commit: Itself.
        dataset: Of this node, where it is known to be of one; or a name on the ledger.
        branch: Where a branch was meant.
        is_remote: Whether `dataset` was found on the ledger.
    """

    cid: Cid
    commit: Commit
    dataset: str | None
    branch: str | None = None
    is_remote: bool = False


class Source:
    """Reads commits and trees.

    Args:
        door: The node.
        repository: Its datasets.
    """

    def __init__(self, door: Door, repository: Repository) -> None:
        self._door = door
        self._repository = repository
        self._providers: OrderedDict[Cid, tuple[float, list[PeerId]]] = OrderedDict()

    async def commit(self, cid: Cid, progress: Progress | None = None) -> Commit:
        """One commit.

        Raises:
            CommitError: It is no commit, or its signature is not its author's.
            ContentNotFoundError: Nobody that was asked has it.
        """
        return (await self.ask(history.log(cid, 1), cid, progress))[0][1]

    async def ask(self, steps: Steps[T], head: Cid, progress: Progress | None = None) -> T:
        """Answer a question about a history, fetching the commits that it needs.

        Args:
            steps: The question, from `history`.
            head: The newest commit, whose providers are asked for older ones too.
            progress: Told of the commits that came, and why one does not.
        """
        fetched = 0

        def tell(_done: int, _total: int, note: str = "", /) -> None:
            if progress is not None:
                progress("history", fetched, 0, note)

        wanted, result = await trio.to_thread.run_sync(self._advance, steps, None)
        while wanted is not None:
            await self._fetch(wanted, head, tell, max_bytes=MAX_COMMIT_BYTES, alone=True)
            fetched += 1
            tell(fetched, 0)
            wanted, result = await trio.to_thread.run_sync(self._advance, steps, wanted)
        assert result is not None  # noqa: S101 - there where nothing is wanted any more
        answer: T = result[0]
        return answer

    def _advance(self, steps: Steps[T], came: Cid | None) -> tuple[Cid | None, tuple[T] | None]:
        """In a thread: go on until a commit is missing, or to the end; its name, or the result."""
        store = self._door.store
        wanted = came
        try:
            while True:
                if wanted is None:
                    wanted = next(steps)
                    continue
                try:
                    block = store.get(wanted)
                except (ChunkNotFoundError, CorruptChunkError):
                    return wanted, None
                wanted = steps.send(decode(wanted, block))
        except StopIteration as done:
            value: T = done.value
            return None, (value,)

    async def bring_tree(self, root: Cid, head: Cid, progress: Progress | None = None) -> int:
        """Have a whole tree here; the bytes that came from peers."""
        told = None if progress is None else partial(progress, "fetch")
        return await self._fetch(root, head, told)

    async def _fetch(
        self,
        cid: Cid,
        head: Cid,
        progress: Tell | None = None,
        *,
        max_bytes: int | None = None,
        alone: bool = False,
    ) -> int:
        door = self._door
        held = await trio.to_thread.run_sync(door.store.has, cid)
        if progress is not None and not held:
            progress(0, 0, LOOKING)
        providers = None if held else await self._who_has(head)
        fetched = await door.exchange.fetch(
            cid, providers, progress, label=cids.text(head), max_bytes=max_bytes, alone=alone
        )
        return fetched.bytes

    async def _who_has(self, head: Cid) -> list[PeerId] | None:
        """Peers that announced a history's newest commit; they have what is below it. None if there are none."""
        now = trio.current_time()
        when, peers = self._providers.pop(head, (-REMEMBER_SECONDS, []))
        if now - when >= REMEMBER_SECONDS:
            peers = []
            with trio.move_on_after(LOOKUP_SECONDS):
                peers = await self._door.transport.find_providers(head)
        if peers:
            self._providers[head] = (now, peers)
            if len(self._providers) > MAX_REMEMBERED:
                self._providers.popitem(last=False)
        return peers or None

    async def resolve(self, text: str, marker: Marker | None, progress: Progress) -> Version:
        """What a version that a person wrote means.

        Args:
            text: As `reference` describes.
            marker: Of the working folder; None outside of one.
            progress: Told of what is fetched.

        Raises:
            UsageError: It is malformed, or needs a working folder.
            NotFoundError: There is no such version.
        """
        reference = parse(text)
        found = await self._base(reference, marker, progress)
        if reference.steps:
            cid = await self.ask(history.back(found.cid, reference.steps), found.cid, progress)
            return Version(cid, await self.commit(cid), found.dataset)
        return found

    async def _base(
        self, reference: Reference, marker: Marker | None, progress: Progress
    ) -> Version:
        word = reference.word
        if reference.version is not None:
            number = None if reference.version == LATEST else int(reference.version)
            return await self._on_ledger(word, number, progress)
        if reference.branch is not None:
            return await self._branch(word, reference.branch)
        if word == HEAD:
            return await self._head(marker)
        if marker is not None and self._repository.has(marker.dataset):
            dataset = self._repository.load(marker.dataset)
            if word in dataset.branches:
                return await self._branch(dataset.name, word)
        cid = await self._by_cid(word, marker)
        if cid is not None:
            return Version(cid, await self.commit(cid), None if marker is None else marker.dataset)
        try:
            if self._repository.has(word):
                return await self._branch(word, self._repository.load(word).head)
            return await self._on_ledger(word, None, progress)
        except (NotFoundError, UsageError) as error:
            message = f"{word!r} is no branch here, no commit, no dataset of this node and no name on the ledger"
            raise NotFoundError(message, str(error)) from error

    async def _head(self, marker: Marker | None) -> Version:
        if marker is None:
            message = "HEAD is what a working folder holds, and this is none"
            raise UsageError(message, "go into one, or name the dataset")
        if marker.commit is None:
            message = f"{marker.dataset} has no commit yet"
            raise NotFoundError(message, 'make one: swarm dataset commit -m "the first"')
        return Version(
            marker.commit, await self.commit(marker.commit), marker.dataset, marker.branch
        )

    async def _branch(self, name: str, branch: str) -> Version:
        cid = self._repository.load(name).branches.get(branch)
        if cid is None:
            message = f"{name} has no branch {branch!r} with a commit"
            raise NotFoundError(message, "`swarm dataset branch` lists them")
        return Version(cid, await self.commit(cid), name, branch)

    async def _on_ledger(self, name: str, version: int | None, progress: Progress) -> Version:
        root = await self._door.look_up(name, version, progress)
        if cids.codec(root) != cids.DAG_CBOR:
            message = f"{name} points to content without a history"
            raise UsageError(message, f"fetch it: swarm fetch {name}")
        return Version(root, await self.commit(root), name, is_remote=True)

    async def _by_cid(self, word: str, marker: Marker | None) -> Cid | None:
        try:
            cid = cids.parse(word)
        except CidError:
            return await self._by_prefix(word, marker)
        if cids.codec(cid) != cids.DAG_CBOR:
            message = f"{word} is content, and no commit"
            raise UsageError(message, f"get it: swarm get {word}")
        return cid

    async def _by_prefix(self, word: str, marker: Marker | None) -> Cid | None:
        is_prefix = word.startswith("bafyrei") and len(word) >= MIN_PREFIX
        if marker is None or not is_prefix or not self._repository.has(marker.dataset):
            return None
        dataset = self._repository.load(marker.dataset)
        heads = {*dataset.branches.values(), *([marker.commit] if marker.commit else [])}
        matching: set[Cid] = set()
        for head in heads:
            found = await self.ask(history.log(head), head)
            matching |= {cid for cid, _ in found if cids.text(cid).startswith(word)}
        if len(matching) > 1:
            message = f"{word} is the beginning of {len(matching)} commits"
            raise UsageError(message, "write more of it")
        return next(iter(matching), None)
