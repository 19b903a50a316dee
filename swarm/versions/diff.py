"""What changed from one tree to another, file by file; where CIDs are equal nothing is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from storage.errors import ManifestError
from storage.importer import MAX_FOLDER_DEPTH
from storage.unixfs import MAX_ENTRIES
from swarm.versions.tree import entries, is_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from storage.cid import Cid
    from storage.dag_pb import Link
    from swarm.versions.tree import Get


@dataclass(frozen=True, slots=True)
class Change:
    """A file or folder that is not the same in both trees.

    Attributes:
        path: Where, with slashes.
        old: What stood there; None where nothing did.
        new: What stands there; None where nothing does. A folder is never in both: what is in it is compared.
        is_folder: A folder; what is in it follows as changes of its own.
    """

    path: str
    old: Link | None
    new: Link | None
    is_folder: bool = False

    @property
    def kind(self) -> Literal["added", "removed", "changed"]:
        """What happened."""
        if self.old is None:
            return "added"
        return "removed" if self.new is None else "changed"


def changes(old: Cid | None, new: Cid | None, get: Get) -> Iterator[Change]:
    """What to do to one folder to get the other, by path.

    Args:
        old: A folder; None for an empty one.
        new: Likewise.
        get: Gives blocks of either.

    Raises:
        ManifestError: A tree is malformed, too deep, or has too many entries.
    """
    if old != new:
        yield from _Comparison(get).folders("", old, new, MAX_FOLDER_DEPTH)


class _Comparison:
    def __init__(self, get: Get) -> None:
        self._get = get
        self._left = 2 * MAX_ENTRIES
        self._is_folder: dict[Cid, bool] = {}

    def folders(self, path: str, old: Cid | None, new: Cid | None, depth: int) -> Iterator[Change]:
        if depth == 0:
            message = f"{path[:64]!r} is nested deeper than {MAX_FOLDER_DEPTH} folders"
            raise ManifestError(message)
        before = {} if old is None else entries(old, self._get)
        after = {} if new is None else entries(new, self._get)
        for name in sorted(before.keys() | after.keys(), key=str.encode):
            was, now = before.get(name), after.get(name)
            if was is None or now is None or was.cid != now.cid:
                yield from self._entry(path + name, was, now, depth)

    def _entry(self, path: str, was: Link | None, now: Link | None, depth: int) -> Iterator[Change]:
        self._left -= 1
        if self._left < 0:
            message = f"two trees hold more than {2 * MAX_ENTRIES:,} entries that are not the same"
            raise ManifestError(message)
        old_folder = was if was is not None and self._leads_to_folder(was.cid) else None
        new_folder = now if now is not None and self._leads_to_folder(now.cid) else None
        old_file = None if old_folder else was
        new_file = None if new_folder else now
        if old_file or new_file:
            yield Change(path, old_file, new_file)
        if (old_folder is None) != (new_folder is None):
            yield Change(path, old_folder, new_folder, is_folder=True)
        if old_folder or new_folder:
            yield from self.folders(
                path + "/",
                None if old_folder is None else old_folder.cid,
                None if new_folder is None else new_folder.cid,
                depth - 1,
            )

    def _leads_to_folder(self, cid: Cid) -> bool:
        """As `is_folder`; one large node under many names is read once."""
        if cid not in self._is_folder:
            self._is_folder[cid] = is_folder(cid, self._get)
        return self._is_folder[cid]
