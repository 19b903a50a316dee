"""Serving OpenAI's API on a port."""

from __future__ import annotations

import ipaddress
import socket
from functools import partial
from typing import TYPE_CHECKING

import structlog
import trio

from swarm.control.service import BACKLOG, serve_app
from swarm.errors import RefusedError, UsageError
from swarm.serving.app import make_app

if TYPE_CHECKING:
    from trio_typing import TaskStatus

    from swarm.serving.engine import Engine

MIN_TOKEN_CHARACTERS = 16
"""Of a token that other machines may try to guess."""
MAX_CONNECTIONS = 64
"""At once; more wait."""

_log = structlog.get_logger("swarm.serving")


def check_address(address: str, token: str | None) -> bool:
    """Whether only this machine reaches an address.

    Raises:
        UsageError: It is none, or other machines reach it and there is no good token.
    """
    try:
        is_local = ipaddress.ip_address(address).is_loopback
    except ValueError as error:
        message = f"host: {address[:80]!r} is not an IP address"
        raise UsageError(
            message, "127.0.0.1 is this machine alone, 0.0.0.0 every network"
        ) from error
    if not is_local and (token is None or len(token) < MIN_TOKEN_CHARACTERS):
        message = f"token: other machines reach {address}: a token of {MIN_TOKEN_CHARACTERS} characters is needed"
        raise UsageError(message)
    return is_local


async def serve(
    engine: Engine,
    address: str,
    port: int,
    token: str | None,
    *,
    task_status: TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled.

    Args:
        engine: Answers.
        address: An IP address of this machine.
        port: 0 takes a free one.
        token: What clients have to show; None: nothing, on a loopback address alone.
        task_status: Started with the port once connections are taken.

    Raises:
        UsageError: The address is none, or would be open to other machines.
        RefusedError: The port is taken.
    """
    is_local = check_address(address, token)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((address, port))
        except OSError as error:
            message = f"the model cannot be served on {address} port {port}: {error.strerror}"
            raise RefusedError(message, "give another one: --port PORT") from error
        listener.listen(BACKLOG)
        taken: int = listener.getsockname()[1]
        async with trio.open_nursery() as nursery:
            app = make_app(engine, token, is_local=is_local)
            await nursery.start(partial(serve_app, app, listener, most=MAX_CONNECTIONS))
            _log.info("serving.serves", model=engine.served.label, port=taken)
            task_status.started(taken)
