"""The description of the page's API in the form of OpenAPI 3.1, made from the table of routes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from swarm.control.openapi import ERROR, VALUE
from swarm.page.routes import ENDPOINTS, JSON_TYPE, KEY_HEADER, Endpoint

if TYPE_CHECKING:
    Json = dict[str, Any]

PATH: Final = "/api/openapi.json"
VERSION: Final = "1"
_WORDS: Final = {
    200: "Done.",
    400: "Something in the request cannot be used.",
    401: "No session, and no token.",
    403: "Asked by another site, under another name, or with a link that is not good any more.",
    404: "There is none.",
    408: "The body did not come in time.",
    409: "Not now.",
    413: "The body is too large.",
    415: "The body is not JSON.",
    500: "A fault of the node's own; its log has it.",
    503: "The peers that are needed cannot be reached.",
}


def describe(cookie: str) -> Json:
    """The whole description.

    Args:
        cookie: The name of this node's cookie.
    """
    paths: dict[str, Json] = {
        PATH: {
            "get": {
                "summary": "This description.",
                "operationId": "get openapi",
                "security": [],
                "responses": _answers((200, 400, 403), JSON_TYPE, {"type": "object"}),
            }
        }
    }
    for one in ENDPOINTS:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The page of a swarm node",
            "version": VERSION,
            "description": "Served on 127.0.0.1 alone. Nothing here moves a token.",
        },
        "servers": [{"url": "/"}],
        "security": [{"session": [], "key": []}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": {"Error": ERROR},
            "securitySchemes": {
                "session": {"type": "apiKey", "in": "cookie", "name": cookie},
                "key": {"type": "apiKey", "in": "header", "name": KEY_HEADER},
                "token": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(one: Endpoint) -> Json:
    statuses = {200, 400, 403, 500, *one.statuses}
    if not one.is_open:
        statuses.add(401)
    statuses |= {408, 413} if one.method != "GET" else set()
    statuses |= {415} if one.body is not None else set()
    told: Json = {
        "summary": one.summary,
        "operationId": f"{one.method.lower()} {one.path.removeprefix('/api/')}",
        "parameters": [_parameter(name, what, "query") for name, what in one.query.items()]
        + [_parameter(name, what, "path") for name, what in one.below.items()],
        "responses": _answers(sorted(statuses), one.kind),
    }
    if one.is_open:
        told["security"] = []
    if one.body is not None:
        schema = {
            "type": "object",
            "properties": dict(one.body),
            "required": list(one.must),
            "additionalProperties": False,
        }
        told["requestBody"] = {"required": True, "content": {JSON_TYPE: {"schema": schema}}}
    return told


def _parameter(name: str, schema: Json, where: str) -> Json:
    return {"name": name, "in": where, "required": where == "path", "schema": schema}


def _answers(statuses: Any, kind: str, schema: Json = VALUE) -> Json:  # noqa: ANN401 - ints in order
    told: Json = {}
    for status in statuses:
        content: Json = {JSON_TYPE: {"schema": {"$ref": "#/components/schemas/Error"}}}
        if status == 200:
            content = {kind: {"schema": schema if kind == JSON_TYPE else {}}}
        told[str(status)] = {"description": _WORDS[status], "content": content}
    return told
