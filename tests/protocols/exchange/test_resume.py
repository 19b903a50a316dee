"""A fetch whose process is killed goes on from what is on the disk: real processes, real sockets."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import trio

from protocols.exchange.service import ExchangeService
from protocols.handshake import Hello
from protocols.signing import Signer
from storage import cid as cids
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path
from swarm.network import Network, NetworkSettings

BENCH = Path(__file__).parents[3] / "bench" / "exchange.py"
SIZE = 48 * 2**20


@pytest.mark.slow
async def test_after_a_kill_at_half_only_what_was_not_stored_is_fetched_again(tmp_path, nursery):
    path = tmp_path / "file"
    path.write_bytes(random.Random(5).randbytes(SIZE))
    store = MemoryBlockstore()
    root = add_path(path, store).root
    total = sum(map(len, store.chunks.values()))
    network = Network(
        NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",)),
        Signer((1).to_bytes(32, "big")),
        b"b" * 32,
        lambda: Hello(b"", "test", 0, 1),
    )
    exchange = ExchangeService(network, store)
    await nursery.start(network.run)
    exchange.register()
    addresses = json.dumps(network.addresses()[:1])

    async def take(kill_at: int) -> tuple[int, dict]:
        arguments = [str(BENCH), "take", str(tmp_path / "taker"), cids.text(root), addresses]
        done = await trio.to_thread.run_sync(
            partial(
                subprocess.run,
                [sys.executable, *arguments, str(kill_at)],
                check=False,
                capture_output=True,
                text=True,
            )
        )
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    with trio.fail_after(60):
        code, killed = await take(SIZE // 2)
        assert code == -signal.SIGKILL
        assert total // 2 <= killed["here"] < total
        code, resumed = await take(0)
    assert code == 0
    assert resumed["here"] >= killed["here"]
    assert resumed["bytes"] == total - resumed["here"]
