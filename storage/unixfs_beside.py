"""The folder beside a target, where content is written before it takes its place; litter of writers that were killed.

    .swarm-XXXXXXXX/lock       held by `flock` while somebody writes
    .swarm-XXXXXXXX/content    becomes the target

A lock ends with its process, however that ends: a folder whose lock is free belongs to nobody, and the next write in the
same place removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX: Final = ".swarm-"
CONTENT: Final = "content"
LOCK: Final = "lock"
LITTER_SECONDS: Final = 60
"""A younger folder is left alone: between its making and its lock is a moment."""


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """The path at which to write what is to become `target`; removed with all below it if it is still there at the end.

    Args:
        target: In the same folder; litter in that is removed first.

    Raises:
        OSError: The folder cannot be made.
    """
    _sweep(target.parent)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=target.parent))
    lock = -1
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        with suppress(OSError):  # a disk without locks: there nobody takes them, and litter stays
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield folder / CONTENT
    finally:
        _remove(folder)
        if lock >= 0:
            os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove what killed writers left in a folder; what cannot be removed stays."""
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if entry.name.startswith(PREFIX):
                with suppress(OSError):
                    _sweep_one(entry)


def _sweep_one(entry: os.DirEntry[str]) -> None:
    found = entry.stat(follow_symlinks=False)
    if (
        not entry.is_dir(follow_symlinks=False)
        or found.st_uid != os.geteuid()
        or time.time() - found.st_mtime < LITTER_SECONDS
    ):
        return
    folder = Path(entry.path)
    if not {one.name for one in folder.iterdir()} <= {CONTENT, LOCK}:
        return  # somebody's own, of a name like ours
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(folder)
    finally:
        os.close(lock)


def _remove(folder: Path) -> None:
    """The lock last: a removal that is cut off is gone on with by the next sweep."""
    content = folder / CONTENT
    if content.is_dir() and not content.is_symlink():
        shutil.rmtree(content)
    else:
        content.unlink(missing_ok=True)
    (folder / LOCK).unlink(missing_ok=True)
    folder.rmdir()
