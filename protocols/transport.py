"""What a protocol sees of the network: streams to peers, topics, and provider records.

`swarm.network` implements it over libp2p; `protocols.memory` in one process, for tests and simulations.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    import trio

    from storage.cid import Cid

Handler: TypeAlias = Callable[["Stream"], Awaitable[None]]
PeerId: TypeAlias = str

MAX_GOSSIP_BYTES = 64 * 2**10
"""Larger things travel by CID: gossipsub drops an RPC of 1 MiB without an error."""


class StreamError(Exception):
    """The stream was reset or its connection was lost."""


class UnreachableError(Exception):
    """No connection or no stream to that peer could be opened."""

    def __init__(self, peer: PeerId, why: str) -> None:
        super().__init__(f"peer {peer} cannot be reached: {why}")
        self.peer = peer
        self.why = why


class RemoteProtocolError(Exception):
    """A peer said something that its protocol does not allow; its stream is reset."""


class Stream(Protocol):
    """A two-way stream of bytes to one authenticated peer."""

    @property
    def peer(self) -> PeerId:
        """Who is on the other side; proven by the connection's handshake."""

    async def receive_some(self, max_bytes: int = 2**18) -> bytes:
        """Read at least one byte; `b""` when the other side finished writing.

        Raises:
            StreamError: Reset, or the connection is gone.
        """

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write everything.

        Raises:
            StreamError: Reset, or the connection is gone.
        """

    async def close(self) -> None:
        """Finish writing; what the other side still sends can be read."""

    async def reset(self) -> None:
        """Give the stream up in both directions; never raises."""


class Transport(Protocol):
    """The door to the peers of one network."""

    @property
    def me(self) -> PeerId:
        """This node."""

    def peers(self) -> list[PeerId]:
        """Connected peers that have passed the handshake, in no order."""

    def is_relayed(self, peer: PeerId) -> bool:
        """Whether a peer is reached, or would be, through another one only, which passes on few bytes."""

    def handle(self, protocol: str, handler: Handler, *, members_only: bool = True) -> None:
        """Serve a protocol; an exception that leaves the handler resets the stream and no more.

        Args:
            protocol: Its id, `/swarm/exchange/1.0.0`.
            handler: Called in a task of its own for each inbound stream.
            members_only: Refuse peers that have not shown the same chain id.
        """

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """Open a stream, dialling the peer if need be.

        Raises:
            UnreachableError: It cannot be dialled, or does not speak the protocol.
        """

    async def publish(self, topic: str, data: bytes) -> None:
        """Gossip at most `MAX_GOSSIP_BYTES`; a hint that may be lost."""

    def subscribe(self, topic: str) -> trio.MemoryReceiveChannel[tuple[PeerId, bytes]]:
        """Messages of a topic with who published them; a slow reader loses the oldest."""

    async def provide(self, cid: Cid) -> None:
        """Announce in the DHT that this node holds a root (again on a schedule, paced)."""

    async def find_providers(self, cid: Cid, limit: int = 8) -> list[PeerId]:
        """Peers that announced a root, this node left out; empty when nobody did."""
