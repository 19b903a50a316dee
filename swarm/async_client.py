"""The SDK for programs with an event loop, asyncio's or Trio's: what `swarm.client` does, awaited.

    from swarm.async_client import AsyncClient

    async with AsyncClient.of_home(Path.home() / ".local/share/swarm/local") as client:
        print((await client.status())["height"])

Each method has the arguments, the answer and the errors of the method of the same name there.
Cancelling an operation cancels it at the node too. Several tasks may use one client at once.
"""

from __future__ import annotations

import inspect
import json
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar, cast

import anyio
import httpx

from swarm.asking import (
    ANSWER_SECONDS,
    CONNECT_SECONDS,
    MAX_EVENT_BYTES,
    Noting,
    answer_value,
    check_version,
    query_of,
    refused,
    route_of,
    tell,
)
from swarm.client import Client, socket_of
from swarm.errors import (
    NetworkError,
    NotFoundError,
    RefusedError,
    SwarmError,
    UsageError,
    from_json,
)
from swarm.release import HEADER

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path
    from types import TracebackType

    from swarm.asking import Json, Progress

__all__ = [
    "AsyncClient",
    "NetworkError",
    "NotFoundError",
    "Noting",
    "RefusedError",
    "SwarmError",
    "UsageError",
    "socket_of",
]

