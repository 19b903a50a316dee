"""From an exception of any room to the error that a person reads."""

from __future__ import annotations

import errno

import trio

from protocols.bitswap.errors import NotHeldError, StalledError, TooLargeError
from protocols.exchange.errors import (
    ContentNotFoundError,
    ContentTooLargeError,
    FetchStalledError,
)
from protocols.transport import StreamError, UnreachableError
from storage.errors import (
    ChunkNotFoundError,
    CidError,
    CorruptChunkError,
    DiskFullError,
    LogError,
    ManifestError,
    PathNotFoundError,
    QuotaError,
    StoreLockedError,
    TargetExistsError,
)
from swarm.control import body as bodies
from swarm.errors import NetworkError, NotFoundError, RefusedError, SwarmError, UsageError
from swarm.ledger.errors import GenesisError, LedgerError
from swarm.training.errors import SpecError, WorkerError

STATUS: dict[str, int] = {
    "usage": 400,
    "not_found": 404,
    "refused": 409,
    "network": 503,
    "interrupted": 503,
    "internal": 500,
}
"""The HTTP status of each error code."""

_KINDS: tuple[tuple[tuple[type[Exception], ...], type[SwarmError], str | None], ...] = (
    ((DiskFullError,), RefusedError, "make room on the disk"),
    ((QuotaError,), RefusedError, "lend more with `swarm join --storage SIZE`"),
    ((CidError,), UsageError, "a CID looks like bafybei… or bafkrei…"),
    ((CorruptChunkError,), RefusedError, "`swarm verify --repair` fetches it anew from peers"),
    (
        (ChunkNotFoundError, ContentNotFoundError, NotHeldError, PathNotFoundError),
        NotFoundError,
        None,
    ),
    (
        (ManifestError, StoreLockedError, TargetExistsError, ContentTooLargeError, TooLargeError),
        RefusedError,
        None,
    ),
    (
        (WorkerError,),
        RefusedError,
        "`swarm status` says how the worker is; its last words are in the log",
    ),
    ((SpecError, GenesisError), UsageError, None),
    ((LedgerError,), RefusedError, None),
    (
        (UnreachableError, StreamError, FetchStalledError, StalledError, trio.TooSlowError),
        NetworkError,
        None,
    ),
)
"""What each room raises, and as what a person is told it; the first that fits."""

_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_FAILING = frozenset({errno.EIO, errno.ENXIO, errno.ENODEV})
_NO_PATH = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_NO_NAME = frozenset({errno.ENAMETOOLONG, errno.ELOOP})
_HELD = frozenset({errno.ENOTEMPTY, errno.EROFS, errno.EBUSY})


def status_of(fault: SwarmError) -> int:
    """The HTTP status of an error as a person is told it."""
    return bodies.TOO_LARGE if isinstance(fault, bodies.TooLargeError) else STATUS[fault.code]


def translate(error: BaseException) -> SwarmError:
    """The error as a person is told it; what no rule knows is a bug.

    A group counts as the first exception in it: Trio's nurseries wrap what their tasks raise.
    """
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, SwarmError):
        return error
    if isinstance(error, LogError):  # its text says after a semicolon what to do
        what, _, advice = str(error).partition("; ")
        return RefusedError(what, advice or None)
    for kinds, told, hint in _KINDS:
        if isinstance(error, kinds):
            return told(str(error) or "peers did not answer in time", hint)
    if isinstance(error, OSError):
        return _of_disk(error)
    return SwarmError(f"{type(error).__name__}: {error}")


def _of_disk(error: OSError) -> SwarmError:
    name = error.filename2 or error.filename  # of a rename, what was to be replaced
    where = f"{name}: " if name else ""
    text = f"{where}{error.strerror or error}"
    if error.errno in _DISK_FULL:
        return RefusedError(f"the disk is full: {text}", "make room on the disk")
    if error.errno in _FAILING:
        hint = "what the system's log says of that disk tells more; `swarm verify` reads again what is stored here"
        return RefusedError(f"the disk fails: {text}", hint)
    if isinstance(error, _NO_PATH) or error.errno in _NO_NAME:
        return UsageError(text)
    if isinstance(error, FileExistsError | PermissionError) or error.errno in _HELD:
        return RefusedError(text)
    return SwarmError(f"{type(error).__name__}: {text}")
