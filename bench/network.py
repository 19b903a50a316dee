"""How fast a node's network is: `python -m bench.network`.

Two processes on the loopback. Stream throughput: one process sends `STREAM_BYTES` on one stream of `Network`, the other
reads them; the clock stops with its answer. Join: from the start of a second node to its first member, in one process,
with the port known. Prints medians of `ROUNDS` and the machine.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

import structlog
import trio

from bench.machine import describe
from protocols.handshake import Hello
from protocols.signing import Signer
from swarm.network import Network, NetworkSettings

STREAM_BYTES = 2**29
WRITE_BYTES = 2**20
ROUNDS = 5
PROTOCOL = "/bench/sink/1.0.0"
CHAIN = bytes(32)


def _network(number: int, bootstrap: tuple[str, ...] = ()) -> Network:
    return Network(
        NetworkSettings(bootstrap=bootstrap),
        Signer(number.to_bytes(32, "big")),
        CHAIN,
        lambda: Hello(CHAIN, "bench", 0, 0),
    )


async def _receiver() -> None:
    """Print the address, swallow streams, answer each with the CPU seconds it took."""
    network = _network(1)

    async def swallow(stream: object) -> None:
        before = time.process_time()
        while await stream.receive_some():  # type: ignore[attr-defined]  # a protocols.transport.Stream
            pass
        used = time.process_time() - before
        await stream.send_all(f"{used:.3f}".encode())  # type: ignore[attr-defined]
        await stream.close()  # type: ignore[attr-defined]

    network.handle(PROTOCOL, swallow)
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        print(network.addresses()[0], flush=True)
        await trio.to_thread.run_sync(sys.stdin.read, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()


async def _throughput(address: str) -> None:
    data = os.urandom(WRITE_BYTES)
    rates, senders, receivers = [], [], []
    network = _network(2, (address,))
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        peer = await network.connect(address)
        for _ in range(ROUNDS):
            stream = await network.open_stream(peer, PROTOCOL)
            start, before = time.perf_counter(), time.process_time()
            for _ in range(STREAM_BYTES // WRITE_BYTES):
                await stream.send_all(data)
            await stream.close()
            receivers.append(float(await stream.receive_some()))
            rates.append(STREAM_BYTES / 1e6 / (time.perf_counter() - start))
            senders.append(time.process_time() - before)
        nursery.cancel_scope.cancel()
    _say(
        f"stream: {statistics.median(rates):.0f} MB/s; CPU s for {STREAM_BYTES / 2**20:.0f} MiB: "
        f"receiver {statistics.median(receivers):.2f}, sender {statistics.median(senders):.2f}"
    )


async def _join(address: str) -> None:
    times = []
    for number in range(ROUNDS):
        network = _network(10 + number, (address,))
        start = time.perf_counter()
        async with trio.open_nursery() as nursery:
            await nursery.start(network.run)
            while not network.peers():  # noqa: ASYNC110 - as a user of the door would wait
                await trio.sleep(0.001)
            times.append(time.perf_counter() - start)
            nursery.cancel_scope.cancel()
    _say(f"join to first member: {statistics.median(times) * 1000:.0f} ms")


def _say(text: str) -> None:
    print(text)


def main() -> None:
    """Measure and print."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    if sys.argv[1:] == ["receive"]:
        trio.run(_receiver)
        return
    with subprocess.Popen(
        [sys.executable, "-m", "bench.network", "receive"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as child:
        if child.stdin is None or child.stdout is None:
            raise AssertionError
        address = child.stdout.readline().strip()
        trio.run(_throughput, address)
        trio.run(_join, address)
        child.stdin.close()
    _say(f"{describe()}, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
