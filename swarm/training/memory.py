"""How much memory there is, and a bound on what a library may take of it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterator

GROWTH_BYTES: Final = 2**30
"""Memory that a library may take beyond what the process has, to read a stranger's file."""


def machine_bytes() -> int:
    """Memory of this machine."""
    return int(psutil.virtual_memory().total)


@contextlib.contextmanager
def bounded_memory() -> Iterator[None]:
    """Let the process grow by `GROWTH_BYTES` at most; past that an allocation fails, and not the machine."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (ImportError, OSError):  # not on Linux: the system's own limits must do
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = pages * os.sysconf("SC_PAGE_SIZE") + GROWTH_BYTES
    if soft != resource.RLIM_INFINITY:
        limit = min(limit, soft)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
