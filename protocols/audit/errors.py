"""What an audit can find; each docstring is what the user reads."""

from __future__ import annotations

from enum import IntEnum

from protocols.transport import RemoteProtocolError


class Failure(IntEnum):
    """Why an auditor names a keeper; the numbers are those of the report on the ledger."""

    SILENT = 1
    """It did not answer in time."""
    OTHER_LEAVES = 2
    """The leaves are not those that its answer on the ledger commits to."""
    NO_PATH = 3
    """A leaf or a label does not stand under the committed root."""
    OTHER_CONTENT = 4
    """A slot does not hold the chunk or the zeros that its label names."""
    NOT_HELD = 5
    """It did not show the challenged chunk of a duty."""


class AuditMessageError(RemoteProtocolError):
    """An audit's request or answer is malformed or over its limits."""


class AuditFailedError(Exception):
    """The keeper did not prove what was asked.

    Attributes:
        failure: What to report.
        why: For the log.
    """

    def __init__(self, failure: Failure, why: str) -> None:
        super().__init__(f"{failure.name.lower().replace('_', ' ')}: {why}")
        self.failure = failure
        self.why = why
