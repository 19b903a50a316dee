"""Whether a state on disk is whole: LMDB knows no checksums, and reads a file that was cut as memory that is not there.

The tree's root, which the chain has signed, is the checksum: it is computed again from the values, and every node
that this makes has to be the one on disk. A small state is checked when it is opened, a larger one while the node runs:
a part of its paths at a time, each on the state of that moment, so that no read of the database lasts long.
"""

from __future__ import annotations

import errno
import hashlib
import os
from typing import TYPE_CHECKING, Final, Protocol, cast

import lmdb

from storage import state_tree
from storage.errors import LogError
from storage.state_view import StaleViewError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from storage.state_view import View

DATA_FILE: Final = "data.mdb"
CHECKED_RECORDS: Final = 2**18
"""A larger state is not read through when it is opened: 2^18 records take about two seconds."""
STEP_RECORDS: Final = 4096
"""That one step of a check in parts reads: some milliseconds."""
_LAST_HEAD: Final = 1
_BITS: Final = 8
_PARTS: Final = 1 << _BITS

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


def is_new(environment: lmdb.Environment) -> bool:
    """Whether nothing was ever written into a database: it has no page but its two heads."""
    return bool(environment.info()["last_pgno"] <= _LAST_HEAD)


def check_tree(
    folder: Path,
    transaction: lmdb.Transaction,
    tables: tuple[lmdb._Database, lmdb._Database],
    root: bytes,
) -> bool:
    """Compute the root of a state from its values, and compare its tree with the one on disk.

    Returns:
        False for a state that is too large for that.

    Raises:
        LogError: They are not the same.
    """
    values, nodes = tables
    if transaction.stat(values)["entries"] > CHECKED_RECORDS:
        return False
    sha256 = hashlib.sha256
    with transaction.cursor(db=values) as cursor:
        leaves = sorted(
            b"\x00" + sha256(key).digest() + sha256(value).digest()
            for key, value in _in_order(folder, cast("Iterable[tuple[bytes, bytes]]", cursor))
        )

    def read(key: bytes) -> bytes | None:
        found = transaction.get(key, db=nodes)
        return None if found is None else bytes(found)

    stored = _Stored(read)
    top = state_tree.build(0, 0, leaves, stored)
    if top is not None:
        stored[state_tree.node_key(0, 0)] = top
    found = state_tree.EMPTY if top is None else sha256(top).digest()
    if found != root:
        raise damaged(folder, "its values do not have the root that is noted for them")
    if stored.differs or stored.count != transaction.stat(nodes)["entries"]:
        raise damaged(folder, _OTHER_TREE)
    return True


class Parts(Protocol):
    """A state that is checked while it is in use; `storage.state_store.StateStore` is one."""

    def view(self) -> View:
        """The newest committed state."""


def check_parts(folder: Path, store: Parts) -> Iterator[None]:
    """Check a state of any size while blocks are committed over it; a step each time that this is taken on.

    Every record and every node that leads to one is looked at in some state committed since this began.

    Raises:
        LogError: A record or a node is not what the root of its state says.
    """
    low = 0
    while low < _PARTS:
        view = store.view()
        step = max(1, min(_PARTS, _PARTS * CHECKED_RECORDS // max(1, view.count())))
        try:
            yield from _check_paths(folder, view, low, min(_PARTS, low + step))
        except StaleViewError:
            # The map has grown, or a snapshot was taken over: once more, on the state of now.
            yield
            continue
        except lmdb.Error as error:
            raise damaged(folder, f"it cannot be read: {error}") from error
        low += step


def _check_paths(folder: Path, view: View, low: int, high: int) -> Iterator[None]:
    """Check the subtrees of some first bytes of paths, from one to another (not with it)."""
    sha256 = hashlib.sha256
    leaves: dict[int, list[bytes]] = {first: [] for first in range(low, high)}
    for at, (key, value) in enumerate(_in_order(folder, view.scan(b""))):
        path = sha256(key).digest()
        if low <= path[0] < high:
            leaves[path[0]].append(b"\x00" + path + sha256(value).digest())
        if at % STEP_RECORDS == 0:
            yield
    for first, found in leaves.items():
        stored = _Stored(view.node)
        top = state_tree.build(first, _BITS, sorted(found), stored)
        if stored.differs or not _stands(view, first, top):
            raise damaged(folder, _OTHER_TREE)
        yield


def _in_order(
    folder: Path, records: Iterable[tuple[bytes, bytes]]
) -> Iterator[tuple[bytes, bytes]]:
    """Records as they come, each key above the one before: a damaged key may be another's, and a tree has no two.

    Raises:
        LogError: A key is not above the one before.
    """
    before: bytes | None = None
    for key, value in records:
        if before is not None and key <= before:
            raise damaged(folder, "its keys are not in order")
        before = key
        yield key, value


def _stands(view: View, first: int, top: bytes | None) -> bool:
    """Whether a subtree's node stands in the tree, every node above it being what the one before says."""
    expected = view.root
    for depth in range(_BITS + 1):
        if expected == state_tree.EMPTY:
            return top is None
        node = view.node(state_tree.node_key(first >> (_BITS - depth), depth))
        if node is None or hashlib.sha256(node).digest() != expected:
            return False
        if depth == _BITS:
            return node == top
        if state_tree.is_leaf(node):  # the only one below here, whichever first byte it has
            return top == (node if node[1] == first else None)
        right = first >> (_BITS - 1 - depth) & 1
        expected = node[33:65] if right else node[1:33]
    return False


def damaged(folder: Path, what: str) -> LogError:
    """The error, with what to do."""
    message = (
        f"the ledger's state in {folder} is damaged: {what}; put a copy of that folder back, or move it away, "
        "and it comes again from peers"
    )
    return LogError(message)


_OTHER_TREE: Final = "its tree is not the one of its values"


class _Stored(dict[bytes, bytes]):
    """Takes nodes only to compare them with those on disk."""

    def __init__(self, read: Callable[[bytes], bytes | None]) -> None:
        super().__init__()
        self._read = read
        self.count = 0
        self.differs = False

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.count += 1
        self.differs |= self._read(key) != value


def is_full(error: lmdb.Error, folder: Path) -> bool:
    """Whether LMDB failed because the disk is full; a write that was cut short is an I/O error to it."""
    code = getattr(error, "code", 0)
    if code in FULL_CODES:
        return True
    found = os.statvfs(folder)
    return code == errno.EIO and found.f_bavail * found.f_frsize < LITTLE_BYTES
