"""The routes of the gateway, and what each answer says of itself."""

from __future__ import annotations

import contextlib
import hashlib
import html
import mimetypes
import os
from typing import TYPE_CHECKING
from urllib.parse import quote

import structlog
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from storage import cid as cids
from storage.errors import PathNotFoundError
from swarm.control.faults import STATUS, translate
from swarm.gateway import requests
from swarm.gateway.paths import PATH
from swarm.gateway.requests import CAR_TYPE, RAW_TYPE, UnsatisfiableError
from swarm.gateway.stream import Stream
from swarm.ranges import ENTITY

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from storage.cid import Cid
    from storage.unixfs import Entry
    from swarm.ranges import Ranges, Reading

    Headers = dict[str, str]

INDEX = "index.html"
MAX_LISTED = 10_000
"""Entries on the page of one folder."""
FOREVER = "public, max-age=29030400, immutable"
A_WEEK = "public, max-age=604800, stale-while-revalidate=2678400"
SANDBOX = "sandbox allow-downloads; default-src 'none'; img-src 'self'; media-src 'self'; style-src 'self' 'unsafe-inline'"

_TYPES = mimetypes.MimeTypes(filenames=())
_TYPES.add_type("text/markdown", ".md")  # Python knows it from 3.14 on
_log = structlog.get_logger("swarm.gateway")


def make_app(ranges: Ranges, more: Sequence[Route] = ()) -> Starlette:
    """The gateway, with more routes beside its own; it answers only who asks a loopback name."""
    app = Starlette(routes=[*routes(lambda: ranges, check_host=True), *more])
    app.router.redirect_slashes = (
        False  # that would answer before the Host is looked at, and repeat it
    )
    return app


def routes(ranges: Callable[[], Ranges], *, check_host: bool) -> list[Route]:
    """The gateway's routes, to stand in another application too.

    Args:
        ranges: Gives what content is read with.
        check_host: Refuse a request whose `Host` is no loopback name.
    """

    async def answer(request: Request) -> ASGIApp:
        try:
            if check_host and (refused := requests.refusal(request.headers)) is not None:
                return Response(f"{refused}\n", 403)
            return await _Answer(request, ranges()).make()
        except UnsatisfiableError:
            return Response("no byte of the file is in that range\n", 416)
        except Exception as error:  # noqa: BLE001 - the boundary: each becomes an answer
            return _failure(error)

    return [Route(f"/ipfs/{PATH}", answer, methods=["GET", "HEAD"])]


def _failure(error: Exception) -> Response:
    fault = translate(error)
    status = STATUS[fault.code]
    if status == STATUS["internal"]:
        _log.error("gateway.bug", exc_info=error)
    return Response(
        f"{fault.message}\n",
        status,
        {"cache-control": "no-store", "x-content-type-options": "nosniff"},
        media_type="text/plain",
    )


