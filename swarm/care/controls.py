"""What is held back and why: by a person, by the limits that a person set, or because the node finishes or leaves.

This is the one place where a reason is made; the status, the page and the log show it.
A pause outlives a restart and ends by itself where it has an end.
Only what is begun anew is held back: votes, scores, reveals and the answers to audits go on, since silence costs tokens.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from storage.files import DISK
from swarm.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

TRAIN: Final = "train"
SEAL: Final = "seal"
SERVE: Final = "serve"
GPU: Final = "gpu"
CPU: Final = "cpu"
PARTS: Final = (TRAIN, SEAL)
"""What `all` pauses: what takes the machine's time."""
HELD: Final = (TRAIN, SEAL, SERVE)
"""What can be held back."""
NAMED: Final = (*HELD, GPU, CPU)
"""What a person can pause: `gpu` and `cpu` are the parts that run on them."""
ALL: Final = "all"
MAX_PAUSE_SECONDS: Final = 366 * 86_400
MAX_END: Final = 2**36
"""Seconds since 1970 that a calendar still tells: the year 4147."""
FILE: Final = "controls.json"
MAX_FILE_BYTES: Final = 4096
_UNITS: Final = (("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
_DURATION: Final = re.compile(
    r"(?P<bare>\d{1,6})|(?:(?P<d>\d{1,3})d)?(?:(?P<h>\d{1,5})h)?(?:(?P<m>\d{1,6})m)?(?:(?P<s>\d{1,8})s)?"
)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a part is held back.

    Attributes:
        code: `paused`, `schedule`, `idle`, `battery`, `heat`, `cap`, `no_serving`, `leaving` or `finishing`.
        why: In words.
        until: When it ends, in seconds since 1970; None: it is not known, or when a person says so.
        is_hard: What was begun ends at once; else only nothing is begun.
    """

    code: str
    why: str
    until: float | None = None
    is_hard: bool = True


def parts_of(word: str) -> tuple[str, ...]:
    """The parts that a word means.

    Raises:
        UsageError: It means none.
    """
    if word == ALL:
        return PARTS
    if word not in NAMED:
        message = f"{word[:32]!r} cannot be paused: {', '.join(NAMED)} or {ALL}"
        raise UsageError(message)
    return (word,)


class Controls:
    """What is held back now.

    Args:
        path: Where it is remembered; None: nowhere.
        now: Seconds since 1970.

    Attributes:
        is_finishing: Nothing is begun any more, and the node stops when what was begun is done.
        is_leaving: Likewise, and what it lent and staked is taken back.
        leaving_percent: How far that is.
        on_gpu: Whether this node trains on an accelerator, so that `gpu` and not `cpu` means it.
        limit: Why the person's limits hold a part back now; None where they do not.
        room: Seconds from now for which they will not; None: without an end.
    """

    def __init__(self, path: Path | None = None, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._now = now
        self._until: dict[str, float | None] = {} if path is None else _read(path)
        self.is_finishing = False
        self.is_leaving = False
        self.leaving_percent = 0
        self.on_gpu: Callable[[], bool] = lambda: False
        self.limit: Callable[[str], Reason | None] = lambda _part: None
        self.room: Callable[[str], float | None] = lambda _part: None

    def reason(self, part: str) -> Reason | None:
        """Why a part is held back; None where it is not."""
        found = self._found(part)
        if found is not None and found.is_hard:
            return found
        if self.is_leaving and part != SERVE:
            why = f"leaving, draining at {self.leaving_percent} %: nothing new is begun"
            return Reason("leaving", why, is_hard=False)
        if self.is_finishing and part != SERVE:
            return Reason("finishing", "finishing: nothing new is begun", is_hard=False)
        return found

    def holds(self, part: str) -> bool:
        """Whether nothing of a part may be begun now."""
        return self.reason(part) is not None

    def why(self, part: str) -> str:
        """Why a part is held back, in words; empty where it is not."""
        found = self.reason(part)
        return "" if found is None else found.why

    def is_paused(self, part: str) -> bool:
        """Whether what runs of a part ends at once, and nothing is begun: paused, or outside of the limits."""
        found = self._found(part)
        return found is not None and found.is_hard

    def why_not_now(self, part: str, seconds: float | None) -> str:
        """Why something that takes so long may not be begun; empty where it may.

        Args:
            part: Of which it is.
            seconds: As it was measured; None: it is not known, and tried where the part is not held.
        """
        if why := self.why(part):
            return why
        room = self.room(part)
        if room is None or seconds is None or seconds <= room:
            return ""
        return f"no time: it takes about {_span(seconds)}, and the hours of the schedule end in {_span(room)}"

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
        parts = list(parts)
        ended = [part for part in parts if self._is_set(part)]
        self.is_finishing = False
        self._set({part: until for part, until in self._until.items() if part not in parts})
        return ended

    def told(self) -> dict[str, Any]:
        """For a status.

        Returns:
            `paused`: `part`, `until` (seconds since 1970, None: until it is resumed) each; `finishing`; `held`: `part`,
            `code`, `why`, `until` of each part that is held back, for whatever reason.
        """
        paused = [{"part": one, "until": self._until[one]} for one in NAMED if self._is_set(one)]
        held = [
            {"part": part, "code": one.code, "why": one.why, "until": one.until}
            for part in HELD
            if (one := self.reason(part)) is not None
        ]
        return {"paused": paused, "finishing": self.is_finishing, "held": held}

    def _found(self, part: str) -> Reason | None:
        on = GPU if self.on_gpu() else CPU
        words = {TRAIN: (TRAIN, on), SEAL: (SEAL, CPU), SERVE: (SERVE,)}.get(part, (part,))
        for word in words:
            if self._is_set(word):
                until = self._until[word]
                name = "" if word == part else f"{word} "
                end = "until `swarm resume`" if until is None else f"until {at(until)}"
                return Reason("paused", f"{name}paused {end}", until)
        limit = self.limit(part)
        if limit is not None and limit.is_hard:
            return limit
        if part == TRAIN and (serving := self._found(SERVE)) is not None:
            why = f"nothing is served, so no update could be handed over: {serving.why}"
            return Reason("no_serving", why, serving.until)
        return limit

    def _is_set(self, word: str) -> bool:
        if word not in self._until:
            return False
        until = self._until[word]
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
            part: None if found[part] is None else _end(found[part])
            for part in NAMED
            if part in found
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, OverflowError, RecursionError) as error:
        import structlog  # here, since every command imports this module

        log = structlog.get_logger("swarm.care")
        log.warning("controls.unreadable", path=str(path), error=str(error))
        return {}


def _end(value: Any) -> float:  # noqa: ANN401 - as a file says
    end = float(value)
    if not 0 <= end <= MAX_END:
        message = f"{end} is not a time"
        raise ValueError(message)
    return end


def at(seconds: float) -> str:
    """A time for people, of this machine's clock."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def _span(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def span(seconds: int) -> str:
    """A time as `parse_duration` reads it: `1h30m`; nothing is `0s`."""
    left, told = seconds, ""
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        told += f"{count}{unit}" if count else ""
    return told or "0s"


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
            seconds = sum(size * int(match[unit] or 0) for unit, size in _UNITS)
    if not 0 < seconds <= MAX_PAUSE_SECONDS:
        message = f"{text[:32]!r} is not a time of up to a year"
        raise UsageError(message, "write it like 2h, 90m, 1d12h or 45s")
    return seconds
