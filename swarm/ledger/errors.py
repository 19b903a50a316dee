"""What the ledger refuses; each docstring is what the user reads."""

from __future__ import annotations


class LedgerError(ValueError):
    """The ledger does not accept this."""


class TransactionError(LedgerError):
    """The bytes are not a transaction of this version, or a field is out of its bounds."""


class GenesisError(LedgerError):
    """The genesis file is malformed, or a parameter is out of its range."""


class BlockError(LedgerError):
    """The block breaks a rule of the ledger."""


class VrfError(LedgerError):
    """The key, proof or point is not one that the verifiable random function takes."""


class Refused(LedgerError):  # noqa: N818 - an outcome of a transaction, not a fault
    """The transaction was included, paid its gas, and changed nothing else."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MempoolError(LedgerError):
    """The transaction was not taken into the waiting room."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class UnknownEpochError(LedgerError):
    """The validators of that epoch are not fixed yet."""
