"""What is lost below a root, by path; and bringing exactly that from peers.

A walk says what a root names and this node cannot give. Below a pin everything is to be here; below a hold, and in the versions
before the one that is kept, only what once was: a fetch may be under way, and old versions need not be fetched.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from protocols.bitswap.errors import BitswapError
from protocols.exchange import notes
from protocols.exchange.errors import ExchangeError
from storage import cid as cids
from storage import dag
from storage.chunks import MAX_CHUNK_BYTES
from storage.errors import (
    ChunkNotFoundError,
    CorruptChunkError,
    ManifestError,
    QuotaError,
    StorageError,
)
from storage.unixfs_nodes import Kind, read_node
from swarm.store.reading import Read

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from protocols.exchange.service import ExchangeService
    from protocols.progress import Tell
    from protocols.transport import PeerId, Transport
    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from swarm.store.reading import Count

AT_ONCE = 8
"""Chunks fetched at a time."""
LOOKUP_SECONDS = 10.0
"""For provider records of a root."""
MAX_FAILURES = 32
"""Chunks of a root that cannot be fetched before the rest is given up, unless one came in between."""
MAX_ROUNDS = 1_024
"""Of looking what else is lost below what came."""
SLOT_CHARACTERS = 2
"""Before each name in a shard of a large folder."""


@dataclass(frozen=True, slots=True)
class Lost:
    """A chunk that a root names and this node cannot give.

    Attributes:
        path: Where it belongs, below the root.
        cid: Its name.
        is_understood: False if it is held, and nobody here can tell what it names: fetching it again is no help.
    """

    path: str
    cid: Cid
    is_understood: bool = True


def read_below(root: Cid, store: SegmentBlockstore, tell: Count, *, is_whole: bool) -> Read:
    """Read every chunk again that the store holds below a root."""
    try:
        total = dag.tree_size(root, store.get(root)) or 0
    except (ChunkNotFoundError, CorruptChunkError, ManifestError):
        total = 0
    read = Read(lambda size: tell(size, max(size, total)))
    for _ in lost_below(root, store, is_whole=is_whole, read=read):
        pass
    return read


def lost_below(
    root: Cid,
    store: SegmentBlockstore,
    *,
    is_whole: bool,
    read: Read | None = None,
    pause: Callable[[], None] = lambda: None,
) -> Iterator[Lost]:
    """Each chunk that is lost below a root, once, as far as the nodes that are held tell.

    Args:
        root: Where to begin.
        store: What is held.
        is_whole: Whether everything below is to be here, and not only what was once.
        read: Read each chunk again, and note there what comes of it.
        pause: Called before each chunk; it may end the walk by raising.
    """
    damaged = store.damaged
    seen = {root}
    stack = [(root, "", is_whole)]
    while stack:
        pause()
        cid, path, is_due = stack.pop()
        if cids.codec(cid) == cids.RAW:
            if read is not None and store.has(cid):
                read.take(store, cid)
            if not store.has(cid) and (is_due or cid in damaged()):
                yield Lost(path, cid)
            continue
        try:
            children = _children(cid, store, path, read)
        except (ChunkNotFoundError, CorruptChunkError):
            if is_due or cid in damaged():
                yield Lost(path, cid)
            continue
        except ManifestError:
            yield Lost(path, cid, is_understood=False)
            continue
        is_version = cids.codec(cid) == cids.DAG_CBOR
        for child, below in reversed(children):
            if child not in seen:
                seen.add(child)
                is_older = is_version and cids.codec(child) == cids.DAG_CBOR
                stack.append((child, below, is_due and not is_older))


def _children(
    cid: Cid, store: SegmentBlockstore, path: str, read: Read | None
) -> list[tuple[Cid, str]]:
    """What a node names, each with its path."""
    if read is not None and store.has(cid):
        read.take(store, cid)
    block = store.get(cid)
    links = dag.links(cid, block)
    if cids.codec(cid) != cids.DAG_PB:
        return [(link.cid, path) for link in links]
    kind = read_node(cid, block).kind
    if kind is Kind.SHARD:
        return [(link.cid, _join(path, link.name[SLOT_CHARACTERS:])) for link in links]
    return [(link.cid, _join(path, link.name)) for link in links]


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path and name else path or name


class Repair:
    """Brings lost chunks from peers.

    Args:
        exchange: Fetches them.
        store: Where they go.
        transport: Where providers are looked for.
        limiter: Threads for the disk; None takes Trio's.
    """

    def __init__(
        self,
        exchange: ExchangeService,
        store: SegmentBlockstore,
        transport: Transport,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._exchange = exchange
        self._store = store
        self._transport = transport
        self._limiter = limiter

    async def mend(
        self,
        root: Cid,
        lost: Sequence[Lost],
        progress: Tell,
        *,
        is_whole: bool,
    ) -> dict[Cid, str]:
        """Fetch what is lost below a root, and what shows to be lost once that is here.

        Args:
            root: Whose providers are asked.
            lost: What `lost_below` found.
            progress: Told (chunks that came, chunks in total, from whom they come or why none do).
            is_whole: As for `lost_below`.

        Returns:
            Why each chunk could not be had that could not.

        Raises:
            QuotaError: There is no room for them.
        """
        providers: list[PeerId] = []
        progress(0, len(lost), notes.LOOKING)
        with trio.move_on_after(LOOKUP_SECONDS):
            providers = await self._transport.find_providers(root)
        failed: dict[Cid, str] = {}
        came = 0

        def tell(more: int, note: str) -> None:
            progress(came + more, came + len(wanted), note)

        with await trio.to_thread.run_sync(
            self._store.lease, "repair", root, limiter=self._limiter
        ):
            for _ in range(MAX_ROUNDS):
                wanted = [one.cid for one in lost if one.is_understood and one.cid not in failed]
                if not wanted:
                    break
                failed |= await self._bring(wanted, providers, tell)
                came += sum(cid not in failed for cid in wanted)
                lost = await self.look(root, is_whole=is_whole)
        return failed

    async def look(self, root: Cid, *, is_whole: bool) -> list[Lost]:
        """What is lost below a root, as `lost_below` finds it."""

        def all_lost() -> list[Lost]:
            pause = trio.from_thread.check_cancelled
            return list(lost_below(root, self._store, is_whole=is_whole, pause=pause))

        return await trio.to_thread.run_sync(all_lost, limiter=self._limiter)

    async def _bring(
        self, wanted: Collection[Cid], providers: Sequence[PeerId], tell: Callable[[int, str], None]
    ) -> dict[Cid, str]:
        """Fetch chunks, each alone; why it did not work, of those that did not come.

        Raises:
            QuotaError: The first refusal.
        """
        failed: dict[Cid, str] = {}
        refused: list[QuotaError] = []
        left = iter(wanted)
        count: Counter[str] = Counter()

        def tell_note(_done: int, _total: int, note: str = "", /) -> None:
            tell(count["came"], note)

        async def fetch_some() -> None:
            for cid in left:
                if count["in a row"] >= MAX_FAILURES:
                    failed[cid] = "given up: too much of it cannot be fetched"
                    continue
                try:
                    await self._exchange.fetch(
                        cid, providers, tell_note, max_bytes=MAX_CHUNK_BYTES, alone=True
                    )
                except QuotaError as error:
                    refused.append(error)
                    nursery.cancel_scope.cancel()
                except (ExchangeError, BitswapError, StorageError) as error:
                    failed[cid] = str(error)
                    count["in a row"] += 1
                else:
                    count["came"] += 1
                    count["in a row"] = 0
                    tell(count["came"], "")

        async with trio.open_nursery() as nursery:
            for _ in range(AT_ONCE):
                nursery.start_soon(fetch_some)
        if refused:
            raise refused[0]
        came = [cid for cid in wanted if cid not in failed]
        await trio.to_thread.run_sync(self._put_back, came, limiter=self._limiter)
        return failed

    def _put_back(self, came: Collection[Cid]) -> None:
        """Seal what lay in slots into them again; the store gives it until then, and where that fails."""
        beside = self._store.beside
        if beside is None:
            return
        for cid in came:
            with suppress(StorageError, OSError):
                beside.mend(cid)
