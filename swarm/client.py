"""The SDK: asks a running node on this machine, over its control socket; `swarm.asking` is how.

    from swarm.client import Client

    with Client.of_home(Path.home() / ".local/share/swarm/local") as client:
        print(client.status()["height"])

Needs none of the other rooms; `swarm.async_client` is the same for programs with an event loop. Errors are those of `swarm.errors`: what the node raised is raised here again.
Money is an int in units of 10^-9 token; CIDs and accounts are text.
"""

from __future__ import annotations

import time
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Self, cast

from swarm.asking import Asker, Noting, route_of
from swarm.errors import NetworkError, NotFoundError, RefusedError, SwarmError, UsageError
from swarm.sockets import socket_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

    from swarm.asking import Json, Progress

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


class Client(Asker):
    """Asks a node over its control socket; each question is a connection of its own.

    Args:
        socket_path: As `socket_of` gives it.
    """

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


def _absolute(path: Path | None) -> str | None:
    return None if path is None else str(Path(path).absolute())
