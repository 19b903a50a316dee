"""The body of a request: how large it may be, and how long it may take to come.

What says of itself that it is too large is refused before a byte of it is read.
"""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import trio

from swarm.control.told import JsonAnswer
from swarm.errors import NetworkError, UsageError

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS: Final = 30.0
"""From a request's head to the end of its body."""
MAX_DIGITS: Final = 18
"""Of a `Content-Length`."""
TOO_LATE: Final = 408
TOO_LARGE: Final = 413


class TooLargeError(UsageError):
    """The request has a larger body than its route takes."""


async def read(request: Request, most: int) -> bytes:
    """The whole body, of at most so many bytes.

    Raises:
        TooLargeError: It is larger, or says so.
    """
    message = f"the request has more than {most:,} bytes"
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) <= MAX_DIGITS):
        raise TooLargeError(message)
    if int(length) > most:
        raise TooLargeError(message)
    body = bytearray()
    async with aclosing(request.stream()) as parts:
        async for part in parts:
            body += part
            if len(body) > most:
                raise TooLargeError(message)
    return bytes(body)


class InTime:
    """An ASGI application in front of another: a body that does not come in time is not waited for.

    Args:
        app: Whom it stands before.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        deadline = trio.current_time() + BODY_SECONDS
        is_whole = has_begun = False

        async def receive_in_time() -> Message:
            nonlocal is_whole
            if is_whole:
                return await receive()
            with trio.move_on_at(deadline):
                message = await receive()
                is_whole = not message.get("more_body", False)
                return message
            late.cancel()
            await trio.lowlevel.checkpoint()  # where the cancellation is met
            raise AssertionError

        async def send_noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        with trio.CancelScope() as late:
            await self._app(scope, receive_in_time, send_noting)
        if late.cancelled_caught and not has_begun:
            error = NetworkError(f"the request did not come within {BODY_SECONDS:.0f} s")
            headers = {"cache-control": "no-store", "connection": "close"}
            answer = JsonAnswer({"error": error.to_json()}, TOO_LATE, headers)
            await answer(scope, receive, send)
