"""The folder of a store: which version of the layout it holds, and the one process that has it open."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from storage.errors import FormatError, LogError, StoreLockedError

if TYPE_CHECKING:
    from pathlib import Path

    from storage.files import Files

FORMAT = b"swarm blockstore 1\n"
_NAME = b"swarm blockstore "
MENDED = "where swarm of version 0.1 wrote this folder, write `swarm blockstore 1` into its file `format`"
"""What to do about a version that is lost."""


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
        FormatError: The folder is of another version.
        LogError: It has segments and no version, or one that cannot be read.
    """
    path = folder / "format"
    if path.exists():
        found = path.read_bytes()[:64]
        if found != FORMAT:
            version = found.removeprefix(_NAME).strip()
            if found.startswith(_NAME) and version.isdigit():
                known = FORMAT.removeprefix(_NAME).strip()
                what = f"the store of chunks in {folder}"
                raise FormatError(what, int(version), int(known))
            message = f"{path} holds {found!r}, where {FORMAT!r} belongs; {MENDED}"
            raise LogError(message)
        return
    if any(folder.glob("*.seg")):
        message = f"{folder} has segments and no file `format`; {MENDED}"
        raise LogError(message)
    files.replace(path, FORMAT)
