"""How often classifiers gave samples of their pool the right label, as this node measured it.

The ledger agrees on losses alone, so what is not measured here is not known here.
It is kept by checkpoint, the newest measure of each, in one small file that may be lost.
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Final

import structlog

from storage import cid as cids
from storage.files import DISK

if TYPE_CHECKING:
    from pathlib import Path

    from storage.cid import Cid

MAX_KEPT: Final = 4_096
"""Checkpoints; those that were measured first go first."""
MAX_FILE_BYTES: Final = 2**20

_log = structlog.get_logger("swarm.participant")


class Accuracies:
    """What was measured; for threads.

    Args:
        path: The file; its folder is there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._known = _read(path)

    def of(self, root: Cid) -> float | None:
        """The share of samples that a checkpoint gave their own label; None where nobody measured here."""
        return self._known.get(cids.text(root)) if root else None

    def note(self, root: Cid, share: float | None) -> None:
        """Remember a measure, None is none; what cannot be written is forgotten with the next start."""
        if share is None:
            return
        name = cids.text(root)
        with self._lock:
            self._known.pop(name, None)
            self._known[name] = share
            while len(self._known) > MAX_KEPT:
                del self._known[next(iter(self._known))]
            try:
                DISK.replace(self._path, json.dumps(self._known).encode())
            except OSError as error:
                _log.warning("accuracies.not_written", error=str(error))


def _read(path: Path) -> dict[str, float]:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            return {}
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    shares = {name: share for name, share in found.items() if isinstance(share, float)}
    return dict(list(shares.items())[-MAX_KEPT:])
