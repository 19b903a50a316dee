"""What can go wrong in consensus; each docstring is what the user reads."""

from __future__ import annotations

from protocols.transport import RemoteProtocolError


class ConsensusError(Exception):
    """Consensus on this node cannot go on."""


class HaltError(ConsensusError):
    """The validators agreed on a block that this node's ledger refuses, or on two chains; it stops rather than guess."""


class MessageError(RemoteProtocolError):
    """A message, block, vote or certificate is malformed."""


class EvidenceError(ValueError):
    """The bytes do not prove that a validator broke a rule."""
