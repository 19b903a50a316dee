"""What a person asks of the store: pin, unpin, list, collect, verify."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import trio

from storage import cid as cids
from storage.errors import FileSystemFullError
from storage.pins import MAX_LABEL_CHARACTERS
from swarm.control.faults import translate
from swarm.datasets import Progress as Counter
from swarm.datasets import is_reserved, told
from swarm.errors import NotFoundError, RefusedError, UsageError
from swarm.sizes import format_size
from swarm.store import reading, repair
from swarm.store.repair import Repair
from swarm.store.sizes import Sizes
from swarm.store.verification import Verification

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from protocols.exchange.service import ExchangeService
    from protocols.transport import Transport
    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from storage.errors import QuotaError
    from swarm.control.api import Json, Progress
    from swarm.store.collector import StoreCollector
    from swarm.store.reading import Count, Read

T = TypeVar("T")

ASKED_DEAD_SHARE = 0.1
"""How much of a segment must be dead for a collection that a person asks for."""
THOROUGH_DEAD_SHARE = 1e-9
"""Any dead byte."""


@dataclass(frozen=True, slots=True)
class Kept:
    """How a root is kept.

    Attributes:
        label: Why.
        is_whole: Whether everything below is to be here.
    """

    label: str
    is_whole: bool


class StoreOperations:
    """A person's door to the store of one node.

    Args:
        store: The store.
        exchange: Fetches what it lacks.
        transport: Where what is pinned is announced.
        collector: Collects in it.
        limiter: Threads for the disk; None takes Trio's.
        let_go: Ends a person's pin, and says what label it has where it stays for a branch; None where there are no branches.
        note: Where it is noted how far a reading of everything came; None: nowhere.
    """

    def __init__(
        self,
        store: SegmentBlockstore,
        exchange: ExchangeService,
        transport: Transport,
        collector: StoreCollector,
        limiter: trio.CapacityLimiter | None = None,
        let_go: Callable[[Cid], Awaitable[str | None]] | None = None,
        note: Path | None = None,
    ) -> None:
        self._store = store
        self._exchange = exchange
        self._transport = transport
        self._collector = collector
        self._limiter = limiter
        self._let_go = let_go if let_go is not None else self._unpin
        self._note = note
        self._sizes = Sizes(store)
        self._counting = trio.Lock()

    async def pin(self, root: Cid, label: str | None, progress: Progress) -> Json:
        """Fetch what a root names, keep it until it is unpinned, and announce it.

        What a branch points to is the person's from then on, and stays when the branch has moved on or is removed.

        Returns:
            `cid`, `label`, `size` (None where it is not known), `fetched` (bytes from peers).

        Raises:
            ExchangeError: It could not be fetched; it is not pinned then.
            UsageError: The label cannot be one.
        """
        if label is not None:
            _check_label(label)
        with await self._thread(partial(self._store.lease, "pin", root)):
            fetched = await self._exchange.fetch(root, None, partial(progress, "fetch"))
            if label is None:
                label = (await self._thread(self._store.pins)).get(root, "")
                label = "" if is_reserved(label) else label
            await self._thread(partial(self._store.pin, root, label))
        await self._transport.provide(root)
        async with self._counting:
            size = await self._thread(partial(self._sizes.of, root))
        return {
            "cid": cids.text(root),
            "label": label,
            "size": size.bytes,
            "fetched": fetched.bytes,
        }

    async def unpin(self, root: Cid) -> Json:
        """Let a root go; the next collection takes what nothing else keeps.

        Returns:
            `cid`, `label`, `held_for`: what else keeps it.

        Raises:
            NotFoundError: It is not pinned.
            RefusedError: It is a branch of a dataset, which would be pinned again.
        """
        text = cids.text(root)
        label = (await self._thread(self._store.pins)).get(root)
        held = [why for cid, why in await self._thread(self._store.holds) if cid == root]
        if label is None:
            hint = f"the node keeps it for: {', '.join(held)}" if held else "`swarm ls` lists them"
            message = f"{text} is not pinned"
            raise NotFoundError(message, hint)
        if is_reserved(label):
            message = f"{text} is what a branch of a dataset points to ({label})"
            raise RefusedError(message, "`swarm dataset branch --delete` removes a branch")
        branch = await self._let_go(root)
        if branch is not None:
            held.append(branch)
        self._collector.released()
        return {"cid": text, "label": label, "held_for": held}

    async def _unpin(self, root: Cid) -> None:
        await self._thread(partial(self._store.unpin, root))

    async def listing(self) -> Json:
        """What is kept, and how the room is used.

        Returns:
            `kept`: `cid`, `kind` (`pin` or `hold`), `label`, `size` (None where nobody says), `counted` (whether it was
            counted here, or is only what its author says) each; and `usage`: `lent`, `used`, `free`, `in_place`,
            `reclaimable`, bytes.
        """

        def look() -> Json:
            store = self._store
            kept = [("pin", root, label) for root, label in store.pins().items()]
            kept += [("hold", root, label) for root, label in store.holds()]
            usage = store.usage()
            return {
                "kept": [
                    {
                        "cid": cids.text(root),
                        "kind": kind,
                        "label": label,
                        "size": size.bytes,
                        "counted": size.is_counted,
                    }
                    for kind, root, label in kept
                    for size in (self._sizes.of(root),)
                ],
                "usage": {
                    "lent": usage.limit,
                    "used": usage.used,
                    "free": usage.free,
                    "in_place": usage.in_place,
                    "reclaimable": usage.reclaimable,
                },
            }

        await self._collector.recount()
        async with self._counting:
            return await self._thread(look)

    async def collect(self, progress: Progress, *, is_thorough: bool = False) -> Json:
        """Give back the room of what nothing keeps.

        Args:
            progress: Told of each phase.
            is_thorough: Take also what lies in segments that are mostly alive, however much that copies.

        Returns:
            `freed` (bytes), `dropped` (chunks), `pinned`, `held`, `reclaimable` (bytes that are dead and stay), `damaged`
            (CIDs), `disk_full` (it ended early: no room to copy).

        Raises:
            RefusedError: A node that is kept cannot be read, so nothing was removed.
        """
        share = THOROUGH_DEAD_SHARE if is_thorough else ASKED_DEAD_SHARE
        await self._collector.release()
        done = await self._collector.collect(progress, share)
        if done.unreadable:
            first = cids.text(done.unreadable[0])
            message = (
                f"nothing was removed: {len(done.unreadable):,} manifests that are kept cannot be read,"
                f" so what they name is not known; the first is {first}"
            )
            raise RefusedError(message, "`swarm verify --repair` fetches them again")
        usage = await self._thread(self._store.usage)
        return {
            "freed": done.freed,
            "dropped": done.dropped,
            "pinned": done.pinned,
            "held": done.held,
            "reclaimable": usage.reclaimable,
            "damaged": [cids.text(cid) for cid in done.damaged],
            "disk_full": done.disk_full,
        }

    async def advice(self, error: QuotaError) -> RefusedError:
        """A refusal for want of room, as a person is told it: with what would give some back."""
        if isinstance(error, FileSystemFullError) and not self._store.is_on(error.where):
            return RefusedError(str(error), f"make room on {error.where}, or write elsewhere")
        size = await self._collector.reclaimable()
        told = translate(error)
        if not size:
            return RefusedError(told.message, told.hint)
        hint = f"`swarm gc` gives up to {format_size(size)} back"
        if error.free + size < error.needed:
            hint += f", which is not enough: {told.hint}"
        return RefusedError(told.message, hint)

    async def verify(self, root: Cid | None, progress: Progress, *, is_repair: bool) -> Json:
        """Read everything again, say what is bad, and fetch it if asked; one that was stopped goes on.

        Args:
            root: Only what is below it; None is the whole store.
            progress: Told of bytes read, then of chunks fetched.
            is_repair: Fetch what is bad from peers.

        Returns:
            `chunks`, `bytes` (read), `bytes_earlier` (of these, before it was stopped), `roots` (looked at), `bad`: `root`, `label`, `path`, `chunks` (bad ones), `remaining`
            (of these), `file` (the user's, in which they were; None where they were stored), `why` (they could not be
            fetched; None where nobody tried) each, up to 1,000; `more` (bad paths beyond those), `remaining` (bad chunks
            in all), and `unwanted` (bad chunks that nothing keeps).

        Raises:
            NotFoundError: This node holds nothing of the root.
            QuotaError: What is fetched does not fit.
        """
        mending = Repair(self._exchange, self._store, self._transport, self._limiter)
        verification = Verification()
        kept = await self._thread(self._kept)
        if root is None:
            read = await self._read(partial(reading.read_everything, note=self._note), progress)
        elif root in kept or await self._thread(partial(self._store.has, root)):
            kept = {root: kept.get(root, Kept("", is_whole=True))}
            below = partial(repair.read_below, root, is_whole=kept[root].is_whole)
            read = await self._read(below, progress)
        else:
            message = f"{cids.text(root)} is not held here"
            raise NotFoundError(
                message, "`swarm ls` lists what is; `swarm pin` fetches and keeps it"
            )
        verification.files |= read.files
        for at, (one, how) in enumerate(kept.items()):
            progress("look", at, len(kept))
            lost = await mending.look(one, is_whole=how.is_whole)
            verification.found(one, lost)
            if is_repair and lost:
                tell = partial(progress, "repair")
                why = await mending.mend(one, lost, tell, is_whole=how.is_whole)
                verification.repaired(one, await mending.look(one, is_whole=how.is_whole), why)
        damaged = await self._thread(self._store.damaged)
        return {
            "chunks": read.chunks,
            "bytes": read.size,
            "bytes_earlier": read.earlier,
            "roots": len(kept),
            **verification.report(kept),
            "unwanted": 0 if root is not None else len(damaged - verification.wanted),
        }

    async def _read(
        self, read: Callable[[SegmentBlockstore, Count], Read], progress: Progress
    ) -> Read:
        """Read in a thread, which ends where its task is cancelled."""
        counter = Counter()

        def count(done: int, total: int) -> None:
            trio.from_thread.check_cancelled()
            counter(done, total)

        work = partial(read, self._store, count)
        return await told(counter, partial(progress, "verify"), work, self._limiter)

    def _kept(self) -> dict[Cid, Kept]:
        kept = {root: Kept(label, is_whole=False) for root, label in self._store.holds()}
        pins = self._store.pins().items()
        return kept | {root: Kept(label, is_whole=True) for root, label in pins}

    async def _thread(self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


def _check_label(label: str) -> None:
    if is_reserved(label):
        message = f"--label: {label[:80]!r} is how branches of datasets are pinned"
        raise UsageError(message, "choose another one")
    if len(label) > MAX_LABEL_CHARACTERS:
        message = f"--label: {len(label):,} characters where {MAX_LABEL_CHARACTERS:,} are allowed"
        raise UsageError(message)
