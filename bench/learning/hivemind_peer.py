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


class Peer:
    """One averager and its node of the DHT."""

    def __init__(self, known: list[str], values: int, seed: int) -> None:
        self.dht = hivemind.DHT(
            initial_peers=known, start=True, host_maddrs=["/ip4/127.0.0.1/tcp/0"]
        )
        torch.manual_seed(seed)
        self._averager = DecentralizedAverager(
            [torch.randn(values)],
            self.dht,
            prefix="bench",
            target_group_size=PEERS,
            min_matchmaking_time=2.0,
            request_timeout=1.0,
            compression=Float16Compression(),
            start=True,
        )

    def round(self) -> dict[str, float]:
        """One averaging with the group: who took part, how long it took, the sum of what came out."""
        began = time.monotonic()
        group = self._averager.step(timeout=60)
        took = time.monotonic() - began
        with self._averager.get_tensors() as tensors:
            total = float(tensors[0].double().sum())
        return {"peers": len(group or ()), "seconds": took, "sum": total}

    def stop(self) -> None:
        """End both processes."""
        self._averager.shutdown()
        self.dht.shutdown()


def main(values: int, seed: int) -> None:
    """Do what is told until the end of the lines; the first is `start`."""
    to = tasks.answers()
    tasks.answer(to, "up")
    peer = None
    while (task := tasks.next_task()) is not None:
        try:
            if peer is None:
                peer = Peer([task["address"]] if task["address"] else [], values, seed)
                tasks.answer(to, str(peer.dht.get_visible_maddrs()[0]))
            elif task["do"] == "round":
                tasks.answer(to, peer.round())
            elif task["do"] == "stop":
                peer.stop()
                tasks.answer(to, "down")
        except Exception as error:  # noqa: BLE001 - said to whoever measures
            tasks.fail(to, error)


if __name__ == "__main__":
    main(int(sys.argv[2]), int(sys.argv[3]))
