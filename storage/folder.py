"""The folder of a store: which version of the layout it holds, and the one process that has it open."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from storage.errors import LogError, StoreLockedError

if TYPE_CHECKING:
    from pathlib import Path

    from storage.files import Files

FORMAT = b"swarm blockstore 1\n"


def lock(folder: Path) -> int:
    """Take the folder for this process; closing the descriptor lets it go.

    Raises:
        StoreLockedError: Another process has it.
    """
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        holder = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        raise StoreLockedError(str(folder), holder or "unknown") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
    return descriptor


def check_format(folder: Path, files: Files) -> None:
    """Refuse the layout of another version; write down the version in a new folder.

    Raises:
        LogError: The folder is of another version, or has segments and no version.
    """
    path = folder / "format"
    if path.exists():
        found = path.read_bytes()[:64]
        if found != FORMAT:
            message = f"{folder} has the format {found!r}, and this version knows {FORMAT!r}"
            raise LogError(message)
        return
    if any(folder.glob("*.seg")):
        message = f"{folder} has segments and no file `format`"
        raise LogError(message)
    files.replace(path, FORMAT)
