"""What can go wrong with bytes at rest; each docstring is what the user reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

OTHER_PROGRAM: Final = "run the swarm that wrote it, or a later one"
"""What to do about a file of a version that is not known; it is left as it is."""
TOO_OLD: Final = "run the swarm that wrote it: this one does not read it any more"
"""What to do about a file of a version that is not known any more."""


class StorageError(Exception):
    """The store could not do what was asked."""


class ChunkNotFoundError(StorageError):
    """No chunk with that CID is held here."""

    def __init__(self, cid: str) -> None:
        super().__init__(f"chunk {cid} is not held here")
        self.cid = cid


class CorruptChunkError(StorageError):
    """The bytes of a chunk do not match its CID."""

    def __init__(self, cid: str) -> None:
        super().__init__(f"the bytes of chunk {cid} do not match its CID")
        self.cid = cid


class QuotaError(StorageError):
    """The bytes asked for do not fit into what this node lends."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"{needed:,} bytes are needed and {free:,} are free in the quota")
        self.needed = needed
        self.free = free


class CidError(StorageError, ValueError):
    """The text or bytes are not a CID that this node understands."""


class ManifestError(StorageError, ValueError):
    """A manifest is malformed, too large, or names something outside its folder."""


class CanonicalError(StorageError, ValueError):
    """The bytes are not the one canonical encoding of a value."""


class LogError(StorageError):
    """A log or store on disk is damaged beyond its torn tail, or of an unknown version."""


class FormatError(LogError):
    """Another version of the program wrote what lies on the disk, in a form that this one does not know."""

    def __init__(self, what: str, found: object, known: int) -> None:
        advice = TOO_OLD if isinstance(found, int) and found < known else OTHER_PROGRAM
        super().__init__(
            f"{what} is of version {found}, and this program reads version {known}; {advice}"
        )
        self.found = found
        self.known = known


class ChunkTooLargeError(StorageError):
    """A chunk is larger than any store accepts."""

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a chunk of {size:,} bytes where at most {limit:,} are accepted")
        self.size = size
        self.limit = limit


class DiskFullError(QuotaError):
    """The disk is full, although the quota is not."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(needed, free)
        self.args = (f"the disk is full: {needed:,} bytes are needed and {free:,} are free",)


class FileSystemFullError(DiskFullError):
    """The file system that a person writes to is full; it need not be that of the store."""

    def __init__(self, needed: int, free: int, where: Path) -> None:
        super().__init__(needed, free)
        self.where = where
        self.args = (
            f"the file system at {where} is full: {needed:,} bytes are needed and {free:,} are free",
        )


class DiskReserveError(DiskFullError):
    """The disk has less free than the store leaves free on it."""

    def __init__(self, needed: int, free: int, reserve: int) -> None:
        super().__init__(needed, free)
        self.reserve = reserve
        self.args = (
            f"{needed:,} bytes are needed and {free:,} can be used: "
            f"{reserve:,} bytes of the disk are kept free",
        )


class ChangedFileError(CorruptChunkError):
    """A file that was published in place is not any more what was published."""

    def __init__(self, cid: str, path: str) -> None:
        super().__init__(cid)
        self.path = path
        self.args = (f"{path} changed since it was published; chunk {cid} of it is lost",)


class UnreadableFileError(ChangedFileError):
    """A file that was published in place cannot be read now; its chunks are held again once it can be."""

    def __init__(self, cid: str, path: str, why: str) -> None:
        super().__init__(cid, path)
        self.args = (f"{path} cannot be read now: {why}; chunk {cid} of it is not given",)


class CollectionRunningError(StorageError):
    """Another collection of the same store is under way."""


class StoreLockedError(StorageError):
    """Another process has the store open."""

    def __init__(self, folder: str, pid: str) -> None:
        super().__init__(f"{folder} is in use by process {pid}")
        self.folder = folder
        self.pid = pid


class PathNotFoundError(StorageError):
    """The folder has no entry of that path."""

    def __init__(self, path: str, root: str) -> None:
        super().__init__(f"there is no {path!r} in {root}")
        self.path = path
        self.root = root


class TargetExistsError(StorageError):
    """Something is in the place that was to be written, and is left as it is."""

    def __init__(self, target: str) -> None:
        super().__init__(f"{target} exists; nothing was written")
        self.target = target
