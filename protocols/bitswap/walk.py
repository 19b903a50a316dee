"""The walk over a DAG from its root: what is known of it, what is here, what must still come. No I/O.

Others made these DAGs, so the sizes in their links are taken for progress and for room, and never for truth:
what counts against the caller's limit are bytes that are here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.bitswap.errors import TooLargeError
from storage import cid as cids
from storage import dag
from storage.chunks import MAX_CHUNK_BYTES
from storage.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from storage.cid import Cid
    from storage.dag_pb import Link

MAX_MANIFESTS = 2**18
"""Manifests of one content."""
MAX_PENDING = 2**18
"""Chunks that are known and not here yet, at any one time."""
MAX_SIZE = 2**50
"""Links that promise more are lies."""


class Walk:
    """What is known of one content.

    Args:
        root: Its name.
        limit: Bytes that the caller accepts; None is any number.

    Attributes:
        done: Bytes that are here.
        awaited: Bytes that links promise below what is not here.
    """

    def __init__(self, root: Cid, limit: int | None = None) -> None:
        self.root = root
        self.done = 0
        self.awaited = 0
        self._limit = limit
        self._pending: dict[Cid, int] = {}
        self._here: dict[Cid, None] = {}
        self._opened: set[Cid] = set()

    @property
    def total(self) -> int:
        """Bytes that the content has, as far as is known."""
        return self.done + self.awaited

    @property
    def is_complete(self) -> bool:
        """Whether all of it is here."""
        return not self._pending and not self._here

    @property
    def has_here(self) -> bool:
        """Whether `next_here` would give one."""
        return bool(self._here)

    def next_here(self) -> Cid | None:
        """A manifest that the store holds and that was not opened yet; hand it to `open_manifest`."""
        return self._here.popitem()[0] if self._here else None

    def place(self, found: dict[Cid, int], missing: Iterable[Cid]) -> list[tuple[Cid, int]]:
        """Tell which of the chunks that were just learnt are here.

        Args:
            found: What `open_manifest` gave, or the root: bytes at and below each.
            missing: Those of them that the store does not hold.

        Returns:
            What must be fetched: (CID, the bytes that the chunk probably has).

        Raises:
            ManifestError: More is pending than may be.
            TooLargeError: More bytes are here than the caller accepts.
        """
        absent = set(missing)
        wanted: list[tuple[Cid, int]] = []
        for cid, promise in found.items():
            if cid in absent:
                self._pending[cid] = promise
                self.awaited += promise
                wanted.append((cid, min(promise, MAX_CHUNK_BYTES)))
            elif dag.is_manifest(cid):
                self._here[cid] = None
            else:
                self.done += promise
        if len(self._pending) + len(self._here) > MAX_PENDING:
            message = f"{cids.text(self.root)} names more than {MAX_PENDING:,} chunks at once"
            raise ManifestError(message)
        self._check_limit(self.done)
        return wanted

    def came(self, cid: Cid, length: int) -> None:
        """A chunk is here now.

        Raises:
            TooLargeError: More bytes are here than the caller accepts.
        """
        self.awaited -= self._pending.pop(cid, 0)
        self.done += length
        self._check_limit(self.done)

    def open_manifest(self, cid: Cid, links: Iterable[Link]) -> dict[Cid, int]:
        """Learn what a manifest names.

        Returns:
            Children that were not known, with the bytes at and below each as far as is known; find out which are held and
            tell `place`.

        Raises:
            ManifestError: There are more manifests than allowed.
            TooLargeError: The root says that the content is larger than the caller accepts.
        """
        self._opened.add(cid)
        if len(self._opened) > MAX_MANIFESTS:
            message = f"{cids.text(self.root)} has more than {MAX_MANIFESTS:,} manifests"
            raise ManifestError(message)
        found: dict[Cid, int] = {}
        total = 0
        for link in links:
            size = link.size or 0
            if not dag.is_manifest(link.cid):
                size = min(size, MAX_CHUNK_BYTES)
            if size > MAX_SIZE:
                message = f"{cids.text(cid)} says that {cids.text(link.cid)} has {size:,} bytes"
                raise ManifestError(message)
            total += size
            if not (
                link.cid in self._pending or link.cid in self._here or link.cid in self._opened
            ):
                found[link.cid] = size
        if cid == self.root:
            self._check_limit(total)
        return found

    def _check_limit(self, size: int) -> None:
        if self._limit is not None and size > self._limit:
            raise TooLargeError(self.root, size, self._limit)
