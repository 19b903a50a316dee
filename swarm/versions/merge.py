"""Three trees into one: what one side changed since the base is taken, what both changed differently is a conflict.

Whole files are taken; nothing is merged within a file. Equal inputs give equal trees and conflicts on every machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from storage.dag_pb import Link
from storage.errors import ManifestError
from storage.importer import MAX_FOLDER_DEPTH
from storage.unixfs import MAX_ENTRIES
from swarm.versions.tree import build, entries, is_folder

if TYPE_CHECKING:
    from storage.cid import Cid
    from storage.unixfs_nodes import Built
    from swarm.versions.tree import Emit, Get

Side: TypeAlias = Literal["ours", "theirs"]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A path that both sides changed, and not to the same.

    Attributes:
        path: Where, with slashes.
        why: What each side did.
    """

    path: str
    why: str


@dataclass(frozen=True, slots=True)
class Merged:
    """What came of a merge.

    Attributes:
        root: The merged tree; with conflicts, the one that has the preferred side in their places.
        conflicts: By path.
    """

    root: Cid
    conflicts: tuple[Conflict, ...]


def merge(
    base: Cid | None, ours: Cid, theirs: Cid, get: Get, emit: Emit, prefer: Side = "ours"
) -> Merged:
    """Merge two folders that come from one.

    Args:
        base: What both come from; None where they share nothing.
        ours: One side.
        theirs: The other.
        get: Gives blocks of all three.
        emit: Called with each new block.
        prefer: Which side stands in `root` where there is a conflict.

    Raises:
        ManifestError: A tree is malformed, too deep, or has too many entries.
    """
    if ours == theirs or base == theirs:
        return Merged(ours, ())
    if base == ours:
        return Merged(theirs, ())
    merging = _Merging(get, emit, prefer)
    built = merging.folder("", base, ours, theirs, MAX_FOLDER_DEPTH)
    return Merged(built.cid, tuple(merging.conflicts))


class _Merging:
    def __init__(self, get: Get, emit: Emit, prefer: Side) -> None:
        self.conflicts: list[Conflict] = []
        self._get = get
        self._emit = emit
        self._prefer = prefer
        self._left = 2 * MAX_ENTRIES

    def folder(self, path: str, base: Cid | None, ours: Cid, theirs: Cid, depth: int) -> Built:
        """The merged folder; what stands in it is merged entry by entry."""
        if depth == 0:
            message = f"{path[:64]!r} is nested deeper than {MAX_FOLDER_DEPTH} folders"
            raise ManifestError(message)
        origin = {} if base is None else entries(base, self._get)
        mine, other = entries(ours, self._get), entries(theirs, self._get)
        merged = []
        for name in sorted(mine.keys() | other.keys(), key=str.encode):
            link = self._entry(
                path + name, origin.get(name), mine.get(name), other.get(name), depth
            )
            if link is not None:
                merged.append(link)
        return build(merged, self._emit)

    def _entry(
        self, path: str, base: Link | None, ours: Link | None, theirs: Link | None, depth: int
    ) -> Link | None:
        self._left -= 1
        if self._left < 0:
            message = f"the trees hold more than {2 * MAX_ENTRIES:,} entries"
            raise ManifestError(message)
        if _same(ours, theirs) or _same(base, theirs):
            return ours
        if _same(base, ours):
            return theirs
        if ours is not None and theirs is not None and self._folders(ours, theirs):
            shared = base.cid if base is not None and is_folder(base.cid, self._get) else None
            built = self.folder(path + "/", shared, ours.cid, theirs.cid, depth - 1)
            return Link(built.cid, ours.name, built.tree)
        self.conflicts.append(Conflict(path, _why(base, ours, theirs)))
        return ours if self._prefer == "ours" else theirs

    def _folders(self, *links: Link) -> bool:
        return all(is_folder(link.cid, self._get) for link in links)


def _same(one: Link | None, other: Link | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.cid == other.cid


def _why(base: Link | None, ours: Link | None, theirs: Link | None) -> str:
    if ours is None:
        return "removed here, changed there"
    if theirs is None:
        return "changed here, removed there"
    return "added on both sides" if base is None else "changed on both sides"
