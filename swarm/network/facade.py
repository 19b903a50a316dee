"""What libp2p's gossipsub and Kademlia see of the host: their streams, their peer store, and members only.

Both were written against libp2p's own host; they use the few methods that stand here.
"""

from __future__ import annotations

import logging
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any

import trio
from libp2p.network.exceptions import SwarmException
from libp2p.network.stream.exceptions import StreamClosed, StreamEOF, StreamReset
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore, create_signed_peer_record
from libp2p.tools.anyio_service.api import InternalManagerAPI

from protocols.transport import StreamError, UnreachableError
from swarm.network import addresses, envelopes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from multiaddr import Multiaddr  # type: ignore[import-untyped]  # ships no types
    from trio_typing import TaskStatus

    from swarm.network.addresses import Address
    from swarm.network.host import Host
    from swarm.network.link import Link
    from swarm.network.muxed_stream import MuxedStream

MAX_STORED_PEERS = 2048
"""Peers whose addresses are kept; libp2p's own store grows with whatever it is told."""
MAX_STORED_ADDRESSES = 16
ADDRESS_TTL_S = 3600
READ_ALL_BYTES = 2**18
RESTART_S = 1.0
"""A daemon of libp2p's that failed starts again after this long."""
FOREIGN_STREAMS = 8
"""Inbound streams of one peer on one of libp2p's protocols."""

logging.getLogger("libp2p").setLevel(logging.ERROR)


class ForeignStream:
    """A stream as libp2p's protocols use it."""

    metric_send_channel = None

    def __init__(self, stream: MuxedStream) -> None:
        self._stream = stream
        self.muxed_conn = self
        self.peer_id = ID.from_base58(stream.peer)

    async def read(self, n: int | None = None) -> bytes:
        """At most n bytes; `StreamEOF` at the end."""
        try:
            data = await self._stream.receive_some(READ_ALL_BYTES if n is None or n < 0 else n)
        except StreamError as error:
            raise StreamReset(str(error)) from error
        if not data:
            raise StreamEOF
        return data

    async def write(self, data: bytes) -> None:
        """Write everything."""
        try:
            await self._stream.send_all(data)
        except StreamError as error:
            raise StreamClosed(str(error)) from error

    async def close(self) -> None:
        """Finish; what still comes is given up, so that nothing stays half open."""
        self._stream.finish()
        await trio.lowlevel.checkpoint()

    async def reset(self) -> None:
        """Give the stream up."""
        await self._stream.reset()

    def get_protocol(self) -> str:
        """What the stream speaks."""
        return self._stream.protocol

    def get_remote_address(self) -> tuple[str, int] | None:
        """Unknown here."""
        return None


class BoundedPeerStore(PeerStore):
    """libp2p's peer store, with a bound on peers and on addresses of each."""

    def add_addrs(self, peer_id: ID, addrs: Sequence[Multiaddr], ttl: int = 0) -> None:
        """Keep the addresses that can be dialled; the peer that was told of first makes room."""
        good: list[Multiaddr] = []
        for addr in addrs[: 2 * MAX_STORED_ADDRESSES]:
            try:
                address = addresses.parse(str(addr))
            except ValueError:
                continue
            if addresses.is_dialable(address):
                good += envelopes.multiaddrs([address.bare])
        super().add_addrs(peer_id, good[:MAX_STORED_ADDRESSES], ttl)
        data = self.peer_data_map[peer_id]
        if len(data.addrs) > MAX_STORED_ADDRESSES:
            data.addrs = data.addrs[-MAX_STORED_ADDRESSES:]
        while len(self.peer_data_map) > MAX_STORED_PEERS:
            # This node itself stands first.
            self.clear_peerdata(next(islice(self.peer_data_map, 1, None)))

    def addrs(self, peer_id: ID) -> list[Multiaddr]:
        """What is known; nothing instead of an error."""
        data = self.peer_data_map.get(peer_id)
        return [] if data is None else list(data.get_addrs())


@lru_cache(MAX_STORED_PEERS)
def _id_of(peer: str) -> ID:
    """A peer id as libp2p has it; Kademlia asks for all members once for each peer that it names."""
    return ID.from_base58(peer)


