"""From an exception of any room to the error that a person reads."""

from __future__ import annotations

import errno

import trio

from protocols.transport import StreamError, UnreachableError
from storage.errors import ChunkNotFoundError, CidError, ManifestError, QuotaError
from swarm.errors import NetworkError, NotFoundError, RefusedError, SwarmError, UsageError

STATUS: dict[str, int] = {
    "usage": 400,
    "not_found": 404,
    "refused": 409,
    "network": 503,
    "interrupted": 503,
    "internal": 500,
}
"""The HTTP status of each error code."""

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def translate(error: BaseException) -> SwarmError:
    """The error as a person is told it; what no rule knows is a bug.

    A group with one exception in it counts as that one: Trio's nurseries wrap what their tasks raise.
    """
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if isinstance(error, SwarmError):
        return error
    if isinstance(error, QuotaError):
        return RefusedError(
            str(error), "lend more with --storage, or unpin what you no longer need"
        )
    if isinstance(error, ChunkNotFoundError):
        return NotFoundError(str(error))
    if isinstance(error, CidError):
        return UsageError(str(error))
    if isinstance(error, ManifestError):
        return RefusedError(f"the manifest is not one that this node takes: {error}")
    if isinstance(error, UnreachableError | StreamError | trio.TooSlowError):
        return NetworkError(str(error) or "peers did not answer in time")
    if isinstance(error, OSError):
        return _of_disk(error)
    return SwarmError(f"{type(error).__name__}: {error}")


def _of_disk(error: OSError) -> SwarmError:
    where = f"{error.filename}: " if error.filename else ""
    text = f"{where}{error.strerror or error}"
    if error.errno in _DISK_FULL:
        return RefusedError(f"the disk is full: {text}")
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return UsageError(text)
    if isinstance(error, FileExistsError | PermissionError):
        return RefusedError(text)
    return SwarmError(f"{type(error).__name__}: {text}")
