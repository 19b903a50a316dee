"""News for every open page: what changed is read once, kept as bytes, and sent to each listener at its own pace.

There is no queue: a listener that is slow is told the newest of each part and not what it missed.
Nothing is read while nobody listens.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from swarm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from starlette.types import Receive, Scope, Send

    Read = Callable[[], Awaitable[Any]]

MAX_LISTENERS: Final = 16
HEARTBEAT_SECONDS: Final = 15.0
"""With nothing to tell, a comment this often shows that the node is there."""
RETRY_MS: Final = 2_000

_log = structlog.get_logger("swarm.page")


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of news.

    Attributes:
        read: Gives what is told, ready for JSON.
        seconds: How often it is read.
    """

    read: Read
    seconds: float


@dataclass(slots=True)
class Listener:
    """One open page: what it was told last of each part."""

    seen: dict[str, int] = field(default_factory=dict)


class Hub:
    """The newest of every part.

    Args:
        parts: By name.
    """

    def __init__(self, parts: Mapping[str, Part]) -> None:
        self._parts = parts
        self._told: dict[str, tuple[int, bytes]] = {}
        self._changed = trio.Event()
        self._wanted = trio.Event()
        self._listeners = 0

    async def run(self) -> None:
        """Read the parts while somebody listens; runs until cancelled."""
        async with trio.open_nursery() as nursery:
            for name, part in self._parts.items():
                nursery.start_soon(self._keep_new, name, part)

    def check_room(self) -> None:
        """Raises where nobody more may listen.

        Raises:
            RefusedError: There are as many as there may be.
        """
        if self._listeners >= MAX_LISTENERS:
            message = f"{MAX_LISTENERS} pages are open already"
            raise RefusedError(message, "close one of them")

    @contextmanager
    def listening(self) -> Iterator[Listener]:
        """Count as a listener while the block runs."""
        self._listeners += 1
        self._wanted.set()
        try:
            yield Listener()
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._wanted = trio.Event()

    async def news(self, listener: Listener) -> list[tuple[str, bytes]]:
        """What the listener has not been told yet; waits until there is something."""
        while True:
            changed = self._changed
            found = [
                (name, data)
                for name, (number, data) in self._told.items()
                if listener.seen.get(name) != number
            ]
            if found:
                listener.seen = {name: number for name, (number, _) in self._told.items()}
                return found
            await changed.wait()

    async def _keep_new(self, name: str, part: Part) -> None:
        while True:
            await self._wanted.wait()
            try:
                data = json.dumps(
                    await part.read(), separators=(",", ":"), allow_nan=False
                ).encode()
            except Exception:  # noqa: BLE001 - one part that fails leaves the others
                _log.exception("page.part_failed", part=name)
            else:
                number, before = self._told.get(name, (0, b""))
                if data != before:
                    self._told[name] = (number + 1, data)
                    self._changed.set()
                    self._changed = trio.Event()
            await trio.sleep(part.seconds)


class Feed:
    """An ASGI response: server-sent events until the client goes.

    Args:
        hub: Whose news.

    Raises:
        RefusedError: As many listen as may.
    """

    def __init__(self, hub: Hub) -> None:
        hub.check_room()
        self._hub = hub

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        del scope
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
        with self._hub.listening() as listener:
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_cancel_when_gone, receive, nursery.cancel_scope)
                await self._tell(listener, send)

    async def _tell(self, listener: Listener, send: Send) -> None:
        await _send(send, f"retry: {RETRY_MS}\n\n".encode())
        while True:
            found: list[tuple[str, bytes]] = []
            with trio.move_on_after(HEARTBEAT_SECONDS):
                found = await self._hub.news(listener)
            body = b"".join(
                b"event: %b\ndata: %b\n\n" % (name.encode(), data) for name, data in found
            )
            await _send(send, body or b": alive\n\n")


async def _send(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


async def _cancel_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
