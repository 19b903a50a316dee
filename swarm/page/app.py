"""The page's ASGI application: static files, the API, and the guard in front of both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Route

from swarm.control.faults import STATUS, status_of, translate
from swarm.control.told import JsonAnswer
from swarm.errors import NotFoundError, SwarmError
from swarm.gateway.requests import is_known
from swarm.page import files, openapi
from swarm.page.feed import Hub, Part
from swarm.page.guard import Guard
from swarm.page.routes import (
    ENDPOINTS,
    Door,
    Endpoint,
    WrongTypeError,
    fields_of,
    session_of,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from swarm.page.access import Access
    from swarm.page.files import File
    from swarm.page.told import Source

NODE_SECONDS = 1.0
TASKS_SECONDS = 2.0
PEERS_SECONDS = 5.0
STORAGE_SECONDS = 10.0
LOG_SECONDS = 2.0

_log = structlog.get_logger("swarm.page")


def make_hub(source: Source) -> Hub:
    """What open pages are told by themselves; the caller runs it."""
    return Hub(
        {
            "node": Part(source.node, NODE_SECONDS),
            "tasks": Part(source.tasks, TASKS_SECONDS),
            "peers": Part(source.peers, PEERS_SECONDS),
            "storage": Part(source.storage, STORAGE_SECONDS),
            "log": Part(source.log_changed, LOG_SECONDS),
        }
    )


def make_app(source: Source, access: Access, hub: Hub) -> ASGIApp:
    """The application that tells of a node.

    Args:
        source: Tells.
        access: Says who may be told.
        hub: Runs beside it.
    """
    door = Door(source, access, hub)
    held = files.load()
    routes = [
        Route("/", _file(held[files.INDEX])),
        Route("/favicon.ico", _file(held["icon.svg"])),
        *(Route(f"/static/{name}", _file(one)) for name, one in held.items()),
        Route(openapi.PATH, _description(openapi.describe(access.cookie_name))),
        *_routes(door),
    ]
    handlers: Mapping[Any, Any] = {HTTPException: _no_route, Exception: _failed}
    app = Starlette(routes=routes, exception_handlers=handlers)
    app.router.redirect_slashes = False
    return Guard(app)


def _routes(door: Door) -> list[Route]:
    """One a path, so that each knows every method that is allowed there."""
    paths: dict[str, dict[str, Any]] = {}
    for one in ENDPOINTS:
        paths.setdefault(one.path, {})[one.method] = _answer(door, one)

    def by_method(answers: Mapping[str, Any]) -> Callable[[Request], Awaitable[ASGIApp]]:
        async def answer(request: Request) -> ASGIApp:
            method = "GET" if request.method == "HEAD" else request.method
            told: ASGIApp = await answers[method](request)
            return told

        return answer

    return [Route(path, by_method(told), methods=[*told]) for path, told in paths.items()]


def _answer(door: Door, endpoint: Endpoint) -> Callable[[Request], Awaitable[ASGIApp]]:
    async def answer(request: Request) -> ASGIApp:
        try:
            if not endpoint.is_open and not session_of(door.access, request):
                fault = SwarmError("this browser is not let in yet", "run `swarm page`")
                return _told(fault, 401, {"www-authenticate": "Bearer"})
            return await endpoint.answer(door, request, await fields_of(endpoint, request))
        except WrongTypeError as error:
            return _told(error, 415)
        except Exception as error:  # noqa: BLE001 - the boundary: each becomes an answer
            return _failure(error)

    return answer


def _file(one: File) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        headers = {"etag": one.etag, "cache-control": "no-cache"}
        if is_known(one.etag, request.headers.get("if-none-match")):
            return Response(None, 304, headers)
        return Response(one.content, 200, headers | {"content-type": one.kind})

    return answer


def _description(told: dict[str, Any]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(_: Request) -> Response:
        return JsonAnswer(told)

    return answer


def _failure(error: Exception) -> Response:
    fault = translate(error)
    status = status_of(fault)
    if status == STATUS["internal"]:
        _log.error("page.bug", exc_info=error)
    return _told(fault, status)


def _told(fault: SwarmError, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return JsonAnswer({"error": fault.to_json()}, status, headers)


async def _no_route(request: Request, error: HTTPException) -> Response:
    message = f"this page does not know {request.method} {request.url.path[:200]}"
    return _told(NotFoundError(message), error.status_code, error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    del request
    return _failure(error)
