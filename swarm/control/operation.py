"""A long operation as a response: NDJSON events while it runs, cancelled when the client goes away."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import trio

from swarm.control.faults import translate
from swarm.control.told import encode
from swarm.errors import SwarmError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import Message, Receive, Scope, Send

    from swarm.control.api import Progress

PROGRESS_SECONDS = 0.1
"""No more often than this is progress told; of each stage what lies between is left out, and its end never."""

ALIVE_SECONDS = 5
"""With nothing to tell, an `alive` event this often says that the node still works on it."""

log = logging.getLogger(__name__)


class Operation:
    """An ASGI response that runs an operation and tells how it goes.

    Args:
        work: Given the progress function, returns what the `result` event carries.
    """

    def __init__(self, work: Callable[[Progress], Awaitable[Any]]) -> None:
        self._work = work
        self._progress: dict[str, tuple[int, int, str]] = {}
        self._changed = trio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        del scope
        headers = [(b"content-type", b"application/x-ndjson"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
            event = await self._run_beside_teller(send)
            await self._flush(send)
            await send(event)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            nursery.cancel_scope.cancel()

    async def _run_beside_teller(self, send: Send) -> Message:
        async with trio.open_nursery() as teller:
            teller.start_soon(self._tell, send)
            try:
                event = _message({"event": "result", "value": await self._work(self._note)})
            except Exception as error:  # noqa: BLE001 - the boundary: each becomes an answer
                event = _message({"event": "error", "error": told(error).to_json()})
            teller.cancel_scope.cancel()
        return event

    def _note(self, stage: str, done: int, total: int, note: str = "", /) -> None:
        self._progress[stage] = (done, total, note)
        self._changed.set()

    async def _tell(self, send: Send) -> None:
        while True:
            with trio.move_on_after(ALIVE_SECONDS):
                await self._changed.wait()
            self._changed = trio.Event()
            with trio.CancelScope(shield=True):  # half a line would spoil the next
                if not await self._flush(send):
                    await send(_message({"event": "alive"}))
            await trio.sleep(PROGRESS_SECONDS)

    async def _flush(self, send: Send) -> bool:
        told, self._progress = self._progress, {}
        for stage, (done, total, note) in told.items():
            event = {"event": "progress", "stage": stage, "done": done, "total": total}
            await send(_message(event | ({"note": note} if note else {})))
        return bool(told)


def told(error: BaseException) -> SwarmError:
    """The error for the client; a bug is written to the log with its trace too."""
    fault = translate(error)
    if type(fault) is SwarmError:
        log.error("control.bug", exc_info=error)
    return fault


def _message(event: dict[str, Any]) -> Message:
    return {"type": "http.response.body", "body": encode(event) + b"\n", "more_body": True}


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            scope.cancel()
            return
