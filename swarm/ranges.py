"""Parts of what the swarm holds: a path, a range of a file, a CAR file; only the chunks that these need are fetched.

A plan names the chunks that are missing as far as is known; they are fetched, each alone, and the plan is asked again
until nothing is missing. So memory holds a window of a file and never the file.
"""

from __future__ import annotations

from contextlib import aclosing
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, TypeVar, cast

import trio

from protocols.exchange.service import PATIENCE_SECONDS
from storage import car, unixfs
from storage import cid as cids
from storage.chunks import MAX_CHUNK_BYTES
from storage.errors import ChunkNotFoundError, CorruptChunkError, StorageError
from swarm.versions import commit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Sequence

    from protocols.exchange.service import ExchangeService
    from protocols.transport import PeerId, Transport
    from storage.blockstore import Blockstore
    from storage.cid import Cid
    from storage.dag_pb import Link
    from storage.unixfs import Entry

_T = TypeVar("_T")

WINDOW_BYTES = 4 * 2**20
"""Of a file, in memory at a time."""
AT_ONCE = 8
"""Chunks fetched at a time for one reading."""
LOOKUP_SECONDS = 5.0
"""For provider records of the root."""
MAX_ROUNDS = 1_024
"""Of asking a plan; each brings what it named, so only a store that loses chunks needs more."""
BLOCK, ENTITY, ALL = "block", "entity", "all"
"""Scopes of a CAR file: one chunk, one file or folder without what is in it, everything below."""


