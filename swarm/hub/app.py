"""The routes of the Hub's read API, and what each answer says of itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

import structlog
import trio
from starlette.responses import Response
from starlette.routing import Route

from storage import cid as cids
from swarm.control import body as bodies
from swarm.control.faults import STATUS, status_of, translate
from swarm.control.told import JsonAnswer
from swarm.errors import NotFoundError, UsageError
from swarm.gateway import requests
from swarm.gateway.app import SANDBOX, type_of
from swarm.gateway.paths import PATH
from swarm.gateway.requests import UnsatisfiableError
from swarm.gateway.stream import Stream
from swarm.hub.errors import EntryNotFoundError, HubError, RepoNotFoundError
from swarm.hub.repository import MAIN, MAX_FILES, NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from swarm.hub.repository import File, Hub, Version
    from swarm.hub.revisions import Revision

    Json = dict[str, Any]
    Work = Callable[["_Question"], Awaitable[ASGIApp]]

MAX_BODY_BYTES: Final = 2**20
"""Of a question that names paths."""
UNREACHABLE: Final = 503
"""Nobody that was asked has it: not 404, which clients remember as that there is no such file."""

_log = structlog.get_logger("swarm.hub")


def routes(hub: Hub) -> list[Route]:
    """The Hub's routes, to stand in another application."""
    found = []
    for kind, before in (("models", ""), ("datasets", "/datasets")):
        repo = "{namespace}/{name}"
        api = f"/api/{kind}/{repo}"
        one_file = f"{before}/{repo}/resolve/{{revision}}/{PATH}"
        for path, work, methods in (
            (one_file, _resolve, ["GET", "HEAD"]),
            (api, _info, ["GET"]),
            (f"{api}/revision/{{revision}}", _info, ["GET"]),
            (f"{api}/tree/{{revision}}", _tree, ["GET"]),
            (f"{api}/tree/{{revision}}/{PATH}", _tree, ["GET"]),
            (f"{api}/paths-info/{{revision}}", _paths_info, ["POST"]),
            (f"{api}/refs", _refs, ["GET"]),
        ):
            found.append(Route(path, _answer(hub, kind, work), methods=methods))
    return found


def _answer(hub: Hub, kind: str, work: Work) -> Callable[[Request], Awaitable[ASGIApp]]:
    async def answer(request: Request) -> ASGIApp:
        if (refused := requests.refusal(request.headers)) is not None:
            return JsonAnswer({"error": refused}, 403)
        question = _Question(hub, kind, request)
        try:
            return await work(question)
        except HubError as error:
            return _failure(error.status, error.code, str(error), question.revision)
        except Exception as error:  # noqa: BLE001 - the boundary: each becomes an answer
            fault = translate(error)
            status = UNREACHABLE if isinstance(fault, NotFoundError) else status_of(fault)
            if status == STATUS["internal"]:
                _log.error("hub.bug", exc_info=error)
            return _failure(status, None, fault.message, question.revision)

    return answer


def _failure(status: int, code: str | None, message: str, revision: Revision | None) -> Response:
    printable = "".join(one if " " <= one <= "~" else "?" for one in message)
    headers = {"x-error-message": printable}
    if code is not None:
        headers["x-error-code"] = code
    if revision is not None:
        headers["x-repo-commit"] = revision.alias
    return JsonAnswer({"error": message}, status, {**headers, "cache-control": "no-store"})


class _Question:
    """One request.

    Attributes:
        revision: The version that is asked about, as soon as it is known.
    """

    def __init__(self, hub: Hub, kind: str, request: Request) -> None:
        self.hub = hub
        self.kind = kind
        self.request = request
        self.name: str = request.path_params["name"]
        self.path: str = request.path_params.get("path", "")
        self.revision: Revision | None = None

    def check_namespace(self) -> None:
        """Refuse a repository of somebody else."""
        namespace = self.request.path_params["namespace"]
        if namespace != NAMESPACE:
            message = (
                f"{namespace[:80]}/{self.name[:80]} is not here: repositories are {NAMESPACE}/NAME"
            )
            raise RepoNotFoundError(message)

    async def version(self) -> Version:
        """The version that is asked about."""
        self.check_namespace()
        wanted = self.request.path_params.get("revision", MAIN)
        found = await self.hub.version(self.kind, self.name, wanted)
        self.revision = found.revision
        return found


