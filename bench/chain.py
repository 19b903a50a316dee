"""Four validators in real processes on loopback: finality, transfers end to end, one of them killed, and a newcomer.

    python -m bench.chain [--seconds 15] [--rate 500] [--kill]

Transfers of many accounts are signed here, handed to the nodes at a steady rate, and looked for in the blocks of the
last node: each has to be there once. With `--kill` the same again after a kill -9 of one of the four.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from bench.machine import describe
from cli.demo.network import DemoNetwork, DemoNode
from protocols.signing import Signer
from swarm.ledger.genesis import UNIT, Genesis
from swarm.ledger.transactions import Transfer, sign, transaction_id

if TYPE_CHECKING:
    from collections.abc import Sequence

IDLE_SECONDS = 10.0
DRAIN_SECONDS = 90.0
SETTLE_SECONDS = 15.0
"""After a kill: peers notice it, and views without their leader pass."""
HELP_RUNS = 7
SENDERS = 96
TICK_SECONDS = 0.1
AGAIN_SECONDS = 5.0
"""A transfer that is in no block after so long is handed in again, as a wallet does."""
VICTIM = 1
MAX_VALID_BLOCKS = 200


def help_seconds() -> float:
    """`swarm --help`, the median of several."""
    taken = []
    for _ in range(HELP_RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cli", "--help"], check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


class BenchNetwork(DemoNetwork):
    """The demo's network, in which the senders own something."""

    def __init__(self, folder: Path, senders: Sequence[Signer]) -> None:
        super().__init__(folder)
        self._senders = senders
        self.chain_id = b""

    def _write_genesis(self) -> None:
        super()._write_genesis()
        made = Genesis.load(self._genesis)
        rich = [(one.public_key, 1_000 * UNIT) for one in self._senders]
        with_senders = Genesis.create(
            made.network,
            made.timestamp_ms,
            made.validators,
            allocations=[*made.allocations, *rich],
            params=made.params,
        )
        with_senders.save(self._genesis)
        self.chain_id = with_senders.chain_id


@dataclass
class Sent:
    """A transfer that was handed in."""

    data: bytes
    at: float
    first: float
    home: int


@dataclass
class Load:
    """Transfers at a steady rate, and what became of them.

    Attributes:
        network: Where they go.
        senders: Whose accounts pay.
        nonces: The next of each.
        waiting: By id, those that no block held when it was last looked.
        height: Up to which blocks were looked at.
        latencies: Seconds from the first time that each was handed in until its block was seen.
    """

    network: BenchNetwork
    senders: Sequence[Signer]
    height: int
    nonces: list[int] = field(default_factory=lambda: [0] * SENDERS)
    waiting: dict[str, Sent] = field(default_factory=dict)
    latencies: list[float] = field(default_factory=list)
    failed: int = 0
    refused: int = 0

    def run(self, seconds: float, rate: float, homes: Sequence[int]) -> tuple[int, float]:
        """Send for so long, then wait until the last is in a block; (how many were sent, seconds in all)."""
        began = time.perf_counter()
        sent = 0
        while (now := time.perf_counter() - began) < seconds:
            due = int(now * rate) - sent
            self._hand_in([self._make(sent + at, homes) for at in range(due)])
            sent += due
            self._look()
            left = TICK_SECONDS - (time.perf_counter() - began - now)
            time.sleep(max(0.0, left))
        rest = int(seconds * rate) - sent
        self._hand_in([self._make(sent + at, homes) for at in range(rest)])
        sent += max(0, rest)
        self._drain()
        return sent, time.perf_counter() - began

    def _drain(self) -> None:
        deadline = time.perf_counter() + DRAIN_SECONDS
        while self.waiting and time.perf_counter() < deadline:
            self._look()
            time.sleep(TICK_SECONDS)

    def _make(self, number: int, homes: Sequence[int]) -> Sent:
        at = number % SENDERS
        data = sign(
            self.senders[at],
            self.network.chain_id,
            self.nonces[at],
            Transfer(self.senders[(at + 1) % SENDERS].public_key, 1),
            valid_until=self.height + MAX_VALID_BLOCKS,
            tip=1,
            max_fee=1_000,
        )
        self.nonces[at] += 1
        now = time.perf_counter()
        one = Sent(data, now, now, homes[at % len(homes)])
        self.waiting[transaction_id(data).hex()] = one
        return one

    def _hand_in(self, some: Sequence[Sent]) -> None:
        for home in {one.home for one in some}:
            of_home = [one.data for one in some if one.home == home]
            told = self.network.nodes[home].client.submit(of_home)
            self.refused += len(told["refused"])

    def _look(self) -> None:
        """See what new blocks hold, and hand in again what has waited for long."""
        client = self.network.nodes[-1].client
        head = client.status()["height"]
        for height in range(self.height + 1, head + 1):
            now = time.perf_counter()
            for one in client.block(height)["txs"]:
                found = self.waiting.pop(one["id"], None)
                if found is not None:
                    self.latencies.append(now - found.first)
                    self.failed += not one["ok"]
        self.height = head
        now = time.perf_counter()
        late = [one for one in self.waiting.values() if now - one.at > AGAIN_SECONDS]
        for one in late:
            one.at = now
            one.home = len(self.network.nodes) - 1
        self._hand_in(late)

    def told(self, what: str, sent: int, took: float, seconds: float) -> None:
        """Print what came of a run, and begin anew."""
        ordered = sorted(self.latencies) or [float("nan")]
        p50, p99 = (ordered[int(part * (len(ordered) - 1))] for part in (0.5, 0.99))
        print(
            f"{what}: {sent:,} sent in {seconds:.0f} s ({sent / seconds:.0f}/s), {len(self.latencies):,} final on another"
            f" node after {took:.1f} s ({len(self.latencies) / took:.0f}/s), {len(self.waiting):,} lost,"
            f" {self.failed:,} failed; handed in to final p50 {p50:.2f} s, p99 {p99:.2f} s"
        )
        self.latencies, self.failed, self.refused = [], 0, 0