class Facade:
    """The host as gossipsub and Kademlia use it.

    Args:
        host: The real one.
        reach: Connects to a peer that is not connected, or raises `UnreachableError`.
    """

    def __init__(self, host: Host, reach: Callable[[str], Awaitable[Link]]) -> None:
        self._host = host
        self._reach = reach
        self._id = host.keys.id
        self.peerstore = BoundedPeerStore()
        self.peerstore.add_key_pair(self._id, host.keys.pair)
        self._announced: tuple[list[Address], list[Multiaddr]] = ([], [])

    def get_id(self) -> ID:
        """This node."""
        return self._id

    def get_private_key(self) -> Any:  # noqa: ANN401 - libp2p's
        """This node's key."""
        return self._host.keys.pair.private_key

    def get_public_key(self) -> Any:  # noqa: ANN401 - libp2p's
        """This node's key."""
        return self._host.keys.pair.public_key

    def get_peerstore(self) -> PeerStore:
        """Addresses of peers."""
        return self.peerstore

    def get_network(self) -> Facade:
        """The same object stands for the network."""
        return self

    def get_mux(self) -> Facade:
        """The same object stands for the table of protocols."""
        return self

    def get_protocols(self) -> tuple[str, ...]:
        """What this node serves."""
        return tuple(self._host.serving.served)

    def learn(self, peer: str, found: Sequence[Address]) -> None:
        """Addresses of a peer that its own connection has shown."""
        told = envelopes.multiaddrs(address.bare for address in found)
        self.peerstore.add_addrs(ID.from_base58(peer), told, ADDRESS_TTL_S)

    def known(self, peer: str) -> list[str]:
        """Addresses of a peer."""
        return [str(addr) for addr in self.peerstore.addrs(ID.from_base58(peer))]

    def register_notifee(self, notifee: object) -> None:
        """Nothing: gossipsub hears of members, not of connections."""

    @property
    def connections(self) -> dict[ID, list[Link]]:
        """Live links to members."""
        return {peer: self.get_connections(peer) for peer in self.get_connected_peers()}

    def get_connections(self, peer_id: ID) -> list[Any]:
        """Live links to a member."""
        links = self._host.links.get(peer_id.to_base58(), ())
        return [link for link in links if link.is_member and not link.session.closed.is_set()]

    def get_connected_peers(self) -> list[ID]:
        """Members."""
        return [
            _id_of(peer)
            for peer, links in self._host.links.items()
            if any(link.is_member for link in links)
        ]

    def get_addrs(self) -> list[Multiaddr]:
        """Where others can dial this node."""
        own = [address.of(self._host.me) for address in self._host.announced()]
        if own != self._announced[0]:
            self._announced = (own, envelopes.multiaddrs(own))
            self.peerstore.set_local_record(
                create_signed_peer_record(
                    self._id, self._announced[1], self._host.keys.pair.private_key
                )
            )
        return list(self._announced[1])

    get_transport_addrs = get_addrs

    def set_stream_handler(self, protocol: str, handler: Callable[[Any], Awaitable[None]]) -> None:
        """Serve one of libp2p's protocols to members."""

        async def serve(stream: MuxedStream) -> None:
            await handler(ForeignStream(stream))

        self._host.serving.handle(str(protocol), serve, members_only=True, limit=FOREIGN_STREAMS)

    async def new_stream(self, peer_id: ID, protocols: Sequence[str]) -> ForeignStream:
        """Open a stream to a member, dialling it if need be."""
        peer = peer_id.to_base58()
        try:
            link = self._host.link_to(peer) or await self._reach(peer)
            member = await link.settled()
            if member:
                stream = await link.open([str(each) for each in protocols])
        except UnreachableError as error:
            raise SwarmException(str(error)) from error
        if not member:
            message = f"{peer} is no member of this network"
            raise SwarmException(message)
        return ForeignStream(stream)


class Supervisor(InternalManagerAPI):
    """Runs a service of libp2p's: an exception in one of its tasks is noted and ends that task only.

    libp2p's own manager lets it end the service, and with it the whole `trio.run`.

    Args:
        service: One of libp2p's.
        fault: Called with each exception.
    """

    def __init__(self, service: Any, fault: Callable[[str, Exception], None]) -> None:  # noqa: ANN401 - libp2p's
        self._service = service
        self._fault = fault
        self._nursery: trio.Nursery | None = None
        self._over = trio.Event()
        service._manager = self

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                self.run_task(self._service.run)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._over.set()

    async def _guarded(
        self, function: Callable[..., Awaitable[Any]], args: tuple[Any, ...], *, again: bool
    ) -> None:
        while True:
            try:
                await function(*args)
            except Exception as error:  # noqa: BLE001 - the reason for this class
                self._fault(getattr(function, "__qualname__", "task"), error)
            if not again:
                return
            await trio.sleep(RESTART_S)

    def run_task(
        self,
        async_fn: Callable[..., Awaitable[Any]],
        *args: Any,  # noqa: ANN401 - libp2p's signature
        daemon: bool = False,
        name: str | None = None,
    ) -> None:
        """Start a task."""
        del name
        if self._nursery is not None:
            self._nursery.start_soon(lambda: self._guarded(async_fn, args, again=daemon))

    def run_daemon_task(
        self,
        async_fn: Callable[..., Awaitable[Any]],
        *args: Any,  # noqa: ANN401 - libp2p's signature
        name: str | None = None,
    ) -> None:
        """Start a task that starts again when it ends."""
        self.run_task(async_fn, *args, daemon=True, name=name)

    def run_child_service(self, service: Any, daemon: bool = False, name: str | None = None) -> Any:  # noqa: ANN401 - libp2p's signature
        """Start a service under this one."""
        del daemon, name
        child = Supervisor(service, self._fault)
        self.run_task(child.run)
        return child

    def run_daemon_child_service(self, service: Any, name: str | None = None) -> Any:  # noqa: ANN401 - libp2p's signature
        """Start a service under this one."""
        return self.run_child_service(service, name=name)

    @property
    def is_started(self) -> bool:
        """It has been run."""
        return self._nursery is not None or self._over.is_set()

    @property
    def is_running(self) -> bool:
        """It runs."""
        return self._nursery is not None

    @property
    def is_cancelled(self) -> bool:
        """It has ended."""
        return self._over.is_set()

    is_finished = is_cancelled

    @property
    def did_error(self) -> bool:
        """Never: errors are noted."""
        return False

    async def wait_started(self) -> None:
        """At once."""
        await trio.lowlevel.checkpoint()

    async def wait_finished(self) -> None:
        """Wait for the end."""
        await self._over.wait()

    def cancel(self) -> None:
        """End it."""
        if self._nursery is not None:
            self._nursery.cancel_scope.cancel()

    async def stop(self) -> None:
        """End it."""
        self.cancel()
        await trio.lowlevel.checkpoint()

    @property
    def stats(self) -> Any:  # noqa: ANN401 - libp2p's
        """None are kept."""
        return None
