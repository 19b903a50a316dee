"""Whether a state on disk is whole: LMDB knows no checksums, and reads a file that was cut as memory that is not there.

The tree's root, which the chain has signed, is the checksum: it is computed again from the values, and every node
that this makes has to be the one on disk.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING, Final

from storage import state_tree
from storage.errors import LogError

if TYPE_CHECKING:
    from pathlib import Path

    import lmdb

DATA_FILE: Final = "data.mdb"
CHECKED_RECORDS: Final = 2**18
"""A larger state is not read through when it is opened: 2^18 records take about two seconds."""

FULL_CODES: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
LITTLE_BYTES: Final = 2**20


def check_file(folder: Path, environment: lmdb.Environment) -> None:
    """Refuse a file that ends before its last page; before anything else is read, for that would end the process.

    Raises:
        LogError: It does.
    """
    needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    size = (folder / DATA_FILE).stat().st_size
    if size < needed and size > 0:
        raise damaged(folder, f"{size:,} of its {needed:,} bytes are there")


def check_tree(
    folder: Path,
    transaction: lmdb.Transaction,
    tables: tuple[lmdb._Database, lmdb._Database],
    root: bytes,
) -> None:
    """Compute the root of a state from its values, and compare its tree with the one on disk.

    Raises:
        LogError: They are not the same.
    """
    values, nodes = tables
    if transaction.stat(values)["entries"] > CHECKED_RECORDS:
        return
    sha256 = hashlib.sha256
    with transaction.cursor(db=values) as cursor:
        leaves = sorted(
            b"\x00" + sha256(key).digest() + sha256(value).digest() for key, value in cursor
        )
    stored = _Stored(transaction, nodes)
    top = state_tree.build(0, 0, leaves, stored)
    if top is not None:
        stored[state_tree.node_key(0, 0)] = top
    found = state_tree.EMPTY if top is None else sha256(top).digest()
    if found != root:
        raise damaged(folder, "its values do not have the root that is noted for them")
    if stored.differs or stored.count != transaction.stat(nodes)["entries"]:
        raise damaged(folder, "its tree is not the one of its values")


def damaged(folder: Path, what: str) -> LogError:
    """The error, with what to do."""
    message = (
        f"the ledger's state in {folder} is damaged: {what}; put a copy of that folder back, or move it away, "
        "and it comes again from peers"
    )
    return LogError(message)


class _Stored(dict[bytes, bytes]):
    """Takes nodes only to compare them with those on disk."""

    def __init__(self, transaction: lmdb.Transaction, nodes: lmdb._Database) -> None:
        super().__init__()
        self._transaction = transaction
        self._nodes = nodes
        self.count = 0
        self.differs = False

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.count += 1
        self.differs |= self._transaction.get(key, db=self._nodes) != value


def is_full(error: lmdb.Error, folder: Path) -> bool:
    """Whether LMDB failed because the disk is full; a write that was cut short is an I/O error to it."""
    code = getattr(error, "code", 0)
    if code in FULL_CODES:
        return True
    found = os.statvfs(folder)
    return code == errno.EIO and found.f_bavail * found.f_frsize < LITTLE_BYTES
