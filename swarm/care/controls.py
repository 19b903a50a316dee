"""What a person holds back for a while: training, sealing, or both; and whether the node is to finish.

A pause outlives a restart and ends by itself where it has an end.
Only what is begun anew is held back: votes, scores, reveals and the answers to audits go on, since silence costs tokens.
"""

from __future__ import annotations

import json
import re
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from storage.files import DISK
from swarm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

TRAIN: Final = "train"
SEAL: Final = "seal"
PARTS: Final = (TRAIN, SEAL)
ALL: Final = "all"
MAX_PAUSE_SECONDS: Final = 366 * 86_400
FILE: Final = "controls.json"
MAX_FILE_BYTES: Final = 4096
_DURATION: Final = re.compile(
    r"(?P<bare>\d{1,6})|(?:(?P<d>\d{1,3})d)?(?:(?P<h>\d{1,5})h)?(?:(?P<m>\d{1,6})m)?(?:(?P<s>\d{1,8})s)?"
)

_log = structlog.get_logger("swarm.care")


def parts_of(word: str) -> tuple[str, ...]:
    """The parts that a word means.

    Raises:
        UsageError: It means none.
    """
    if word == ALL:
        return PARTS
    if word not in PARTS:
        message = f"{word[:32]!r} cannot be paused: {', '.join(PARTS)} or {ALL}"
        raise UsageError(message)
    return (word,)


class Controls:
    """What is held back now.

    Args:
        path: Where it is remembered; None: nowhere.
        now: Seconds since 1970.

    Attributes:
        is_finishing: Nothing is begun any more, and the node stops when what was begun is done.
    """

    def __init__(self, path: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._until: dict[str, float | None] = {} if path is None else _read(path)
        self.is_finishing = False

    def holds(self, part: str) -> bool:
        """Whether nothing of a part may be begun now."""
        return self.is_finishing or self.is_paused(part)

    def why(self, part: str) -> str:
        """Why a part is held back, in words; empty where it is not."""
        if self.is_paused(part):
            until = self._until[part]
            return "paused until `swarm resume`" if until is None else f"paused until {_at(until)}"
        return "finishing: nothing new is begun" if self.is_finishing else ""

    def pause(self, parts: Iterable[str], seconds: float | None) -> None:
        """Hold parts back, for so long or until they are resumed; durable when it returns.

        Raises:
            OSError: It cannot be remembered.
        """
        until = None if seconds is None else self._now() + min(seconds, MAX_PAUSE_SECONDS)
        self._set(self._until | dict.fromkeys(parts, until))

    def resume(self, parts: Iterable[str]) -> list[str]:
        """Go on with parts, and take `finish` back; returns those that were held back.

        Raises:
            OSError: It cannot be remembered.
        """
        ended = [part for part in parts if self.is_paused(part)]
        gone = set(parts)
        self.is_finishing = False
        self._set({part: until for part, until in self._until.items() if part not in gone})
        return ended

    def told(self) -> dict[str, Any]:
        """For a status: `paused`: `part`, `until` (seconds since 1970, None: until it is resumed) each; `finishing`."""
        paused = [{"part": one, "until": self._until[one]} for one in PARTS if self.is_paused(one)]
        return {"paused": paused, "finishing": self.is_finishing}

    def is_paused(self, part: str) -> bool:
        """Whether a person has paused a part: what runs of it ends at once, and nothing is begun."""
        if part not in self._until:
            return False
        until = self._until[part]
        return until is None or self._now() < until

    def _set(self, until: dict[str, float | None]) -> None:
        if self._path is not None:
            DISK.replace(self._path, json.dumps(until).encode())
        self._until = until


def _read(path: Path) -> dict[str, float | None]:
    """What is remembered; a file that cannot be read holds nothing back and is said in the log."""
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
        return {
            part: None if found[part] is None else float(found[part])
            for part in PARTS
            if part in found
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, RecursionError) as error:
        _log.warning("controls.unreadable", path=str(path), error=str(error))
        return {}


def _at(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def parse_duration(text: str) -> int:
    """Seconds of a time as people write it: `2h`, `90m`, `1d12h`, `45s`, or bare minutes.

    Raises:
        UsageError: Not one, nothing, or more than a year.
    """
    match = _DURATION.fullmatch(text.strip().lower())
    seconds = 0
    if match is not None:
        if match["bare"]:
            seconds = 60 * int(match["bare"])
        else:
            seconds = sum(
                size * int(match[unit] or 0)
                for unit, size in (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
            )
    if not 0 < seconds <= MAX_PAUSE_SECONDS:
        message = f"{text[:32]!r} is not a time of up to a year"
        raise UsageError(message, "write it like 2h, 90m, 1d12h or 45s")
    return seconds
