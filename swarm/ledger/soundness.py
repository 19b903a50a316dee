"""Whether the ledger's state on this disk is what it was: looked through while the node runs, and said aloud if not.

A state that is too large to be read before the node starts is checked a step at a time, at `SHARE` of a core. A node whose
state turns out to be damaged stops voting, since a state that is wrong makes wrong blocks, and says what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

from storage.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.state_store import StateStore

_log = structlog.get_logger("swarm.ledger.soundness")

SHARE: Final = 0.1
"""Of a core, that the check takes at most."""
LEAST_REST_S: Final = 0.01
"""Between two steps."""


class Soundness:
    """The state of one node.

    Args:
        store: Where it is.
        on_damage: Told once, when it is found to be damaged.
    """

    def __init__(self, store: StateStore, on_damage: Callable[[], None]) -> None:
        self._store = store
        self._on_damage = on_damage
        self._limiter = trio.CapacityLimiter(1)
        self._damage: str | None = None

    @property
    def problem(self) -> str | None:
        """What is wrong now and what to do; None if nothing is known to be."""
        if self._damage is not None:
            return f"this node does not vote any more: {self._damage}"
        lost = self._store.lost
        if lost is None:
            return None
        return (
            f"the ledger on this disk has lost what came after block {self._store.height:,}, up to block "
            f"{lost.height:,}: the disk or its power failed; the blocks come again from the votes' log or from peers"
        )

    async def run(self) -> None:
        """Say what was lost, and check what was not checked; returns when that is done."""
        lost = self._store.lost
        if lost is not None:
            _log.warning("state.behind", height=self._store.height, was=lost.height)
        if self._store.is_checked:
            return
        steps = self._store.check()
        try:
            while await self._step(steps):
                pass
        except LogError as error:
            self._damage = str(error)
            _log.exception("state.damaged")
            self._on_damage()
        else:
            _log.info("state.checked", height=self._store.height)

    async def _step(self, steps: Iterator[None]) -> bool:
        """Take one step, and rest for as long as the share asks; False when there is no more."""
        began = trio.current_time()
        more = await trio.to_thread.run_sync(lambda: next(steps, steps), limiter=self._limiter)
        took = trio.current_time() - began
        await trio.sleep(max(LEAST_REST_S, took * (1 / SHARE - 1)))
        return more is not steps
