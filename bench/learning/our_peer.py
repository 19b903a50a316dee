"""A peer of this system: `our_peer.py FOLDER VALUES SEED`.

A round is what a worker and its node do once the local steps are done: take the greatest of what was learnt, write the file,
keep it, fetch those of the others, check and merge all. Same model, same file, same exchange as in a node.
"""

from __future__ import annotations

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import numpy as np
import structlog
import trio

from bench.peers import tasks
from protocols.exchange.service import ExchangeService
from protocols.handshake import Hello
from protocols.signing import Signer
from storage import cid as cids
from storage import unixfs
from storage.blockstore import SegmentBlockstore
from swarm.network import Network, NetworkSettings
from swarm.training import codec, merge

CHAIN_ID = b"b" * 32
WIDTH = 4096
TOP_K = 74
AMPLIFY_MILLI = 4000
TASK = b"T" * 32


class Model:
    """One matrix, as it is agreed and as this peer has trained it."""

    def __init__(self, values: int, seed: int) -> None:
        self.base = {"weight": np.zeros((values // WIDTH, WIDTH), np.float32)}
        self.layout = codec.Layout({"weight": self.base["weight"].shape}, TOP_K)
        self._draw = np.random.default_rng(seed)
        self.round = 0

    def learn(self) -> None:
        """What H steps would have given; off the clock."""
        self.round += 1
        shape = self.base["weight"].shape
        self._error = [self._draw.standard_normal(shape, np.float32).reshape(-1)]

    def update(self, peer: str) -> bytes:
        """The update file."""
        sparse = codec.compress(self._error, self.layout)
        about = codec.About(
            kind="lm",
            k=TOP_K,
            base="bafy",
            task=TASK,
            round=self.round,
            peer=peer,
            data=b"d" * 32,
            samples=1,
        )
        packed = codec.pack(sparse, self.layout, about)
        codec.subtract(self._error, sparse, self.layout)
        return packed

    def merge(self, updates: list[bytes]) -> None:
        """The next agreed weights."""
        expected = codec.Expected(
            kind="lm", base="bafy", task=TASK, round=self.round, layout=self.layout
        )
        read = [codec.unpack(item, expected).groups for item in updates]
        self.base = merge.merge(self.base, read, self.layout, AMPLIFY_MILLI)


class Peer:
    """One node that trains, and answers what it is told to do."""

    def __init__(self, folder: Path, values: int, seed: int) -> None:
        self._folder = folder
        self._signer = Signer(os.urandom(32))
        settings = NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",))
        self.network = Network(settings, self._signer, CHAIN_ID, lambda: Hello(b"", "bench", 0, 1))
        self.store = SegmentBlockstore(folder, 2**40)
        self.exchange = ExchangeService(self.network, self.store)
        self._model = Model(values, seed)
        self._held: dict[str, bytes] = {}

    async def do(self, task: dict[str, Any]) -> Any:  # noqa: ANN401 - JSON
        """What `task` asks for; the answer is JSON."""
        match task["do"]:
            case "start":
                return self.network.addresses()[0]
            case "connect":
                await self.network.connect(task["address"])
                return "connected"
            case "learn":
                self._model.learn()
                return "learnt"
            case "offer":
                return await self._offer()
            case "merge":
                return await self._merge(task["offers"])
            case "sum":
                weight = self._model.base["weight"]
                return weight.tobytes().hex()[:64] + str(weight.sum())
        raise KeyError(task["do"])

    async def _offer(self) -> dict[str, Any]:
        packed = await trio.to_thread.run_sync(self._model.update, self._signer.peer_id)
        path = self._folder / f"update-{self._model.round}"
        path.write_bytes(packed)
        added = await trio.to_thread.run_sync(partial(unixfs.add_path, path, self.store))
        self._held = {cids.text(added.root): packed}
        return {"name": cids.text(added.root), "peer": self._signer.peer_id, "bytes": len(packed)}

    async def _merge(self, offers: list[dict[str, str]]) -> dict[str, float]:
        began = time.monotonic()
        async with trio.open_nursery() as taking:
            for offer in offers:
                if offer["name"] not in self._held:
                    taking.start_soon(self._take, offer["name"], offer["peer"])
        exchanged = time.monotonic() - began
        updates = [self._held[name] for name in sorted(self._held)]
        await trio.to_thread.run_sync(self._model.merge, updates)
        return {"fetching": exchanged}

    async def _take(self, name: str, peer: str) -> None:
        root = cids.parse(name)
        await self.exchange.fetch(root, [peer])
        self._held[name] = await trio.to_thread.run_sync(
            lambda: b"".join(unixfs.read_file(root, self.store))
        )


async def main(folder: Path, values: int, seed: int) -> None:
    """Do what is told until the end of the lines."""
    to = tasks.answers()
    peer = Peer(folder, values, seed)
    async with trio.open_nursery() as nursery:
        await nursery.start(peer.network.run)
        peer.exchange.register()
        await nursery.start(peer.exchange.run)
        tasks.answer(to, "up")
        while (task := await trio.to_thread.run_sync(tasks.next_task)) is not None:
            tasks.answer(to, await peer.do(task))
        nursery.cancel_scope.cancel()
    peer.store.close()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