class _Answer:
    """One request and what it is answered with."""

    def __init__(self, request: Request, ranges: Ranges) -> None:
        self._query: Mapping[str, str] = request.query_params
        self._asked = request.headers
        self._is_head = request.method == "HEAD"
        self._url_path: str = request.scope["path"]  # decoded once, where a URL quotes it again
        self._root, self._path = requests.split(request.path_params["path"])
        self._reading: Reading = ranges.of(self._root)

    async def make(self) -> ASGIApp:
        wanted = requests.wanted_format(self._query, self._asked.get("accept", ""))
        if wanted == "car":
            return await self._car()
        if wanted == "raw":
            return await self._raw(await self._reading.resolve(self._path))
        cid = await self._reading.find(self._path)
        found = await self._reading.look(cid)
        if found.kind == "folder":
            return await self._folder(cid)
        return await self._file(cid, found, self._path.rpartition("/")[2])

    async def _raw(self, cid: Cid) -> Response:
        name = cids.text(cid)
        headers = self._headers(f'"{name}.raw"', FOREVER, cid)
        if self._has(headers):
            return Response(None, 304, headers)
        headers["content-disposition"] = f'attachment; filename="{name}.bin"'
        return Response(await self._reading.block(cid), 200, headers, RAW_TYPE)

    async def _car(self) -> ASGIApp:
        scope = requests.wanted_scope(self._query)
        cid = await self._reading.resolve(self._path)
        start, length = 0, None
        if scope == ENTITY and "entity-bytes" in self._query:
            found = await self._reading.look(cid)
            start, length = requests.entity_bytes(self._query, found.size)
        else:
            await self._reading.block(cid)
        shape = f"{self._path}\0{scope}\0{start}\0{length}".encode()
        name = f"{cids.text(self._root)}.car.{hashlib.sha256(shape).hexdigest()[:16]}"
        headers = self._headers(f'W/"{name}"', FOREVER, cid)
        if self._has(headers):
            return Response(None, 304, headers)
        headers["content-type"] = f"{CAR_TYPE}; version=1; order=dfs; dups=n"
        headers["content-disposition"] = f'attachment; filename="{cids.text(self._root)}.car"'
        headers["accept-ranges"] = "none"
        return Stream(
            None if self._is_head else self._reading.car(self._path, scope, start, length), headers
        )

    async def _file(self, cid: Cid, found: Entry, name: str) -> ASGIApp:
        headers = self._headers(f'"{cids.text(cid)}"', FOREVER, cid)
        if self._has(headers):
            return Response(None, 304, headers)
        if found.kind == "symlink":
            return Response(await self._target(cid), 200, headers, "inode/symlink")
        headers |= {"content-type": type_of(name), "accept-ranges": "bytes"}
        if self._query.get("download") == "true":
            saved = quote(self._query.get("filename", name or cids.text(cid))[:255], safe="")
            headers["content-disposition"] = f"attachment; filename*=UTF-8''{saved}"
        asked = self._asked.get("range")
        if self._asked.get("if-range", headers["etag"]) != headers["etag"]:
            asked = None
        try:
            span = requests.span(asked, found.size)
        except UnsatisfiableError:
            return Response(None, 416, {"content-range": f"bytes */{found.size}"})
        start, end = (0, found.size) if span is None else (span.start, span.end)
        headers["content-length"] = str(end - start)
        if span is not None:
            headers["content-range"] = f"bytes {start}-{end - 1}/{found.size}"
        body = None if self._is_head else self._reading.read(cid, start, end - start)
        return Stream(body, headers, 200 if span is None else 206)

    async def _target(self, cid: Cid) -> bytes:
        from storage.unixfs_nodes import read_node

        return read_node(cid, await self._reading.block(cid)).data

    async def _folder(self, cid: Cid) -> ASGIApp:
        if not self._url_path.endswith("/"):
            # Relative, so that it leads nowhere else whatever the path begins with.
            last = quote(self._url_path.rpartition("/")[2], safe="")
            return Response(None, 301, {"location": f"./{last}/", "cache-control": A_WEEK})
        with contextlib.suppress(PathNotFoundError):
            index = await self._reading.find(f"{self._path}/{INDEX}")
            found = await self._reading.look(index)
            if found.kind == "file":
                return await self._file(index, found, INDEX)
        headers = self._headers(f'"DirIndex-{cids.text(cid)}"', A_WEEK, cid)
        if self._has(headers):
            return Response(None, 304, headers)
        names = await self._reading.names(cid, MAX_LISTED + 1)
        entries = [(link.name, link.size) for link in names]
        page = _page(f"/ipfs/{cids.text(self._root)}/{self._path}", entries)
        return Response(page, 200, headers, "text/html")

    def _headers(self, etag: str, keep: str, cid: Cid) -> Headers:
        path = quote(f"/ipfs/{cids.text(self._root)}/{self._path}".rstrip("/"))
        roots = dict.fromkeys((cids.text(self._root), cids.text(cid)))
        return {
            "etag": etag,
            "cache-control": keep,
            "x-ipfs-path": path,
            "x-ipfs-roots": ",".join(roots),
            "x-content-type-options": "nosniff",
            "content-security-policy": SANDBOX,
            "cross-origin-resource-policy": "same-origin",
        }

    def _has(self, headers: Headers) -> bool:
        return requests.is_known(headers["etag"], self._asked.get("if-none-match"))


def type_of(name: str) -> str:
    """The media type that a file's name says."""
    kind, encoding = _TYPES.guess_type(name, strict=False)
    if kind is None or encoding is not None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _page(path: str, entries: list[tuple[str, int | None]]) -> str:
    entries.sort(key=lambda entry: os.fsencode(entry[0]))
    title = html.escape(path)
    rows = "".join(
        f'<tr><td><a href="./{quote(name, safe="")}">{html.escape(name)}</a></td>'
        f"<td>{'' if size is None else f'{size:,}'}</td></tr>\n"
        for name, size in entries[:MAX_LISTED]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        "<style>body{font-family:sans-serif;margin:2em}td{padding:.1em 1.5em .1em 0}"
        "td+td{text-align:right}</style></head><body>\n"
        f"<h1>{title}</h1>\n<table>\n"
        f'<tr><td><a href="../">..</a></td><td></td></tr>\n{rows}</table>\n'
        f"{'<p>and more</p>' if len(entries) > MAX_LISTED else ''}</body></html>\n"
    )
