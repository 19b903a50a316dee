"""What a person asks of a running node: publish, get, fetch, post a task, sample, send; and reports.

Implements `swarm.control.api.NodeApi`. It does nothing by itself: every background task belongs to `node`.
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from protocols import signing
from storage import cid as cids
from storage.errors import CidError
from swarm import cars, datasets, models, preparing, reports
from swarm.care.operations import Care
from swarm.chain.operations import Chain
from swarm.chain.staking import check_send
from swarm.errors import NetworkError, NotFoundError, RefusedError, SwarmError, UsageError
from swarm.hub.operations import HubOperations
from swarm.identity import is_backed_up
from swarm.keeper.operations import KeepingOperations
from swarm.ledger.transactions import (
    DatasetPublish,
    NameRegister,
    NameUpdate,
    Phases,
    TaskPost,
    Transfer,
)
from swarm.network.addresses import AddressError
from swarm.registry.operations import Registry
from swarm.retrieval.checks import Checks
from swarm.retrieval.link import without_scheme
from swarm.serving.operations import ServingOperations
from swarm.store import reading
from swarm.store.operations import StoreOperations
from swarm.training.errors import SpecError, WorkerError
from swarm.training.spec import (
    BYTES,
    MAX_TOKENIZER_BYTES,
    NONE,
    check_posted,
    parse_spec,
    with_data,
    with_tokenizer,
    write_spec,
)
from swarm.versions.operations import Versions
from swarm.versions.source import Door

if TYPE_CHECKING:
    from swarm.control.api import Json, Progress
    from swarm.ledger.state import LedgerView
    from swarm.node import Node
    from swarm.ranges import Ranges
    from swarm.receipts.service import Receipts
    from swarm.shelf import Lease
    from swarm.training.spec import TaskSpec

SECONDS_PER_TRANSACTION = 60.0
CATCH_UP_SECONDS = 20.0
"""A node that is still behind its peers after so long answers from what it has, and names its height."""
SYNC_SECONDS = 0.2
POOL_CHECK = 64
"""Samples of a pool that are scored before its task is posted: one that holds none is found out here."""
MAX_BLOCKS = 1_000


class Operations:
    """A person's door to one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.keeping = KeepingOperations(node)
        self.care = Care(node)
        self.chain = Chain(
            node.signer,
            node.ledger,
            node.wallet,
            node.heights,
            validates=node.settings.validate,
            caught_up=self._caught_up,
            gossip=node.wallet.gossip,
        )
        self.versions = Versions(
            Door(
                node.signer,
                node.store,
                node.exchange,
                node.network,
                node.settings.home / "datasets",
                self._point,
                self._look_up,
                time.time,
                node.room_for,
            )
        )
        self.housekeeping = StoreOperations(
            node.store,
            node.exchange,
            node.network,
            node.collector,
            let_go=self.versions.let_go,
            note=node.settings.home / reading.FILE,
        )
        self.registry = Registry(node, self._caught_up)
        self.checks = Checks(node.network, node.store, node.retriever, node.members)
        self.hub = HubOperations(node.hub, node.shelf, self._caught_up)
        self.serving = ServingOperations(node, self._caught_up)

    # Reports

    def status(self) -> Json:
        node = self._node
        view = node.ledger.view()
        account = view.account(node.signer.public_key)
        stats = node.consensus.stats()
        exchanged = node.exchange.stats()
        epoch = view.validators(view.epoch)
        return {
            "peer": node.signer.peer_id,
            "account": node.signer.peer_id,
            "network": node.genesis.network,
            "chain_id": node.genesis.chain_id.hex(),
            "height": view.height,
            "epoch": view.epoch,
            "view": stats.view,
            "peers": len(node.network.peers()),
            "validators": len(epoch.validators),
            "addresses": node.network.addresses(),
            "problems": node.problems(),
            "finality_ms": {"p50": stats.finality_p50_ms, "p99": stats.finality_p99_ms},
            "storage": self.keeping.summary(),
            "balance": account.balance,
            "earned": account.earned,
            "stake": account.stake,
            "roles": reports.roles(view, node.signer.public_key),
            "device": node.device,
            "task": self._task_now(view),
            "version": node.version,
            "uptime_s": time.monotonic() - node.started,
            "temporary": node.settings.temporary,
            "pid": node.pid,
            "backed_up": is_backed_up(node.settings.home, node.signer.peer_id),
            "home": str(node.settings.home),
            "page": None if node.page is None else node.page.address,
            "bytes_in": exchanged.bytes_in + node.bitswap.bytes_in,
            "bytes_out": exchanged.bytes_out + node.bitswap.bytes_out,
            **self.care.standing(),
        }

    def _task_now(self, view: LedgerView) -> Json | None:
        participant = self._node.participant
        for identifier in view.open_tasks():
            task = view.task(identifier)
            if task is not None:
                now = reports.task_summary(view, task)
                now["activity"] = participant.activity.get(identifier, "")
                now["training_loss"] = participant.losses.get(identifier)
                entry = view.name(task.name)
                now["accuracy"] = None if entry is None else participant.accuracies.of(entry.root)
                return now
        return None

    async def peers(self) -> list[Json]:
        now = trio.current_time()
        return [
            {
                "peer": one.peer,
                "address": one.address,
                "version": one.software,
                "head": one.head,
                "member": one.member,
                "roles": one.roles,
                "seconds": now - one.connected_since,
            }
            for one in self._node.network.peer_info()
        ]

    async def blocks(self, start: int | None, limit: int) -> list[Json]:
        if not 1 <= limit <= MAX_BLOCKS:
            message = f"1 to {MAX_BLOCKS:,} blocks can be listed, not {limit:,}"
            raise UsageError(message)
        head = self._node.ledger.finalized_height()
        top = head if start is None else min(start, head)
        first = self._node.ledger.first_block()
        low = max(first - 1 if first > 1 else -1, top - limit)
        return [await self._block(height) for height in range(top, low, -1)]

    async def block(self, height: int) -> Json:
        head = self._node.ledger.finalized_height()
        if not 0 <= height <= head:
            message = f"there is no block {height:,}: the newest that is final is {head:,}"
            raise NotFoundError(message)
        first = self._node.ledger.first_block()
        if 0 < height < first:
            message = f"block {height:,} is pruned here: blocks are held from {first:,} on"
            raise NotFoundError(message, "a node with --archive keeps all that it has seen")
        return await self._block(height, with_transactions=True)

    async def _block(self, height: int, *, with_transactions: bool = False) -> Json:
        ledger = self._node.ledger

        def read() -> Json:
            block = ledger.block(height)
            inside = ledger.transactions_of(block)
            report = reports.block_summary(block, len(inside))
            if with_transactions:
                report["txs"] = [reports.transaction_report(ledger, data) for data in inside]
            return report

        return await trio.to_thread.run_sync(read)

    async def balance(self, account: str | None) -> Json:
        key = self._node.signer.public_key if account is None else _account(account)
        found = self._node.ledger.view().account(key)
        return {
            "account": signing.peer_id(key),
            "balance": found.balance,
            "stake": found.stake,
            "earned": found.earned,
            "nonce": found.nonce,
        }

    async def tasks(self) -> list[Json]:
        view = self._node.ledger.view()

        def read() -> list[Json]:
            told = sorted(view.tasks(), key=lambda one: one.posted)
            return [reports.task_summary(view, task) for task in told]

        return await trio.to_thread.run_sync(read)

    async def scoreboard(self, task: str) -> Json:
        view = self._node.ledger.view()

        def read() -> Json:
            return reports.scoreboard(view, reports.find_task(view, task))

        return await trio.to_thread.run_sync(read)

    # Money

    async def send(self, to: str, amount: int, *, wait: bool = True) -> Json:
        node, payload = self._node, Transfer(_account(to), amount)
        own = node.ledger.view().account(node.signer.public_key)
        check_send(own, amount, node.wallet.cost([payload]))
        identifier = await node.wallet.submit(payload)
        if not wait:
            return {"tx": identifier.hex(), "height": None}
        included = await node.wallet.confirm(identifier, SECONDS_PER_TRANSACTION)
        return {"tx": identifier.hex(), "height": included.height}

    # Content

    async def publish(
        self,
        path: Path,
        name: str | None,
        progress: Progress,
        *,
        preserve_mode: bool = False,
        in_place: bool = False,
    ) -> Json:
        node = self._node
        adding = partial(
            datasets.publish,
            path,
            node.store,
            node.network,
            progress=partial(progress, "hash"),
            announced=partial(progress, "announce"),
            preserve_mode=preserve_mode,
            in_place=in_place,
        )
        published = await node.room_for(adding, lambda why: progress(why, 0, 0))
        report: Json = {
            "cid": cids.text(published.root),
            "size": published.size,
            "chunks": published.chunks,
            "new_bytes": published.new_bytes,
        }
        if name is not None:
            progress("name", 0, 1)
            report |= await self._point(name, published)
            progress("name", 1, 1)
        return report

    async def plan(self, path: Path, progress: Progress, *, preserve_mode: bool = False) -> Json:
        planned = await datasets.plan(
            path, self._node.store, progress=partial(progress, "hash"), preserve_mode=preserve_mode
        )
        return {
            "cid": cids.text(planned.root),
            "size": planned.size,
            "chunks": planned.chunks,
            "new_bytes": planned.new_bytes,
        }

    async def _point(self, name: str, published: datasets.Published) -> Json:
        """Let a name of this account point to a root."""
        wallet, view = self._node.wallet, self._node.ledger.view()
        entry = view.name(name)
        if entry is None or entry.root != published.root:
            _check_writable(self._node, name)
        if view.dataset(published.root) is None:
            size, chunks = published.size, max(1, published.chunks)
            await wallet.submit(DatasetPublish(published.root, size, chunks, "unknown"))
        if entry is None:
            payload: NameRegister | NameUpdate = NameRegister(name, published.root)
        elif entry.root == published.root:
            return {"name": name, "version": entry.version}
        else:
            payload = NameUpdate(name, published.root, entry.version + 1, entry.root)
        await wallet.confirm(await wallet.submit(payload), SECONDS_PER_TRANSACTION)
        return {"name": name, "version": 0 if entry is None else entry.version + 1}

    async def get(
        self, cid: str, path: Path, progress: Progress, source: str | None = None
    ) -> Json:
        if source is None:
            return await self._write(_cid(cid), path, progress)
        root = _cid(cid)
        _check_free(path)
        node = self._node
        try:
            peer = await node.network.connect_outsider(source)
        except AddressError as error:
            raise UsageError(f"--from: {error}") from error  # noqa: EM102
        got = await datasets.get(
            root,
            node.bitswap,
            node.store,
            path,
            progress=partial(progress, "fetch"),
            providers=[peer],
        )
        return {"cid": cids.text(root), "path": str(path), "bytes": got.size}

    async def fetch(
        self,
        name: str,
        version: int | None,
        path: Path | None,
        progress: Progress,
        *,
        card: bool = True,
    ) -> Json:
        await self._caught_up(progress)
        proven = await self._prove(name, version)
        report: Json = {
            "name": name,
            "version": proven.entry.version,
            "height": proven.block.height,
            "proof": proven.to_json(),
        }
        if path is None:
            taken = await self._node.shelf.take(
                proven.entry.root, progress=partial(progress, "fetch")
            )
            return report | {"cid": cids.text(proven.entry.root), "path": str(taken)}
        root, number = proven.entry.root, proven.entry.version
        written = await self._write(root, path, progress)
        view = self._node.ledger.view()
        made = card and await self.hub.add_card(view, name, number, root, path)
        return report | written | {"card": made}

    async def _look_up(self, name: str, version: int | None, progress: Progress) -> cids.Cid:
        """What a name points to, with the ledger's proof."""
        await self._caught_up(progress)
        return (await self._prove(name, version)).entry.root

    async def _caught_up(self, progress: Progress) -> None:
        """Wait, within bounds, until this node holds the blocks that its peers hold."""
        node = self._node
        start = node.heights.height
        with trio.move_on_after(CATCH_UP_SECONDS):
            while not node.sync.caught_up.is_set() or node.heights.height < node.best_head():
                progress("sync", node.heights.height - start, max(0, node.best_head() - start))
                with trio.move_on_after(SYNC_SECONDS):
                    await node.heights.above(node.heights.height)

    async def _prove(self, name: str, version: int | None) -> models.ProvenName:
        """A proof against the newest block, or the next one where it is final only by its descendant.

        Raises:
            NetworkError: The next one does not come.
        """
        ledger, heights = self._node.ledger, self._node.heights
        with trio.move_on_after(CATCH_UP_SECONDS):
            while True:
                height = heights.height
                proven = await trio.to_thread.run_sync(models.prove, ledger, name, version)
                if proven is not None:
                    return proven
                await heights.above(height)
        message = f"no block that proves {name} came within {CATCH_UP_SECONDS:.0f} s"
        raise NetworkError(message, "see `swarm status`: is any peer connected?")

    async def _write(self, root: cids.Cid, path: Path, progress: Progress) -> Json:
        _check_free(path)
        node = self._node
        tree = await self.versions.tree_of(root, progress)
        got = await datasets.get(
            tree,
            node.exchange,
            node.store,
            path,
            progress=partial(progress, "fetch"),
            writing=partial(progress, "write"),
        )
        return {"cid": cids.text(root), "path": str(path), "bytes": got.size}

    @property
    def receipts(self) -> Receipts:
        return self._node.receipts

    @property
    def ranges(self) -> Ranges:
        return self._node.ranges

    async def look(self, cid: str, path: str) -> Json:
        return await cars.look(self.ranges.of(_cid(cid)), path)

    async def entries(self, cid: str, path: str) -> list[Json]:
        return await cars.entries(self.ranges.of(_cid(cid)), path)

    async def hold(self, cid: str, progress: Progress) -> Json:
        fetched = await self._node.exchange.fetch(_cid(cid), progress=partial(progress, "fetch"))
        return {"cid": cid, "bytes": fetched.bytes}

    async def import_car(self, path: Path, progress: Progress) -> Json:
        node = self._node
        loading = partial(cars.load, path, node.store, node.network, partial(progress, "import"))
        return await node.room_for(loading, lambda why: progress(why, 0, 0))

    # Training

    async def post_task(self, spec_text: str, folder: Path, progress: Progress) -> Json:
        node = self._node
        spec = _spec(spec_text.encode())
        _check_writable(node, spec.name)
        dataset = await self._data("dataset", spec.data.dataset, folder, progress)
        pool = await self._data("pool", spec.data.pool, folder, progress)
        spec = with_data(spec, cids.text(dataset), cids.text(pool))
        progress("base", 0, 1)
        with tempfile.TemporaryDirectory(dir=node.settings.home, prefix="base-") as scratch:
            out = Path(scratch) / "checkpoint"
            with node.shelf.lease() as lease:
                data = await lease.take(dataset)
                held_out = await lease.take(pool)
                try:
                    spec, start = await preparing.take_base(
                        node, spec, folder, lease, partial(self._look_up, progress=progress)
                    )
                    spec, tokenizer = await self._tokenizer(spec, folder, lease, progress)
                    spec, data, held_out = await preparing.publish_encodings(
                        node, spec, (data, held_out), start, tokenizer, Path(scratch), lease
                    )
                    encoded = write_spec(spec)
                    checked = await node.worker.check(encoded, data, held_out, tokenizer, start)
                    await node.worker.initial(encoded, data, out, tokenizer, start)
                    first = await node.worker.evaluate(encoded, out, held_out, POOL_CHECK)
                except (SpecError, WorkerError) as error:
                    raise _refusal(error) from error
            label = f"{spec.name}@0"
            adding = partial(datasets.publish, out, node.store, node.network, label=label)
            base = await node.room_for(adding, lambda why: progress(why, 0, 0))
        dataset, pool = cids.parse(spec.data.dataset), cids.parse(spec.data.pool)
        progress("base", 1, 1)
        payload = TaskPost(
            spec.name,
            spec.settled_as,
            encoded,
            base.root,
            dataset,
            pool,
            spec.rounds,
            spec.budget,
            Phases(
                spec.phases.train,
                spec.phases.reveal,
                spec.phases.score_commit,
                spec.phases.score_reveal,
                spec.phases.attest,
            ),
            spec.score.tolerance,
        )
        identifier = await node.wallet.submit(payload)
        await node.wallet.confirm(identifier, SECONDS_PER_TRANSACTION)
        await trio.to_thread.run_sync(node.participant.accuracies.note, base.root, first.accuracy)
        posted = {"task": identifier.hex(), "name": spec.name, "base": cids.text(base.root)}
        doubts = list(checked.doubts)
        if dataset == pool:
            doubts.insert(0, "the pool is the dataset: scores say nothing of what was learnt")
        about = {"samples": checked.samples, "parameters": checked.parameters, "doubts": doubts}
        ratio = {"bytes_per_token": checked.bytes_per_token} if tokenizer is not None else {}
        return posted | about | ratio

    async def _tokenizer(
        self, spec: TaskSpec, folder: Path, lease: Lease, progress: Progress
    ) -> tuple[TaskSpec, Path | None]:
        """The task with its tokenizer named by CID and the vocabulary that it has, and the tokenizer's file."""
        if spec.data.tokenizer in (BYTES, NONE):
            return spec, None
        node = self._node
        root = await self._data("tokenizer", spec.data.tokenizer, folder, progress)
        path = await lease.take(root, max_bytes=MAX_TOKENIZER_BYTES)
        vocabulary = await node.worker.vocabulary(path)
        # The same bytes cut otherwise have another CID; checkpoints are checked against ours.
        label = f"{spec.name} tokenizer"
        adding = partial(datasets.publish, path, node.store, node.network, label=label)
        published = await node.room_for(adding, lambda why: progress(why, 0, 0))
        return with_tokenizer(spec, cids.text(published.root), vocabulary), path

    async def _data(self, field: str, value: str, folder: Path, progress: Progress) -> cids.Cid:
        """The root of a task's data: its CID (of a commit, its tree's), or what publishing a local path gives."""
        try:
            root = cids.parse(value)
        except CidError:
            path = (folder / value).resolve()
        else:
            return await self.versions.tree_of(root, progress)
        if not path.exists():
            message = f"data.{field}: {value!r} is neither a CID nor a path below {folder}"
            raise UsageError(message)
        node, told = self._node, partial(progress, field)
        adding = partial(datasets.publish, path, node.store, node.network, progress=told)
        return (await node.room_for(adding, lambda why: progress(why, 0, 0))).root

    async def sample(
        self,
        name: str,
        version: int | None,
        prompt: str | None,
        path: Path | None,
        length: int,
        seed: int,
    ) -> Json:
        if path is not None:
            _check_free(path)
        fetched = await self.fetch(name, version, None, _silent)
        target = path if path is not None else self._node.settings.home / f"{name}.png"
        with self._node.shelf.lease() as lease:
            checkpoint = await lease.take(cids.parse(fetched["cid"]))
            if not (checkpoint / "config.json").is_file():
                message = f"{name}@{fetched['version']} is not a model: it holds no config.json"
                raise UsageError(message, "`swarm fetch` writes it as it is")
            try:
                made = await self._node.worker.sample(
                    checkpoint, prompt or "", target, length=length, seed=seed
                )
            except WorkerError as error:
                if error.cause != "failed":
                    raise
                raise UsageError(error.why) from error
        common: Json = {"name": name, "version": fetched["version"], "cid": fetched["cid"]}
        return common | ({"path": str(made)} if isinstance(made, Path) else {"text": made})

    async def replay(
        self, task: str, number: int, peer: str, segment: int | None, progress: Progress
    ) -> Json:
        await self._caught_up(progress)
        found = await trio.to_thread.run_sync(reports.find_task, self._node.ledger.view(), task)
        return await self._node.replays.ask(found, number, peer, segment, progress)

    async def evaluate(self, name: str, version: int | None) -> Json:
        fetched = await self.fetch(name, version, None, _silent)
        view = self._node.ledger.view()
        task = await trio.to_thread.run_sync(reports.task_behind, view, name, fetched["version"])
        if task is None:
            message = f"no task trains {name!r}, so there is no validation pool to score it on"
            raise NotFoundError(message)
        with self._node.shelf.lease() as lease:
            checkpoint = await lease.take(cids.parse(fetched["cid"]))
            pool = await lease.take(task.pool)
            found = await self._node.worker.evaluate(task.spec, checkpoint, pool, None)
        root = cids.parse(fetched["cid"])
        await trio.to_thread.run_sync(self._node.participant.accuracies.note, root, found.accuracy)
        share = {} if found.accuracy is None else {"accuracy": found.accuracy}
        return {
            "name": name,
            "version": fetched["version"],
            "cid": fetched["cid"],
            "loss": reports.loss_of(found.loss),
            **share,
        }

    def page_link(self) -> Json:
        page = self._node.page
        if page is None:
            message = "this node has no page"
            raise NotFoundError(message, "it was started with --no-page, or for one command")
        return {"address": page.address, "link": page.link()}

    def stop(self) -> None:
        self._node.stop()


