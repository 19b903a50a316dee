"""A peer of hivemind: `hivemind_peer.py FOLDER VALUES SEED`, in an environment of its own.

It averages one float32 tensor of VALUES with its group, as `hivemind.averaging.DecentralizedAverager` does, sent in float16.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import hivemind
import torch
from hivemind.averaging import DecentralizedAverager
from hivemind.compression import Float16Compression

from bench.peers import tasks

PEERS = 4


def main(values: int, seed: int) -> None:
    """Do what is told until the end of the lines."""
    to = tasks.answers()
    tasks.answer(to, "up")
    averager = None
    dht = None
    while (task := tasks.next_task()) is not None:
        try:
            if task["do"] == "start":
                known = [task["address"]] if task["address"] else []
                dht = hivemind.DHT(
                    initial_peers=known, start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"]
                )
                torch.manual_seed(seed)
                averager = DecentralizedAverager(
                    [torch.randn(values)],
                    dht,
                    prefix="bench",
                    target_group_size=PEERS,
                    min_matchmaking_time=2.0,
                    request_timeout=1.0,
                    compression=Float16Compression(),
                    start=True,
                )
                tasks.answer(to, str(dht.get_visible_maddrs()[0]))
            elif task["do"] == "round":
                assert averager is not None
                began = time.monotonic()
                group = averager.step(timeout=60)
                took = time.monotonic() - began
                with averager.get_tensors() as tensors:
                    total = float(tensors[0].double().sum())
                tasks.answer(to, {"peers": len(group or ()), "seconds": took, "sum": total})
            elif task["do"] == "stop":
                assert averager is not None
                assert dht is not None
                averager.shutdown()
                dht.shutdown()
                tasks.answer(to, "down")
        except Exception as error:  # noqa: BLE001 - said to whoever measures
            tasks.fail(to, error)


if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]))
