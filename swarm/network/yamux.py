"""The bytes of yamux 1.0.0 as they lie in Noise messages: kinds and flags of frames, and their bounds.

Source: https://github.com/hashicorp/yamux/blob/master/spec.md; Noise framing: libp2p specs, noise/README.md.
"""

from __future__ import annotations

import struct

PROTOCOL = "/yamux/1.0.0"
HEADER = struct.Struct("!BBHII")
"""Version, kind, flags, number of the stream, and length or value."""
DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8
MAX_ID = 2**32 - 1
"""Of a stream; also the largest window."""

MAX_PLAINTEXT = 65_535 - 16
"""Bytes in one Noise message beside its 16-byte tag."""
MAX_PAYLOAD = MAX_PLAINTEXT - HEADER.size
INITIAL_WINDOW = 2**18
"""Bytes that either side may send on a new stream; fixed by yamux."""
RECEIVE_WINDOW = 4 * 2**20
"""Bytes that a peer may be ahead of the reader of a stream."""
