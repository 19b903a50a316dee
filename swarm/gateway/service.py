"""Serving the gateway on a port of this machine."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from swarm.control.service import BACKLOG, serve_app
from swarm.errors import RefusedError
from swarm.gateway.app import make_app

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.routing import Route
    from trio_typing import TaskStatus

    from swarm.ranges import Ranges

ADDRESS = "127.0.0.1"
"""No other: what this node holds, and what it fetches for a question, is its user's business."""
MAX_CONNECTIONS = 64
"""At once; each holds a window of a file in memory. More wait."""

_log = structlog.get_logger("swarm.gateway")


async def serve(
    ranges: Ranges,
    port: int,
    more: Sequence[Route] = (),
    *,
    task_status: TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the gateway until cancelled.

    Args:
        ranges: What content is read with.
        port: Of 127.0.0.1; 0 takes a free one.
        more: Routes that stand on the port beside the gateway's.
        task_status: Started with the port once connections are taken.

    Raises:
        RefusedError: The port is taken.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
        except OSError as error:
            message = f"the gateway cannot have port {port}: {error.strerror}"
            raise RefusedError(message, "give another one: --gateway PORT") from error
        listener.listen(BACKLOG)
        taken: int = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            app = make_app(ranges, more)
            await nursery.start(partial(serve_app, app, listener, most=MAX_CONNECTIONS))
            _log.info("gateway.serving", address=f"http://{ADDRESS}:{taken}/ipfs/")
            task_status.started(taken)
