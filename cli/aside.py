"""Telling that holds nothing up: what a node says is written by threads of its own.

A terminal that nobody reads, behind a connection that hangs or after Ctrl-S, takes no more bytes, and who writes to it
waits; the one thread on which a node lives must not.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Final, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_HELD_BYTES: Final = 2**16
"""That wait for a reader; what is said beyond them is left out."""
LAST_SECONDS: Final = 0.5
"""For the last words to be taken, at the end."""

_open: list[Aside] = []


class Aside(io.TextIOBase):
    """A stream whose bytes a thread writes; a fault of writing is raised at the next write.

    Args:
        stream: One of this process, with a descriptor.

    Raises:
        OSError: It has none.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._descriptor = stream.fileno()
        self._held: bytearray = bytearray()
        self._writing = 0
        self._fault: OSError | None = None
        self._changed = threading.Condition()
        threading.Thread(target=self._write_all, name="swarm-telling", daemon=True).start()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """As of the stream."""
        return self._stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        """As of the stream."""
        return self._stream.errors

    def fileno(self) -> int:
        """As of the stream."""
        return self._descriptor

    def isatty(self) -> bool:
        """As of the stream."""
        return self._stream.isatty()

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Let it be written; where too much waits already, it is left out.

        Raises:
            OSError: What was written before could not be.
        """
        data = text.encode(self.encoding, self.errors or "strict")
        with self._changed:
            fault, self._fault = self._fault, None
            if fault is not None:
                raise fault
            if len(self._held) + len(data) <= MAX_HELD_BYTES:
                self._held += data
                self._changed.notify_all()
        return len(text)

    def drain(self, seconds: float) -> bool:
        """Wait until all is written, or so long; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held and not self._writing, seconds)

    def _write_all(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._held)
                data, self._held = bytes(self._held), bytearray()
                self._writing = len(data)
            fault = None
            try:
                # Past the stream: at the end of the process nobody may wait for a lock that it holds.
                view = memoryview(data)
                while view:
                    view = view[os.write(self._descriptor, view) :]
            except OSError as error:
                fault = error
            with self._changed:
                self._writing, self._fault = 0, fault or self._fault
                self._changed.notify_all()


@contextlib.contextmanager
def told_aside() -> Iterator[None]:
    """Write stdout, stderr and the log that goes there aside, while the block runs."""
    before = sys.stdout, sys.stderr
    with contextlib.suppress(OSError, AttributeError):  # a stream without a descriptor stays
        for stream in before:
            stream.flush()
        out, err = Aside(before[0]), Aside(before[1])
        _open[:] = [out, err]
        sys.stdout, sys.stderr = out, err
        _log_to(before[1], err)
    try:
        yield
    finally:
        if _open:
            _log_to(_open[1], before[1])
        sys.stdout, sys.stderr = before
        _silence([one for one in _open if not one.drain(LAST_SECONDS)])
        _open.clear()


def drain() -> None:
    """Give the last words a moment."""
    for one in _open:
        one.drain(LAST_SECONDS)


def _log_to(stream: TextIO | Aside, other: TextIO | Aside) -> None:
    for handler in logging.root.handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
            handler.setStream(other)


def _silence(stuck: list[Aside]) -> None:
    """What this process says from now on would wait as well: it goes nowhere."""
    for one in stuck:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, one.fileno())
        os.close(nowhere)
