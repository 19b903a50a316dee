"""The cache of the Hub's clients on this disk: a version's files appear in it without their bytes a second time.

    models--swarm--NAME/blobs/<cid>                         the bytes, named by the file's ETag
    models--swarm--NAME/snapshots/<alias>/<path>            a link to them
    models--swarm--NAME/refs/main                           the alias that `main` stands for

A blob shares its blocks with the file that it comes from (a reflink), or is the same file by another name (a hard link,
made read-only, since what is written to one would change the other). Where the file system can do neither, or the two
lie on different ones, it is a copy, and the report says so.
Source: https://huggingface.co/docs/huggingface_hub/guides/manage-cache.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from storage import cid as cids
from swarm.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarm.hub.repository import File
    from swarm.hub.revisions import Revision

FICLONE: Final = 0x40049409
"""Linux's request for a file that shares another's blocks until one of them is written."""
READ_ONLY: Final = 0o444
_CANNOT = frozenset(
    {
        errno.EXDEV,
        errno.EPERM,
        errno.EACCES,
        errno.EMLINK,
        errno.ENOTTY,
        errno.EOPNOTSUPP,
        errno.EINVAL,
        errno.ENOSYS,
    }
)


@dataclass(frozen=True, slots=True)
class Linked:
    """What came of it.

    Attributes:
        snapshot: The folder of the version.
        files: How many files it has.
        copied: Bytes that had to be copied.
        ways: How many files came in which way: "kept", "made" (a card), "reflink", "hard link" or "copy".
    """

    snapshot: Path
    files: int
    copied: int
    ways: Counter[str] = field(default_factory=Counter)


def link(
    cache: Path, revision: Revision, source: Path, files: Iterable[File], refs: Iterable[str]
) -> Linked:
    """Make a version appear in a cache.

    Args:
        cache: The Hub cache's folder; made if need be.
        revision: The version.
        source: The folder in which its files lie.
        files: They; a made card brings its bytes with it.
        refs: Names that stand for this version from now on, as "main".

    Raises:
        RefusedError: Something else stands in the way in the cache.
        OSError: The disk refuses.
    """
    repository = cache / f"{revision.kind}--swarm--{revision.name}"
    snapshot = repository / "snapshots" / revision.alias
    blobs = repository / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    snapshot.mkdir(parents=True, exist_ok=True)
    ways: Counter[str] = Counter()
    copied = 0
    for file in files:
        if file.is_folder:
            continue
        blob = blobs / cids.text(file.cid)
        way = _blob(blob, source / file.path, file)
        ways[way] += 1
        copied += file.size if way == "copy" else 0
        _point(snapshot / file.path, blob)
    for ref in refs:
        _replace(repository / "refs" / ref, revision.alias.encode())
    return Linked(snapshot, ways.total(), copied, ways)


def _blob(blob: Path, source: Path, file: File) -> str:
    """Put a file's bytes there, if they are not yet; in which way."""
    if blob.is_file() and blob.stat().st_size == file.size:
        return "kept"
    with tempfile.TemporaryDirectory(dir=blob.parent, prefix=".swarm-") as scratch:
        fresh = Path(scratch) / "blob"
        if file.content is not None:
            fresh.write_bytes(file.content)
            way = "made"
        else:
            way = _take(source, fresh)
        fresh.replace(blob)
    return way


def _take(source: Path, target: Path) -> str:
    if _reflink(source, target):
        return "reflink"
    try:
        target.hardlink_to(source)
    except OSError as error:
        if error.errno not in _CANNOT:
            raise
        shutil.copyfile(source, target)
        return "copy"
    target.chmod(READ_ONLY)
    return "hard link"


def _reflink(source: Path, target: Path) -> bool:
    with source.open("rb") as old, target.open("xb") as new:
        try:
            fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        except OSError as error:
            if error.errno not in _CANNOT:
                raise
        else:
            return True
    target.unlink()
    return False


def _point(place: Path, blob: Path) -> None:
    """A relative symbolic link, as the Hub's clients make it."""
    place.parent.mkdir(parents=True, exist_ok=True)
    target = os.path.relpath(blob, place.parent)
    if place.is_symlink() and str(place.readlink()) == target:
        return
    if place.is_dir() and not place.is_symlink():
        message = f"{place} is a folder, and a file of the version has its name"
        raise RefusedError(message, "remove that snapshot from the cache")
    with contextlib.suppress(FileNotFoundError):
        place.unlink()
    place.symlink_to(PurePosixPath(target))


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".swarm-", delete=False) as fresh:
        fresh.write(content)
    Path(fresh.name).replace(path)
