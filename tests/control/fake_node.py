"""A node that answers from memory: real to the control app and to the command, without a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio
import trio.lowlevel

from storage.errors import QuotaError
from swarm.errors import NotFoundError, RefusedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

CID = "bafkreiaxnnnb7qz2focittuqq3ya25q7rcv3bqynnczfzako47346wosmu"
PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"


class FakeHousekeeping:
    async def advice(self, error):
        return RefusedError(str(error), "`swarm gc` gives up to 3.0 MB back")


class FakeChecks:
    """Nobody is connected."""

    async def wait(self, root, seconds, progress):
        return {"peer": None, "bytes": 0, "sources": 0, "seconds": 3.0, "asked": 0, "reasons": {}}

    async def check(self, root, draws, progress):
        progress("held", 0, 2)
        row = {"peer": PEER, "announced": True, "drawn": draws, "seconds": 0.5}
        shown = {"way": "held", "shown": draws, "bytes": 5_000, "rate": 10_000.0, "reason": None}
        failed = {"way": "fetch", "shown": 0, "bytes": 0, "rate": None, "reason": "has no room"}
        return {
            "cid": CID,
            "here": True,
            "announced": 1,
            "replicas": 0 if self.nobody else 1,
            "fetched": 0,
            "asked_to_fetch": 1,
            "peers": [row | shown, row | failed],
        }

    nobody = False


class FakeWork:
    async def post_task(self, spec_text, folder, progress):
        if "rounds" not in spec_text:
            msg = "rounds: missing"
            raise UsageError(msg)
        return {"task": "12" * 32, "name": "tiny-gpt", "base": CID}

    async def sample(self, name, version, prompt, path, length, seed):
        if name == "broken":
            msg = "a fault of the node's own"
            raise ZeroDivisionError(msg)
        if name == "gan":
            return {"path": str(path)}
        return {"text": f"{prompt or ''}…{length}…{seed}"}

    async def evaluate(self, name, version):
        return {"loss": 2.5}


class FakeReceipts:
    def __init__(self) -> None:
        self.kept = []

    async def read(self):
        return self.kept


class FakeNode:
    housekeeping = FakeHousekeeping()
    work = FakeWork()

    def __init__(self, home: Path) -> None:
        self.home = home
        self.stopped = trio.Event()
        self.began = trio.Event()
        self.cancelled = trio.Event()
        self.sent = []
        self.looked_at = []
        self.checks = FakeChecks()
        self.receipts = FakeReceipts()

    def status(self):
        return {
            "peer": PEER,
            "account": PEER,
            "network": "test",
            "chain_id": "ab" * 32,
            "height": 42,
            "epoch": 0,
            "view": 43,
            "peers": 3,
            "addresses": [f"/ip4/127.0.0.1/tcp/4001/p2p/{PEER}"],
            "problems": ["the clock is 3 s ahead of its peers"],
            "finality_ms": {"p50": 700, "p99": 1500},
            "storage": {"lent": 500 * 10**9, "used": 1_400_000_000, "free": 498_600_000_000},
            "balance": 12_500_000_000,
            "earned": 2_500_000_000,
            "stake": 1000 * 10**9,
            "roles": ["worker", "validator"],
            "device": "cpu",
            "task": {
                "name": "tiny-gpt",
                "round": 2,
                "rounds": 6,
                "phase": "train",
                "blocks_left": 7,
                "loss": 2.5,
                "version": 1,
                "activity": "training",
            },
            "version": "0.1.0",
            "uptime_s": 61,
            "temporary": False,
            "pid": 4711,
            "home": str(self.home),
            "bytes_in": 1000,
            "bytes_out": 2000,
        }

    async def peers(self):
        return [
            {
                "peer": PEER,
                "address": "/ip4/127.0.0.1/tcp/4001",
                "version": "0.1.0",
                "head": 41,
                "member": True,
                "roles": ["worker"],
                "seconds": 12,
            }
        ]

    async def blocks(self, start, limit):
        top = 42 if start is None else start
        return [_block(height) for height in range(top, max(-1, top - limit), -1)]

    async def block(self, height):
        if height > 42:
            msg = f"block {height} is above the head, which is at 42"
            raise NotFoundError(msg)
        tx = {"id": "cd" * 32, "from": PEER, "type": "transfer", "gas": 10}
        tx |= {"ok": True, "error": None}
        return {**_block(height), "txs": [tx]}

    async def balance(self, account):
        if account is not None and not account.startswith("12D3"):
            msg = f"account: {account!r} is not a peer id"
            raise UsageError(msg)
        owner = account or PEER
        return {"account": owner, "balance": 12_500_000_000, "stake": 0, "earned": 5}

    async def send(self, to, amount, *, wait=True):
        self.sent.append((to, amount, wait))
        return {"tx": "ef" * 32, "height": 43 if wait else None}

    async def plan(self, path, progress, *, preserve_mode=False):
        progress("hash", 5, 5)
        return {"cid": CID, "size": 5, "chunks": 1, "new_bytes": 3}

    async def publish(self, path, name, progress, *, preserve_mode=False, in_place=False):
        if path.name == "too-large":
            raise QuotaError(needed=10**12, free=10**6)
        if path.name == "slow":
            await self._hang()
        if path.name == "chatty":
            while True:
                progress("hash" * 500_000, 1, 2)  # more than a socket takes at once
                await trio.lowlevel.checkpoint()
        progress("hash", 1, 2)
        await trio.lowlevel.checkpoint()
        progress("hash", 2, 2)
        done = {"cid": CID, "size": 5, "chunks": 1, "new_bytes": 5}
        return done if name is None else {**done, "name": name, "version": 1}

    async def look(self, cid, path):
        self.looked_at.append((cid, path))
        return {"cid": CID, "kind": "file", "size": 5, "mode": None}

    async def get(self, cid, path, progress, source=None):
        if cid != CID:
            msg = f"nobody has {cid}: the DHT and 3 peers were asked"
            raise NotFoundError(msg)
        progress("fetch", 3, 5, "from 1 peer: …mKxq 8.1 MB/s")
        await trio.sleep(0.15)  # so that both are told
        progress("fetch", 5, 5)
        path.write_bytes(b"hello")
        return {"cid": cid, "path": str(path), "bytes": 5}

    async def fetch(self, name, version, path, progress, *, card=True):
        if name != "tiny-gpt":
            msg = f"no name {name!r} on the ledger at height 42"
            raise NotFoundError(msg)
        progress("fetch", 5, 5)
        return {
            "name": name,
            "version": version or 3,
            "cid": CID,
            "path": str(path or self.home / "models" / name),
            "height": 42,
            "proof": {"header": "00"},
        }

    async def tasks(self):
        one = {"task": "12" * 32, "name": "tiny-gpt", "round": 2, "rounds": 6}
        return [{**one, "phase": "train", "version": 1, "loss": 2.5}]

    async def scoreboard(self, task):
        if task != "tiny-gpt":
            msg = f"no task {task!r}"
            raise NotFoundError(msg)
        paid = {
            "worker": PEER,
            "root": CID,
            "score": 0.25,
            "accepted": True,
            "reason": "",
            "paid": 10**9,
        }
        failed = {**paid, "score": None, "accepted": False, "reason": "not finite", "paid": 0}
        rounds = [
            {"round": 1, "version": 1, "base_loss": 4.2, "loss": 2.5, "submissions": [paid, failed]}
        ]
        return {"task": "12" * 32, "name": "tiny-gpt", "rounds": rounds}

    def stop(self):
        self.stopped.set()

    async def _hang(self):
        self.began.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()


def _block(height):
    return {
        "height": height,
        "id": f"{height:064x}",
        "view": height + 1,
        "epoch": 0,
        "leader": PEER,
        "time_ms": 1_700_000_000_000 + height,
        "transactions": 1,
        "state_root": "00" * 32,
        "bytes": 345,
    }
