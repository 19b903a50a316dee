"""An answer that is sent while it is made, and ends with its client."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from starlette.types import Receive, Scope, Send

_log = structlog.get_logger("swarm.gateway")


class Stream:
    """An ASGI response that sends what a generator gives, and closes it when the client goes.

    Args:
        body: The bytes; None for an answer to `HEAD`.
        headers: As they are sent.
        status: Of HTTP.
    """

    def __init__(
        self,
        body: AsyncGenerator[bytes, None] | None,
        headers: Mapping[str, str],
        status: int = 200,
    ) -> None:
        self._body = body
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._status = status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; a fault after the first byte breaks the connection off."""
        del scope
        start = {"type": "http.response.start", "status": self._status, "headers": self._headers}
        await send(start)
        if self._body is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel_when_gone, receive, nursery.cancel_scope)
                await self._send_body(self._body, send)
                nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_body(self, body: AsyncGenerator[bytes, None], send: Send) -> None:
        try:
            async with aclosing(body) as parts:
                async for part in parts:
                    await send({"type": "http.response.body", "body": part, "more_body": True})
        except Exception as error:
            _log.warning("gateway.broken_off", error=str(error))
            raise


async def cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel what works for a client when it goes."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
