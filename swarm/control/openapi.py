"""The description of the control API in the form of OpenAPI 3.1, made by asking each route what it reads.

A route is called with fields that write down what is asked of them, and with a node whose first answer ends the call:
so the description says what the code does, and cannot fall behind it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swarm.control.fields import MAX_TEXT, Fields

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    Json = dict[str, Any]
    Route = Callable[..., Awaitable[Any]]

JSON_TYPE: Final = "application/json"
EVENTS_TYPE: Final = "application/x-ndjson"
PATTERN_OF_A_PATH: Final = "^/[^\\x00]*$"
ERROR: Final[Json] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "hint", "exit_code"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": ["string", "null"]},
                "exit_code": {"type": "integer"},
            },
        }
    },
}
VALUE: Final[Json] = {"type": "object", "required": ["value"], "properties": {"value": {}}}
_WORDS: Final = {
    200: "Done; of an operation, the events that tell how it goes.",
    400: "Something in the request cannot be used.",
    404: "There is none.",
    408: "The body did not come in time.",
    409: "Quota, stake or the ledger's rules do not allow it.",
    413: "The body is too large.",
    500: "A fault of the node's own; its log has it.",
    503: "The peers that are needed cannot be reached.",
}


def describe(questions: Mapping[str, Route], operations: Mapping[str, Route], version: str) -> Json:
    """The whole description.

    Args:
        questions: What `GET` asks, by path.
        operations: What `POST` does, by path.
        version: Of the API, as paths begin with it.
    """
    paths: dict[str, Json] = {}
    for path, ask in questions.items():
        read = _fields_of(ask, 2)
        paths.setdefault(f"/{version}/{path}", {})["get"] = _question(path, read)
    for path, work in operations.items():
        read = _fields_of(work, 3)
        paths.setdefault(f"/{version}/{path}", {})["post"] = _operation(path, read)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The control API of a swarm node",
            "version": version,
            "description": "Served on a Unix socket that its own user alone can open.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {"Error": ERROR}},
    }


class _Reads(Fields):
    """Writes down what is asked of it, and answers with something of that kind."""

    def __init__(self) -> None:
        super().__init__({})
        self.schemas: dict[str, Json] = {}
        self.must: list[str] = []

    def text(self, name: str, *, max_chars: int = MAX_TEXT) -> str:
        self.must.append(name)
        self.optional_text(name, max_chars=max_chars)
        return "x"

    def optional_text(self, name: str, *, max_chars: int = MAX_TEXT) -> str | None:
        self.schemas[name] = {"type": "string", "minLength": 1, "maxLength": max_chars}
        return None

    def integer(self, name: str, default: int | None, low: int, high: int) -> int:
        self.optional_integer(name, low, high)
        if default is None:
            self.must.append(name)
        else:
            self.schemas[name]["default"] = default
        return low if default is None else default

    def optional_integer(self, name: str, low: int, high: int) -> int | None:
        self.schemas[name] = {"type": "integer", "minimum": low, "maximum": high}
        return None

    def flag(self, name: str, *, default: bool) -> bool:
        self.schemas[name] = {"type": "boolean", "default": default}
        return default

    def path(self, name: str) -> Path:
        self.must.append(name)
        self.optional_path(name)
        return Path("/")

    def optional_path(self, name: str) -> Path | None:
        self.optional_text(name)
        self.schemas[name]["pattern"] = PATTERN_OF_A_PATH
        return None

    def paths(self, name: str, most: int) -> list[Path]:
        one = {
            "type": "string",
            "minLength": 1,
            "maxLength": MAX_TEXT,
            "pattern": PATTERN_OF_A_PATH,
        }
        self.must.append(name)
        self.schemas[name] = {"type": "array", "items": one, "minItems": 1, "maxItems": most}
        return [Path("/")]


class _EnoughError(Exception):
    """The node was asked: by then every field was read."""


class _Nobody:
    """Stands for a node while it is found out what a route reads."""

    def __getattr__(self, name: str) -> _Nobody:
        return self

    def __call__(self, *_: object, **__: object) -> None:
        raise _EnoughError


def _fields_of(route: Route, parameters: int) -> _Reads:
    reads = _Reads()
    given = (_Nobody(), reads, _Nobody())[:parameters]
    try:
        route(*given).__await__().send(None)
    except Exception:  # noqa: BLE001 - a placeholder may be no CID; what was read is what is wanted
        return reads
    return reads


def _question(path: str, reads: _Reads) -> Json:
    where = {name: "path" if f"{{{name}}}" in path else "query" for name in reads.schemas}
    return {
        "operationId": f"get {path}",
        "parameters": [
            {
                "name": name,
                "in": where[name],
                "required": where[name] == "path" or name in reads.must,
                "schema": schema,
            }
            for name, schema in reads.schemas.items()
        ],
        "responses": _answers((200, 400, 404, 408, 409, 500, 503), JSON_TYPE, VALUE),
    }


def _operation(path: str, reads: _Reads) -> Json:
    schema = {"type": "object", "properties": reads.schemas, "required": reads.must}
    return {
        "operationId": f"post {path}",
        "requestBody": {"required": False, "content": {JSON_TYPE: {"schema": schema}}},
        "responses": _answers((200, 400, 408, 413), EVENTS_TYPE, {}),
    }


def _answers(statuses: tuple[int, ...], kind: str, schema: Json) -> Json:
    told: Json = {}
    for status in statuses:
        content: Json = {JSON_TYPE: {"schema": {"$ref": "#/components/schemas/Error"}}}
        if status == 200:
            content = {kind: {"schema": schema}}
        told[str(status)] = {"description": _WORDS[status], "content": content}
    return told
