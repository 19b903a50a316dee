"""Background tasks of a node: one that fails does not end a node that keeps data for others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_log = structlog.get_logger("swarm.node")

AGAIN_SECONDS: Final = 5.0
"""Before a task that failed is run again."""


async def again_and_again(
    task: Callable[[], Awaitable[None]], after: trio.Event | None = None
) -> None:
    """Run a task to its end, and again when it fails.

    Consensus and sync are not run so: a ledger that refuses what is final has to stop.

    Args:
        task: What to do.
        after: Waited for first, each time.
    """
    while True:
        if after is not None:
            await after.wait()
        try:
            await task()
        except Exception:  # noqa: BLE001 - the boundary of one background task
            _log.exception("task.failed", task=getattr(task, "__qualname__", repr(task)))
        else:
            return
        await trio.sleep(AGAIN_SECONDS)
