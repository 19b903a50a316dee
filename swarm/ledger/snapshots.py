"""What this node keeps for newcomers, and for how long: implements `protocols.sync.snapshots.SnapshotSource`.

At the end of each epoch the state is cut into a file (`storage.snapshot_file`), from a read of the database that lasts
as long as the writing; blocks go on meanwhile and nothing is added to their cost. The last two files are kept, and up to
two older ones while somebody fetches them: a newcomer with a slow line would have to begin anew each time.
Blocks are removed when those who signed them can no longer be punished; hand-offs are kept for ever.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

import structlog
import trio

from protocols.consensus.blocks import Block
from storage import snapshot_file
from storage.errors import StorageError
from storage.snapshot_file import SnapshotFile
from storage.state_range import CUT_BYTES
from swarm.ledger import validators
from swarm.ledger.handoff import Handoff
from swarm.ledger.transactions import transaction_id

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from storage.state_store import StateStore, View
    from swarm.ledger.application import LedgerApplication
    from swarm.ledger.genesis import Params

_log = structlog.get_logger("swarm.ledger.snapshots")

KEPT_SNAPSHOTS: Final = 2
KEPT_IN_USE: Final = 4
"""With older ones that are being fetched."""
IN_USE_SECONDS: Final = 300.0
"""Since a range of a snapshot was asked for."""
PRUNED_AT_ONCE: Final = 32
"""Blocks that one transaction removes; a commit waits for it."""
_SUFFIX: Final = ".snapshot"


def kept_blocks(params: Params) -> int:
    """How many blocks a node keeps that is not an archive.

    For as long as stake that signed a block can be slashed, and three epochs beside: its certificates are evidence
    until then, and a node that was away for so long comes back by blocks alone.
    """
    epochs = (validators.EPOCHS_AHEAD + 1) * params.epoch_length
    return max(params.unbonding, epochs) + epochs


class Snapshots:
    """The files of one node; the reading methods may be called from any thread.

    Args:
        folder: Their own; made if need be.
        ledger: Whose state is kept.
        store: What the ledger stands on.
        archive: Blocks are never removed.
        cut_bytes: Of a range.
        clock: Seconds of any clock that does not go back.
    """

    def __init__(
        self,
        folder: Path,
        ledger: LedgerApplication,
        store: StateStore,
        *,
        archive: bool = False,
        cut_bytes: int = CUT_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folder = folder
        self._ledger = ledger
        self._store = store
        self._archive = archive
        self._cut_bytes = cut_bytes
        self._lock = threading.Lock()
        self._limiter = trio.CapacityLimiter(1)
        self._due: tuple[int, View] | None = None
        self._files: dict[int, SnapshotFile] = {}
        self._clock = clock
        self._asked: dict[int, float] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.glob("*" + snapshot_file.PART):
            path.unlink()
        for path in folder.glob("*" + _SUFFIX):
            self._open(path)

    async def run(self) -> None:
        """Write a snapshot at the end of each epoch, and prune, until cancelled.

        Start it when the node has caught up: the states on the way there are of no use to anybody.
        """
        token = trio.lowlevel.current_trio_token()
        wake = trio.Event()

        def due(height: int, view: View) -> None:
            self._due = (height, view)
            token.run_sync_soon(lambda: wake.set())  # the event of then, not of now

        self._ledger.on_boundary = due
        try:
            tip = self._ledger.finalized()
            if tip.height and tip.height % self._ledger.epoch_length == 0:
                due(tip.height, self._store.view())
            while True:
                await trio.to_thread.run_sync(self.keep, limiter=self._limiter)
                await wake.wait()
                wake = trio.Event()
        finally:
            self._ledger.on_boundary = lambda _height, _view: None

    def keep(self) -> None:
        """Write the snapshot that is due, and remove what is no longer kept."""
        due, self._due = self._due, None
        if due is not None and due[0] not in self._files:
            try:
                self.write(*due)
            except (StorageError, OSError) as error:  # there is another at the next epoch's end
                _log.warning("snapshot.failed", height=due[0], error=str(error))
        del due  # the view holds pages of the database
        self.prune()

    def write(self, height: int, view: View) -> None:
        """Write the snapshot of a height, and remove the oldest.

        Raises:
            StorageError: The state can no longer be read.
            OSError: The disk fails.
        """
        path = self._folder / f"{height:020d}{_SUFFIX}"
        ranges = snapshot_file.write(path, view, height, cut_bytes=self._cut_bytes)
        self._open(path)
        _log.info("snapshot.written", height=height, ranges=ranges, bytes=path.stat().st_size)

    def prune(self) -> int:
        """Remove the blocks that are no longer kept; how many."""
        if self._archive:
            return 0
        below = self._ledger.finalized_height() + 1 - kept_blocks(self._ledger.genesis.params)
        removed = 0
        while (count := self._store.prune(below, PRUNED_AT_ONCE, self._notes)) > 0:
            removed += count
        return removed

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()

    # What peers ask

    def first_block(self) -> int:
        """From this height on every block is held."""
        return self._ledger.first_block()

    def snapshots(self) -> list[int]:
        """Heights of the snapshots that are ready, the newest first."""
        with self._lock:
            return sorted(self._files, reverse=True)

    def handoffs(self, epoch: int, limit: int) -> list[bytes]:
        """Hand-offs from an epoch on; fewer where fewer are held."""
        found: list[bytes] = []
        for one in range(epoch, epoch + limit):
            data = self._ledger.handoff(one)
            if data is None:
                break
            found.append(data)
        return found

    def ranges(
        self, height: int, first: bytes, last: bytes, limit: int
    ) -> tuple[list[bytes], bytes | None]:
        """Ranges of a snapshot from a path to another, and the path of the next one, if it is within."""
        with self._lock:
            file = self._files.get(height)
            if file is None:
                return [], None
            self._asked[height] = self._clock()
            start, end = file.at(first), file.at(last) + 1
            stop = min(end, start + limit)
            found = [file.range(place) for place in range(start, stop)]
            return found, file.first(stop) if stop < end else None

    # Inside

    def _open(self, path: Path) -> None:
        try:
            file = SnapshotFile(path)
        except (StorageError, OSError) as error:
            _log.warning("snapshot.refused", path=str(path), error=str(error))
            path.unlink(missing_ok=True)
            return
        data = self._ledger.handoff(validators.epoch_of(file.height, self._ledger.epoch_length))
        known = data is not None and Handoff.decode(data).header.state_root == file.root
        with self._lock:
            if known:
                self._files[file.height] = file
            else:
                file.close()
                path.unlink()
            for height in self._gone():
                old = self._files.pop(height)
                self._asked.pop(height, None)
                old.close()
                old.path.unlink(missing_ok=True)

    def _gone(self) -> list[int]:
        """Heights of the files that are not kept any more; the lock is held."""
        long_ago = self._clock() - IN_USE_SECONDS
        newest_first = sorted(self._files, reverse=True)
        kept, older = newest_first[:KEPT_SNAPSHOTS], newest_first[KEPT_SNAPSHOTS:]
        first = self._ledger.first_block()  # who lands below needs another snapshot at once
        in_use = [
            height
            for height in older
            if height + 1 >= first and self._asked.get(height, long_ago) > long_ago
        ]
        kept += in_use[: KEPT_IN_USE - KEPT_SNAPSHOTS]
        return [height for height in newest_first if height not in kept]

    def _notes(self, block: bytes) -> list[bytes]:
        inside = self._ledger.transactions_of(Block.decode(block))
        return [transaction_id(data) for data in inside]
