"""How many rows of a Parquet file came and went: a program of its own, `python -m swarm.versions.rows OLD NEW`.

The files may be a stranger's and their reader is large, so it runs in a process that has nothing to lose: with limits on
memory and time, and without the node's keys. Rows are read batch by batch and compared as a multiset of their hashes, so
their order does not count. Prints `{"added": n, "removed": n}`; any other exit code than 0 means that it cannot be told.
"""

from __future__ import annotations

import hashlib
import json
import resource
import sys
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ROWS = 2_000_000
"""Rows of both files; more are not compared."""
MAX_MEMORY_BYTES = 8 * 2**30
MAX_CPU_SECONDS = 120
BATCH_ROWS = 1_024
HASH_BYTES = 16


def count(old: str, new: str) -> dict[str, int]:
    """Rows that only one of two files has.

    Raises:
        ValueError: More than `MAX_ROWS`, or not Parquet.
    """
    seen: Counter[bytes] = Counter()
    left = MAX_ROWS
    for path, sign in ((old, -1), (new, 1)):
        for row in _rows(path):
            left -= 1
            if left < 0:
                message = f"more than {MAX_ROWS:,} rows"
                raise ValueError(message)
            seen[row] += sign
    return {
        "added": sum(one for one in seen.values() if one > 0),
        "removed": -sum(one for one in seen.values() if one < 0),
    }


def _rows(path: str) -> Iterator[bytes]:
    from pyarrow import parquet  # type: ignore[import-untyped]

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH_ROWS):
            for row in batch.to_pylist():
                text = repr(sorted(row.items())).encode(errors="surrogatepass")
                yield hashlib.blake2b(text, digest_size=HASH_BYTES).digest()


def main() -> None:
    """Compare the two files that the command line names."""
    for kind, most in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_SECONDS),
    ):
        resource.setrlimit(kind, (most, most))
    sys.stdout.write(json.dumps(count(sys.argv[1], sys.argv[2])))


if __name__ == "__main__":
    main()