def _refusal(error: SpecError | WorkerError) -> SwarmError:
    """Why a task is not posted; a worker that broke over it is no fault of the task's text."""
    why = error.why if isinstance(error, WorkerError) else str(error)
    message = f"the task cannot be started: {why}"
    if isinstance(error, WorkerError) and error.cause not in ("failed", "memory"):
        return RefusedError(message, "`swarm status` says how the worker is")
    return UsageError(message, "docs/guide/tasks.md explains every key")


def _check_free(path: Path) -> None:
    if path.exists():
        message = f"{path} is there already"
        raise RefusedError(message, "give another path with -o, or remove it")


def _silent(_stage: str, _done: int, _total: int, _note: str = "", /) -> None:
    """Progress that nobody watches."""


def _cid(text: str) -> cids.Cid:
    try:
        return cids.parse(without_scheme(text))
    except CidError as error:
        raise UsageError(str(error), "a CID looks like bafybei… or bafkrei…") from error


def _account(text: str) -> bytes:
    try:
        return signing.public_key(text)
    except ValueError as error:
        raise UsageError(str(error), "an account is a peer id: 12D3KooW…") from error


def _check_writable(node: Node, name: str) -> None:
    """Refuse a name that this account cannot change now, before anything is made or paid for it."""
    entry = node.ledger.view().name(name)
    if entry is None:
        return
    if entry.owner != node.signer.public_key:
        message = f"the name {name!r} belongs to {signing.peer_id(entry.owner)}"
        raise RefusedError(message, "choose another name")
    if entry.task:
        message = f"an open task writes {name!r}"
        raise RefusedError(message, "`swarm tasks` says when it is over; or choose another name")


def _spec(data: bytes) -> TaskSpec:
    try:
        spec = parse_spec(data)
        check_posted(spec)
    except SpecError as error:
        raise UsageError(str(error), "docs/guide/tasks.md explains every key") from error
    return spec
