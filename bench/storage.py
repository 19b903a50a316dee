"""How fast the store is on this machine: `python -m bench.storage [folder]`; a minute at most.

throughput    A file of random bytes is added (read, hashed, written, durable), read back with every record's CRC
              checked, verified with every hash, added again (nothing new), and written out as a file; the median counts.
collection    100,000 dead chunks are collected while one thread reads what lives and another publishes.
index         A million chunks: how long the store takes to open, and what a collection needs in memory.
checkpoints   What a checkpoint costs of which 10 % of the tensors changed.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from bench.machine import describe
from storage import cid as cids
from storage import unixfs
from storage.blockstore import SegmentBlockstore
from storage.collection import Collector, Step
from storage.index import Place
from storage.segments import PREFIX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from storage.cid import Cid

MIB = 2**20
FILE_MIB = 256
RUNS = 3
DEAD_CHUNKS = 100_000
DEAD_BYTES = 2_000
LOAD_SECONDS = 4.0
INDEX_CHUNKS = 1_000_000
TENSORS = 60
Result = TypeVar("Result")


def main() -> None:
    """Measure and print."""
    parent = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    for part in (_throughput, _collection, _index, _checkpoints):
        with tempfile.TemporaryDirectory(prefix="swarm-bench-", dir=parent) as name:
            folder = Path(name)
            if part is _throughput:
                _say(f"{describe()}, {folder}")
            part(folder)


def _throughput(folder: Path) -> None:
    _random_file(folder / "file", FILE_MIB)
    results: dict[str, list[float]] = {}
    for _ in range(RUNS):
        _run(folder, results)
    megabytes = FILE_MIB * MIB / 1e6
    for what, seconds in results.items():
        slow, fast = megabytes / max(seconds), megabytes / min(seconds)
        middle = megabytes / statistics.median(seconds)
        _say(f"{what:<28} {middle:7,.0f} MB/s   ({slow:,.0f} to {fast:,.0f})")


def _run(folder: Path, results: dict[str, list[float]]) -> None:
    store = SegmentBlockstore(folder / "chunks", 2**50)
    added = _time(results, "add, durable", lambda: unixfs.add_path(folder / "file", store))
    _time(results, "add again, nothing new", lambda: unixfs.add_path(folder / "file", store))
    _time(results, "hash without a store", lambda: unixfs.hash_path(folder / "file"))
    _time(results, "read, CRC checked", lambda: sum(map(len, unixfs.read_file(added.root, store))))
    _time(results, "verify, hashes checked", store.verify)
    _time(
        results,
        "write out, durable",
        lambda: unixfs.write_path(added.root, store, folder / "copy"),
    )
    store.close()
    (folder / "copy").unlink()
    shutil.rmtree(folder / "chunks")
    os.sync()


class _Load:
    """A reader and a publisher, and how much each of them does."""

    def __init__(self, store: SegmentBlockstore, leaves: list[Cid]) -> None:
        self._store = store
        self._leaves = leaves
        self._stop = threading.Event()
        self.read = 0
        self.published = 0
        self._threads = [
            threading.Thread(target=self._read),
            threading.Thread(target=self._publish),
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        while not self._stop.is_set():
            for cid in self._leaves:
                self.read += len(self._store.get(cid))
                if self._stop.is_set():
                    return

    def _publish(self) -> None:
        while not self._stop.is_set():
            with self._store.lease("publish"):
                pairs = [(cids.of_raw(data), data) for data in (os.urandom(MIB) for _ in range(4))]
                self.published += self._store.put_many(pairs)


def _collection(folder: Path) -> None:
    store = SegmentBlockstore(folder / "chunks", 2**50)
    chunks = (os.urandom(DEAD_BYTES) for _ in range(DEAD_CHUNKS))
    store.put_many((cids.of_raw(data), data) for data in chunks)
    _random_file(folder / "file", 64)
    root = unixfs.add_path(folder / "file", store).root
    store.pin(root, "read")
    leaves = [cid for cid, place in store.index.rows() if place.length == MIB]
    collector = Collector(store)
    last = [0.0]

    def pause() -> None:
        """Work half of the time."""
        time.sleep(min(0.1, time.perf_counter() - last[0]))
        last[0] = time.perf_counter()

    start = time.perf_counter()
    with _Load(store, leaves) as alone:
        time.sleep(LOAD_SECONDS)
    alone_seconds = time.perf_counter() - start
    start = last[0] = time.perf_counter()
    with _Load(store, leaves) as beside:
        collected = collector.run_once(pause=pause)
        seconds = time.perf_counter() - start
    beside_seconds = time.perf_counter() - start
    _say(
        f"collection of {collected.dropped:,} dead chunks: {seconds:.1f} s, "
        f"{collected.freed / 1e6:,.0f} MB given back"
    )
    for what, before, after in (
        ("reads", alone.read, beside.read),
        ("publishes", alone.published, beside.published),
    ):
        rate, beside_rate = before / alone_seconds / 1e6, after / beside_seconds / 1e6
        _say(f"{what:<28} {rate:7,.0f} MB/s alone, {beside_rate:,.0f} beside it")
    store.close()


def _index(folder: Path) -> None:
    """Of chunks whose bytes are a hole in a file: only the index is looked at."""
    store = SegmentBlockstore(folder / "chunks", 2**50)
    store.put_many([(cids.of_raw(b""), b"")])
    size = PREFIX_BYTES + 16
    for start in range(0, INDEX_CHUNKS, 50_000):
        rows = [
            (cids.of_raw(at.to_bytes(16, "big")), Place(2, at * size, 16))
            for at in range(start, start + 50_000)
        ]
        store.index.add(rows, {2: INDEX_CHUNKS * size})
    store.close()
    with (folder / "chunks" / "00000002.seg").open("wb") as file:
        file.truncate(INDEX_CHUNKS * size)
    start_time = time.perf_counter()
    store = SegmentBlockstore(folder / "chunks", 2**50)
    opened = time.perf_counter() - start_time
    tracemalloc.start()
    steps = Collector(store).steps()
    start_time = time.perf_counter()
    _until_looked(steps)
    looked = time.perf_counter() - start_time
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    steps.close()
    _say(
        f"{INDEX_CHUNKS:,} chunks: open in {opened:.2f} s, listed for a collection in {looked:.1f} s "
        f"and {peak / 1e6:.1f} MB, index {(folder / 'chunks' / 'index.db').stat().st_size / 1e6:,.0f} MB"
    )
    store.close()


def _until_looked(steps: Iterator[Step]) -> None:
    for step in steps:
        if step.done >= INDEX_CHUNKS:
            return


def _checkpoints(folder: Path) -> None:
    store = SegmentBlockstore(folder / "chunks", 2**50)
    tensors = [os.urandom(MIB + 4 * at) for at in range(TENSORS)]
    path = folder / "model.safetensors"
    _write_checkpoint(path, tensors, "step 1")
    size = unixfs.add_path(path, store).size
    for at in range(0, TENSORS, 10):
        tensors[at] = os.urandom(len(tensors[at]))
    _write_checkpoint(path, tensors, "step 10")
    added = unixfs.add_path(path, store)
    _say(
        f"checkpoint of {size / 1e6:.0f} MB, 10 % of the tensors changed: "
        f"{100 * added.new_bytes / added.size:.1f} % of the bytes are new"
    )
    store.close()


def _write_checkpoint(path: Path, tensors: list[bytes], step: str) -> None:
    header: dict[str, object] = {"__metadata__": {"step": step}}
    at = 0
    for number, tensor in enumerate(tensors):
        header[f"layer.{number}"] = {
            "dtype": "F32",
            "shape": [len(tensor) // 4],
            "data_offsets": [at, at + len(tensor)],
        }
        at += len(tensor)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(tensors))


def _random_file(path: Path, mib: int) -> None:
    with path.open("wb") as file:
        for _ in range(mib):
            file.write(os.urandom(MIB))
        os.fsync(file.fileno())


def _time(results: dict[str, list[float]], what: str, call: Callable[[], Result]) -> Result:
    start = time.perf_counter()
    result = call()
    results.setdefault(what, []).append(time.perf_counter() - start)
    return result


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
