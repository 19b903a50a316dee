"""Serving the page on a port of this machine."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio

from swarm.control.service import BACKLOG, serve_app
from swarm.errors import RefusedError
from swarm.page import access as accesses
from swarm.page.access import Access
from swarm.page.app import make_app, make_hub
from swarm.values import PAGE_PORT

if TYPE_CHECKING:
    from pathlib import Path

    from trio_typing import TaskStatus

    from swarm.page.told import Source

ADDRESS: Final = "127.0.0.1"
"""No other: what a node does is its person's business."""
MAX_CONNECTIONS: Final = 64

_log = structlog.get_logger("swarm.page")


class Page:
    """A page that is served.

    Args:
        port: On which.
        access: Who may read it.
    """

    def __init__(self, port: int, access: Access) -> None:
        self.address = f"http://{ADDRESS}:{port}/"
        self._access = access

    def link(self) -> str:
        """An address that lets one browser in, once and soon; what stands behind `#` is not sent to any server."""
        return f"{self.address}#{self._access.new_code()}"


async def serve(
    source: Source,
    home: Path,
    port: int,
    *,
    task_status: TaskStatus[Page] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the page until cancelled.

    Args:
        source: What it tells.
        home: The data folder, where its token lies.
        port: Of 127.0.0.1; 0 takes a free one.
        task_status: Started with the page once connections are taken.

    Raises:
        RefusedError: The port is taken and not the default one, or others can read the token.
    """
    token = await trio.to_thread.run_sync(accesses.load_or_create, home)
    with _bound(port) as listener:
        listener.listen(BACKLOG)
        access = Access(token)
        page = Page(listener.getsockname()[1], access)
        hub = make_hub(source)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hub.run)
            app = make_app(source, access, hub)
            await nursery.start(partial(serve_app, app, listener, most=MAX_CONNECTIONS))
            _log.info("page.serving", address=page.address)
            task_status.started(page)


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
        except OSError as error:
            if port != PAGE_PORT:
                message = f"the page cannot have port {port}: {error.strerror}"
                raise RefusedError(message, "give another one: --page PORT") from error
            listener.bind((ADDRESS, 0))
    except BaseException:
        listener.close()
        raise
    return listener
