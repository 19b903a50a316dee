"""Who is on the other side of a connection: `/swarm/handshake/1.0.0`.

**Who talks.** The side that dialled opens one stream on each new connection and keeps it.

**Messages**, in order, each a frame (u32 big endian length, canonical CBOR array):

    opener   -> answerer  Hello [version, chain_id, software, head, roles, addresses]
    answerer -> opener    Hello
    … every `REFRESH_S` seconds again, so that heads stay current and a dead link is noticed …

**Limits.** A frame is at most `MAX_HELLO_BYTES`; software at most `MAX_SOFTWARE_CHARS`; at most `MAX_ADDRESSES`
addresses of `MAX_ADDRESS_CHARS`; at most `MAX_HELLOS` hellos in each `RATE_WINDOW_S`.
The opener waits `ANSWER_S` for an answer, the answerer `SILENCE_S` for the next hello; then the connection is closed.

**Refused.** A frame that is not the canonical encoding of such an array, a chain id that is neither 32 bytes nor empty.
A later version may append fields to the array; this one ignores them.

**Invariant.** Two peers are members of one network to each other if and only if both showed the same chain id of
32 bytes on this connection. An empty chain id asks: that peer does not know a genesis yet and is no member.
A peer that is no member may use the protocols that serve everybody and nothing else.

**Not its business.** The peer's key: the connection's Noise handshake has proven that.
Nothing in a Hello is proven; a head or an address is a hint.

Source: ours; the shape follows Ethereum's `Status` message (eth/68).
"""

from __future__ import annotations

from protocols.handshake.errors import HandshakeError
from protocols.handshake.messages import Hello

__all__ = ["HandshakeError", "Hello"]
