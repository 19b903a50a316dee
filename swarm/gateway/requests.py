"""What a request asks for: its path, format, range and conditions. No I/O."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from storage import cid as cids
from swarm.errors import UsageError
from swarm.ranges import ALL, BLOCK, ENTITY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from storage.cid import Cid

RAW_TYPE = "application/vnd.ipld.raw"
CAR_TYPE = "application/vnd.ipld.car"
SCOPES = {"block": BLOCK, "entity": ENTITY, "all": ALL}
MAX_PATH_BYTES = 4_096

_LOOPBACK = re.compile(
    r"(127(\.[0-9]{1,3}){3}|localhost|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE | re.ASCII
)
_RANGE = re.compile(r"bytes=(\d{1,19})?-(\d{1,19})?")
_ENTITY_BYTES = re.compile(r"(-?\d{1,19}):(\*|-?\d{1,19})")


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes of a file: from `start` to before `end`."""

    start: int
    end: int


class UnsatisfiableError(Exception):
    """No byte of the file is in the range."""


def split(path: str) -> tuple[Cid, str]:
    """The root and the path below it, of what follows `/ipfs/`.

    Raises:
        CidError: The first part is no CID.
        UsageError: The path is too long.
    """
    if len(path.encode(errors="surrogatepass")) > MAX_PATH_BYTES:
        message = f"a path of more than {MAX_PATH_BYTES:,} bytes"
        raise UsageError(message)
    root, _, rest = path.partition("/")
    return cids.parse(root), rest


def wanted_format(query: Mapping[str, str], accept: str) -> str:
    """`raw`, `car`, or nothing for the file or folder itself; the URL goes before the header.

    Raises:
        UsageError: A format, version or order that this gateway does not have.
    """
    asked = query.get("format")
    if asked not in {None, "raw", "car"}:
        message = f"format={asked[:32]}: neither raw nor car"
        raise UsageError(message)
    for part in accept.split(","):
        kind, *parameters = (one.strip().lower() for one in part.split(";"))
        if kind == CAR_TYPE and asked in {None, "car"}:
            _check_car({**dict(one.partition("=")[::2] for one in parameters)})
            asked = "car"
        elif kind == RAW_TYPE and asked is None:
            asked = "raw"
    if asked == "car":
        _check_car({name.removeprefix("car-"): value for name, value in query.items()})
    return asked or ""


def _check_car(parameters: Mapping[str, str]) -> None:
    if parameters.get("version", "1") != "1":
        message = "this gateway writes CAR files of version 1"
        raise UsageError(message)
    if parameters.get("order", "dfs") not in {"dfs", "unk"}:
        message = "this gateway writes CAR files depth first"
        raise UsageError(message)


def wanted_scope(query: Mapping[str, str]) -> str:
    """How much a CAR file is to hold.

    Raises:
        UsageError: Not one of the scopes.
    """
    try:
        return SCOPES[query.get("dag-scope", "entity" if "entity-bytes" in query else "all")]
    except KeyError as error:
        message = "dag-scope: neither block, entity nor all"
        raise UsageError(message) from error


def entity_bytes(query: Mapping[str, str], size: int) -> tuple[int, int | None]:
    """The first byte and the count of `entity-bytes=FROM:TO`, of a file of so many bytes; TO is included.

    Raises:
        UsageError: Not of that form.
    """
    asked = query.get("entity-bytes")
    if asked is None:
        return 0, None
    match = _ENTITY_BYTES.fullmatch(asked)
    if match is None:
        message = "entity-bytes: not FROM:TO, whole numbers or * for the end"
        raise UsageError(message)
    first = int(match[1])
    start = max(0, size + first) if first < 0 else first
    if match[2] == "*":
        return start, None
    last = int(match[2])
    return start, max(0, (size + last if last < 0 else last) + 1 - start)


def span(header: str | None, size: int) -> Span | None:
    """The one range that a `Range` header asks for; None for the whole file.

    Several ranges at once, or what is no range of bytes, are answered with the whole file, as HTTP allows.

    Raises:
        UnsatisfiableError: No byte of the file is in it.
    """
    match = _RANGE.fullmatch((header or "").replace(" ", ""))
    if match is None or not (match[1] or match[2]):
        return None
    if match[1] is None:
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        end = size if match[2] is None else min(size, int(match[2]) + 1)
        if match[2] is not None and int(match[2]) < start:
            return None
    if start >= end:
        raise UnsatisfiableError
    return Span(start, end)


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether the client has it already."""
    if if_none_match is None:
        return False
    known = {one.strip().removeprefix("W/") for one in if_none_match.split(",")}
    return "*" in known or etag.removeprefix("W/") in known


def is_embedded(site: str | None, destination: str | None) -> bool:
    """Whether a page of another site asks for a part of itself: by its `Sec-Fetch-Site` and `Sec-Fetch-Dest`.

    What it would get is kept from it anyway, but that this node fetched it, or had it at hand, would not be. A link that
    a person follows is answered, and so is whatever is no browser.
    """
    return site in {"cross-site", "same-site"} and destination != "document"


def is_foreign(origin: str | None) -> bool:
    """Whether an `Origin` header names a page that is not of this machine."""
    if origin is None:
        return False
    try:
        return not is_local(urlsplit(origin).netloc)
    except ValueError:  # no URL
        return True


def refusal(headers: Mapping[str, str]) -> str | None:
    """Why a request to a port of this machine is not answered, by its headers; None where it is."""
    if not is_local(headers.get("host")):
        return "this gateway serves its own machine"
    if is_embedded(headers.get("sec-fetch-site"), headers.get("sec-fetch-dest")):
        return "this gateway serves no parts of other pages"
    if is_foreign(headers.get("origin")):
        return "this gateway serves no pages of other sites"
    return None


def is_local(host: str | None) -> bool:
    """Whether a `Host` header names this machine by a loopback name."""
    return host is not None and _LOOPBACK.fullmatch(host) is not None
