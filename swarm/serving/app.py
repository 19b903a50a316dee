"""The routes of OpenAI's API, and how an answer is sent while it is made."""

from __future__ import annotations

import hmac
import secrets
import time
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio
from starlette.applications import Starlette
from starlette.routing import Route

from swarm.control import body as bodies
from swarm.control.told import JsonAnswer
from swarm.gateway import requests as headers_of
from swarm.gateway.stream import cancel_when_gone
from swarm.serving import answers
from swarm.serving.answers import DONE, Form, Served
from swarm.serving.engine import Event
from swarm.serving.errors import (
    ApiError,
    BusyError,
    FailedError,
    ForeignError,
    NoModelError,
    NoRouteError,
    NotAllowedError,
    TooLargeError,
)
from swarm.serving.requests import MAX_BODY_BYTES, read
from swarm.training.completion import MAX_TOKENS, Completed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    from swarm.serving.engine import Engine
    from swarm.serving.requests import Wish

RETRY_SECONDS: Final = 2
"""When a client that was refused for the queue may come again."""
BUFFERED: Final = MAX_TOKENS + 8
"""Events of one answer: a client that reads slowly never holds the model up."""

_log = structlog.get_logger("swarm.serving")


def make_app(engine: Engine, token: str | None, *, is_local: bool) -> Starlette:
    """The application.

    Args:
        engine: Answers.
        token: What clients have to show; None: nothing.
        is_local: Whether only this machine is to reach it: then the `Host` has to be a loopback name.
    """

    def route(work: Callable[[Request], Awaitable[ASGIApp]]) -> Callable[[Request], Any]:
        async def answer(request: Request) -> ASGIApp:
            try:
                _check(request.headers, token, is_local=is_local)
                return await work(request)
            except ApiError as error:
                return _failure(error)
            except Exception as error:  # noqa: BLE001 - the boundary: each becomes an answer
                _log.error("serving.bug", exc_info=error)
                return _failure(FailedError(f"{type(error).__name__}: {error}"))

        return answer

    asked = _Routes(engine)
    handlers: Mapping[Any, Any] = {404: _no_route, 405: _no_route}
    app = Starlette(
        routes=[
            Route("/v1/models", route(asked.listing), methods=["GET"]),
            Route("/v1/models/{model:path}", route(asked.one), methods=["GET"]),
            Route("/v1/completions", route(asked.complete), methods=["POST"]),
            Route("/v1/chat/completions", route(asked.chat), methods=["POST"]),
        ],
        exception_handlers=handlers,
    )
    app.router.redirect_slashes = False  # that would answer before anything is checked
    return app


async def _no_route(request: Request, _: Exception) -> Response:
    return _failure(NoRouteError(f"{request.method} {request.url.path} is not served here"))


class _Routes:
    """What each address answers."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def listing(self, _: Request) -> ASGIApp:
        served = self._engine.served
        told = {"object": "list", "data": [served.to_json()]}
        return JsonAnswer(told, headers=served.headers())

    async def one(self, request: Request) -> ASGIApp:
        served, wanted = self._engine.served, request.path_params["model"]
        if not served.is_meant(wanted):
            message = f"the model {wanted[:256]!r} is not served here: {served.name} is"
            raise NoModelError(message, "model")
        return JsonAnswer(served.to_json(), headers=served.headers())

    async def complete(self, request: Request) -> ASGIApp:
        return _Reply(self._engine, read(await _body(request), is_chat=False))

    async def chat(self, request: Request) -> ASGIApp:
        return _Reply(self._engine, read(await _body(request), is_chat=True))


def _check(headers: Mapping[str, str], token: str | None, *, is_local: bool) -> None:
    """Refuse pages of the web, and who lacks the token.

    Raises:
        ApiError: The request is not answered.
    """
    if is_local and (refused := headers_of.refusal(headers)) is not None:
        raise ForeignError(refused)
    if token is not None:
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(
            shown.strip().encode(), token.encode()
        ):
            message = "the token that `swarm serve` shows has to come as a bearer token"
            raise NotAllowedError(message)


async def _body(request: Request) -> bytes:
    try:
        return await bodies.read(request, MAX_BODY_BYTES)
    except bodies.TooLargeError as error:
        raise TooLargeError(error.message) from error


def _failure(error: ApiError) -> Response:
    headers = {"cache-control": "no-store"}
    if isinstance(error, BusyError):
        headers["retry-after"] = str(RETRY_SECONDS)
    return JsonAnswer(error.to_json(), error.status, headers)


class _Reply:
    """An ASGI response that is made while it is sent, and given up when its client goes.

    Args:
        engine: Makes it.
        wish: The request.
    """

    def __init__(self, engine: Engine, wish: Wish) -> None:
        self._engine = engine
        self._wish = wish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        told, heard = trio.open_memory_channel[Event | Completed | ApiError](BUFFERED)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(cancel_when_gone, receive, nursery.cancel_scope)
            nursery.start_soon(self._make, told)
            async with heard:
                if self._wish.stream:
                    await self._stream(heard, scope, receive, send)
                else:
                    await self._whole(heard, scope, receive, send)
            nursery.cancel_scope.cancel()

    async def _make(self, told: trio.MemorySendChannel[Event | Completed | ApiError]) -> None:
        async with told:
            try:
                told.send_nowait(await self._engine.complete(self._wish, told.send_nowait))
            except ApiError as error:
                told.send_nowait(error)
            except Exception as error:  # noqa: BLE001 - the boundary: each becomes an answer
                _log.error("serving.bug", exc_info=error)
                told.send_nowait(FailedError(f"{type(error).__name__}: {error}"))

    def _form(self, served: Served) -> Form:
        return Form(secrets.token_hex(12), int(time.time()), served, self._wish.is_chat)

    async def _whole(
        self,
        heard: trio.MemoryReceiveChannel[Event | Completed | ApiError],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        form, texts = None, []
        async for event in heard:
            match event:
                case Served():
                    form = self._form(event)
                case str():
                    texts.append(event)
                case ApiError():
                    await _failure(event)(scope, receive, send)
                case Completed() if form is not None:
                    body = form.whole("".join(texts), event)
                    answer = JsonAnswer(body, headers=form.served.headers())
                    await answer(scope, receive, send)

    async def _stream(
        self,
        heard: trio.MemoryReceiveChannel[Event | Completed | ApiError],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        form, begun = None, False
        async for event in heard:
            if isinstance(event, Served):
                form = self._form(event)
                continue
            if isinstance(event, ApiError) and not begun:
                await _failure(event)(scope, receive, send)
                return
            if form is None:  # nothing comes before who answers, but an error
                return
            if not begun:
                begun = True
                await _begin(form, send)
            await _part(self._parts(form, event), send)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _parts(self, form: Form, event: str | Completed | ApiError) -> bytes:
        """The events of a stream that tell one of ours."""
        if isinstance(event, str):
            return answers.event(form.piece(event))
        if isinstance(event, ApiError):
            return answers.event(event.to_json())
        counts = [answers.event(form.counts(event))] if self._wish.with_usage else []
        return b"".join([answers.event(form.last(event)), *counts, DONE])


async def _begin(form: Form, send: Send) -> None:
    headers = {
        "content-type": "text/event-stream; charset=utf-8",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        **form.served.headers(),
    }
    packed = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": 200, "headers": packed})
    if form.is_chat:
        await _part(answers.event(form.first()), send)


async def _part(body: bytes, send: Send) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})
