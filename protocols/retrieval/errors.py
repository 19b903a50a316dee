"""Why content could not be got, in words that the user reads."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """What an answerer says, or what its asker saw; those from 100 on are not sent."""

    NOT_HELD = 1
    NOT_ANNOUNCED = 2
    NOT_FETCHED = 3
    NO_ROOM = 4
    BUSY = 5
    TOO_LARGE = 6
    MALFORMED = 7
    UNREACHABLE = 100
    SILENT = 101
    WRONG = 102

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS = {
    Reason.NOT_HELD: "does not hold it",
    Reason.NOT_ANNOUNCED: "found nobody who announces it",
    Reason.NOT_FETCHED: "found who announces it, and got nothing from there",
    Reason.NO_ROOM: "has no room for the chunk",
    Reason.BUSY: "has answered enough of such questions for now",
    Reason.TOO_LARGE: "the chunks on the way are too many for a check",
    Reason.MALFORMED: "the content is not well formed",
    Reason.UNREACHABLE: "cannot be reached, or is of a version without this check",
    Reason.SILENT: "did not answer in time",
    Reason.WRONG: "showed something else",
}


class RetrievalError(Exception):
    """A peer did not show the drawn chunk.

    Attributes:
        reason: Why.
        why: More words for the log.
    """

    def __init__(self, reason: Reason, why: str = "") -> None:
        super().__init__(f"{reason.words}{f' ({why})' if why else ''}")
        self.reason = reason
        self.why = why
