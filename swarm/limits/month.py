"""The bytes of a calendar month, kept on disk, and the cap on them.

What the file says is ahead of what went: before the count comes near it, more is written. So a crash makes the count too
high by `LEASE_BYTES` or by `LEASE_SECONDS` of the rate, whichever is more, in each direction, and never too low while the
disk takes writes; a clean stop writes what went.
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
        self.line = 0
        """The best rate of the way out that is known, in bytes a second: a cap that follows it outlives a restart."""
        if path is not None:
            name, sent, received, self.line = _read(path)
            if name == self.name:
                self.sent, self.received = sent, received
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
        """Begin anew where a month has ended."""
        if (name := _name(now)) != self.name:
            self.name = name
            self.sent = self.received = 0
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
        self._write(sent, received)
        if name == self.name:
            self._promised = (sent, received)

    def close(self) -> None:
        """Write down what went.

        Raises:
            OSError: It cannot be written.
        """
        self._write(self.sent, self.received)

    def _write(self, sent: int, received: int) -> None:
        if self._path is not None:
            told = {"month": self.name, "sent": sent, "received": received, "line": self.line}
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


def _read(path: Path) -> tuple[str, int, int, int]:
    """What is remembered; a file that cannot be read counts nothing and is said in the log."""
    try:
        with path.open("rb") as file:
            return _parsed(json.loads(file.read(MAX_FILE_BYTES)))
    except FileNotFoundError:
        return "", 0, 0, 0
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        _log.warning("traffic.unreadable", path=str(path), error=str(error))
        return "", 0, 0, 0


def _parsed(found: Any) -> tuple[str, int, int, int]:  # noqa: ANN401 - JSON
    """The month's name, what went each way, and the line."""
    name = str(found["month"])
    sent, received = (max(0, int(found[one])) for one in ("sent", "received"))
    return name, sent, received, max(0, int(found.get("line", 0)))
