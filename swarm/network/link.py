"""One live connection to one proven peer, and what the peer has said on it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import trio

from protocols.handshake.core import Standing
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from swarm.network import multistream

if TYPE_CHECKING:
    from collections.abc import Collection

    from protocols.handshake.messages import Hello
    from swarm.network.muxed_stream import MuxedStream
    from swarm.network.muxer import Session
    from swarm.network.wire import Wire

GREET_S = 10.0
"""For a new connection's first Hello."""
ASKING_S = 2.0
"""For a peer that asks to become a member, when it opens a stream for members."""
OPEN_S = 15.0
"""For this node to open a stream on a live connection."""


class Link:
    """One live connection to one proven peer."""

    def __init__(self, wire: Wire, peer: str, session: Session, now: float) -> None:
        self.wire = wire
        self.peer = peer
        self.session = session
        self.dialled = wire.is_initiator
        self.since = now
        self.hello: Hello | None = None
        self.standing = Standing.ASKING
        self.kept_port = False
        self.is_outsider = False
        self.may_be_outsider = False
        self.agent = ""
        self.greeted = trio.Event()
        self.judged = trio.Event()
        self.inbound: Counter[str] = Counter()

    @property
    def is_member(self) -> bool:
        """The peer has shown our chain id on this connection."""
        return self.standing is Standing.MEMBER

    @property
    def is_relayed(self) -> bool:
        """It goes through a relay."""
        return self.wire.remote.relay is not None

    async def settled(self) -> bool:
        """Wait for the first Hello, or for the connection's end; whether the peer is a member."""
        with trio.move_on_after(GREET_S):
            await self.greeted.wait()
        with trio.move_on_after(ASKING_S):
            # It may have learnt our genesis a moment ago, with its Hello still under way.
            while self.standing is Standing.ASKING and not self.session.closed.is_set():
                await self.judged.wait()
        return self.is_member and not self.session.closed.is_set()

    async def open(self, protocols: Collection[str]) -> MuxedStream:
        """Open a stream for the first of `protocols` that the peer speaks.

        Raises:
            UnreachableError: The connection is gone, full or silent, or the peer speaks none of them.
        """
        stream: MuxedStream | None = None
        opened = False
        try:
            with trio.fail_after(OPEN_S):
                stream = self.session.open_stream()
                stream.protocol = await multistream.propose(stream, protocols)
            opened = True
        except trio.TooSlowError:
            raise UnreachableError(self.peer, f"no answer in {OPEN_S:g} s") from None
        except (StreamError, RemoteProtocolError) as error:
            raise UnreachableError(self.peer, str(error)) from error
        finally:
            if stream is not None and not opened:
                stream.break_off("its protocol was not agreed on")
        return stream