FOLLOW_SECONDS = 1.0
"""Between two looks at a task."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


@dataclass(frozen=True, slots=True)
class _Call:
    """What a method of `Client` asks: a question, or an operation with its progress."""

    route: str
    fields: dict[str, object]
    is_operation: bool
    progress: Progress | None = None


class _Asking(Client):
    """A client that asks nobody: its methods give what they would have asked."""

    def __init__(self) -> None:
        """Open nothing."""

    def _ask(self, route: str, **query: object) -> Any:  # noqa: ANN401 - a `_Call`, where the caller has JSON
        return _Call(route, {k: v for k, v in query.items() if v is not None}, is_operation=False)

    def _run(self, route: str, progress: Progress | None, **fields: object) -> Any:  # noqa: ANN401
        given = {name: value for name, value in fields.items() if value is not None}
        return _Call(route, given, is_operation=True, progress=progress)


_ASKING = _Asking()


def _later(
    method: Callable[Concatenate[Client, _P], _R],
) -> Callable[Concatenate[AsyncClient, _P], Awaitable[_R]]:
    """The method that asks the same, and is awaited."""

    async def ask(self: AsyncClient, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        return cast("_R", await self._do(cast("_Call", method(_ASKING, *args, **kwargs))))

    # What `help` shows; `wraps` would keep the types of the method that is not awaited.
    ask.__name__, ask.__qualname__ = method.__name__, f"AsyncClient.{method.__name__}"
    ask.__doc__ = method.__doc__
    ask.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
    return ask


class AsyncClient:
    """A node's control socket, for an event loop.

    Args:
        socket_path: As `socket_of` gives it.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                uds=os.fspath(socket_path),
                verify=False,
                limits=httpx.Limits(max_connections=None),  # else one more waits for an operation
            ),
            base_url="http://swarm/v1/",
            timeout=httpx.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            trust_env=False,
        )

    @classmethod
    def of_home(cls, home: Path) -> Self:
        """The client of the node that runs on a data folder."""
        return cls(socket_of(home))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    status = _later(Client.status)
    peers = _later(Client.peers)
    blocks = _later(Client.blocks)
    block = _later(Client.block)
    balance = _later(Client.balance)
    tasks = _later(Client.tasks)
    scoreboard = _later(Client.scoreboard)
    receipts = _later(Client.receipts)
    send = _later(Client.send)
    stake = _later(Client.stake)
    unstake = _later(Client.unstake)
    withdraw = _later(Client.withdraw)
    unjail = _later(Client.unjail)
    validators = _later(Client.validators)
    transaction = _later(Client.transaction)
    submit = _later(Client.submit)
    prove = _later(Client.prove)
    headers = _later(Client.headers)
    handoffs = _later(Client.handoffs)
    publish = _later(Client.publish)
    plan = _later(Client.plan)
    check = _later(Client.check)
    wait_fetched = _later(Client.wait_fetched)
    get = _later(Client.get)
    fetch = _later(Client.fetch)
    link_to_hub = _later(Client.link_to_hub)
    storage = _later(Client.storage)
    lend = _later(Client.lend)
    watch = _later(Client.watch)
    post_task = _later(Client.post_task)
    replay = _later(Client.replay)
    sample = _later(Client.sample)
    classify = _later(Client.classify)
    evaluate = _later(Client.evaluate)
    look = _later(Client.look)
    entries = _later(Client.entries)
    hold = _later(Client.hold)
    pin = _later(Client.pin)
    unpin = _later(Client.unpin)
    kept = _later(Client.kept)
    collect = _later(Client.collect)
    verify = _later(Client.verify)
    import_car = _later(Client.import_car)
    care = _later(Client.care)
    levels = _later(Client.levels)
    set_levels = _later(Client.set_levels)
    pause = _later(Client.pause)
    resume = _later(Client.resume)
    limit = _later(Client.limit)
    leave = _later(Client.leave)
    page_link = _later(Client.page_link)

    async def dataset(
        self, action: str, progress: Progress | None = None, **fields: object
    ) -> Json:
        """Ask about versions of datasets; as `Client.dataset`."""
        call = _ASKING.dataset(action, progress, **fields)
        return cast("Json", await self._do(cast("_Call", call)))

    async def keep(self, action: str, progress: Progress | None = None, **fields: object) -> Json:
        """Ask about deals; as `Client.keep`."""
        call = _ASKING.keep(action, progress, **fields)
        return cast("Json", await self._do(cast("_Call", call)))

    async def model(self, action: str, progress: Progress | None = None, **fields: object) -> Json:
        """Ask about versions of models; as `Client.model`."""
        call = _ASKING.model(action, progress, **fields)
        return cast("Json", await self._do(cast("_Call", call)))

    async def follow(self, task: str, seconds: float = FOLLOW_SECONDS) -> AsyncIterator[Json]:
        """What `watch` tells, now and with each change, until the task is over."""
        before: Json | None = None
        while True:
            found = await self.watch(task)
            if found != before:
                yield found
            before = found
            if not found["open"]:
                return
            await anyio.sleep(seconds)

    async def read(
        self, cid: str, path: str = "", start: int = 0, length: int | None = None
    ) -> bytes:
        """Bytes of a file; as `Client.read`."""
        if length == 0:
            return b""
        end = "" if length is None else start + length - 1
        headers = {"range": f"bytes={start}-{end}"}
        parts = [one async for one in self._bytes(route_of(cid, path), headers)]
        return b"".join(parts)

    async def export_car(self, cid: str) -> AsyncIterator[bytes]:
        """The bytes of a CAR file with everything below a root."""
        async for part in self._bytes(f"/ipfs/{cid}", {"accept": "application/vnd.ipld.car"}):
            yield part

    async def finish(self, progress: Progress | None = None, *, wait: bool = True) -> Json:
        """Let the node end what it began and stop; as `Client.finish`."""
        call = _Call("care/finish", {"wait": wait}, is_operation=True, progress=progress)
        try:
            return cast("Json", await self._do(call))
        except NetworkError as error:
            if not isinstance(error.__cause__, httpx.RemoteProtocolError | httpx.ReadError):
                raise
            return {"owing": 0, "finishing": True}

    async def stop(self) -> None:
        """Ask the node to stop; as `Client.stop`."""
        try:
            await self._do(_Call("stop", {}, is_operation=True))
        except NetworkError as error:
            if not isinstance(error.__cause__, httpx.RemoteProtocolError | httpx.ReadError):
                raise

    async def _do(self, call: _Call) -> Any:  # noqa: ANN401 - JSON
        async with self._reaching():
            if call.is_operation:
                return await self._operate(call)
            target = f"{call.route}?{query_of(call.fields)}".rstrip("?")
            answer = await self._http.get(target)
            check_version(call.route, answer.headers.get(HEADER))
            return answer_value(answer.content)

    async def _operate(self, call: _Call) -> Any:  # noqa: ANN401 - JSON
        body = json.dumps(call.fields)  # ASCII, unlike httpx's: a path need not be UTF-8
        headers = {"content-type": "application/json"}
        async with self._http.stream("POST", call.route, content=body, headers=headers) as answer:
            check_version(call.route, answer.headers.get(HEADER))
            if answer.status_code != httpx.codes.OK:
                return answer_value(await answer.aread())
            last: Json = {}
            # To its end: a stream that is left early is not closed at once.
            async for event in _events(answer):
                if event.get("event") == "progress" and call.progress is not None:
                    tell(call.progress, event)
                last = event
        match last.get("event"):
            case "result":
                return last["value"]
            case "error":
                raise from_json(last["error"])
        message = "the node stopped before it was done"
        raise NetworkError(message) from httpx.RemoteProtocolError(message)

    async def _bytes(self, route: str, headers: dict[str, str]) -> AsyncIterator[bytes]:
        url = f"http://swarm{route}"
        async with self._reaching(), self._http.stream("GET", url, headers=headers) as answer:
            if answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return
            if answer.status_code not in {httpx.codes.OK, httpx.codes.PARTIAL_CONTENT}:
                raise refused(answer.status_code, await answer.aread())
            async for part in answer.aiter_bytes():
                yield part

    @asynccontextmanager
    async def _reaching(self) -> AsyncIterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            message = f"no node answers on {self._path}"
            raise NetworkError(message, "start one with: swarm join") from error
        except httpx.TimeoutException as error:
            message = f"the node has not answered for {ANSWER_SECONDS} s"
            raise NetworkError(message) from error
        except httpx.TransportError as error:
            message = "the node stopped before it was done"
            raise NetworkError(message) from error


async def _events(answer: httpx.Response) -> AsyncIterator[Json]:
    buffer = bytearray()
    async for part in answer.aiter_bytes():
        buffer += part
        # Looked for in what came, or a long line would be read again with each part.
        if b"\n" in part:
            *lines, rest = bytes(buffer).split(b"\n")
            for line in lines:
                if line:
                    yield json.loads(line)
            buffer = bytearray(rest)
        if len(buffer) > MAX_EVENT_BYTES:
            message = f"the node's answer has a line of more than {MAX_EVENT_BYTES:,} bytes"
            raise SwarmError(message)
