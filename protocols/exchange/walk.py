"""The walk over a DAG from its root: what is known of it, what is here, what must still come. No I/O.

Sizes are promises: a link's Tsize bounds what stands below it, so that room can be reserved before a byte arrives,
and a manifest whose content is larger than promised is refused.
A link of unknown size promises nothing: no room is reserved for what is below it, and it counts once it is here.
Manifests are opened depth first and few at a time, so that memory does not grow with the content.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.exchange.errors import ContentTooLargeError
from storage import cid as cids
from storage.chunks import MAX_CHUNK_BYTES
from storage.dag import is_manifest
from storage.errors import ManifestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from storage.cid import Cid

MAX_DEPTH = 64
"""Manifests above a chunk, the root counted."""
MAX_MANIFESTS = 2**18
"""Manifests of one content; at 1,024 links of 1 MiB each they name 256 TiB."""
MAX_PENDING = 2**17
"""Links that are known and not here yet, at any one time."""
MAX_CONTENT_BYTES = 2**50
"""Sizes above this are lies."""


class Walk:
    """What is known of one content.

    Args:
        root: Its name.
        limit: Bytes that the caller accepts; None is any number.

    Attributes:
        done: Bytes that are here.
        total: Bytes that the content has, as far as is known.
        awaited: Bytes promised by links to what is not here; a link of unknown size counts nothing.
    """

    def __init__(self, root: Cid, limit: int | None = None) -> None:
        self.root = root
        self.done = 0
        self.awaited = 0
        self._limit = limit
        self._promised: dict[Cid, int | None] = {root: None}
        self._rank: dict[Cid, int] = {root: 0} if is_manifest(root) else {}
        self._opened: dict[Cid, int | None] = {}
        self._here: list[Cid] = []
        self._waiting = 0

    @property
    def total(self) -> int:
        """Bytes that the content has, as far as is known."""
        return self.done + self._waiting

    @property
    def is_complete(self) -> bool:
        """Whether all of it is here."""
        return not self._promised

    def place(self, children: Iterable[Cid], missing: Iterable[Cid]) -> list[tuple[Cid, int]]:
        """Tell which of the chunks that were just learnt are here.

        Args:
            children: What `open_manifest` gave, or the root.
            missing: Those of them that the store does not hold.

        Returns:
            What must be fetched: (CID, the most bytes that the chunk may have).
        """
        absent = set(missing)
        wanted: list[tuple[Cid, int]] = []
        for cid in children:
            promise = self._promised[cid]
            if cid in absent:
                self.awaited += promise or 0
                most = MAX_CHUNK_BYTES if promise is None else min(promise, MAX_CHUNK_BYTES)
                wanted.append((cid, most))
            elif is_manifest(cid):
                self._here.append(cid)
            else:
                self._settle(cid, promise or 0)
        return wanted

    @property
    def has_here(self) -> bool:
        """Whether `next_here` would give one."""
        return bool(self._here)

    def next_here(self) -> Cid | None:
        """A manifest that the store holds and that was not opened yet; hand it to `open_manifest`."""
        return self._here.pop() if self._here else None

    def open_manifest(
        self, cid: Cid, length: int, links: Sequence[tuple[Cid, int | None]], *, came: bool
    ) -> list[Cid]:
        """Learn what a manifest names.

        Args:
            cid: The manifest.
            length: Its own bytes.
            links: (CID, bytes below it or None where nobody says), in order.
            came: Whether it was fetched; false where the store held it.

        Returns:
            Children that were not known; find out which are held and tell `place`.

        Raises:
            ManifestError: Its sizes are lies, or it is deeper or wider than allowed.
            ContentTooLargeError: The content has more bytes than the caller accepts.
        """
        self._check_sizes(cid, length, links)
        rank = self._rank.pop(cid)
        if rank >= MAX_DEPTH or len(self._opened) >= MAX_MANIFESTS:
            message = f"{cids.text(self.root)} has more than {MAX_DEPTH} levels or {MAX_MANIFESTS:,} manifests"
            raise ManifestError(message)
        self._opened[cid] = self._promised[cid]
        self._leave(cid, came=came)
        self.done += length
        found: list[Cid] = []
        for child, size in links:
            if child in self._promised:
                self._check_equal(child, size, self._promised[child])
            elif child in self._opened:
                self._check_equal(child, size, self._opened[child])
            else:
                self._promised[child] = size
                self._waiting += size or 0
                if is_manifest(child):
                    self._rank[child] = rank + 1
                found.append(child)
        self._check_total()
        if len(self._promised) > MAX_PENDING:
            message = f"{cids.text(cid)} names more than {MAX_PENDING:,} chunks at once"
            raise ManifestError(message)
        return found

    def settle_leaf(self, cid: Cid, length: int) -> None:
        """A chunk came.

        Raises:
            ManifestError: It has not the bytes that its manifest promised.
            ContentTooLargeError: With it the content has more bytes than the caller accepts.
        """
        if cid not in self._promised:
            return
        promise = self._promised[cid]
        if promise is not None and length != promise:
            message = (
                f"a manifest of {cids.text(self.root)} lies: {cids.text(cid)} has {length:,} bytes,"
                f" not {promise:,}"
            )
            raise ManifestError(message)
        self._leave(cid, came=True)
        self.done += length
        self._check_total()

    def _settle(self, cid: Cid, length: int) -> None:
        self._leave(cid, came=False)
        self.done += length

    def _leave(self, cid: Cid, *, came: bool) -> None:
        promise = self._promised.pop(cid) or 0
        self._waiting -= promise
        if came:
            self.awaited -= promise

    def _check_sizes(self, cid: Cid, length: int, links: Sequence[tuple[Cid, int | None]]) -> None:
        size = length
        for child, below in links:
            most = MAX_CONTENT_BYTES if is_manifest(child) else MAX_CHUNK_BYTES
            if below is not None and not 0 <= below <= most:
                message = f"{cids.text(cid)} says that {cids.text(child)} has {below:,} bytes"
                raise ManifestError(message)
            size += below or 0
        promise = self._promised[cid]
        if promise is not None and size > promise:
            message = (
                f"a manifest of {cids.text(self.root)} lies: below {cids.text(cid)} are {size:,} bytes,"
                f" not {promise:,}"
            )
            raise ManifestError(message)
        if size > MAX_CONTENT_BYTES:
            message = f"{cids.text(cid)} says that it has {size:,} bytes"
            raise ManifestError(message)
        if cid == self.root and self._limit is not None and size > self._limit:
            raise ContentTooLargeError(self.root, size, self._limit)

    def _check_total(self) -> None:
        """What was promised was checked at the root; what was not is checked as it comes."""
        if self._limit is not None and self.total > self._limit:
            raise ContentTooLargeError(self.root, self.total, self._limit)

    def _check_equal(self, child: Cid, size: int | None, other: int | None) -> None:
        if size is not None and other is not None and size != other:
            message = (
                f"manifests of {cids.text(self.root)} lie: {cids.text(child)} has {size:,} bytes"
                f" in one and {other:,} in another"
            )
            raise ManifestError(message)
