"""How long rounds took this machine, so that none is begun that the hours of the schedule would cut off."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import structlog

from storage.files import DISK

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "rounds.json"
MAX_TASKS: Final = 64
MAX_FILE_BYTES: Final = 16_384
MARGIN: Final = 1.1
"""A round may take a tenth longer than the last one did."""

_log = structlog.get_logger("swarm.limits")


class RoundTimes:
    """Seconds of the last round of each task, with what had to be fetched for it.

    Args:
        path: Where they are remembered; None: nowhere.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._seconds = {} if path is None else _read(path)

    def of(self, task: bytes) -> float | None:
        """Seconds that the next round should take; None where none was made yet."""
        last = self._seconds.get(task.hex())
        return None if last is None else last * MARGIN

    def note(self, task: bytes, seconds: float) -> None:
        """A round took so long; what cannot be written is forgotten with the next start."""
        self._seconds.pop(task.hex(), None)
        self._seconds[task.hex()] = round(seconds, 3)
        while len(self._seconds) > MAX_TASKS:
            del self._seconds[next(iter(self._seconds))]
        if self._path is not None:
            try:
                DISK.replace(self._path, json.dumps(self._seconds).encode())
            except OSError as error:
                _log.warning("rounds.not_written", error=str(error))


def _read(path: Path) -> dict[str, float]:
    """What is remembered; a file that cannot be read says nothing."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
        return {str(task): float(found[task]) for task in list(found)[-MAX_TASKS:]}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        _log.warning("rounds.unreadable", path=str(path), error=str(error))
        return {}
