"""The routes: one a thing that a command needs.

`GET` answers with one JSON value (`{"value": …}` or `{"error": …}`), `POST` with a stream of events.
Each answer's header `swarm-version` says of which version the node is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.middleware import Middleware
from starlette.routing import Route

from swarm.care import probes
from swarm.care.routes import OPERATIONS as CARE_OPERATIONS
from swarm.care.routes import QUESTIONS as CARE_QUESTIONS
from swarm.chain.routes import OPERATIONS as CHAIN_OPERATIONS
from swarm.chain.routes import QUESTIONS as CHAIN_QUESTIONS
from swarm.control import openapi
from swarm.control.faults import status_of
from swarm.control.fields import MAX_BODY_BYTES, MAX_INT, Fields
from swarm.control.operation import Operation, told
from swarm.control.told import JsonAnswer
from swarm.errors import NotFoundError
from swarm.gateway import app as gateway
from swarm.hub.routes import OPERATIONS as HUB_OPERATIONS
from swarm.keeper.routes import OPERATIONS as KEEPING_OPERATIONS
from swarm.keeper.routes import QUESTIONS as KEEPING_QUESTIONS
from swarm.receipts.routes import QUESTIONS as RECEIPT_QUESTIONS
from swarm.registry.routes import OPERATIONS as MODEL_OPERATIONS
from swarm.release import HEADER, version
from swarm.retrieval.routes import OPERATIONS as CHECK_OPERATIONS
from swarm.serving.routes import OPERATIONS as SERVING_OPERATIONS
from swarm.store.routes import OPERATIONS as STORE_OPERATIONS
from swarm.store.routes import with_advice
from swarm.versions.routes import OPERATIONS as DATASET_OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from swarm.control.api import NodeApi, Progress

VERSION = "v1"
DESCRIPTION = f"/{VERSION}/openapi.json"
MAX_BLOCKS = 1000
MAX_SAMPLE_LENGTH = 100_000
MAX_SEED = 2**32 - 1

if TYPE_CHECKING:
    Question = Callable[[NodeApi, Fields], Awaitable[Any]]
    Work = Callable[[NodeApi, Fields, Progress], Awaitable[Any]]


def make_app(node: NodeApi) -> Starlette:
    """The ASGI application that speaks for a node."""
    routes = [
        Route(f"/{VERSION}/{path}", _question(node, ask), methods=["GET"])
        for path, ask in _QUESTIONS.items()
    ]
    routes += [
        Route(f"/{VERSION}/{path}", _operation(node, with_advice(work)), methods=["POST"])
        for path, work in _OPERATIONS.items()
    ]
    routes.append(Route(DESCRIPTION, _description, methods=["GET"]))
    routes += gateway.routes(lambda: node.ranges, check_host=False)
    routes += probes.routes(lambda: node.care, check_host=False)
    handlers: Mapping[Any, Any] = {404: _no_route, 405: _no_route, Exception: _failed}
    middleware = [Middleware(_Versioned, version())]
    app = Starlette(routes=routes, exception_handlers=handlers, middleware=middleware)
    app.router.redirect_slashes = False  # what is not described is not there
    return app


class _Versioned:
    """Says in each answer of which version this process is, whatever has been installed since it started."""

    def __init__(self, app: ASGIApp, version: str) -> None:
        self._app = app
        self._version = version

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_versioned(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = self._version
            await send(message)

        await self._app(scope, receive, send_versioned)


def _question(node: NodeApi, ask: Question) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            fields = Fields({**request.query_params, **request.path_params})
            return JsonAnswer({"value": await ask(node, fields)})
        except Exception as error:  # noqa: BLE001 - the boundary: each becomes an answer
            return _failure(error)

    return answer


def _operation(node: NodeApi, work: Work) -> Callable[[Request], Awaitable[ASGIApp]]:
    async def answer(request: Request) -> ASGIApp:
        try:
            fields = await Fields.of_body(request)
        except Exception as error:  # noqa: BLE001
            return _failure(error)
        return Operation(partial(work, node, fields))

    return answer


def _failure(error: BaseException) -> Response:
    fault = told(error)
    return JsonAnswer({"error": fault.to_json()}, status_code=status_of(fault))


async def _no_route(request: Request, error: Exception) -> Response:
    del error
    message = f"this node does not know {request.method} {request.url.path}"
    return _failure(NotFoundError(message, "node and command may be of different versions"))


async def _failed(request: Request, error: Exception) -> Response:
    del request
    return _failure(error)


async def _description(_: Request) -> Response:
    return JsonAnswer(openapi.describe(_QUESTIONS, _OPERATIONS, VERSION))


async def _status(node: NodeApi, _: Fields) -> Any:  # noqa: ANN401 - JSON
    return node.status()


async def _peers(node: NodeApi, _: Fields) -> Any:  # noqa: ANN401
    return await node.peers()


async def _blocks(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    start = fields.optional_integer("start", 0, MAX_INT)
    return await node.blocks(start, fields.integer("limit", 20, 1, MAX_BLOCKS))


async def _block(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    return await node.block(fields.integer("height", None, 0, MAX_INT))


async def _balance(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    return await node.balance(fields.optional_text("account"))


async def _tasks(node: NodeApi, _: Fields) -> Any:  # noqa: ANN401
    return await node.tasks()


async def _scoreboard(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    return await node.scoreboard(fields.text("task"))


async def _send(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.send(
        fields.text("to"),
        fields.integer("amount", None, 1, MAX_INT),
        wait=fields.flag("wait", default=True),
    )


async def _publish(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.publish(
        fields.path("path"),
        fields.optional_text("name"),
        progress,
        preserve_mode=fields.flag("preserve_mode", default=False),
        in_place=fields.flag("in_place", default=False),
    )


async def _plan(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    preserve_mode = fields.flag("preserve_mode", default=False)
    return await node.plan(fields.path("path"), progress, preserve_mode=preserve_mode)


async def _get(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    source = fields.optional_text("source")
    return await node.get(fields.text("cid"), fields.path("path"), progress, source)


async def _fetch(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    version = fields.optional_integer("version", 0, MAX_INT)
    path, card = fields.optional_path("path"), fields.flag("card", default=True)
    return await node.fetch(fields.text("name"), version, path, progress, card=card)


async def _post_task(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    spec = fields.text("spec", max_chars=MAX_BODY_BYTES)
    return await node.work.post_task(spec, fields.path("folder"), progress)


async def _replay(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.work.replay(
        fields.text("task"),
        fields.integer("round", None, 1, MAX_INT),
        fields.text("peer"),
        fields.optional_integer("segment", 1, MAX_INT),
        progress,
    )


async def _sample(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    return await node.work.sample(
        fields.text("name"),
        fields.optional_integer("version", 0, MAX_INT),
        fields.optional_text("prompt", max_chars=MAX_SAMPLE_LENGTH),
        fields.optional_path("path"),
        fields.integer("length", 500, 1, MAX_SAMPLE_LENGTH),
        fields.integer("seed", 0, 0, MAX_SEED),
    )


async def _evaluate(node: NodeApi, fields: Fields, _: Progress) -> Any:  # noqa: ANN401
    version = fields.optional_integer("version", 0, MAX_INT)
    return await node.work.evaluate(fields.text("name"), version)


async def _look(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    return await node.look(fields.text("cid"), fields.optional_text("path") or "")


async def _entries(node: NodeApi, fields: Fields) -> Any:  # noqa: ANN401
    return await node.entries(fields.text("cid"), fields.optional_text("path") or "")


async def _hold(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.hold(fields.text("cid"), progress)


async def _import_car(node: NodeApi, fields: Fields, progress: Progress) -> Any:  # noqa: ANN401
    return await node.import_car(fields.path("path"), progress)


async def _page(node: NodeApi, _: Fields, __: Progress) -> Any:  # noqa: ANN401
    return node.page_link()


async def _stop(node: NodeApi, _: Fields, __: Progress) -> Any:  # noqa: ANN401
    node.stop()
    return {}


_QUESTIONS: dict[str, Question] = {
    "status": _status,
    "peers": _peers,
    "blocks": _blocks,
    "blocks/{height}": _block,
    "balance": _balance,
    "tasks": _tasks,
    "scoreboard": _scoreboard,
    "look": _look,
    "entries": _entries,
    **CARE_QUESTIONS,
    **CHAIN_QUESTIONS,
    **KEEPING_QUESTIONS,
    **RECEIPT_QUESTIONS,
}
_OPERATIONS: dict[str, Work] = {
    "send": _send,
    "publish": _publish,
    "publish/plan": _plan,
    "get": _get,
    "fetch": _fetch,
    "tasks": _post_task,
    "replay": _replay,
    "sample": _sample,
    "evaluate": _evaluate,
    "hold": _hold,
    "car": _import_car,
    "page": _page,
    "stop": _stop,
    **CARE_OPERATIONS,
    **CHECK_OPERATIONS,
    **CHAIN_OPERATIONS,
    **DATASET_OPERATIONS,
    **MODEL_OPERATIONS,
    **HUB_OPERATIONS,
    **SERVING_OPERATIONS,
    **KEEPING_OPERATIONS,
    **STORE_OPERATIONS,
}
