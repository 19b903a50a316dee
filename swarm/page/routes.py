"""The page's routes: one table, from which both the application and its description are made."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response

from swarm.care.controls import ALL, MAX_PAUSE_SECONDS, PARTS, parts_of
from swarm.control import body as bodies
from swarm.control.fields import MAX_INT, Fields
from swarm.control.told import JsonAnswer
from swarm.errors import SwarmError, UsageError
from swarm.page import logs
from swarm.page.access import MAX_TEXT, SESSION_SECONDS
from swarm.page.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from swarm.page.access import Access
    from swarm.page.feed import Hub
    from swarm.page.told import Source

    Json = dict[str, Any]
    Answer = Callable[["Door", Request, Fields], Awaitable[ASGIApp]]

MAX_BODY_BYTES: Final = 4_096
MAX_NAME: Final = 128
KEY_HEADER: Final = "x-swarm-key"
IMAGE_TYPE: Final = "image/png"
STREAM_TYPE: Final = "text/event-stream"
JSON_TYPE: Final = "application/json"

INTEGER: Final[Json] = {"type": "integer", "minimum": 0, "maximum": MAX_INT}
TEXT: Final[Json] = {"type": "string", "minLength": 1, "maxLength": MAX_NAME}


@dataclass(frozen=True, slots=True)
class Door:
    """What every route may use.

    Attributes:
        source: Tells of the node.
        access: Who may be told.
        hub: What is new.
    """

    source: Source
    access: Access
    hub: Hub


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One route.

    Attributes:
        method: Of HTTP.
        path: With parameters in braces.
        summary: What it does, in a sentence.
        answer: Does it.
        query: Schemas of what may stand in the query, by name.
        below: Schemas of the path's parameters, by name.
        body: Schemas of the fields of the JSON object that is sent; None: nothing is.
        must: Names of `body` that must be there.
        kind: The type of its answer.
        statuses: Beside 200 and those that every route has.
        is_open: No session is asked for.
    """

    method: str
    path: str
    summary: str
    answer: Answer
    query: Mapping[str, Json] = field(default_factory=dict)
    below: Mapping[str, Json] = field(default_factory=dict)
    body: Mapping[str, Json] | None = None
    must: tuple[str, ...] = ()
    kind: str = JSON_TYPE
    statuses: tuple[int, ...] = ()
    is_open: bool = False


class WrongTypeError(SwarmError):
    """The request's body is not said to be JSON."""

    code = "usage"


async def fields_of(endpoint: Endpoint, request: Request) -> Fields:
    """What a request says, of the names that the route knows and no others.

    Raises:
        UsageError: A name it does not know or that comes twice, or a body that is no JSON object.
        TooLargeError: A body of more than `MAX_BODY_BYTES`.
        WrongTypeError: A body that is not said to be JSON.
    """
    asked = request.query_params.multi_items()
    names = [name for name, _ in asked]
    for name in names:
        if name not in endpoint.query:
            message = f"{name[:40]!r} is not asked for here"
            raise UsageError(message)
    if len(set(names)) != len(names):
        message = "a name stands twice in the query"
        raise UsageError(message)
    values: Json = dict(asked) | dict(request.path_params)
    body = await bodies.read(request, MAX_BODY_BYTES)
    if endpoint.body is not None:
        values |= _object(endpoint, request, body)
    return Fields(values)


def _object(endpoint: Endpoint, request: Request, body: bytes) -> Json:
    assert endpoint.body is not None  # noqa: S101 - the caller looked
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON_TYPE:
        message = f"the body must be {JSON_TYPE}"
        raise WrongTypeError(message)
    try:
        values = json.loads(body, parse_float=_number)
    except (ValueError, RecursionError) as error:
        message = f"the request is not JSON: {error}"
        raise UsageError(message) from error
    if not isinstance(values, dict) or not values.keys() <= endpoint.body.keys():
        message = f"the request is no JSON object with {', '.join(endpoint.body)}"
        raise UsageError(message)
    if None in values.values():
        message = "null is no value here: leave the field out"
        raise UsageError(message)
    return values


def _number(text: str) -> float:
    """JSON knows one kind of number: 2.0 is a whole one."""
    value = float(text)
    return int(value) if value.is_integer() else value


