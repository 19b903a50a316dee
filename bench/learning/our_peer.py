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
        codec.subtract(self._error, sparse)
        return packed

    def merge(self, updates: list[bytes]) -> None:
        """The next agreed weights."""
        expected = codec.Expected(
            kind="lm", base="bafy", task=TASK, round=self.round, layout=self.layout
        )
        read = [codec.unpack(item, expected).groups for item in updates]
        self.base = merge.merge(self.base, read, self.layout, AMPLIFY_MILLI)


async def main(folder: Path, values: int, seed: int) -> None:
    """Do what is told until the end of the lines."""
    to = tasks.answers()
    signer = Signer(os.urandom(32))
    settings = NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",))
    network = Network(settings, signer, CHAIN_ID, lambda: Hello(b"", "bench", 0, 1))
    store = SegmentBlockstore(folder, 2**40)
    exchange = ExchangeService(network, store)
    model = Model(values, seed)
    fetched: dict[str, bytes] = {}
    in_thread = trio.to_thread.run_sync

    async def take(name: str, peer: str) -> None:
        root = cids.parse(name)
        await exchange.fetch(root, [peer])
        fetched[name] = await in_thread(lambda: b"".join(unixfs.read_file(root, store)))

    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        exchange.register()
        await nursery.start(exchange.run)
        tasks.answer(to, "up")
        while (task := await in_thread(tasks.next_task)) is not None:
            if task["do"] == "start":
                tasks.answer(to, network.addresses()[0])
            elif task["do"] == "connect":
                await network.connect(task["address"])
                tasks.answer(to, "connected")
            elif task["do"] == "learn":
                model.learn()
                tasks.answer(to, "learnt")
            elif task["do"] == "offer":
                packed = await in_thread(model.update, signer.peer_id)
                path = folder / f"update-{model.round}"
                path.write_bytes(packed)
                added = await in_thread(partial(unixfs.add_path, path, store))
                fetched = {cids.text(added.root): packed}
                tasks.answer(
                    to,
                    {"name": cids.text(added.root), "peer": signer.peer_id, "bytes": len(packed)},
                )
            elif task["do"] == "merge":
                began = time.monotonic()
                async with trio.open_nursery() as taking:
                    for offer in task["offers"]:
                        if offer["name"] not in fetched:
                            taking.start_soon(take, offer["name"], offer["peer"])
                exchanged = time.monotonic() - began
                await in_thread(model.merge, [fetched[name] for name in sorted(fetched)])
                tasks.answer(to, {"fetching": exchanged})
            elif task["do"] == "sum":
                tasks.answer(
                    to, model.base["weight"].tobytes().hex()[:64] + str(model.base["weight"].sum())
                )
        nursery.cancel_scope.cancel()
    store.close()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(main, Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
