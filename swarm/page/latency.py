"""How far the peers are: the time that libp2p's ping takes there and back, now and then while somebody looks."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

import trio

from protocols.transport import StreamError, UnreachableError

if TYPE_CHECKING:
    from protocols.transport import Transport

PROTOCOL: Final = "/ipfs/ping/1.0.0"
PING_BYTES: Final = 32
PING_SECONDS: Final = 5.0
"""A peer that takes longer has no latency here."""
MAX_PEERS: Final = 64
"""That are asked in one go."""
AT_ONCE: Final = 8


async def measure(transport: Transport) -> dict[str, float]:
    """Seconds to each peer and back; peers that do not answer are absent."""
    found: dict[str, float] = {}
    places = trio.Semaphore(AT_ONCE)

    async def ask(peer: str) -> None:
        async with places:
            seconds = await _ping(transport, peer)
            if seconds is not None:
                found[peer] = seconds

    async with trio.open_nursery() as nursery:
        for peer in sorted(transport.peers())[:MAX_PEERS]:
            nursery.start_soon(ask, peer)
    return found


async def _ping(transport: Transport, peer: str) -> float | None:
    asked = secrets.token_bytes(PING_BYTES)
    try:
        with trio.fail_after(PING_SECONDS):
            stream = await transport.open_stream(peer, PROTOCOL)
            try:
                start = trio.current_time()
                await stream.send_all(asked)
                answer = b""
                while len(answer) < PING_BYTES:
                    data = await stream.receive_some(PING_BYTES - len(answer))
                    if not data:
                        return None
                    answer += data
                return trio.current_time() - start if answer == asked else None
            finally:
                with trio.CancelScope(shield=True):
                    await stream.reset()
    except (trio.TooSlowError, StreamError, UnreachableError):
        return None
