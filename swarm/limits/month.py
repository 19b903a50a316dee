"""The bytes of a calendar month, kept on disk, and the cap on them.

What the file says is ahead of what went: before the count comes near it, more is written. So a crash makes the count too
high by `LEASE_BYTES` or by `LEASE_SECONDS` of the rate, whichever is more, in each direction, and never too low while the
disk takes writes; a clean stop writes what went.
A clock that shows another month for a while finds its own month's count again: the counts of a few months stand side by side.
A fiftieth of the cap is kept for votes and answers, and a fiftieth before it for handing over what was begun.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import structlog

from storage.files import DISK

if TYPE_CHECKING:
    from pathlib import Path

FILE: Final = "traffic.json"
LEASE_BYTES: Final = 32 * 10**6
LEASE_SECONDS: Final = 20
RESERVE_PARTS: Final = 50
MAX_FILE_BYTES: Final = 4096
AUTO_PART: Final = 4
"""One part in so many of what the line can carry in a month is the cap where nobody names one."""
AUTO_LEAST: Final = 10**12
"""Bytes: no line is capped at less unasked, and what is known of a line may be too little."""
SECONDS: Final = 30 * 86_400
OTHER_MONTHS: Final = 12
"""Months beside this one whose counts are kept; the one left longest ago makes room."""

_log = structlog.get_logger("swarm.limits")


class Month:
    """What went this month; any thread may write it down, one at a time.

    Args:
        path: Where it is remembered; None: nowhere.
        now: Seconds since 1970.
    """

    def __init__(self, path: Path | None, now: float) -> None:
        self._path = path
        self.name = _name(now)
        self.cap = 0
        """Bytes, sent and received together; 0: none."""
        self.sent = self.received = 0
        self._others: dict[str, tuple[int, int]] = {}
        """What went in other months that the clock has shown: sent and received."""
        self.line = 0
        """The best rate of the way out that is known, in bytes a second: a cap that follows it outlives a restart."""
        if path is not None:
            self._others, self.line = _read(path)
            self.sent, self.received = self._others.pop(self.name, (0, 0))
        self._promised = (self.sent, self.received)

    @property
    def total(self) -> int:
        """Bytes in both directions."""
        return self.sent + self.received

    @property
    def is_reached(self) -> bool:
        """Whether content is not served before the next month."""
        return bool(self.cap) and self.total >= self.cap - self.cap // RESERVE_PARTS

    @property
    def is_near(self) -> bool:
        """Whether nothing is begun that would be served later."""
        return bool(self.cap) and self.total >= self.cap - 2 * (self.cap // RESERVE_PARTS)

    @property
    def is_due(self) -> bool:
        """Whether the count has come near what the file says."""
        return (
            self.sent + LEASE_BYTES // 2 > self._promised[0]
            or self.received + LEASE_BYTES // 2 > self._promised[1]
        )

    def roll(self, now: float) -> None:
        """Begin anew where a month has ended, or go on where the clock shows one again."""
        if (name := _name(now)) != self.name:
            if self.total:
                self._others[self.name] = (self.sent, self.received)
            self.name = name
            self.sent, self.received = self._others.pop(name, (0, 0))
            while len(self._others) > OTHER_MONTHS:
                del self._others[next(iter(self._others))]
            self._promised = (0, 0)

    def promise(self, sent_rate: float, received_rate: float) -> None:
        """Write down, durably, that more has gone than has.

        Args:
            sent_rate: Bytes a second, as of now.
            received_rate: Likewise.

        Raises:
            OSError: It cannot be written.
        """
        name = self.name
        sent = self.sent + max(LEASE_BYTES, int(LEASE_SECONDS * sent_rate))
        received = self.received + max(LEASE_BYTES, int(LEASE_SECONDS * received_rate))
        self._write(name, sent, received)
        if name == self.name:
            self._promised = (sent, received)

    def close(self) -> None:
        """Write down what went.

        Raises:
            OSError: It cannot be written.
        """
        self._write(self.name, self.sent, self.received)

    def _write(self, name: str, sent: int, received: int) -> None:
        if self._path is not None:
            told = {
                "month": name,
                "sent": sent,
                "received": received,
                "line": self.line,
                "others": list(self._others.items()),
            }
            DISK.replace(self._path, json.dumps(told).encode())


def auto_cap(line: float) -> int:
    """The cap where nobody names one, in bytes of both directions.

    Args:
        line: What is known of the way out, in bytes a second; 0: it was never full.
    """
    return max(AUTO_LEAST, int(line * SECONDS) // AUTO_PART)


def ends_at(now: float) -> float:
    """When the month ends, in local time, in seconds since 1970."""
    local = datetime.fromtimestamp(now).astimezone()
    year, month = (local.year + 1, 1) if local.month == 12 else (local.year, local.month + 1)
    return datetime(year, month, 1).astimezone().timestamp()


def _name(now: float) -> str:
    return datetime.fromtimestamp(now).astimezone().strftime("%Y-%m")


def _read(path: Path) -> tuple[dict[str, tuple[int, int]], int]:
    """What is remembered of each month, and the line; a file that cannot be read counts nothing and is said in the log."""
    try:
        with path.open("rb") as file:
            return _parsed(json.loads(file.read(MAX_FILE_BYTES)))
    except FileNotFoundError:
        return {}, 0
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        _log.warning("traffic.unreadable", path=str(path), error=str(error))
        return {}, 0


def _parsed(found: Any) -> tuple[dict[str, tuple[int, int]], int]:  # noqa: ANN401 - JSON
    """What went each way in each month, the one of the file last, and the line."""
    own = {str(found["month"]): _counts(found["sent"], found["received"])}
    others = found.get("others", [])[-OTHER_MONTHS:]
    months = {str(name): _counts(*both) for name, both in others} | own
    return months, max(0, int(found.get("line", 0)))


def _counts(sent: Any, received: Any) -> tuple[int, int]:  # noqa: ANN401 - JSON
    return max(0, int(sent)), max(0, int(received))
