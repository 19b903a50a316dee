"""Four validators in real processes on loopback: finality, transfers a second, and how quickly a node is in.

    python -m bench.chain [SECONDS]

Prints medians and the machine; the settings are the demo's.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil

from bench.machine import describe
from cli.demo.network import DemoNetwork, DemoNode
from swarm.client import Client
from swarm.errors import RefusedError

TRANSFER_SECONDS = 30.0
IDLE_SECONDS = 20.0
HELP_RUNS = 7
WINDOW = 400
"""Transfers of one account that wait for a block before the bench waits too."""


def help_seconds() -> float:
    """`swarm --help`, the median of several."""
    taken = []
    for _ in range(HELP_RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "cli", "--help"], check=True, capture_output=True)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def send_for(node: DemoNode, to: str, seconds: float) -> int:
    """Send transfers one after another; how many were taken."""
    sent = 0
    with Client.of_home(node.home) as client:
        start = int(client.balance()["nonce"])
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            if sent % 50 == 0 and sent - (int(client.balance()["nonce"]) - start) > WINDOW:
                time.sleep(0.05)
                continue
            try:
                client.send(to, 1, wait=False)
                sent += 1
            except RefusedError:
                time.sleep(0.05)
    return sent


def nonces(network: DemoNetwork) -> int:
    """Transactions of the four accounts that are final on the last node."""
    with Client.of_home(network.nodes[3].home) as client:
        return sum(
            int(client.balance(node.status()["account"])["nonce"]) for node in network.nodes[:4]
        )


def transfers(network: DemoNetwork, seconds: float) -> tuple[int, int, float]:
    """(taken, final on another node, seconds until the last was final)."""
    before = nonces(network)
    accounts = [node.status()["account"] for node in network.nodes]
    began = time.perf_counter()
    with ThreadPoolExecutor(4) as pool:
        jobs = [
            pool.submit(send_for, node, accounts[(index + 1) % 4], seconds)
            for index, node in enumerate(network.nodes[:4])
        ]
        taken = sum(job.result() for job in jobs)
    while nonces(network) - before < taken and time.perf_counter() - began < seconds + 60:
        time.sleep(0.1)
    return taken, nonces(network) - before, time.perf_counter() - began


def main() -> None:
    """Measure and print."""
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else TRANSFER_SECONDS
    print(describe())
    print(f"swarm --help: {help_seconds():.3f} s (median of {HELP_RUNS})")
    with tempfile.TemporaryDirectory() as scratch:
        network = DemoNetwork(Path(scratch))
        with network.running():
            network.start_validators()
            time.sleep(IDLE_SECONDS)
            for node in network.nodes:
                finality = node.status()["finality_ms"]
                print(
                    f"{node.name}: finality p50 {finality['p50']} ms, p99 {finality['p99']} ms, no load"
                )
            taken, final, took = transfers(network, seconds)
            print(
                f"transfers: {taken:,} taken, {final:,} final on another node, {final / took:.0f} a second"
            )
            for node in network.nodes:
                status = node.status()
                memory = psutil.Process(status["pid"]).memory_info().rss / 2**20
                finality = status["finality_ms"]
                print(
                    f"{node.name}: finality p50 {finality['p50']} ms, p99 {finality['p99']} ms, {memory:.0f} MiB"
                )
            began = time.perf_counter()
            late = network.start_late()
            while late.status()["peers"] == 0:
                time.sleep(0.02)
            print(
                f"join to the first peer: {time.perf_counter() - began:.2f} s, process start included"
            )
            head = network.nodes[0].status()["height"]
            while late.status()["height"] < head:
                time.sleep(0.05)
            print(f"caught up with {head:,} blocks after {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
