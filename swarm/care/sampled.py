"""Measures that take longer than a glance: how far the peers are, and how long rounds and tasks take; now and then."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Final

import trio

from swarm.page import latency

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.transport import Transport
    from swarm.ledger.application import LedgerApplication
    from swarm.ledger.state import LedgerView, TaskState

EVERY_SECONDS: Final = 60.0
MAX_LOOKED_AT: Final = 64
"""Newest tasks of which the last round is looked for."""


class Sampled:
    """What was measured last; None where nothing is known yet.

    Args:
        transport: Whose peers are asked.
        ledger: Of which rounds and tasks are taken.
    """

    def __init__(self, transport: Transport, ledger: LedgerApplication) -> None:
        self._transport = transport
        self._ledger = ledger
        self.latencies: list[float] = []
        """Seconds to each peer and back, the nearest first."""
        self.round_seconds: float | None = None
        """The newest round that ended, of any task."""
        self.task_seconds: float | None = None
        """The newest task that is over, from its posting on."""

    async def run(self) -> None:
        """Measure until cancelled."""
        while True:
            self.latencies = sorted((await latency.measure(self._transport)).values())
            await trio.to_thread.run_sync(self._look)
            await trio.sleep(EVERY_SECONDS)

    def quantiles(self) -> dict[str, float]:
        """Of the latencies: the median, and what all but the farthest hundredth are below."""
        if not self.latencies:
            return {}
        last = min(len(self.latencies) - 1, len(self.latencies) * 99 // 100)
        return {"0.5": statistics.median(self.latencies), "0.99": self.latencies[last]}

    def _look(self) -> None:
        view = self._ledger.view()
        round_, task = newest(view, view.tasks())
        self.round_seconds = self._between(round_)
        self.task_seconds = self._between(task)

    def _between(self, heights: tuple[int, int] | None) -> float | None:
        """Seconds between two blocks; None where one is pruned."""
        if heights is None:
            return None
        started, ended = heights
        if started < self._ledger.first_block():
            return None
        first, last = self._ledger.block(started), self._ledger.block(ended)
        return (last.timestamp_ms - first.timestamp_ms) / 1000


def newest(
    view: LedgerView, tasks: Iterable[TaskState]
) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """Heights at which the newest round began and ended, and the newest task that is over; pure.

    Args:
        view: The ledger.
        tasks: All of them.
    """
    rounds: list[tuple[int, int]] = []
    over: list[tuple[int, int]] = []
    for task in sorted(tasks, key=lambda one: one.posted)[-MAX_LOOKED_AT:]:
        settled = view.settled(task.id, task.done)
        if settled is None:
            continue
        rounds.append((settled.settled, settled.started))
        if not task.open:
            over.append((settled.settled, task.posted))
    latest, last = max(rounds, default=None), max(over, default=None)
    return (
        None if latest is None else (latest[1], latest[0]),
        None if last is None else (last[1], last[0]),
    )