def finality(nodes: Sequence[DemoNode], what: str) -> None:
    """Print each node's finality."""
    for node in nodes:
        status = node.status()
        memory = psutil.Process(status["pid"]).memory_info().rss / 2**20
        told = status["finality_ms"]
        print(
            f"{node.name}: finality p50 {told['p50']} ms, p99 {told['p99']} ms, {memory:.0f} MiB, {what}"
        )


def newcomer(network: BenchNetwork) -> None:
    """Print how quickly a fifth node is in."""
    began = time.perf_counter()
    late = network.start_late()
    while late.status()["peers"] == 0:
        time.sleep(0.02)
    print(f"join to the first peer: {time.perf_counter() - began:.2f} s, process start included")
    head = network.nodes[0].status()["height"]
    while late.status()["height"] < head:
        time.sleep(0.05)
    print(f"caught up with {head:,} blocks after {time.perf_counter() - began:.2f} s")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each load")
    parser.add_argument("--rate", type=float, default=500.0, help="transfers a second")
    parser.add_argument("--kill", action="store_true", help="once more with one node killed")
    asked = parser.parse_args()
    print(describe())
    print(f"swarm --help: {help_seconds():.3f} s (median of {HELP_RUNS})")
    senders = [Signer(number.to_bytes(32, "big")) for number in range(1, SENDERS + 1)]
    with tempfile.TemporaryDirectory() as scratch:
        network = BenchNetwork(Path(scratch), senders)
        with network.running():
            network.start_validators()
            time.sleep(IDLE_SECONDS)
            finality(network.nodes, "no load")
            load = Load(network, senders, network.nodes[-1].status()["height"])
            sent, took = load.run(asked.seconds, asked.rate, range(4))
            load.told("transfers", sent, took, asked.seconds)
            finality(network.nodes, "after the load")
            if asked.kill:
                victim = network.nodes[VICTIM]
                victim.child.kill()
                victim.child.wait()
                alive = [at for at in range(4) if at != VICTIM]
                time.sleep(SETTLE_SECONDS)
                sent, took = load.run(asked.seconds, asked.rate, alive)
                load.told("transfers, one of four killed", sent, took, asked.seconds)
                finality([network.nodes[at] for at in alive], "one killed")
            newcomer(network)


if __name__ == "__main__":
    main()
