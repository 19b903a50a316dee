"""What a Hello can do wrong."""

from __future__ import annotations

from protocols.transport import RemoteProtocolError


class HandshakeError(RemoteProtocolError):
    """The peer's handshake is not one that this software understands."""
