"""What a supervisor and Prometheus ask: `/livez`, `/readyz` and `/metrics`, also on a port of 127.0.0.1.

They change nothing and take no field, so that a page that a person visits can do no harm with them.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from swarm.care import metrics
from swarm.errors import RefusedError
from swarm.gateway.requests import is_local

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.requests import Request
    from trio_typing import TaskStatus

    from swarm.care.operations import Care

ADDRESS: Final = "127.0.0.1"
BACKLOG: Final = 16
MAX_CONNECTIONS: Final = 16

_log = structlog.get_logger("swarm.care")


def routes(care: Callable[[], Care], *, check_host: bool) -> list[Route]:
    """The three routes.

    Args:
        care: Asked for whom they speak.
        check_host: Refuse a question under another name than this machine's.
    """

    def live(_: Request) -> Response:
        return PlainTextResponse("alive\n")

    def ready(_: Request) -> Response:
        reasons = care().why_not_ready()
        text = "".join(f"{one}\n" for one in reasons) or "ready\n"
        return PlainTextResponse(text, status_code=503 if reasons else 200)

    def measures(_: Request) -> Response:
        text = metrics.render(care().numbers())
        return Response(text, headers={"content-type": metrics.CONTENT_TYPE})

    return [
        Route(path, _guarded(answer, check_host=check_host), methods=["GET"])
        for path, answer in (("/livez", live), ("/readyz", ready), ("/metrics", measures))
    ]


def _guarded(answer: Callable[[Request], Response], *, check_host: bool) -> Any:  # noqa: ANN401
    async def guarded(request: Request) -> Response:
        if check_host and not is_local(request.headers.get("host")):
            return PlainTextResponse("this is no host of this node\n", status_code=421)
        await trio.lowlevel.checkpoint()
        return answer(request)

    return guarded


async def serve(
    care: Care, port: int, *, task_status: TaskStatus[int] = trio.TASK_STATUS_IGNORED
) -> None:
    """Serve the three routes on a port of this machine until cancelled.

    Args:
        care: For whom they speak.
        port: Of 127.0.0.1; 0 takes a free one.
        task_status: Started with the port once connections are taken.

    Raises:
        RefusedError: The port is taken.
    """
    from swarm.control.service import serve_app  # it knows these routes too

    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((ADDRESS, port))
        except OSError as error:
            message = f"the measures cannot have port {port}: {error.strerror}"
            raise RefusedError(message, "give another one: --metrics PORT") from error
        listener.listen(BACKLOG)
        taken: int = listener.getsockname()[1]
        app = Starlette(routes=routes(lambda: care, check_host=True))
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_app, app, listener, most=MAX_CONNECTIONS))
            _log.info("metrics.serving", address=f"http://{ADDRESS}:{taken}/metrics")
            task_status.started(taken)
