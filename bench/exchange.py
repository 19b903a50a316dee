# ruff: noqa: S311 - a script that prints, starts itself, and needs the same bytes each time
"""How fast a file is fetched: real network, real store, every node a process of its own, on the loopback.

    python bench/exchange.py [--mib 512] [--rounds 3] [--peers 1 3] [--folder DIR]

Each round starts one fetcher with an empty store; the bytes are encrypted, verified and durable when the clock stops.
Then a fetcher kills itself (SIGKILL) with half of the file stored, and another goes on in its folder: what both received
beyond the file was fetched again, and the second is ready when it knows what is here and asks for the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import structlog
import trio

from bench.machine import describe
from protocols.exchange.service import ExchangeService
from protocols.handshake import Hello
from protocols.signing import Signer
from storage import cid
from storage.blockstore import SegmentBlockstore
from storage.unixfs import add_path
from swarm.network import Network, NetworkSettings

MIB = 2**20
CHAIN_ID = b"b" * 32


def _network(seed: int, bootstrap: tuple[str, ...] = ()) -> Network:
    settings = NetworkSettings(listen=("/ip4/127.0.0.1/tcp/0",), bootstrap=bootstrap)
    signer = Signer(seed.to_bytes(32, "big"))
    return Network(settings, signer, CHAIN_ID, lambda: Hello(b"", "bench", 0, 1))


async def give(folder: str, seed: str) -> None:
    """Serve a store until killed; print where."""
    network = _network(int(seed))
    exchange = ExchangeService(network, SegmentBlockstore(Path(folder), 2**40))
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        exchange.register()
        await nursery.start(exchange.run)
        print(json.dumps(network.addresses()), flush=True)
        await trio.sleep_forever()


async def take(folder: str, root: str, addresses: str, kill_at: str = "0") -> None:
    """Fetch once and print what it took; or end by SIGKILL once so many bytes are stored, having printed how many."""
    network = _network(99, tuple(json.loads(addresses)))
    started = time.perf_counter()
    store = SegmentBlockstore(Path(folder), 2**40)
    opened = time.perf_counter() - started
    exchange = ExchangeService(network, store)
    peers = [address.rpartition("/")[2] for address in json.loads(addresses)]
    async with trio.open_nursery() as nursery:
        await nursery.start(network.run)
        await nursery.start(exchange.run)
        with trio.fail_after(30):
            while set(network.peers()) < set(peers):  # noqa: ASYNC110 - the network tells of no event
                await trio.sleep(0.05)
        before = resource.getrusage(resource.RUSAGE_SELF)
        idle_kib = _peak_kib()
        first: list[tuple[int, float]] = []
        started = time.perf_counter()

        def tell(done: int, _total: int, _note: str = "") -> None:
            if not first:
                first.append((done, time.perf_counter() - started))
            if 0 < int(kill_at) <= done:
                print(json.dumps({"here": done, "received": exchange.stats().bytes_in}), flush=True)
                os.kill(os.getpid(), signal.SIGKILL)

        fetched = await exchange.fetch(cid.parse(root), peers, tell)
        after = resource.getrusage(resource.RUSAGE_SELF)
        result = {
            "bytes": fetched.bytes,
            "here": first[0][0],
            "ready": opened + first[0][1],
            "received": exchange.stats().bytes_in,
            "seconds": fetched.seconds,
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime,
            "idle_mb": idle_kib * 1.024e-3,
            "peak_mb": _peak_kib() * 1.024e-3,
            "shares": sorted(fetched.from_peers.values()),
        }
        print(json.dumps(result), flush=True)
        nursery.cancel_scope.cancel()
    store.close()


def _spawn(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, __file__, *command], stdout=subprocess.PIPE, text=True)


def _givers(folder: Path, peers: int) -> list[subprocess.Popen[str]]:
    return [_spawn("give", str(folder / f"giver{index}"), str(index + 1)) for index in range(peers)]


def _taken(folder: Path, root: str, addresses: list[str], kill_at: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [
            sys.executable,
            __file__,
            "take",
            str(folder / "taker"),
            root,
            json.dumps(addresses),
            str(kill_at),
        ],
        check=not kill_at,
        capture_output=True,
        text=True,
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _round(folder: Path, root: str, peers: int) -> dict[str, Any]:
    givers = _givers(folder, peers)
    try:
        addresses = [json.loads(giver.stdout.readline())[0] for giver in givers if giver.stdout]
        return _taken(folder, root, addresses)
    finally:
        _end(folder, givers)


def _resume(folder: Path, root: str, size: int) -> None:
    givers = _givers(folder, 1)
    try:
        addresses = [json.loads(giver.stdout.readline())[0] for giver in givers if giver.stdout]
        killed = _taken(folder, root, addresses, size // 2)
        resumed = _taken(folder, root, addresses)
    finally:
        _end(folder, givers)
    again = killed["received"] + resumed["received"] - killed["here"] - resumed["bytes"]
    print(
        f"killed with {killed['here'] / 1e6:.0f} MB stored: the next one was ready after {resumed['ready']:.2f} s,"
        f" found {resumed['here'] / 1e6:.0f} MB, and {again / size:.1%} of the file came twice"
    )


def _end(folder: Path, givers: list[subprocess.Popen[str]]) -> None:
    for giver in givers:
        giver.send_signal(signal.SIGKILL)
        giver.wait()
    shutil.rmtree(folder / "taker", ignore_errors=True)


def _peak_kib() -> int:
    """Peak memory of this process alone; `ru_maxrss` starts with the parent's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    print(f"{describe()}; {options.mib} MiB, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-exchange-") as name:
        folder = Path(name)
        source = folder / "source"
        chance = random.Random(1)
        with source.open("wb") as file:
            for _ in range(options.mib):
                file.write(chance.randbytes(MIB))
        store = SegmentBlockstore(folder / "giver0", 2**40)
        start = time.perf_counter()
        root = cid.text(add_path(source, store).root)
        print(f"add: {options.mib * MIB / 1e6 / (time.perf_counter() - start):.0f} MB/s")
        store.close()
        source.unlink()
        for index in range(1, max(options.peers)):
            shutil.copytree(folder / "giver0", folder / f"giver{index}")
        rounds: dict[int, list[dict[str, Any]]] = {peers: [] for peers in options.peers}
        for _ in range(options.rounds):
            for peers in options.peers:
                rounds[peers].append(_round(folder, root, peers))
        _resume(folder, root, options.mib * MIB)
        for peers, results in rounds.items():
            rates = [one["bytes"] / one["seconds"] / 1e6 for one in results]
            print(
                f"from {peers}: {statistics.median(rates):.0f} MB/s"
                f" ({', '.join(f'{rate:.0f}' for rate in rates)}),"
                f" fetcher {statistics.median(one['cpu'] for one in results):.1f} CPU s,"
                f" peak {max(one['peak_mb'] for one in results):.0f} MB"
                f" (before the fetch {max(one['idle_mb'] for one in results):.0f} MB)"
            )
            if peers > 1:
                print(f"  shares in MB: {[round(part / 1e6) for part in results[-1]['shares']]}")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in ("give", "take"):
        structlog.configure(
            wrapper_class=structlog.make_filtering_bound_logger("warning"),
            logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        )
        if sys.argv[1] == "give":
            trio.run(give, *sys.argv[2:])
        else:
            trio.run(take, *sys.argv[2:])
    else:
        main()
