"""Collection: what no pin, hold or lease reaches any more gives its room back.

    collector = Collector(store, links)
    collector.run_once(progress, pause)

It marks what is alive (`storage.marking`), then empties the segments of which a large part is dead
(`storage.compaction`). Nothing waits for it but for the milliseconds in which it drops a few rows, and it writes down
nothing of its own: it may be stopped between any two steps, by a kill too, and begun again.

Dead chunks in segments that are mostly alive stay, and are held for whoever asks, until their segment is worth it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from storage import dag
from storage.compaction import Compaction
from storage.errors import CollectionRunningError, DiskFullError
from storage.index import key
from storage.marking import Marking

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid
    from storage.walk import Links

DEAD_SHARE = 0.5
"""Of a segment must be dead before the rest is copied; then a byte given back costs at most one copied."""


@dataclass(frozen=True, slots=True)
class Step:
    """Where a collection stands.

    Attributes:
        phase: `look` lists the chunks, `mark` walks from the roots, `compact` gives room back.
        done: Chunks in the first two phases, segments in the last.
        total: Of them; 0 while it is not known. A walk may end before it: what is dead is not walked.
    """

    phase: Literal["look", "mark", "compact"]
    done: int
    total: int


@dataclass(slots=True)
class Collected:
    """What came of a collection.

    Attributes:
        pinned: Bytes of chunks that pins reach.
        held: Bytes of chunks that only holds and leases reach.
        dead: Bytes that are dead, by segment, before anything was removed.
        removed: The segments that were removed.
        freed: Bytes of their files, less what was copied out of them.
        dropped: Chunks that are no longer held.
        unreadable: Nodes below a root that are damaged, or that nobody here understands. What they name is not known,
            so nothing was removed: repair them, or unpin their roots.
        damaged: Chunks that live and were found to be damaged.
        disk_full: It ended early because there was no room to copy.
    """

    pinned: int = 0
    held: int = 0
    dead: dict[int, int] = field(default_factory=dict)
    removed: list[int] = field(default_factory=list)
    freed: int = 0
    dropped: int = 0
    unreadable: list[Cid] = field(default_factory=list)
    damaged: list[Cid] = field(default_factory=list)
    disk_full: bool = False


class Collector:
    """Collects in one store, one collection at a time.

    Args:
        store: Where.
        links: What a block names. It raises ManifestError for a node of a kind it does not know: one that it took for
            a leaf would cost everything below.
        dead_share: How much of a segment must be dead before it is compacted, 0 to 1.
    """

    def __init__(
        self,
        store: SegmentBlockstore,
        links: Links = dag.links,
        *,
        dead_share: float = DEAD_SHARE,
    ) -> None:
        self._store = store
        self._links = links
        self._dead_share = dead_share

    def run_once(
        self,
        progress: Callable[[Step], None] | None = None,
        pause: Callable[[], None] | None = None,
    ) -> Collected:
        """Collect once, in the thread that calls.

        Args:
            progress: Told of each step.
            pause: Called after each step, of some milliseconds; it may wait, and ends the collection by raising.

        Raises:
            CollectionRunningError: One is under way.
            StorageError: The disk failed, or the store was closed.
        """
        steps = self.steps()
        try:
            while True:
                step = next(steps)
                if progress is not None:
                    progress(step)
                if pause is not None:
                    pause()
        except StopIteration as end:
            collected: Collected = end.value
            return collected
        finally:
            steps.close()

    def steps(self) -> Generator[Step, None, Collected]:
        """Collect once, a step at a time; closing the generator ends it.

        Raises:
            CollectionRunningError: One is under way.
            StorageError: The disk failed, or the store was closed.
        """
        if not self._store.collecting.acquire(blocking=False):
            message = "a collection of this store is under way"
            raise CollectionRunningError(message)
        try:
            return (yield from self._collect())
        finally:
            self._store.collecting.release()

    def _collect(self) -> Generator[Step, None, Collected]:
        with self._store.leases.watch():
            return (yield from self._mark_and_compact())

    def _mark_and_compact(self) -> Generator[Step, None, Collected]:
        marking = Marking(self._store, self._links)
        for seen in marking.look():
            yield Step("look", seen, 0)
        total = len(marking.places) + len(marking.references)
        done = 0
        for count in marking.walk():
            done += count
            yield Step("mark", min(done, total), total)
        collected = Collected(marking.pinned, marking.held, self._dead(marking))
        if not marking.unreadable:
            self._store.mend(marking.unwanted_damage())
            yield from self._compact(marking, collected)
        collected.unreadable = marking.unreadable
        self._store.count_collected(
            collected.pinned,
            collected.held,
            sum(size for at, size in collected.dead.items() if at not in collected.removed),
        )
        return collected

    def _dead(self, marking: Marking) -> dict[int, int]:
        """Bytes that are not alive, by segment; behind the floor everything is."""
        dead = {}
        for segment, size in self._store.log.sizes().items():
            known = min(size, max(0, marking.floor.place - key(segment, 0)))
            if known > marking.alive[segment]:
                dead[segment] = known - marking.alive[segment]
        return dead

    def _compact(self, marking: Marking, collected: Collected) -> Generator[Step, None, None]:
        compaction = Compaction(self._store, marking)
        sizes = self._store.log.sizes()
        worth = sorted(
            (at for at, dead in collected.dead.items() if dead >= self._dead_share * sizes[at]),
            key=lambda at: sizes[at] - collected.dead[at],
        )
        for _ in compaction.drop_references():
            yield Step("compact", 0, len(worth))
        try:
            for number, segment in enumerate(worth):
                emptying = compaction.empty(segment)
                if not (yield from _as_steps(emptying, number, len(worth))):
                    break
                collected.removed.append(segment)
                collected.freed += sizes[segment]
        except DiskFullError:
            collected.disk_full = True
        finally:
            collected.freed -= compaction.moved
            collected.dropped = compaction.dropped
            collected.damaged = compaction.damaged


def _as_steps(
    emptying: Generator[int, None, bool], number: int, total: int
) -> Generator[Step, None, bool]:
    while True:
        try:
            next(emptying)
        except StopIteration as end:
            return bool(end.value)
        yield Step("compact", number, total)
