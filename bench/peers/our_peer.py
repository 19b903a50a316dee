"""A node of this system: `our_peer.py FOLDER`."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

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

CHAIN_ID = b"b" * 32


async def main(folder: Path) -> None:
    """Do what is told until the end of the lines."""
    to = tasks.answers()
    settings = NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",))
    network = Network(settings, Signer(os.urandom(32)), CHAIN_ID, lambda: Hello(b"", "bench", 0, 1))
    store = SegmentBlockstore(folder, 2**40)
    exchange = ExchangeService(network, store)
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        exchange.register()
        await nursery.start(exchange.run)
        tasks.answer(to, "up")
        while (task := await trio.to_thread.run_sync(tasks.next_task)) is not None:
            if task["do"] == "add":
                adding = partial(unixfs.add_path, Path(task["path"]), store)
                added = await trio.to_thread.run_sync(adding)
                tasks.answer(to, {"name": cids.text(added.root), "address": network.addresses()[0]})
            elif task["do"] == "connect":
                tasks.answer(to, await network.connect(task["address"]))
            elif task["do"] == "fetch":
                peer = task["address"].rpartition("/")[2]
                fetched = await exchange.fetch(cids.parse(task["name"]), [peer])
                tasks.answer(to, fetched.bytes)
            elif task["do"] == "export":
                root, path = cids.parse(task["name"]), Path(task["path"])
                await trio.to_thread.run_sync(unixfs.write_path, root, store, path)
                tasks.answer(to, task["path"])
        nursery.cancel_scope.cancel()
    store.close()


if __name__ == "__main__":
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger("warning"),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    trio.run(main, Path(sys.argv[1]))
