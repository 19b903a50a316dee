"""What a person asks of a running node: publish, get, fetch, send; and reports.

Implements `swarm.control.api.NodeApi`. It does nothing by itself: every background task belongs to `node`.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import trio

from protocols import signing
from storage import cid as cids
from storage.errors import CidError
from swarm import cars, datasets, reports
from swarm.care.operations import Care
from swarm.chain.operations import Chain
from swarm.chain.staking import check_send
from swarm.errors import NotFoundError, UsageError
from swarm.hub.operations import HubOperations
from swarm.identity import is_backed_up
from swarm.keeper.operations import KeepingOperations
from swarm.ledger.transactions import (
    DatasetPublish,
    NameRegister,
    NameUpdate,
    Transfer,
)
from swarm.level import Level
from swarm.network.addresses import AddressError
from swarm.refusals import check_free, check_writable
from swarm.registry.operations import Registry
from swarm.retrieval.checks import Checks
from swarm.retrieval.link import without_scheme
from swarm.serving.operations import ServingOperations
from swarm.store import reading
from swarm.store.operations import StoreOperations
from swarm.versions.operations import Versions
from swarm.versions.source import Door
from swarm.work import Work

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.control.api import Json, Progress
    from swarm.ledger.state import LedgerView
    from swarm.node import Node
    from swarm.ranges import Ranges
    from swarm.receipts.service import Receipts

MAX_BLOCKS = 1_000


class Operations:
    """A person's door to one node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._level = level = Level(node)
        self.keeping = KeepingOperations(node)
        self.care = Care(node)
        self.chain = Chain(
            node.signer,
            node.ledger,
            node.wallet,
            node.heights,
            validates=node.settings.validate,
            caught_up=level.caught_up,
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
                level.look_up,
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
        self.registry = Registry(node, level.caught_up)
        self.checks = Checks(node.network, node.store, node.retriever, node.members)
        self.hub = HubOperations(node.hub, node.shelf, level.caught_up)
        self.serving = ServingOperations(node, level.caught_up)
        self.work = Work(node, level, self.versions.tree_of)

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
        included = await node.wallet.confirm(identifier)
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
            check_writable(view, self._node.signer.public_key, name)
        if view.dataset(published.root) is None:
            size, chunks = published.size, max(1, published.chunks)
            await wallet.submit(DatasetPublish(published.root, size, chunks, "unknown"))
        if entry is None:
            payload: NameRegister | NameUpdate = NameRegister(name, published.root)
        elif entry.root == published.root:
            return {"name": name, "version": entry.version}
        else:
            payload = NameUpdate(name, published.root, entry.version + 1, entry.root)
        await wallet.confirm(await wallet.submit(payload))
        return {"name": name, "version": 0 if entry is None else entry.version + 1}

    async def get(
        self, cid: str, path: Path, progress: Progress, source: str | None = None
    ) -> Json:
        if source is None:
            return await self._write(_cid(cid), path, progress)
        root = _cid(cid)
        check_free(path)
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
        proven = await self._level.prove(name, version, progress)
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

    async def _write(self, root: cids.Cid, path: Path, progress: Progress) -> Json:
        check_free(path)
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

    def page_link(self) -> Json:
        page = self._node.page
        if page is None:
            message = "this node has no page"
            raise NotFoundError(message, "it was started with --no-page, or for one command")
        return {"address": page.address, "link": page.link()}

    def stop(self) -> None:
        self._node.stop()


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
