"""How fast the store is on this machine: `python -m bench.storage [MiB] [folder]`.

A file of random bytes is added (read, hashed, written, durable), read back with every record's CRC checked, verified
with every hash, added again (nothing new), and written out as a file. Each is done five times; the median counts.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bench.machine import describe
from storage import unixfs
from storage.blockstore import SegmentBlockstore

if TYPE_CHECKING:
    from collections.abc import Callable

MIB = 2**20
RUNS = 5
Result = TypeVar("Result")


def main() -> None:
    """Measure and print."""
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    parent = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    with tempfile.TemporaryDirectory(prefix="swarm-bench-", dir=parent) as name:
        folder = Path(name)
        _say(f"{describe()}, {folder}")
        with (folder / "file").open("wb") as file:
            for _ in range(mib):
                file.write(os.urandom(MIB))
            os.fsync(file.fileno())
        results: dict[str, list[float]] = {}
        for _ in range(RUNS):
            _run(folder, results)
        megabytes = mib * MIB / 1e6
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
