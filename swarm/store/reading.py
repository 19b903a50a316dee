"""Reading what a store holds again, chunk by chunk.

A reading of everything can take hours: how far it came is noted beside the store, and one that was stopped goes on there.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import structlog

from storage import cid as cids
from storage.errors import ChangedFileError, ChunkNotFoundError, CorruptChunkError
from storage.files import DISK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from storage.blockstore import SegmentBlockstore
    from storage.cid import Cid

FILE: Final = "verify.json"
MAX_FILE_BYTES: Final = 2**20
MAX_FILES: Final = 1_000
"""Files of the user that a note names."""
NOTE_SECONDS: Final = 5.0
"""Between two notes of how far a reading came."""
MAX_AGE_SECONDS: Final = 7 * 24 * 3600.0
"""A reading that began earlier is begun anew: what it read may have been damaged since."""
_VERSION: Final = 1
_REFERENCES, _SEALED, _SEGMENTS = range(3)

_log = structlog.get_logger("swarm.store")

Count: TypeAlias = "Callable[[int, int], None]"
"""Told of each chunk: (bytes read, bytes in total); it may end the reading by raising."""


@dataclass(slots=True)
class Read:
    """What came of reading chunks again.

    Attributes:
        tell: Told of each chunk: bytes read so far; it may end the reading by raising.
        chunks: That were read.
        size: Their bytes.
        bad: How many were not what their names say.
        files: Where those were that lay in the user's own files.
        earlier: Bytes of these that were read before this reading went on.
    """

    tell: Callable[[int], None] = lambda _size: None
    chunks: int = 0
    size: int = 0
    bad: int = 0
    files: dict[Cid, str] = field(default_factory=dict)
    earlier: int = 0

    def take(self, store: SegmentBlockstore, cid: Cid) -> None:
        """Read one chunk; one that is bad is no longer held then."""
        self.chunks += 1
        try:
            data = store.get(cid)
        except ChangedFileError as error:
            self.files[cid] = error.path
        except (ChunkNotFoundError, CorruptChunkError):
            pass
        else:
            self.size += len(data)
            self.tell(self.size)
            if cids.matches(cid, data):
                return
            place = store.index.find(cid)
            if place is not None:
                store.forget(cid, place)
        self.bad += 1


@dataclass(slots=True)
class _Mark:
    """How far a reading of everything came.

    Attributes:
        begun: Seconds since 1970.
        stage: Of references, sealed chunks and segments.
        at: Within the stage: a number, or of sealed chunks the last name.
    """

    begun: float
    stage: int = _REFERENCES
    at: int | str = 0

    def of(self, stage: int, start: Any) -> Any:  # noqa: ANN401 - a number, or a name
        """Behind what a stage goes on; None if it is over."""
        if stage < self.stage:
            return None
        return self.at if stage == self.stage else start


def read_everything(store: SegmentBlockstore, tell: Count, note: Path | None = None) -> Read:
    """Read every chunk that the store holds again: those in the user's files, in sealed slots, and its own.

    Args:
        store: What is read.
        tell: Told of each chunk.
        note: Where it is noted how far this came; None notes nothing.
    """
    sealed = [] if store.beside is None else sorted(store.beside.chunks())
    total = store.index.totals()[1] + store.references.size
    total += sum(store.beside.length(cid) or 0 for cid in sealed) if store.beside else 0
    read, mark = Read(), _Mark(time.time())
    if note is not None:
        read, mark = _load(note, mark)
    noted = time.monotonic()
    try:
        for stage, at in _steps(store, sealed, read, replace(mark)):
            mark.stage, mark.at = stage, at
            tell(read.size, max(read.size, total))
            if note is not None and time.monotonic() - noted > NOTE_SECONDS:
                noted = time.monotonic()
                _save(note, read, mark)
    except BaseException:
        if note is not None:
            _save(note, read, mark)
        raise
    if note is not None:
        note.unlink(missing_ok=True)
    return read


def _steps(
    store: SegmentBlockstore, sealed: list[Cid], read: Read, mark: _Mark
) -> Iterator[tuple[int, int | str]]:
    """Read chunk after chunk behind a mark; the mark after each."""
    row, name, place = mark.of(_REFERENCES, 0), mark.of(_SEALED, ""), mark.of(_SEGMENTS, 0)
    for page in () if row is None else store.references.rows(row):
        for number, cid, _ in page:
            if store.index.find(cid) is None:  # a copy is read below
                read.take(store, cid)
            yield _REFERENCES, number
    for cid in () if name is None else sealed:
        if cid.hex() > name and store.index.find(cid) is None:
            read.take(store, cid)
            yield _SEALED, cid.hex()
    for checked in store.check(place):
        if checked.at < 0:
            return  # references, which were read
        read.chunks += 1
        read.size += checked.length
        read.bad += not checked.is_good
        yield _SEGMENTS, checked.at


def _save(note: Path, read: Read, mark: _Mark) -> None:
    files = list(read.files.items())[:MAX_FILES]
    told = {
        "version": _VERSION,
        "begun": mark.begun,
        "stage": mark.stage,
        "at": mark.at,
        "chunks": read.chunks,
        "size": read.size,
        "bad": read.bad,
        "files": {cids.text(cid): path for cid, path in files},
    }
    try:
        DISK.replace(note, json.dumps(told).encode())
    except OSError as error:  # it would only begin anew
        _log.warning("verify.not_noted", error=str(error))


def _load(note: Path, new: _Mark) -> tuple[Read, _Mark]:
    """What was noted of a reading that was stopped, or a new one."""
    try:
        with note.open("rb") as file:
            told = json.loads(file.read(MAX_FILE_BYTES))
        if told["version"] != _VERSION or not 0 <= new.begun - told["begun"] <= MAX_AGE_SECONDS:
            return Read(), new
        mark = _Mark(float(told["begun"]), int(told["stage"]), told["at"])
        expected = str if mark.stage == _SEALED else int
        if mark.stage not in range(3) or not isinstance(mark.at, expected):
            return Read(), new
        read = Read(chunks=int(told["chunks"]), size=int(told["size"]), bad=int(told["bad"]))
        read.earlier = read.size
        read.files = {cids.parse(cid): str(path) for cid, path in told["files"].items()}
    except FileNotFoundError:
        return Read(), new
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        _log.warning("verify.note_not_read", error=str(error))
        return Read(), new
    return read, mark
