"""Serving the control app on a Unix socket that only this user can open."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.protocol.h11 import H2CProtocolRequiredError, H2ProtocolAssumedError
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState
from hypercorn.utils import wrap_app

from swarm.control.app import make_app
from swarm.control.body import InTime
from swarm.sockets import MAX_SOCKET_PATH, pointer_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from hypercorn.events import Event
    from trio_typing import TaskStatus

    from swarm.control.api import NodeApi

BACKLOG = 1024
"""Clients that wait for a place; an event loop that finds none free takes itself for connected, and fails."""
MAX_CONNECTIONS = 256
"""More clients at once wait in the kernel's backlog."""

KEEP_ALIVE_SECONDS = 60
"""A connection on which nothing is asked for this long is closed."""

SEND_SECONDS = 30.0
"""A client that takes nothing more of its answer for this long is let go; one that takes some is only slow."""

ACCEPT_SECONDS: Final = 0.1
"""Until the next look, where the system has no room for one more connection."""

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})

_log = structlog.get_logger("swarm.control")


async def serve(
    node: NodeApi,
    socket_path: Path,
    *,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a node's control API until cancelled; operations in flight are cancelled with it.

    Args:
        node: Whom the API speaks for.
        socket_path: `<home>/control.sock`. Where that is longer than the kernel allows, the socket
            lies in a private temporary folder and `<home>/control.path` says where.
        task_status: Started when the socket takes connections.
    """
    with _listening(socket_path) as listener:
        await serve_app(make_app(node), listener, task_status=task_status)


async def serve_app(
    app: Any,  # noqa: ANN401 - ASGI, typed more loosely by hypercorn
    listener: socket.socket,
    *,
    most: int = MAX_CONNECTIONS,
    task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve an ASGI application on a listening socket until cancelled, to so many connections at once."""
    connections = _Connections(app, most)
    async with (
        trio.SocketListener(trio.socket.from_stdlib_socket(listener)) as taken,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(connections.close_when_cancelled)
        nursery.start_soon(connections.take, taken, nursery)
        task_status.started()


class _Connection(TCPServer):
    """Hypercorn's, with an end where its own has none.

    It waits for its idle timer after the client has gone, which holds a place for a minute.
    It writes for as long as the client likes, and waits for ever behind an answer that one who has gone did not take.

    Args:
        given: What Hypercorn's takes.
        scope: Cancelled when nothing more can be told to the client: what works for it ends too.
    """

    def __init__(self, *given: Any, scope: trio.CancelScope) -> None:  # noqa: ANN401 - Hypercorn's own
        super().__init__(*given)
        self._scope = scope

    async def protocol_send(self, event: Event) -> None:
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        async with self.send_lock:
            plain: Any = self.stream  # typed for TLS only; here it is none
            left = memoryview(event.data)
            try:
                while left:
                    # Under a shield: half an answer spoils the next.
                    with trio.CancelScope(shield=True), trio.fail_after(SEND_SECONDS):
                        left = left[await plain.socket.send(left) :]
            except (OSError, trio.ClosedResourceError, trio.TooSlowError):
                self._scope.cancel()
                await trio.aclose_forcefully(self.stream)  # who writes under a shield ends too

    async def _read_data(self) -> None:
        plain = self.protocol.protocol
        self.protocol = _OnlyHttp1(plain, self.protocol_send)  # type: ignore[assignment]  # has its `handle`
        await super()._read_data()
        await self.idle_task.stop()


class _OnlyHttp1:
    """Closes a connection that asks for HTTP/2: a hundred requests at once on each are more than is bounded here.

    Args:
        protocol: Reads HTTP/1.1.
        send: Closes.
    """

    def __init__(self, protocol: Any, send: Callable[[Event], Awaitable[None]]) -> None:  # noqa: ANN401 - Hypercorn's, either kind
        self._protocol = protocol
        self._send = send

    async def handle(self, event: Event) -> None:
        try:
            await self._protocol.handle(event)
        except (H2CProtocolRequiredError, H2ProtocolAssumedError):
            await self._send(Closed())


class _Connections:
    """Open connections, so that they can be closed at once.

    Hypercorn writes under a shield: a client that stopped reading would hold the node's end up.
    Its own `serve` keeps the connections to itself, hence its `TCPServer` alone is used.
    """

    def __init__(self, app: Any, most: int) -> None:  # noqa: ANN401
        in_time: Any = InTime(app)  # typed more loosely by Starlette
        self._app = wrap_app(in_time, 0, "asgi")
        self._config = Config()
        self._config.errorlog = None
        self._config.include_server_header = False
        self._config.keep_alive_timeout = KEEP_ALIVE_SECONDS
        self._context = WorkerContext(None)
        self._open: set[trio.SocketStream] = set()
        self._places = trio.Semaphore(most)

    async def take(self, listener: trio.SocketListener, nursery: trio.Nursery) -> None:
        """Take a client whenever a place is free, until cancelled: the others wait in the kernel, and cost no file here."""
        while True:
            await self._places.acquire()
            nursery.start_soon(self._serve, await _next(listener))

    async def _serve(self, stream: trio.SocketStream) -> None:
        """Serve one client until it goes, and give its place back."""
        self._open.add(stream)
        try:
            async with stream:
                with trio.CancelScope() as scope:
                    state = ConnectionState({})
                    given = (self._app, self._config, self._context, state, stream)
                    await _Connection(*given, scope=scope)
        except Exception:  # noqa: BLE001 - whatever one client does, the others are served
            _log.exception("control.connection_failed")
        finally:
            self._open.discard(stream)
            self._places.release()

    async def close_when_cancelled(self) -> None:
        """Wait for the end, then let no client's silence delay it."""
        try:
            await trio.sleep_forever()
        finally:
            for stream in self._open:
                with contextlib.suppress(OSError):
                    stream.socket.shutdown(socket.SHUT_RDWR)


async def _next(listener: trio.SocketListener) -> trio.SocketStream:
    """The next client; where the system has no room for it, it is asked again."""
    while True:
        try:
            return await listener.accept()
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            _log.warning("control.no_room", error=str(error))
            await trio.sleep(ACCEPT_SECONDS)


@contextlib.contextmanager
def _listening(path: Path) -> Iterator[socket.socket]:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    pointer = pointer_of(path)
    folder: Path | None = None
    target = path
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        folder = Path(tempfile.mkdtemp(prefix="swarm-"))  # 0700
        target = folder / path.name
    try:
        target.unlink(
            missing_ok=True
        )  # of a node that was killed: the caller holds the folder's lock
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(target))
            target.chmod(0o600)
            listener.listen(BACKLOG)
            if folder is None:
                pointer.unlink(missing_ok=True)
            else:
                pointer.write_text(str(target))
            yield listener
    finally:
        target.unlink(missing_ok=True)
        if folder is not None:
            pointer.unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)