async def _resolve(asked: _Question) -> ASGIApp:
    version = await asked.version()
    file = await version.file(asked.path)
    if file.is_folder:
        message = f"{asked.path[:200]!r} is a folder"
        raise EntryNotFoundError(message)
    etag = f'"{cids.text(file.cid)}"'
    headers = {
        "etag": etag,
        "x-repo-commit": version.revision.alias,
        "x-linked-etag": etag,
        "x-linked-size": str(file.size),
        "accept-ranges": "bytes",
        "content-type": type_of(file.path.rpartition("/")[2]),
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
        "content-security-policy": SANDBOX,
        "cross-origin-resource-policy": "same-origin",
    }
    given = asked.request.headers
    if requests.is_known(etag, given.get("if-none-match")):
        return Response(None, 304, headers)
    wanted = given.get("range") if given.get("if-range", etag) == etag else None
    try:
        span = requests.span(wanted, file.size)
    except UnsatisfiableError:
        return Response(None, 416, {"content-range": f"bytes */{file.size}"})
    start, end = (0, file.size) if span is None else (span.start, span.end)
    headers["content-length"] = str(end - start)
    if span is not None:
        headers["content-range"] = f"bytes {start}-{end - 1}/{file.size}"
    is_head = asked.request.method == "HEAD"
    body = None if is_head else version.read(file, start, end - start)
    return Stream(body, headers, 200 if span is None else 206)


async def _info(asked: _Question) -> ASGIApp:
    version = await asked.version()
    revision = version.revision
    files = await version.files()
    front = await version.front()
    name = f"{NAMESPACE}/{revision.name}"
    found: Json = {
        "_id": revision.alias,
        "id": name,
        "author": NAMESPACE,
        "sha": revision.alias,
        "private": False,
        "gated": False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": front.get("tags", []),
        "cardData": front,
        "siblings": [
            {"rfilename": file.path, "size": file.size, "blobId": cids.text(file.cid)}
            for file in files
            if not file.is_folder
        ],
        "swarm": _about(revision) | {"record": asked.hub.record(revision).hex()},
    }
    if asked.kind == "models":
        found["modelId"] = name
        found |= {key: front[key] for key in ("library_name", "pipeline_tag") if key in front}
    return JsonAnswer(found, headers=_plain(revision))


async def _tree(asked: _Question) -> ASGIApp:
    version = await asked.version()
    recursive = asked.request.query_params.get("recursive", "false").lower() in ("true", "1")
    files = await version.files(asked.path, recursive=recursive)
    return JsonAnswer([_entry(file) for file in files], headers=_plain(version.revision))


async def _paths_info(asked: _Question) -> ASGIApp:
    version = await asked.version()
    found = []
    for path in await _paths(asked.request):
        try:
            file = await version.file(path.strip("/"))
        except EntryNotFoundError:
            continue
        found.append(_entry(file))
    return JsonAnswer(found, headers=_plain(version.revision))


async def _paths(request: Request) -> list[str]:
    """The paths of a question's body, which is a form or JSON."""
    body = await bodies.read(request, MAX_BODY_BYTES)
    text = body.decode(errors="replace")
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            value = json.loads(text)
            given = value.get("paths") if isinstance(value, dict) else None
        else:
            given = parse_qs(text, max_num_fields=MAX_FILES).get("paths")
    except (ValueError, RecursionError) as error:
        message = f"the request cannot be read: {error}"
        raise UsageError(message) from error
    paths = [given] if isinstance(given, str) else given
    if not isinstance(paths, list) or not all(isinstance(one, str) for one in paths):
        message = "paths: not a list of texts"
        raise UsageError(message)
    if len(paths) > MAX_FILES:
        message = f"paths: more than {MAX_FILES:,}"
        raise UsageError(message)
    return paths


async def _refs(asked: _Question) -> ASGIApp:
    asked.check_namespace()
    tags = await trio.to_thread.run_sync(asked.hub.tags, asked.kind, asked.name)
    return JsonAnswer(
        {
            "branches": [
                {"name": MAIN, "ref": f"refs/heads/{MAIN}", "targetCommit": tags[0].alias}
            ],
            "converts": [],
            "tags": [
                {
                    "name": f"v{one.version}",
                    "ref": f"refs/tags/v{one.version}",
                    "targetCommit": one.alias,
                }
                for one in tags
                if one.version is not None
            ],
        }
    )


def _entry(file: File) -> Json:
    kind = "directory" if file.is_folder else "file"
    return {"type": kind, "path": file.path, "size": file.size, "oid": cids.text(file.cid)}


def _about(revision: Revision) -> Json:
    return {"name": revision.name, "version": revision.version, "cid": cids.text(revision.root)}


def _plain(revision: Revision) -> dict[str, str]:
    return {"x-repo-commit": revision.alias, "cache-control": "no-cache"}
