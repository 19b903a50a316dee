"""What a person can be told, with the exit code of each; a docstring is what the user reads.

This module imports nothing, so that the command line and the SDK can use it alone.
The control API carries these errors as JSON and the client raises them again.
"""

from __future__ import annotations

from typing import ClassVar


class SwarmError(Exception):
    """Something went wrong inside swarm; this is a bug.

    Args:
        message: One line without a full stop, with the values that matter and their units.
        hint: What the person can do about it; one line, or None.
    """

    code: ClassVar[str] = "internal"
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def to_json(self) -> dict[str, object]:
        """The error as the control API and `--json` print it."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class UsageError(SwarmError):
    """What was typed, or written in a file, cannot be used as it is."""

    code = "usage"
    exit_code = 2


class NotFoundError(SwarmError):
    """Nobody that was asked has it."""

    code = "not_found"
    exit_code = 3


class RefusedError(SwarmError):
    """The quota, the disk, the stake or the ledger's rules do not allow it."""

    code = "refused"
    exit_code = 4


class NetworkError(SwarmError):
    """The node, or the peers that are needed, cannot be reached."""

    code = "network"
    exit_code = 5


class InterruptedError(SwarmError):  # noqa: A001 - the word that fits; never used as the builtin here
    """Stopped by the person who started it."""

    code = "interrupted"
    exit_code = 130


_KINDS: dict[str, type[SwarmError]] = {
    kind.code: kind
    for kind in (
        SwarmError,
        UsageError,
        NotFoundError,
        RefusedError,
        NetworkError,
        InterruptedError,
    )
}


def from_json(data: object) -> SwarmError:
    """The error that `to_json` described; an unknown code is a `SwarmError`."""
    if not isinstance(data, dict):
        return SwarmError(f"an error that cannot be read: {str(data)[:200]}")
    kind = _KINDS.get(str(data.get("code")), SwarmError)
    hint = data.get("hint")
    return kind(str(data.get("message", "no message")), None if hint is None else str(hint))