class Ranges:
    """Reads content by its root.

    Args:
        exchange: Fetches what is not held.
        store: What is held.
        transport: Where providers of a root are looked for.
        limiter: Threads for the disk; None takes Trio's.
        patience: Seconds without a chunk until one is given up.
    """

    def __init__(
        self,
        exchange: ExchangeService,
        store: Blockstore,
        transport: Transport,
        limiter: trio.CapacityLimiter | None = None,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        self.exchange = exchange
        self.store = store
        self.transport = transport
        self.limiter = limiter
        self.patience = patience

    def of(self, root: Cid) -> Reading:
        """A reading of what is below a root, whose providers hold the rest too."""
        return Reading(self, root)


class Reading:
    """One reader's work on one root.

    Args:
        ranges: What it reads with.
        root: Whose providers are asked.
    """

    def __init__(self, ranges: Ranges, root: Cid) -> None:
        self.root = root
        self._with = ranges
        self._store = ranges.store
        self._providers: Sequence[PeerId] | None = None

    async def resolve(self, path: str) -> Cid:
        """What stands at a path below the root.

        Raises:
            PathNotFoundError: Nothing does.
            ExchangeError: A chunk on the way cannot be fetched; so every method here.
        """
        find = partial(unixfs.resolve, self.root, path, self._store)
        return await self._when_here(
            partial(unixfs.plan_resolve, self.root, path, self._store), find
        )

    async def find(self, path: str) -> Cid:
        """As `resolve`; below a commit of a dataset, paths lead into the files of that version.

        Raises:
            CommitError: The root is of a commit's kind, and none.
        """
        if cids.codec(self.root) != cids.DAG_CBOR:
            return await self.resolve(path)
        tree = commit.decode(self.root, await self.block(self.root)).root  # checks who signed it
        find = partial(unixfs.resolve, tree, path, self._store)
        return await self._when_here(partial(unixfs.plan_resolve, tree, path, self._store), find)

    async def look(self, cid: Cid) -> Entry:
        """What a root is: its kind, size and mode."""
        return await self._when_here(
            partial(self._store.missing, [cid]), partial(unixfs.look, cid, self._store)
        )

    async def listing(self, cid: Cid) -> list[Entry]:
        """What stands in a folder, each entry looked at."""
        return await self._when_here(
            partial(unixfs.plan_listing, cid, self._store),
            partial(unixfs.listing, cid, self._store),
        )

    async def names(self, cid: Cid, most: int) -> list[Link]:
        """What stands in a folder, by name and up to so many; no entry is looked at."""
        return await self._when_here(
            partial(unixfs.plan_range, cid, self._store),
            lambda: list(islice(unixfs.names(cid, self._store), most)),
        )

    async def block(self, cid: Cid) -> bytes:
        """One chunk."""
        return await self._when_here(
            partial(self._store.missing, [cid]), partial(self._store.get, cid)
        )

    async def read(self, cid: Cid, start: int, length: int) -> AsyncGenerator[bytes, None]:
        """Bytes of a file, from `start`, a window at a time; fewer than `length` where it ends."""
        end = min(start + length, (await self.look(cid)).size)
        for at in range(start, end, WINDOW_BYTES):
            window = at, min(WINDOW_BYTES, end - at)
            plan = partial(unixfs.plan_range, cid, self._store, *window)
            read = partial(unixfs.read_range, cid, self._store, *window)
            yield await self._when_here(plan, partial(_whole, read))

    async def car(
        self, path: str, scope: str = ALL, start: int = 0, length: int | None = None
    ) -> AsyncGenerator[bytes, None]:
        """A CAR file with what proves a path, and what stands there; each chunk once, depth first.

        Args:
            path: Below the root.
            scope: `BLOCK`, `ENTITY` or `ALL`.
            start: Of an entity that is a file, the first byte.
            length: How many bytes of it; None is to its end.
        """
        end = await self.resolve(path)
        proof = [cid for cid in await self._thread(partial(self._proof, path)) if cid != end]
        await self.block(end)
        yield car.header([end])
        for cid in proof:
            yield car.section(cid, await self.block(cid))
        if scope == BLOCK:
            chosen = self._one(end)
        elif scope == ENTITY:
            chosen = self._entity(end, start, length)
        else:
            chosen = self._all(end)
        async with aclosing(chosen) as found:
            async for cid in found:
                if cid not in proof:
                    yield car.section(cid, await self.block(cid))

    async def _one(self, cid: Cid) -> AsyncGenerator[Cid, None]:
        yield cid

    async def _entity(self, cid: Cid, start: int, length: int | None) -> AsyncGenerator[Cid, None]:
        found = await self.look(cid)
        size = found.size if found.kind == "file" else 0
        end = size if length is None else min(start + length, size)
        seen: set[Cid] = set()
        for at in range(start, max(end, start + 1), WINDOW_BYTES):
            window = at, max(0, min(WINDOW_BYTES, end - at))
            plan = partial(unixfs.plan_range, cid, self._store, *window)
            chunks = partial(unixfs.entity, cid, self._store, *window)
            for one in await self._when_here(plan, partial(_listed, chunks)):
                if one not in seen:
                    seen.add(one)
                    yield one

    async def _all(self, cid: Cid) -> AsyncGenerator[Cid, None]:
        order = car.Order([cid])
        while (one := order.next()) is not None:
            if await self._thread(partial(self._store.missing, [one])):
                ahead = order.coming(AT_ONCE - 1)
                await self._bring(await self._thread(partial(self._store.missing, [one, *ahead])))
            yield one
            block = await self.block(one)
            await self._thread(partial(order.push, one, block))

    def _proof(self, path: str) -> list[Cid]:
        """The chunks that lead to a path, in their order."""
        tracing = _Tracing(self._store)
        unixfs.resolve(self.root, path, cast("Blockstore", tracing))
        return list(dict.fromkeys(tracing.seen))

    async def _when_here(self, plan: Callable[[], list[Cid]], work: Callable[[], _T]) -> _T:
        """Fetch what the plan lacks, then work in a thread; again if the store lost a chunk meanwhile."""
        for _ in range(MAX_ROUNDS):
            try:
                if missing := await self._thread(plan):
                    await self._bring(missing)
                else:
                    return await self._thread(work)
            except (ChunkNotFoundError, CorruptChunkError):
                continue
        message = f"chunks of {cids.text(self.root)} are lost as fast as they come"
        raise StorageError(message)

    async def _bring(self, missing: Sequence[Cid]) -> None:
        """Fetch some chunks, each alone.

        Raises:
            ExchangeError: The first failure.
        """
        if self._providers is None:
            self._providers = []
            with trio.move_on_after(LOOKUP_SECONDS):
                self._providers = await self._with.transport.find_providers(self.root)
        failures: list[Exception] = []
        places = trio.CapacityLimiter(AT_ONCE)

        async def fetch(cid: Cid) -> None:
            try:
                async with places:
                    await self._with.exchange.fetch(
                        cid,
                        self._providers,
                        max_bytes=MAX_CHUNK_BYTES,
                        patience=self._with.patience,
                        alone=True,
                    )
            except Exception as error:  # noqa: BLE001 - raised again outside the nursery, so that it is no group
                failures.append(error)
                nursery.cancel_scope.cancel()

        async with trio.open_nursery() as nursery:
            for cid in missing:
                nursery.start_soon(fetch, cid)
        if failures:
            raise failures[0]

    async def _thread(self, work: Callable[[], _T]) -> _T:
        return await trio.to_thread.run_sync(work, limiter=self._with.limiter)


def _whole(read: Callable[[], Iterator[bytes]]) -> bytes:
    return b"".join(read())


def _listed(find: Callable[[], Iterator[Cid]]) -> list[Cid]:
    return list(find())


class _Tracing:
    """A store that notes what is read of it."""

    def __init__(self, store: Blockstore) -> None:
        self._store = store
        self.seen: list[Cid] = []

    def get(self, cid: Cid) -> bytes:
        self.seen.append(cid)
        return self._store.get(cid)
