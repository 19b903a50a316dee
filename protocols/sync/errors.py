"""What can go wrong in sync; each docstring is what the user reads."""

from __future__ import annotations

from protocols.transport import RemoteProtocolError, StreamError


class SyncMessageError(RemoteProtocolError):
    """A sync request or answer is malformed or over its limits."""


class WrongGenesisError(RemoteProtocolError):
    """The peer's genesis is not the one of the network that was asked for."""

    def __init__(self, expected: bytes, found: bytes) -> None:
        super().__init__(f"the genesis hashes to {found.hex()}, not to {expected.hex()}")
        self.expected = expected
        self.found = found


class NothingProvenError(Exception):
    """The peer does not have the state that was asked for, or does not answer for it."""


class UnsignedError(StreamError):
    """The finalization that came with the checkpoint does not hold; another peer may have one that does."""


class CheckpointError(Exception):
    """The checkpoint that this node was given is too old, or a chain is not the one that it names.

    It may be mistyped, or one of the two chains is forged: ask somebody you trust for a checkpoint again.
    """
