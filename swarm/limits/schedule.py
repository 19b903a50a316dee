"""Hours of the week in which a node works for others, in local time; pure.

`mon-fri 19:00-07:00; sat,sun 0:00-24:00`: entries are parted by `;`, each days and hours; hours that end no later than
they begin go on into the next day. The minutes are those that a clock on the wall shows: a night in which the clock is
moved is an hour shorter or longer, and what the wall shows twice is open twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

from swarm.errors import UsageError

if TYPE_CHECKING:
    from datetime import tzinfo

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
EVERY_DAY: Final = "daily"
DAY: Final = 24 * 60
WEEK: Final = 7 * DAY
"""Minutes."""
MAX_TEXT: Final = 1024
MAX_ENTRIES: Final = 64
STEP_SECONDS: Final = 1800
"""At most so far is looked at a time, so that a moved clock is seen."""
FORM: Final = "write it like: mon-fri 19:00-07:00; sat,sun 0:00-24:00"
_HOURS: Final = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})")


@dataclass(frozen=True, slots=True)
class Schedule:
    """Open hours.

    Attributes:
        text: As it was written.
        windows: Minutes of the week, Monday 0:00 being 0: where each begins, and where it ends (not in it); sorted, apart, none empty.
    """

    text: str
    windows: tuple[tuple[int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Read a schedule.

        Raises:
            UsageError: It is none; the message names the part that is wrong.
        """
        entries = [one.strip() for one in text.lower().split(";") if one.strip()]
        if not entries or len(text) > MAX_TEXT or len(entries) > MAX_ENTRIES:
            message = f"{text[:64]!r} is no schedule"
            raise UsageError(message, FORM)
        minutes: set[int] = set()
        for entry in entries:
            days, _, hours = entry.partition(" ")
            begin, length = _hours(hours.strip(), entry)
            for day in _days(days, entry):
                start = day * DAY + begin
                minutes.update(at % WEEK for at in range(start, start + length))
        return cls(text.strip(), _joined(minutes))

    def __str__(self) -> str:
        """As it was written."""
        return self.text

    def is_open(self, now: float, zone: tzinfo | None = None) -> bool:
        """Whether work may be begun.

        Args:
            now: Seconds since 1970.
            zone: Where the node is; None: as the machine says.
        """
        at = _minute(_local(now, zone))
        return any(begin <= at < end for begin, end in self.windows)

    def changes_at(self, now: float, zone: tzinfo | None = None) -> float | None:
        """When it opens or, if it is open, closes next, in seconds since 1970; None where it never does.

        Args:
            now: Seconds since 1970.
            zone: Where the node is; None: as the machine says.
        """
        if self.windows == ((0, WEEK),):
            return None
        is_open = self.is_open(now, zone)
        end = now + (WEEK + 2 * DAY) * 60
        while now < end:
            local = _local(now, zone)
            to_minute = 60 - local.second - local.microsecond / 1e6
            wall = to_minute + 60 * (self._to_bound(_minute(local)) - 1)
            step = min(wall, STEP_SECONDS)
            if _local(now + step, zone).utcoffset() != local.utcoffset():
                step = min(step, to_minute)  # the clock is moved here: minute by minute
            now += step
            if self.is_open(now, zone) != is_open:
                return now
        return None

    def fits(self, now: float, seconds: float, zone: tzinfo | None = None) -> bool:
        """Whether something that takes so long ends within the hours that are open now.

        Args:
            now: Seconds since 1970.
            seconds: That it takes.
            zone: Where the node is; None: as the machine says.
        """
        if not self.is_open(now, zone):
            return False
        closes = self.changes_at(now, zone)
        return closes is None or now + seconds <= closes

    def _to_bound(self, at: int) -> int:
        """Minutes on the wall to the next bound of a window."""
        return min((bound - at - 1) % WEEK + 1 for window in self.windows for bound in window)


def _local(now: float, zone: tzinfo | None) -> datetime:
    return datetime.fromtimestamp(now, zone) if zone else datetime.fromtimestamp(now).astimezone()


def _minute(local: datetime) -> int:
    return local.weekday() * DAY + local.hour * 60 + local.minute


def _days(text: str, entry: str) -> list[int]:
    if text == EVERY_DAY:
        return list(range(7))
    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.partition("-")
        if first not in DAYS or (dash and last not in DAYS):
            wrong = first if first not in DAYS else last
            message = (
                f"{wrong[:16]!r} in {entry[:64]!r} is no day: {', '.join(DAYS)} or {EVERY_DAY}"
            )
            raise UsageError(message, FORM)
        begin = DAYS.index(first)
        count = (DAYS.index(last) - begin) % 7 + 1 if dash else 1
        found += [(begin + more) % 7 for more in range(count)]
    return found


def _hours(text: str, entry: str) -> tuple[int, int]:
    """Where hours begin in a day, and how long they are, in minutes."""
    match = _HOURS.fullmatch(text)
    if match is None:
        message = (
            f"{text[:32]!r} in {entry[:64]!r} are no hours"
            if text
            else f"{entry[:64]!r} has no hours"
        )
        raise UsageError(message, FORM)
    first, first_minute, last, last_minute = (int(one) for one in match.groups())
    begin, end = first * 60 + first_minute, last * 60 + last_minute
    if first_minute > 59 or last_minute > 59 or begin >= DAY or end > DAY:
        message = f"{text!r} in {entry[:64]!r} is not a time of day: 0:00 to 24:00"
        raise UsageError(message, FORM)
    if begin == end:
        message = f"{text!r} in {entry[:64]!r} is empty: a whole day is 0:00-24:00"
        raise UsageError(message, FORM)
    return begin, (end - begin) % DAY or DAY


def _joined(minutes: set[int]) -> tuple[tuple[int, int], ...]:
    windows: list[tuple[int, int]] = []
    for at in sorted(minutes):
        if windows and windows[-1][1] == at:
            windows[-1] = (windows[-1][0], at + 1)
        else:
            windows.append((at, at + 1))
    return tuple(windows)