def session_of(access: Access, request: Request) -> bool:
    """Whether a request shows a session, or the token itself."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return len(token) <= MAX_TEXT and access.is_token(token)
    key = request.headers.get(KEY_HEADER, "")
    cookie = request.cookies.get(access.cookie_name, "")
    return max(len(key), len(cookie)) <= MAX_TEXT and access.lets_in(key, cookie)


def _value(value: object) -> Response:
    return JsonAnswer({"value": value})


async def _begin(door: Door, _: Request, fields: Fields) -> ASGIApp:
    session = door.access.exchange(fields.text("code", max_chars=MAX_TEXT))
    if session is None:
        error = UsageError(
            "this link was used already, or is too old", "`swarm page` gives another"
        )
        return JsonAnswer({"error": error.to_json()}, 403)
    answer = _value({"key": session.key})
    answer.set_cookie(
        door.access.cookie_name,
        session.cookie,
        max_age=SESSION_SECONDS,
        path="/api",
        httponly=True,
        samesite="strict",
    )
    return answer


async def _end(door: Door, _: Request, __: Fields) -> ASGIApp:
    answer = _value({})
    answer.delete_cookie(door.access.cookie_name, "/api", httponly=True, samesite="strict")
    return answer


async def _node(door: Door, _: Request, __: Fields) -> ASGIApp:
    return _value(await door.source.node())


async def _tasks(door: Door, _: Request, __: Fields) -> ASGIApp:
    return _value(await door.source.tasks())


async def _task(door: Door, _: Request, fields: Fields) -> ASGIApp:
    return _value(await door.source.task(fields.text("task", max_chars=MAX_NAME)))


async def _peers(door: Door, _: Request, __: Fields) -> ASGIApp:
    return _value(await door.source.peers())


async def _storage(door: Door, _: Request, __: Fields) -> ASGIApp:
    return _value(await door.source.storage())


async def _logs(door: Door, _: Request, fields: Fields) -> ASGIApp:
    level = fields.optional_text("level") or "info"
    if level not in logs.LEVELS:
        message = f"level: none of {', '.join(logs.LEVELS)}"
        raise UsageError(message)
    lines = fields.integer("lines", logs.LINES, 1, logs.MAX_LINES)
    return _value(await door.source.logs(level, lines))


async def _events(door: Door, request: Request, _: Fields) -> ASGIApp:
    if request.method == "HEAD":
        return Response(None, 200, media_type=STREAM_TYPE)
    return Feed(door.hub)


async def _samples(door: Door, _: Request, __: Fields) -> ASGIApp:
    return _value(await door.source.samples.kept())


async def _image(door: Door, _: Request, fields: Fields) -> ASGIApp:
    image = await door.source.samples.image(fields.text("cid", max_chars=MAX_NAME))
    return Response(image, media_type=IMAGE_TYPE)


async def _draw(door: Door, _: Request, fields: Fields) -> ASGIApp:
    name = fields.text("name", max_chars=MAX_NAME)
    version = fields.integer("version", None, 0, MAX_INT)
    return _value(await door.source.samples.make(name, version))


async def _pause(door: Door, _: Request, fields: Fields) -> ASGIApp:
    seconds = fields.optional_integer("seconds", 1, MAX_PAUSE_SECONDS)
    return _value(await door.source.pause(_part(fields), seconds))


async def _resume(door: Door, _: Request, fields: Fields) -> ASGIApp:
    return _value(await door.source.resume(_part(fields)))


def _part(fields: Fields) -> str:
    part = fields.text("part")
    parts_of(part)
    return part


_PART: Final[Json] = {"type": "string", "enum": [*PARTS, ALL]}

ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/api/session",
        "Begin a session with the code of a link; answers with the key, and sets the cookie.",
        _begin,
        body={"code": {"type": "string", "minLength": 1, "maxLength": MAX_TEXT}},
        must=("code",),
        is_open=True,
    ),
    Endpoint("DELETE", "/api/session", "Let the browser forget its cookie.", _end, is_open=True),
    Endpoint("GET", "/api/node", "This node: what it does and why, and its status.", _node),
    Endpoint("GET", "/api/tasks", "Training tasks, open ones first.", _tasks),
    Endpoint(
        "GET",
        "/api/tasks/{task}",
        "One task, by its id or name: curve, rounds, who earned what, versions.",
        _task,
        below={"task": TEXT},
        statuses=(404,),
    ),
    Endpoint("GET", "/api/peers", "Connected peers, with their roles and latency.", _peers),
    Endpoint(
        "GET", "/api/storage", "What is lent, kept and proven, and where replicas are.", _storage
    ),
    Endpoint(
        "GET",
        "/api/logs",
        "The end of the node's log.",
        _logs,
        query={
            "level": {"type": "string", "enum": list(logs.LEVELS), "default": "info"},
            "lines": {
                "type": "integer",
                "minimum": 1,
                "maximum": logs.MAX_LINES,
                "default": logs.LINES,
            },
        },
    ),
    Endpoint(
        "GET",
        "/api/events",
        "What changes, as server-sent events: node, tasks, peers, storage, log.",
        _events,
        kind=STREAM_TYPE,
        statuses=(409,),
    ),
    Endpoint("GET", "/api/samples", "Samples of versions that were drawn here.", _samples),
    Endpoint(
        "POST",
        "/api/samples",
        "Draw a sample of a version; the node trains first.",
        _draw,
        body={"name": TEXT, "version": INTEGER},
        must=("name", "version"),
        statuses=(404, 409, 503),
    ),
    Endpoint(
        "GET",
        "/api/samples/{cid}/image",
        "The picture of a sample.",
        _image,
        below={"cid": TEXT},
        kind=IMAGE_TYPE,
        statuses=(404,),
    ),
    Endpoint(
        "POST",
        "/api/pause",
        "Hold training, sealing or both back.",
        _pause,
        body={
            "part": _PART,
            "seconds": {"type": "integer", "minimum": 1, "maximum": MAX_PAUSE_SECONDS},
        },
        must=("part",),
    ),
    Endpoint(
        "POST", "/api/resume", "Go on with it.", _resume, body={"part": _PART}, must=("part",)
    ),
)
"""Every route but the static files and the description."""
