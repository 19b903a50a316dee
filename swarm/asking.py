"""How a running node is asked: one question or operation over its control socket, and what it answers.

Each is a connection of its own. Plain `http.client`, since to load more takes longer than the node takes to answer.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable
from urllib.parse import quote, urlencode

from swarm.errors import (
    NetworkError,
    NotFoundError,
    RefusedError,
    SwarmError,
    UsageError,
    from_json,
)
from swarm.release import HEADER, version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Json = dict[str, Any]
    Progress = Callable[[str, int, int], None]

CONNECT_SECONDS = 5
AGAIN_SECONDS = 0.05
"""Before the next look for a place, where as many wait for the node as may."""
ANSWER_SECONDS = 30
"""A node that says nothing for this long does not answer: an operation is told alive every 5 s."""

ANY_VERSION = frozenset({"stop", "care/finish", "care/leave"})
"""What is asked of a node of another version too: it is how it is restarted."""

MAX_EVENT_BYTES = 64 * 2**20
MAX_REASON_BYTES = 4096
READ_BYTES = 2**18

OK: Final = 200
PARTIAL: Final = 206
NOT_IN_RANGE: Final = 416
NO_HEADERS: Final[Mapping[str, str]] = {}


@runtime_checkable
class Noting(Protocol):
    """A progress callback that is told of each stage, beside how much is done, how it stands."""

    def __call__(self, stage: str, done: int, total: int, /) -> None:
        """So much of a stage is done; the total is 0 while it is not known."""

    def note(self, stage: str, text: str, /) -> None:
        """From whom it comes and how fast, or why nothing comes; empty where there is nothing to say."""


class Asker:
    """Asks a node over its control socket.

    Args:
        socket_path: As `socket_of` gives it.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    def _ask(self, route: str, **query: object) -> Any:  # noqa: ANN401 - JSON
        params = query_of(query)
        with self._exchange("GET", f"/v1/{route}?{params}".rstrip("?")) as answer:
            check_version(route, answer.getheader(HEADER))
            return answer_value(self._read(answer.read))

    def _run(self, route: str, progress: Progress | None, **fields: object) -> Any:  # noqa: ANN401
        body = {name: value for name, value in fields.items() if value is not None}
        headers = {"content-type": "application/json"}
        with self._exchange("POST", f"/v1/{route}", json.dumps(body), headers) as answer:
            check_version(route, answer.getheader(HEADER))
            if answer.status != OK:
                return answer_value(self._read(answer.read))
            for event in self._events(answer):
                match event.get("event"):
                    case "progress":
                        if progress is not None:
                            tell(progress, event)
                    case "result":
                        return event["value"]
                    case "error":
                        raise from_json(event["error"])
        message = "the node stopped before it was done"
        raise NetworkError(message) from IncompleteRead(b"")

    def _bytes(self, route: str, headers: dict[str, str]) -> Iterator[bytes]:
        with self._exchange("GET", route, headers=headers) as answer:
            if answer.status == NOT_IN_RANGE:
                return
            if answer.status not in {OK, PARTIAL}:
                raise refused(answer.status, self._read(answer.read))
            while part := self._read(partial(answer.read1, READ_BYTES)):
                yield part
            if answer.length:  # `read1` does not tell an end that came too early
                raise self._unreachable(IncompleteRead(b"", answer.length))

    @contextmanager
    def _exchange(
        self,
        method: str,
        target: str,
        body: str | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Iterator[HTTPResponse]:
        """One question and its answer, over a connection that ends with them.

        Raises:
            NetworkError: Nobody listens, the node is silent for too long, or it ends in the middle.
        """
        connection = _Connection(self._path)
        try:
            connection.connect()
        except BlockingIOError as error:
            message = f"the node has taken nobody for {CONNECT_SECONDS} s: too many ask at once"
            raise NetworkError(message) from error
        except OSError as error:
            raise self._nobody() from error
        try:
            try:
                connection.request(method, target, body, dict(headers))
                answer = connection.getresponse()
            except (HTTPException, OSError) as error:
                raise self._unreachable(error) from error
            with answer:
                yield answer
        finally:
            connection.close()

    def _events(self, answer: HTTPResponse) -> Iterator[Json]:
        while line := self._read(partial(answer.readline, MAX_EVENT_BYTES + 1)):
            if len(line) > MAX_EVENT_BYTES:
                message = f"the node's answer has a line of more than {MAX_EVENT_BYTES:,} bytes"
                raise SwarmError(message)
            if line.strip():
                yield json.loads(line)

    def _read(self, part: Callable[[], bytes]) -> bytes:
        try:
            return part()
        except (HTTPException, OSError) as error:
            raise self._unreachable(error) from error

    def _nobody(self) -> NetworkError:
        return NetworkError(f"no node answers on {self._path}", "start one with: swarm join")

    def _unreachable(self, error: HTTPException | OSError) -> NetworkError:
        if isinstance(error, TimeoutError):
            return NetworkError(f"the node has not answered for {ANSWER_SECONDS} s")
        return NetworkError("the node stopped before it was done")


class _Connection(HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("swarm", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = connected(self._path)
        self.sock.settimeout(ANSWER_SECONDS)


def connected(path: Path) -> socket.socket:
    """A connection to a control socket; where many wait for one already, it waits for a place among them.

    Raises:
        BlockingIOError: There was none for `CONNECT_SECONDS`.
        OSError: Nobody listens.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    made = socket.socket(socket.AF_UNIX)
    try:
        made.settimeout(CONNECT_SECONDS)
        while True:
            try:
                made.connect(os.fspath(path))
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(AGAIN_SECONDS)  # noqa: TID251 - of a program that has no event loop
            else:
                return made
    except BaseException:
        made.close()
        raise


def query_of(values: Mapping[str, object]) -> str:
    """The query of a question; what is None is left out.

    Raises:
        UsageError: A value is not UTF-8: no question has a path of this machine.
    """
    try:
        return urlencode({name: value for name, value in values.items() if value is not None})
    except UnicodeEncodeError as error:
        message = f"not UTF-8: {error.object!a}"
        raise UsageError(message) from error


def route_of(cid: str, path: str) -> str:
    """Where the bytes at a path below a root are.

    Raises:
        UsageError: The path is not UTF-8, as none in content is.
    """
    try:
        return f"/ipfs/{quote(cid)}/{quote(path)}".rstrip("/")
    except UnicodeEncodeError as error:
        message = f"not UTF-8: {error.object!a}"
        raise UsageError(message) from error


def check_version(route: str, theirs: str | None) -> None:
    """Refuse a node of another version, whose answers may lack what this one's have.

    Args:
        route: What was asked.
        theirs: The version that its answer names.

    Raises:
        RefusedError: It is another one.
    """
    if theirs == version() or route in ANY_VERSION:
        return
    told = theirs or "unknown (an older build)"
    message = f"the node runs version {told}, this command is {version()}"
    raise RefusedError(message, "restart the node: `swarm finish` ends it, `swarm join` starts it")


def tell(progress: Progress, event: Json) -> None:
    """Tell a callback of an event of progress."""
    progress(event["stage"], event["done"], event["total"])
    if isinstance(progress, Noting):
        progress.note(event["stage"], event.get("note", ""))


def answer_value(content: bytes) -> Any:  # noqa: ANN401 - JSON
    """What the node answered a question; its error is raised."""
    try:
        answer = json.loads(content)
    except ValueError as error:
        message = "the node's answer is not JSON"
        raise SwarmError(message) from error
    if "error" in answer:
        raise from_json(answer["error"])
    return answer["value"]


def refused(status: int, content: bytes) -> SwarmError:
    """Why bytes were not given."""
    text = content[:MAX_REASON_BYTES].decode(errors="replace").strip()
    kind = {400: UsageError, 404: NotFoundError, 409: RefusedError, 503: NetworkError}
    return kind.get(status, SwarmError)(text or f"HTTP {status}")
