"""The handshake on a stream: sends, reads, and keeps the times."""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from protocols.framing import FrameReader, frame
from protocols.handshake.core import REFRESH_S, Exchange, Heard
from protocols.handshake.messages import MAX_HELLO_BYTES
from protocols.transport import StreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.handshake.messages import Hello
    from protocols.transport import Stream


async def converse(
    stream: Stream,
    *,
    opener: bool,
    mine: Callable[[], Hello],
    heard: Callable[[Hello], None],
    changed: Callable[[], trio.Event],
) -> None:
    """Keep the handshake going until the peer leaves.

    Args:
        stream: The handshake's stream of one connection.
        opener: This side dialled.
        mine: This node's Hello as of now.
        heard: Called with each Hello of the peer, the first one included.
        changed: An event that is set when this node's Hello should go out before its time.

    Raises:
        HandshakeError: The peer broke the protocol.
        StreamError: The stream is gone, or the peer was silent for too long.
    """
    exchange = Exchange(opener=opener)
    reader = FrameReader(stream, MAX_HELLO_BYTES)

    async def say() -> None:
        with trio.move_on_after(exchange.patience_s) as saying:
            await stream.send_all(frame(mine().encode()))
        if saying.cancelled_caught:
            message = f"the peer takes no hello for {exchange.patience_s:g} s"
            raise StreamError(message)

    while True:
        # Asked for before the Hello is written: what changes while its answer is under way is told next.
        news = changed()
        if opener:
            await say()
        with trio.move_on_after(exchange.patience_s) as waiting:
            body = await reader.read()
        if waiting.cancelled_caught:
            message = f"no hello for {exchange.patience_s:g} s"
            raise StreamError(message)
        if body is None:
            return
        for effect in exchange.handle(body, trio.current_time()):
            if isinstance(effect, Heard):
                heard(effect.hello)
            else:
                await say()
        if opener:
            with trio.move_on_after(REFRESH_S):
                await news.wait()
