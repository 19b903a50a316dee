"""Large writes that go straight to the disk, past the memory in which the system keeps files.

Written the ordinary way, each page is found, charged and copied to in that memory, where it pushes out what the machine
works with; that was a third of the processor time of a fetch.
What lies at the edges of the blocks is written the ordinary way, and so is everything on a file system that knows no other.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LEAST_BYTES: Final = 2**20
"""Less than this is better written the ordinary way."""
BLOCK_BYTES: Final = max(4096, mmap.PAGESIZE)
"""What direct writes begin and end at: blocks of the disk, and pages, so that no page is written in both ways."""
STAGE_BYTES: Final = 2**20
"""Written at a time."""

_stages: list[mmap.mmap] = []
"""Buffers that lie at the beginning of a page, as a direct write must; as many as threads have written at once."""


def write(descriptor: int, buffers: Sequence[bytes | memoryview], offset: int) -> int:
    """Write at a place of a file that no other thread writes to.

    Returns:
        How many bytes the disk took, which may be fewer.

    Raises:
        OSError: The disk refused.
    """
    run = _Run(buffers)
    at, end = offset, offset + sum(len(buffer) for buffer in buffers)
    last = end // BLOCK_BYTES * BLOCK_BYTES
    with _stage() as stage:
        while at < end:
            is_whole = at % BLOCK_BYTES == 0 and at < last
            until = min(at + STAGE_BYTES, last) if is_whole else at + BLOCK_BYTES - at % BLOCK_BYTES
            with stage[: min(until, end) - at] as part:
                run.read_into(part)
                put = _put_directly if is_whole else os.pwrite
                written = put(descriptor, part, at)
                at += written
                if written < len(part):
                    break
    return at - offset


def _put_directly(descriptor: int, part: memoryview, at: int) -> int:
    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags | os.O_DIRECT)
        try:
            return os.pwrite(descriptor, part, at)
        finally:
            fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.pwrite(descriptor, part, at)


class _Run:
    """Buffers as one run of bytes."""

    def __init__(self, buffers: Sequence[bytes | memoryview]) -> None:
        self._rest = deque(memoryview(buffer) for buffer in buffers)

    def read_into(self, target: memoryview) -> None:
        at = 0
        while at < len(target):
            buffer = self._rest.popleft()
            taken = buffer[: len(target) - at]
            target[at : at + len(taken)] = taken
            at += len(taken)
            if len(taken) < len(buffer):
                self._rest.appendleft(buffer[len(taken) :])


@contextmanager
def _stage() -> Iterator[memoryview]:
    try:
        pages = _stages.pop()  # in one step: another thread may take the last one
    except IndexError:
        pages = mmap.mmap(-1, STAGE_BYTES)
    try:
        with memoryview(pages) as stage:
            yield stage
    finally:
        _stages.append(pages)
