"""The door to the peers: connections, members, streams, topics and provider records in one place.

Implements `protocols.transport.Transport` over the host, gossipsub and Kademlia of this folder, and keeps looking for peers.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psutil
import structlog
import trio

from protocols.transport import UnreachableError
from swarm.errors import NetworkError
from swarm.network import addresses
from swarm.network.addresses import Address, AddressError
from swarm.network.facade import Facade
from swarm.network.gossip import Gossip
from swarm.network.host import Host
from swarm.network.known_peers import KnownPeers
from swarm.network.link import GREET_S
from swarm.network.peerbook import MAX_ADDRESSES, PeerBook
from swarm.network.routers import Routers
from swarm.network.routing import Routing
from swarm.network.search import Search, greeted
from swarm.network.secure import Keys
from swarm.network.settings import NetworkSettings, PeerInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_typing import TaskStatus

    from protocols.handshake.messages import Hello
    from protocols.signing import Signer
    from protocols.transport import Handler
    from storage.cid import Cid
    from swarm.network.link import Link
    from swarm.network.muxed_stream import MuxedStream

INTERFACES_S = 30.0
MAX_KNOWN = 4096
"""Peers remembered as members of this run."""

log = structlog.get_logger("swarm.network")


class Network:
    """A node's network; implements `protocols.transport.Transport`.

    Args:
        settings: Addresses and bounds.
        signer: The node's one key.
        chain_id: Of the network, 32 bytes; empty to ask peers for theirs first.
        hello: What the node says of itself now; chain id and addresses are filled in here.

    Raises:
        NetworkError: An address to dial at first is one that nobody can dial, such as one of port 0.
    """

    def __init__(
        self,
        settings: NetworkSettings,
        signer: Signer,
        chain_id: bytes,
        hello: Callable[[], Hello],
    ) -> None:
        self.settings = settings
        self._hello = hello
        self._interfaces: tuple[float, list[str]] = (-math.inf, [])
        self._host = Host(Keys(signer), settings, self._mine, self._find_interfaces)
        self._host.chain_id = chain_id
        self._host.on_member.append(self._member_joined)
        self._host.on_told.append(self._told)
        self._host.on_lost.append(self._member_lost)
        self._facade = Facade(self._host, lambda peer: self._search.reach_near(peer))
        self._gossip = Gossip(self._facade, self._host.note_misbehaviour)
        self._routing = Routing(self._facade, self.peers, self._is_known)
        self._routers = Routers(
            self._host, settings, self._find_interfaces, self._found_nearby, self._moved
        )
        self._known: OrderedDict[str, None] = OrderedDict()
        self._book = PeerBook(self._host.me)
        self._on_disk = KnownPeers(self._book, settings.known_peers)
        self._search = Search(self._host, self._book, self._facade, self._routing, settings)
        self._nursery: trio.Nursery | None = None
        for text in settings.bootstrap:
            address = addresses.parse(text)
            if address.peer is None and not addresses.is_dialable(address):
                message = f"{text} cannot be dialled"
                raise NetworkError(message, "name the port and the address of one machine")
            self._book.learn(address.peer, [address], given=True)

    def stop_serving(self) -> None:
        """Break off what is being served, as far as `settings.traffic` refuses it."""
        if (traffic := self.settings.traffic) is not None:
            self._host.stop_serving(traffic.refuses)

    # What a node sees.

    @property
    def me(self) -> str:
        """This node."""
        return self._host.me

    @property
    def chain_id(self) -> bytes:
        """Of the network; empty while asking."""
        return self._host.chain_id

    def adopt(self, chain_id: bytes) -> None:
        """Join a network, after asking for its genesis: peers that show the same become members."""
        self._host.chain_id = chain_id
        self._host.say_hello()
        self._search.members_changed()

    def addresses(self) -> list[str]:
        """Where others can dial this node, `/ip4/…/tcp/…/p2p/<me>`."""
        return [str(address.of(self.me)) for address in self._host.announced()]

    def peers(self) -> list[str]:
        """See `protocols.transport.Transport`."""
        return self._host.members()

    def is_relayed(self, peer: str) -> bool:
        """See `protocols.transport.Transport`."""
        link = self._host.link_to(peer)
        if link is not None:
            return link.is_relayed
        known = self._book.addresses_of(peer)
        return bool(known) and all(address.relay is not None for address in known)

    def peer_info(self) -> list[PeerInfo]:
        """Every live connection, members or not, one entry a peer."""
        found = []
        for peer in list(self._host.links):
            link = self._host.link_to(peer)
            if link is None:
                continue
            hello = link.hello
            found.append(
                PeerInfo(
                    peer=peer,
                    address=str(link.wire.remote),
                    dialled=link.dialled,
                    member=link.is_member,
                    chain_id=hello.chain_id if hello else b"",
                    software=hello.software if hello else link.agent,
                    head=hello.head if hello else 0,
                    roles=hello.roles if hello else 0,
                    connected_since=link.since,
                    bytes_in=link.wire.bytes_in,
                    bytes_out=link.wire.bytes_out,
                )
            )
        return found

    def remote_chain_id(self, peer: str) -> bytes | None:
        """What a connected peer has shown; None when it is not connected or has said nothing yet."""
        link = self._host.link_to(peer)
        return None if link is None or link.hello is None else link.hello.chain_id

    def reachability(self) -> dict[str, Any]:
        """How others reach this node, as far as it can tell; see `Routers.report`."""
        return self._routers.report()

    def problems(self) -> list[str]:
        """What is wrong at the moment, in sentences for people; empty when all is well."""
        found = self._book.problems(self._host.links.keys())
        if self._on_disk.problem:
            found.append(self._on_disk.problem)
        if not self._host.has_room:
            found.append(
                f"{self.settings.max_connections} connections are open, which is the most allowed"
            )
        return found

    def say_hello(self) -> None:
        """Tell the peers at once that the head or the roles have changed."""
        self._host.say_hello()

    def note_misbehaviour(self, peer: str, reason: str) -> None:
        """Remember what a peer did; when it goes on it is disconnected and refused for a while."""
        self._host.note_misbehaviour(peer, reason)

    # Running.

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen, look for peers and serve until cancelled; leaves no socket open.

        Raises:
            NetworkError: An address to listen on cannot be had.
        """
        await self._on_disk.load()
        await self._host.bind()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._gossip.run)  # before the first member can join
                await nursery.start(self._host.run)
                nursery.start_soon(self._routing.run)
                nursery.start_soon(self._search.run)
                nursery.start_soon(self._routers.run)
                nursery.start_soon(self._on_disk.run)
                if self._host.listening:
                    log.info("network.listening", addresses=self.addresses())
                task_status.started()
        finally:
            self._nursery = None
            await self._on_disk.save_at_end()

    def _mine(self) -> Hello:
        return replace(
            self._hello(),
            chain_id=self._host.chain_id,
            addresses=tuple(str(address) for address in self._host.announced()),
        )

    def _find_interfaces(self) -> list[str]:
        now = trio.current_time()
        if now - self._interfaces[0] > INTERFACES_S:
            found = self._interfaces[1]
            try:
                found = [
                    entry.address
                    for entries in psutil.net_if_addrs().values()
                    for entry in entries
                    if entry.family.name in {"AF_INET", "AF_INET6"}
                ]
            except OSError as error:  # no file descriptor is left: they are as they were
                log.warning("network.interfaces_unknown", error=str(error))
            self._interfaces = (now, found)
        return self._interfaces[1]

    # Members come and go.

    def _is_known(self, peer: str) -> bool:
        return peer in self._known

    def _member_joined(self, link: Link) -> None:
        self._known[link.peer] = None
        self._known.move_to_end(link.peer)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        log.info("network.member_joined", peer=link.peer, address=str(link.wire.remote))
        if self._nursery is not None:
            self._nursery.start_soon(self._host.fence, self._routing.member_joined, link.peer)
        self._gossip.member_joined(link.peer)
        self._routers.member_joined(link)
        self._search.members_changed()

    def _told(self, link: Link) -> None:
        """A member has said where it can be reached, for the first time or anew."""
        if link.is_member:
            self._learn(link)

    def _found_nearby(self, address: Address) -> None:
        if address.peer is not None and address not in self._book.addresses_of(address.peer):
            self._book.learn(address.peer, [address])
            self._search.look_again()

    def _moved(self, peer: str) -> None:
        """A peer's relayed connection is gone, and a direct one is there: its gossip moves."""
        if peer in self.peers():
            self._gossip.member_lost(peer)
            self._gossip.member_joined(peer)

    def _learn(self, link: Link) -> None:
        """Where the peer says it listens, and where it was found."""
        found: list[Address] = []
        for text in link.hello.addresses if link.hello else ():
            with suppress(AddressError):
                address = addresses.parse(text)
                near = addresses.is_loopback(link.wire.remote.host)
                if near or not addresses.is_loopback(address.host):
                    found.append(address)
        # It tells the best first, and the book's last is dialled first.
        found = found[MAX_ADDRESSES - 2 :: -1]
        if link.dialled:
            found.append(link.wire.remote)
        self._book.learn(link.peer, found, member=link.is_member)
        if found:
            self._facade.learn(link.peer, found)

    def _member_lost(self, peer: str) -> None:
        log.info("network.member_lost", peer=peer)
        self._gossip.member_lost(peer)
        self._routers.member_lost()
        self._book.lost(peer, trio.current_time())
        self._search.members_changed()

    # Dialling.

    async def connect(self, address: str) -> str:
        """Connect to an address and wait for the peer's Hello.

        Args:
            address: `/ip4/…/tcp/…`, best with `/p2p/<peer id>`.

        Returns:
            The peer id.

        Raises:
            AddressError: Not such an address.
            UnreachableError: Nobody answers there, another peer does, or it does not greet.
        """
        target = addresses.parse(address)
        link = None if target.peer is None else self._host.link_to(target.peer)
        if link is None:
            link = await self._host.dial(target)
        await greeted(link)
        self._book.learn(link.peer, [target.of(link.peer)])
        return link.peer

    async def connect_outsider(self, address: str) -> str:
        """Connect to a node of any kind that exchanges chunks by Bitswap; one of our kind is greeted too.

        Args:
            address: `/ip4/…/tcp/…`, best with `/p2p/<peer id>`.

        Returns:
            The peer id.

        Raises:
            AddressError: Not such an address.
            UnreachableError: Nobody answers there, another peer does, or it breaks the handshake.
        """
        target = addresses.parse(address)
        link = None if target.peer is None else self._host.link_to(target.peer)
        if link is None:
            link = await self._host.dial(target, outsider=True)
        with trio.move_on_after(GREET_S):
            await link.greeted.wait()
        if link.session.closed.is_set() or not link.greeted.is_set():
            link.session.close("no handshake")
            raise UnreachableError(link.peer, link.session.reason)
        if link.is_outsider and not link.agent:
            with suppress(UnreachableError):
                found = await self._host.identify(link)
                log.info("network.outsider", peer=link.peer, software=found.agent)
        return link.peer

    # Transport.

    def handle(self, protocol: str, handler: Handler, *, members_only: bool = True) -> None:
        """See `protocols.transport.Transport`."""
        self._host.serving.handle(protocol, handler, members_only=members_only)

    async def open_stream(self, peer: str, protocol: str) -> MuxedStream:
        """See `protocols.transport.Transport`."""
        link = self._host.link_to(peer)
        if link is not None:
            try:
                return await link.open([protocol])
            except UnreachableError:
                if not link.session.closed.is_set():
                    raise
        link = await self._search.reach(peer, far=True)
        return await link.open([protocol])

    async def publish(self, topic: str, data: bytes) -> None:
        """See `protocols.transport.Transport`."""
        await self._gossip.publish(topic, data)

    def subscribe(self, topic: str) -> trio.MemoryReceiveChannel[tuple[str, bytes]]:
        """See `protocols.transport.Transport`."""
        return self._gossip.subscribe(topic)

    async def provide(self, cid: Cid) -> None:
        """See `protocols.transport.Transport`; the first announcement is under way when it returns."""
        await trio.lowlevel.checkpoint()
        self._routing.provide(cid)

    async def find_providers(self, cid: Cid, limit: int = 8) -> list[str]:
        """See `protocols.transport.Transport`."""
        return await self._routing.find_providers(cid, limit)
