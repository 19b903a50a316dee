"""The SDK: asks a running node on this machine, over its control socket.

    from swarm.client import Client

    with Client.of_home(Path.home() / ".local/share/swarm/local") as client:
        print(client.status()["height"])

Needs none of the other rooms; `swarm.async_client` is the same for programs with an event loop. Errors are those of `swarm.errors`: what the node raised is raised here again.
Money is an int in units of 10^-9 token; CIDs and accounts are text.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import contextmanager
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, cast, runtime_checkable
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
from swarm.sockets import socket_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from types import TracebackType

    Json = dict[str, Any]
    Progress = Callable[[str, int, int], None]

__all__ = [
    "Client",
    "NetworkError",
    "NotFoundError",
    "Noting",
    "RefusedError",
    "SwarmError",
    "UsageError",
    "socket_of",
]

CONNECT_SECONDS = 5
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


class Client:
    """Asks a node over its control socket; each question is a connection of its own.

    Plain `http.client`, since to load more takes longer than the node takes to answer.

    Args:
        socket_path: As `socket_of` gives it.
    """

    def __init__(self, socket_path: Path) -> None:
        self._path = socket_path

    @classmethod
    def of_home(cls, home: Path) -> Self:
        """The client of the node that runs on a data folder."""
        return cls(socket_of(home))

    def close(self) -> None:
        """Nothing is held between two questions."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def status(self) -> Json:
        """The node now; see `swarm.control.api.NodeApi.status`."""
        return cast("Json", self._ask("status"))

    def peers(self) -> list[Json]:
        """Connected peers."""
        return cast("list[Json]", self._ask("peers"))

    def blocks(self, start: int | None = None, limit: int = 20) -> list[Json]:
        """Finalized blocks from `start` (None: the head) down."""
        return cast("list[Json]", self._ask("blocks", start=start, limit=limit))

    def block(self, height: int) -> Json:
        """One finalized block with its transactions."""
        return cast("Json", self._ask(f"blocks/{height}"))

    def balance(self, account: str | None = None) -> Json:
        """What an account owns; None is the node's own."""
        return cast("Json", self._ask("balance", account=account))

    def tasks(self) -> list[Json]:
        """Tasks on the ledger."""
        return cast("list[Json]", self._ask("tasks"))

    def scoreboard(self, task: str) -> Json:
        """Who contributed what to a task, by id or name."""
        return cast("Json", self._ask("scoreboard", task=task))

    def send(self, to: str, amount: int, *, wait: bool = True) -> Json:
        """Pay an account; `amount` in units of 10^-9 token."""
        return cast("Json", self._run("send", None, to=to, amount=amount, wait=wait))

    def stake(self, amount: int, *, wait: bool = True) -> Json:
        """Bond units of 10^-9 token: `tx`, `height`, `stake`, `epoch` from which it counts."""
        return cast("Json", self._run("chain/stake", None, amount=amount, wait=wait))

    def unstake(self, amount: int, *, wait: bool = True) -> Json:
        """Take units out of the stake: `tx`, `height`, `stake`, `epoch`, `withdrawable`, `stakes_again`."""
        return cast("Json", self._run("chain/unstake", None, amount=amount, wait=wait))

    def withdraw(self, *, wait: bool = True) -> Json:
        """Take back what has unbonded: `tx`, `height`, `amount`, `balance`."""
        return cast("Json", self._run("chain/withdraw", None, wait=wait))

    def unjail(self, *, wait: bool = True) -> Json:
        """Ask to be a validator again: `tx`, `height`, `stake`, `epoch`."""
        return cast("Json", self._run("chain/unjail", None, wait=wait))

    def receipts(self, task: str | None = None, limit: int | None = None) -> list[Json]:
        """What became of this node's contributions, signed, the oldest first; see `swarm.receipts.receipt`."""
        return cast("list[Json]", self._ask("receipts", task=task, limit=limit))

    def validators(self, epoch: int | None = None) -> Json:
        """Who decides in an epoch; None is the current one."""
        return cast("Json", self._ask("validators", epoch=epoch))

    def transaction(self, identifier: str) -> Json:
        """What became of a transaction: `status` is `waiting`, `done` or `failed`."""
        return cast("Json", self._ask("transaction", id=identifier))

    def submit(self, transactions: Sequence[bytes]) -> Json:
        """Hand in transactions that were signed elsewhere: `taken`, and `refused` with `at` and `error`."""
        joined = " ".join(one.hex() for one in transactions)
        return cast("Json", self._run("chain/submit", None, transactions=joined))

    def prove(
        self, name: str, version: int | None = None, progress: Progress | None = None
    ) -> Json:
        """The proof of a name against the newest block, as `swarm verify-name --proof` reads it."""
        return cast("Json", self._run("chain/prove", progress, name=name, version=version))

    def headers(self, first: int, count: int) -> list[str]:
        """Headers of final blocks from a height on, in hex; at most 1,000."""
        return cast("list[str]", self._ask("chain/headers", first=first, count=count))

    def handoffs(self, first: int, count: int) -> list[str]:
        """Hand-offs of validators from an epoch on, in hex; at most 256."""
        return cast("list[str]", self._ask("chain/handoffs", first=first, count=count))

    def publish(
        self,
        path: Path,
        name: str | None = None,
        progress: Progress | None = None,
        *,
        preserve_mode: bool = False,
        in_place: bool = False,
    ) -> Json:
        """Store a file or folder and announce it, with a name for it on the ledger if given.

        In place, nothing is copied: the content stays in the files, which must not change.
        """
        fields = {"path": _absolute(path), "name": name, "preserve_mode": preserve_mode}
        if in_place:
            fields["in_place"] = True
        return cast("Json", self._run("publish", progress, **fields))

    def plan(
        self, path: Path, progress: Progress | None = None, *, preserve_mode: bool = False
    ) -> Json:
        """What `publish` would do, without a write: `cid`, `size`, `chunks`, `new_bytes`."""
        fields = {"path": _absolute(path), "preserve_mode": preserve_mode}
        return cast("Json", self._run("publish/plan", progress, **fields))

    def check(self, cid: str, draws: int | None = None, progress: Progress | None = None) -> Json:
        """Who holds a root and who gets it; see `swarm.retrieval.checks.Checks.check`."""
        return cast("Json", self._run("check", progress, cid=cid, draws=draws))

    def wait_fetched(
        self, cid: str, seconds: int | None = None, progress: Progress | None = None
    ) -> Json:
        """Wait until another peer has fetched a drawn chunk: `peer` (None: nobody has), `reasons`."""
        return cast("Json", self._run("check/wait", progress, cid=cid, seconds=seconds))

    def get(
        self,
        cid: str,
        path: Path,
        progress: Progress | None = None,
        source: str | None = None,
    ) -> Json:
        """Fetch a root to a path, from the swarm or from the address of a node of IPFS."""
        fields = {"cid": cid, "path": _absolute(path), "source": source}
        return cast("Json", self._run("get", progress, **fields))

    def fetch(
        self,
        name: str,
        version: int | None = None,
        path: Path | None = None,
        progress: Progress | None = None,
        *,
        card: bool = True,
    ) -> Json:
        """Fetch what a name points to; None is the latest version, and the node's own folder.

        A folder without a README.md gets one, unless `card` is False.
        """
        fields = {"name": name, "version": version, "path": _absolute(path)}
        no_card = {} if card else {"card": False}
        return cast("Json", self._run("fetch", progress, **fields, **no_card))

    def link_to_hub(
        self,
        name: str,
        version: int | None,
        cache: Path,
        progress: Progress | None = None,
        *,
        kind: str = "models",
    ) -> Json:
        """Make a version appear in a cache of the Hub's clients; see `swarm.hub.operations`."""
        fields = {"kind": kind, "name": name, "version": version, "cache": _absolute(cache)}
        return cast("Json", self._run("hub/link", progress, **fields))

    def serve(
        self,
        name: str,
        version: int | None,
        *,
        host: str,
        port: int,
        token: str | None,
        on_served: Callable[[str, int], None],
    ) -> None:
        """Serve a model until interrupted; `on_served` gets `NAME@VERSION CID` and the port, and so with each newer one."""

        def tell(stage: str, done: int, _total: int) -> None:
            if " " in stage:  # the other stages tell how it comes
                on_served(stage, done)

        fields = {"name": name, "version": version, "host": host, "port": port, "token": token}
        self._run("serve", tell, **fields)

    def dataset(self, action: str, progress: Progress | None = None, **fields: object) -> Json:
        """Ask about versions of datasets, as `dataset("commit", folder=Path("plays"), message="all of them")`.

        The actions and their fields are those of `swarm.versions.routes`.
        """
        given = {
            name: _absolute(value) if isinstance(value, Path) else value
            for name, value in fields.items()
        }
        return cast("Json", self._run(f"dataset/{action}", progress, **given))

    def storage(self) -> Json:
        """What the node lends, has sealed, keeps and earned; see `swarm.keeper.operations`."""
        return cast("Json", self._ask("storage"))

    def lend(self, size: int) -> Json:
        """Lend so many bytes from now on, until the node is started with another number."""
        return cast("Json", self._run("storage/lend", None, bytes=size))

    def keep(self, action: str, progress: Progress | None = None, **fields: object) -> Json:
        """Ask about deals, as `keep("post", content="bafybei…", replicas=3)`.

        The actions and their fields are those of `swarm.keeper.routes`.
        """
        return cast("Json", self._run(f"keep/{action}", progress, **fields))

    def model(self, action: str, progress: Progress | None = None, **fields: object) -> Json:
        """Ask about versions of models, as `model("log", name="tiny-gpt")`; see `swarm.registry.routes`."""
        return cast("Json", self._run(f"model/{action}", progress, **fields))

    def watch(self, task: str) -> Json:
        """A task by id or name with its rounds, its submissions, and what this node does for it."""
        return cast("Json", self._run("train/watch", None, task=task))

    def follow(self, task: str, seconds: float = 1.0) -> Iterator[Json]:
        """What `watch` tells, now and with each change, until the task is over."""
        before: Json | None = None
        while True:
            found = self.watch(task)
            if found != before:
                yield found
            before = found
            if not found["open"]:
                return
            time.sleep(seconds)  # noqa: TID251 - of the caller's program, which has no event loop

    def post_task(self, spec: str, folder: Path, progress: Progress | None = None) -> Json:
        """Post a training task from its TOML text; its paths are relative to `folder`."""
        return cast("Json", self._run("tasks", progress, spec=spec, folder=_absolute(folder)))

    def replay(
        self,
        task: str,
        number: int,
        peer: str,
        segment: int | None = None,
        progress: Progress | None = None,
    ) -> Json:
        """Run a recorded segment of a peer's round again: `outcome`, `distance`, and which steps."""
        fields = {"task": task, "round": number, "peer": peer, "segment": segment}
        return cast("Json", self._run("replay", progress, **fields))

    def sample(
        self,
        name: str,
        version: int | None = None,
        prompt: str | None = None,
        path: Path | None = None,
        length: int = 500,
        seed: int = 0,
    ) -> Json:
        """Use a checkpoint: `text`, or the `path` of a PNG."""
        return cast(
            "Json",
            self._run(
                "sample",
                None,
                name=name,
                version=version,
                prompt=prompt,
                path=_absolute(path),
                length=length,
                seed=seed,
            ),
        )

    def classify(
        self,
        name: str,
        paths: Sequence[Path],
        version: int | None = None,
        *,
        top: int = 1,
        resize: str | None = None,
    ) -> Json:
        """Ask a classifier about files and folders: `samples` with `path`, `index` and `labels` each."""
        files = [_absolute(one) for one in paths]
        fields = {"name": name, "version": version, "paths": files, "top": top, "resize": resize}
        return cast("Json", self._run("model/classify", None, **fields))

    def evaluate(self, name: str, version: int | None = None) -> Json:
        """The validation loss of a version, in nats; of a classifier its `accuracy` too."""
        return cast("Json", self._run("evaluate", None, name=name, version=version))

    def look(self, cid: str, path: str = "") -> Json:
        """What stands at a path below a root: `cid`, `kind`, `size`, `mode`."""
        return cast("Json", self._ask("look", cid=cid, path=path or None))

    def entries(self, cid: str, path: str = "") -> list[Json]:
        """What stands in a folder: `name`, `cid`, `kind`, `size`, `mode` of each."""
        return cast("list[Json]", self._ask("entries", cid=cid, path=path or None))

    def hold(self, cid: str, progress: Progress | None = None) -> Json:
        """Fetch everything below a root into the node's store."""
        return cast("Json", self._run("hold", progress, cid=cid))

    def pin(self, cid: str, label: str | None = None, progress: Progress | None = None) -> Json:
        """Fetch what a root names and keep it: `cid`, `label`, `size`, `fetched`."""
        return cast("Json", self._run("store/pin", progress, cid=cid, label=label))

    def unpin(self, cid: str) -> Json:
        """Let a root go: `cid`, `label`, `held_for`."""
        return cast("Json", self._run("store/unpin", None, cid=cid))

    def kept(self) -> Json:
        """What is kept: `kept` (`cid`, `kind`, `label`, `size` each) and `usage`."""
        return cast("Json", self._run("store/list", None))

    def collect(self, progress: Progress | None = None, *, thorough: bool = False) -> Json:
        """Give back the room of what nothing keeps; see `swarm.store.operations`."""
        return cast("Json", self._run("store/gc", progress, thorough=thorough))

    def verify(
        self, cid: str | None = None, progress: Progress | None = None, *, repair: bool = False
    ) -> Json:
        """Read everything again, or what is below a root; see `swarm.store.operations`."""
        return cast("Json", self._run("store/verify", progress, cid=cid, repair=repair))

    def import_car(self, path: Path, progress: Progress | None = None) -> Json:
        """Read a CAR file into the node's store and pin its roots; refused where one is not whole."""
        return cast("Json", self._run("car", progress, path=_absolute(path)))

    def export_car(self, cid: str) -> Iterator[bytes]:
        """The bytes of a CAR file with everything below a root."""
        return self._bytes(f"/ipfs/{cid}", {"accept": "application/vnd.ipld.car"})

    def read(self, cid: str, path: str = "", start: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file, at a path below a root; all from `start` on without a length, fewer where it ends."""
        if length == 0:
            return b""
        end = "" if length is None else start + length - 1
        return b"".join(self._bytes(route_of(cid, path), {"range": f"bytes={start}-{end}"}))

    def care(self) -> Json:
        """What a node tells its doctor; see `swarm.care.report`."""
        return cast("Json", self._ask("care"))

    def levels(self) -> dict[str, str]:
        """The lowest level that each part of the node logs."""
        return cast("dict[str, str]", self._ask("care/levels"))

    def set_levels(self, levels: str) -> dict[str, str]:
        """Log more or less from now on, as `set_levels("training=debug,network=warning")`; what `levels` tells."""
        return cast("dict[str, str]", self._run("care/levels", None, levels=levels))

    def pause(self, part: str = "all", seconds: int | None = None) -> Json:
        """Hold `train`, `seal`, `serve`, `gpu`, `cpu` or `all` back, for so long or until `resume`: `paused`, `finishing`, `held`."""
        return cast("Json", self._run("care/pause", None, part=part, seconds=seconds))

    def resume(self, part: str = "all") -> Json:
        """Go on, also with a node that was finishing: `paused`, `finishing`, `resumed`."""
        return cast("Json", self._run("care/resume", None, part=part))

    def leave(self, what: str = "look") -> Json:
        """Leave (`drain`), stay (`cancel`), or `look` how leaving stands and what it takes; see `swarm.care.leaving`."""
        return cast("Json", self._run("care/leave", None, what=what))

    def limit(self, name: str, value: str) -> Json:
        """Let a limit (`upload`, `idle`, `schedule` …) be another one from now on: what `status` tells of limits and what is held."""
        return cast("Json", self._run("care/limit", None, name=name, value=value))

    def page_link(self) -> Json:
        """The page's `address`, and a `link` that lets one browser in, once and soon."""
        return cast("Json", self._run("page", None))

    def finish(self, progress: Progress | None = None, *, wait: bool = True) -> Json:
        """Let the node end what it began and stop: `owing` (tasks), `finishing` (False: it was taken back)."""
        try:
            return cast("Json", self._run("care/finish", progress, wait=wait))
        except NetworkError as error:
            if not isinstance(error.__cause__, HTTPException | ConnectionError):
                raise
            return {"owing": 0, "finishing": True}

    def stop(self) -> None:
        """Ask the node to stop; one that goes before it answers has stopped too."""
        try:
            self._run("stop", None)
        except NetworkError as error:
            if not isinstance(error.__cause__, HTTPException | ConnectionError):
                raise

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
        except OSError as error:
            connection.close()
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
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONNECT_SECONDS)
        self.sock.connect(os.fspath(self._path))
        self.sock.settimeout(ANSWER_SECONDS)


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


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
