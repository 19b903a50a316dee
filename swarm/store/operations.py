"""What a person asks of the store: pin, unpin, list, collect, verify."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import trio

from storage import cid as cids
from storage import dag
from storage.errors import ChunkNotFoundError, CorruptChunkError, ManifestError, QuotaError
from storage.pins import MAX_LABEL_CHARACTERS
from swarm.datasets import Progress as Counter
from swarm.datasets import is_reserved, told
from swarm.errors import NotFoundError, RefusedError, UsageError
from swarm.store import repair, retention
from swarm.store.repair import Lost, Read, Repair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from protocols.exchange.service import ExchangeService
    from protocols.transport import Transport
    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from swarm.control.api import Json, Progress
    from swarm.store.collector import StoreCollector

ASKED_DEAD_SHARE = 0.1
"""How much of a segment must be dead for a collection that a person asks for."""
THOROUGH_DEAD_SHARE = 1e-9
"""Any dead byte."""
MAX_PATHS = 1_000
"""Of bad paths that are told one by one."""


@dataclass(slots=True)
class _Bad:
    """What is bad at one path of one root."""

    root: Cid
    label: str
    path: str
    lost: list[Lost] = field(default_factory=list)
    why: str = ""


class StoreOperations:
    """A person's door to the store of one node.

    Args:
        store: The store.
        exchange: Fetches what it lacks.
        transport: Where what is pinned is announced.
        collector: Collects in it.
        limiter: Threads for the disk; None takes Trio's.
    """

    def __init__(
        self,
        store: SegmentBlockstore,
        exchange: ExchangeService,
        transport: Transport,
        collector: StoreCollector,
        limiter: trio.CapacityLimiter | None = None,
    ) -> None:
        self._store = store
        self._exchange = exchange
        self._transport = transport
        self._collector = collector
        self._limiter = limiter

    async def pin(self, root: Cid, label: str | None, progress: Progress) -> Json:
        """Fetch what a root names, keep it until it is unpinned, and announce it.

        Returns:
            `cid`, `label`, `size` (None where nobody says), `fetched` (bytes from peers).

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
            await self._thread(partial(self._store.pin, root, label))
        await self._transport.provide(root)
        size = await self._thread(partial(_size, root, self._store))
        return {"cid": cids.text(root), "label": label, "size": size, "fetched": fetched.bytes}

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
        await self._thread(partial(self._store.unpin, root))
        self._collector.released()
        return {"cid": text, "label": label, "held_for": held}

    async def listing(self) -> Json:
        """What is kept, and how the room is used.

        Returns:
            `kept`: `cid`, `kind` (`pin` or `hold`), `label`, `size` (None where nobody says) each; and `usage`: `lent`,
            `used`, `free`, `in_place`, `reclaimable` (when it was last counted), bytes.
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
                        "size": _size(root, store),
                    }
                    for kind, root, label in kept
                ],
                "usage": {
                    "lent": usage.limit,
                    "used": usage.used,
                    "free": usage.free,
                    "in_place": usage.in_place,
                    "reclaimable": usage.reclaimable,
                },
            }

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
        """A refusal for want of room, as a person is told it: with what a collection would give back."""
        size = await self._collector.reclaimable()
        if not size:
            hint = "lend more with `swarm join --storage SIZE`, or unpin something: `swarm ls`"
        else:
            hint = f"`swarm gc` gives up to {size:,} bytes back"
        return RefusedError(str(error), hint)

    async def verify(self, root: Cid | None, progress: Progress, *, is_repair: bool) -> Json:
        """Read everything again, say what is bad, and fetch it if asked.

        Args:
            root: Only what is below it; None is the whole store.
            progress: Told of bytes read, then of chunks fetched.
            is_repair: Fetch what is bad from peers.

        Returns:
            `chunks`, `bytes` (read), `roots` (looked at), `bad`: `root`, `label`, `path`, `chunks`, `file` (of the user's,
            in which they were; None where they were stored), `repaired`, `why` (it could not be) each, up to 1,000;
            `more` (bad paths beyond those), `bad_chunks`, `remaining` (of them), `unwanted` (bad, and kept by nothing).
        """
        counter = Counter()
        found: dict[tuple[Cid, str], _Bad] = {}
        if root is None:
            work = partial(repair.read_everything, self._store, _cancellable(counter))
            read = await told(counter, partial(progress, "verify"), work, self._limiter)
            roots = await self._thread(self._roots)
        else:
            read = Read()
            label = (await self._thread(self._store.pins)).get(root, "")
            roots = {root: (label, True)}
        for at, (one, (label, is_whole)) in enumerate(roots.items()):
            progress("look", at, len(roots))
            look = partial(
                self._look, one, is_whole=is_whole, read=read if root is not None else None
            )
            for lost in await self._thread(look):
                bad = found.setdefault((one, lost.path), _Bad(one, label, lost.path))
                bad.lost.append(lost)
        if is_repair:
            await self._mend(found.values(), roots, progress)
        return _report(read, len(roots), list(found.values()), self._store)

    async def _mend(
        self,
        found: Iterable[_Bad],
        roots: dict[Cid, tuple[str, bool]],
        progress: Progress,
    ) -> None:
        by_root: dict[Cid, list[_Bad]] = {}
        for bad in found:
            by_root.setdefault(bad.root, []).append(bad)
        mending = Repair(self._exchange, self._store, self._transport, self._limiter)
        for root, all_bad in by_root.items():
            lost = [one for bad in all_bad for one in bad.lost]
            failed = await mending.mend(
                root, lost, partial(progress, "repair"), is_whole=roots[root][1]
            )
            for bad in all_bad:
                bad.why = next((failed[one.cid] for one in bad.lost if one.cid in failed), "")

    def _roots(self) -> dict[Cid, tuple[str, bool]]:
        """What is kept, each with its label and whether everything below is to be here."""
        roots = {root: (label, False) for root, label in self._store.holds()}
        return roots | {root: (label, True) for root, label in self._store.pins().items()}

    def _look(self, root: Cid, *, is_whole: bool, read: Read | None) -> list[Lost]:
        lost = []
        for one in repair.lost_below(root, self._store, is_whole=is_whole, read=read):
            trio.from_thread.check_cancelled()
            lost.append(one)
        return lost

    async def _thread[T](self, work: Callable[[], T]) -> T:
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


def _cancellable(counter: Counter) -> Callable[[int, int], None]:
    """Counts in a thread, which ends where its task is cancelled."""

    def count(done: int, total: int) -> None:
        trio.from_thread.check_cancelled()
        counter(done, total)

    return count
