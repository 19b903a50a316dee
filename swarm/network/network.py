"""The door to the peers: connections, members, streams, topics and provider records in one place.

Implements `protocols.transport.Transport` over the host, gossipsub and Kademlia of this folder, and keeps looking for peers.
"""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any

import psutil
import structlog
import trio

from protocols import signing
from protocols.handshake.core import Standing
from protocols.transport import UnreachableError
from swarm.network import addresses
from swarm.network.addresses import Address, AddressError
from swarm.network.facade import Facade
from swarm.network.gossip import Gossip
from swarm.network.host import GREET_S, Host
from swarm.network.peerbook import MAX_FILE_BYTES, Entry, PeerBook
from swarm.network.routers import Routers
from swarm.network.routing import Routing
from swarm.network.secure import Keys
from swarm.network.settings import NetworkSettings, PeerInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_typing import TaskStatus

    from protocols.handshake.messages import Hello
    from protocols.signing import Signer
    from protocols.transport import Handler
    from storage.cid import Cid
    from swarm.network.host import Link
    from swarm.network.muxer import MuxedStream

PARALLEL_DIALS = 8
"""Peers tried at once in the search for members."""
PARALLEL_ADDRESSES = 4
"""Addresses of one peer tried at once."""
RELAY_PATIENCE_S = 0.5
"""That the direct addresses of a peer are ahead of those through relays."""
ASKING_LINKS = 3
"""Connections that a node without a genesis holds."""
TICK_S = 1.0
SHORTEST_S = 0.05
"""Between two looks at the peer book."""
LOOKUP_S = 2.0
"""Between two searches for peers of peers while there are too few."""
MAX_LOOKUP_S = 60.0
SAVE_S = 30.0
SAVE_AT_END_S = 1.0
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
        self._facade = Facade(self._host, self._reach_near)
        self._gossip = Gossip(self._facade, self._host.note_misbehaviour)
        self._routing = Routing(self._facade, self.peers, self._is_known)
        self._routers = Routers(
            self._host, settings, self._find_interfaces, self._found_nearby, self._moved
        )
        self._known: OrderedDict[str, None] = OrderedDict()
        self._book = PeerBook(self._host.me)
        self._dialling: dict[str, trio.Event] = {}
        self._file_problem = ""
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        for text in settings.bootstrap:
            address = addresses.parse(text)
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
        self._wake.set()

    def addresses(self) -> list[str]:
        """Where others can dial this node, `/ip4/…/tcp/…/p2p/<me>`."""
        return [str(address.of(self.me)) for address in self._host.announced()]

    def peers(self) -> list[str]:
        """See `protocols.transport.Transport`."""
        return [
            peer
            for peer, links in self._host.links.items()
            if any(link.is_member and not link.session.closed.is_set() for link in links)
        ]

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
        if self._file_problem:
            found.append(self._file_problem)
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
        await self._load()
        await self._host.bind()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await nursery.start(self._host.run)
                await nursery.start(self._gossip.run)
                nursery.start_soon(self._routing.run)
                nursery.start_soon(self._discover)
                nursery.start_soon(self._routers.run)
                nursery.start_soon(self._save_often)
                if self._host.listening:
                    log.info("network.listening", addresses=self.addresses())
                task_status.started()
        finally:
            self._nursery = None
            with trio.CancelScope(deadline=trio.current_time() + SAVE_AT_END_S, shield=True):
                await self._save()

    def _mine(self) -> Hello:
        return replace(
            self._hello(),
            chain_id=self._host.chain_id,
            addresses=tuple(str(address) for address in self._host.announced()),
        )

    def _find_interfaces(self) -> list[str]:
        now = trio.current_time()
        if now - self._interfaces[0] > INTERFACES_S:
            found = [
                entry.address
                for entries in psutil.net_if_addrs().values()
                for entry in entries
                if entry.family.name in {"AF_INET", "AF_INET6"}
            ]
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
            self._nursery.start_soon(self._routing.member_joined, link.peer)
        self._gossip.member_joined(link.peer)
        self._routers.member_joined(link)
        self._wake.set()

    def _told(self, link: Link) -> None:
        """A member has said where it can be reached, for the first time or anew."""
        if link.is_member:
            self._learn(link)

    def _found_nearby(self, address: Address) -> None:
        self._book.learn(address.peer, [address])
        self._wake.set()

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
        if link.dialled:
            found.append(link.wire.remote)
        self._book.learn(link.peer, found, member=link.is_member)
        if found:
            self._facade.learn(link.peer, found)

    def _member_lost(self, peer: str) -> None:
        log.info("network.member_lost", peer=peer)
        self._gossip.member_lost(peer)
        self._book.lost(peer, trio.current_time())
        self._wake.set()

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
        await self._greeted(link)
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

    async def _greeted(self, link: Link) -> None:
        with trio.move_on_after(GREET_S):
            await link.greeted.wait()
        if link.hello is None:
            link.session.close("no handshake")
            raise UnreachableError(link.peer, f"no handshake: {link.session.reason}")

    async def _dial_any(self, who: str, found: list[Address]) -> Link:
        """Dial addresses in parallel; the first that answers wins."""
        reasons: list[str] = []
        links: list[Link] = []

        async def attempt(address: Address) -> None:
            if address.relay is not None:
                # The direct ones go first: a relay gives few bytes.
                await trio.sleep(RELAY_PATIENCE_S)
            try:
                links.append(await self._host.dial(address))
            except UnreachableError as error:
                reasons.append(error.why)
            else:
                nursery.cancel_scope.cancel()

        for start in range(0, len(found), PARALLEL_ADDRESSES):
            async with trio.open_nursery() as nursery:
                for address in found[start : start + PARALLEL_ADDRESSES]:
                    nursery.start_soon(attempt, address)
            if links:
                for late in links[1:]:
                    late.session.close("another address was quicker")
                return links[0]
        raise UnreachableError(who, reasons[-1] if reasons else "no address of it is known")

    async def _reach(self, peer: str, *, far: bool) -> Link:
        """A live link to a peer, dialled if need be; many callers share one attempt."""
        if peer == self.me:
            raise UnreachableError(peer, "it is this node")
        try:
            signing.public_key(peer)
        except ValueError as error:
            raise UnreachableError(peer, str(error)) from error
        found = self._book.addresses_of(peer)
        if not found:
            # The search itself may connect to the peer, so it comes before the attempt is announced.
            texts = await self._routing.addresses_of(peer) if far else self._facade.known(peer)
            found = [addresses.parse(text).of(peer) for text in texts]
        while (other := self._dialling.get(peer)) is not None:
            await other.wait()
        if (link := self._host.link_to(peer)) is not None:
            return link
        done = self._dialling[peer] = trio.Event()
        try:
            try:
                link = await self._dial_any(peer, found)
                await self._greeted(link)
            except UnreachableError as error:
                self._book.failed(peer, error.why, trio.current_time(), random.random())  # noqa: S311 - spreads retries
                raise
            self._book.succeeded(peer, peer, trio.current_time())
            return link
        finally:
            del self._dialling[peer]
            done.set()

    async def _reach_near(self, peer: str) -> Link:
        """For gossipsub and Kademlia: no search, and no peer that failed a moment ago."""
        if self._book.is_resting(peer, trio.current_time()):
            raise UnreachableError(peer, "it did not answer a moment ago")
        return await self._reach(peer, far=False)

    # Looking for peers.

    async def _discover(self) -> None:
        """Keep enough members: given, remembered and found peers, in parallel, with growing pauses."""
        room = trio.CapacityLimiter(PARALLEL_DIALS)
        lookup_at = trio.current_time()
        lookup_wait = LOOKUP_S
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                members = self.peers()
                asking = not self._host.chain_id
                wanted = ASKING_LINKS if asking else self.settings.target_connections
                hungry = (len(self._host.links) if asking else len(members)) < wanted
                free = int(room.available_tokens)
                for entry in self._book.due(now, free, self._host.links, hungry=hungry):
                    entry.trying = True
                    nursery.start_soon(self._try, entry, room)
                if hungry and members and now >= lookup_at:
                    lookup_at = now + lookup_wait
                    lookup_wait = min(lookup_wait * 2, MAX_LOOKUP_S)
                    nursery.start_soon(self._look_up)
                self._wake = trio.Event()
                due_at = self._book.next_due(self._host.links, hungry=hungry)
                with trio.move_on_after(min(TICK_S, max(SHORTEST_S, due_at - now))):
                    await self._wake.wait()
                    lookup_wait = LOOKUP_S

    async def _try(self, entry: Entry, room: trio.CapacityLimiter) -> None:
        try:
            async with room:
                if entry.peer is None:
                    link = await self._dial_any(entry.key, list(entry.addresses))
                else:
                    link = self._host.link_to(entry.peer) or await self._dial_any(
                        entry.peer, [address.of(entry.peer) for address in entry.addresses]
                    )
                await self._greeted(link)
        except UnreachableError as error:
            log.debug("network.dial_failed", peer=entry.key, why=error.why)
            self._book.failed(entry.key, error.why, trio.current_time(), random.random())  # noqa: S311 - spreads retries
        else:
            now = trio.current_time()
            self._book.succeeded(entry.key, link.peer, now)
            if link.standing is Standing.STRANGER and link.hello is not None:
                self._book.foreign(link.peer, link.hello.chain_id.hex()[:16], now)
                link.session.close("it is of another network")
        finally:
            entry.trying = False

    async def _look_up(self) -> None:
        """Ask the members for peers near us."""
        try:
            await self._routing.closest(self._host.keys.id.to_bytes())
        except Exception as error:  # noqa: BLE001 - whatever fails in libp2p, the next search comes
            log.debug("network.lookup_failed", error=repr(error))
        for peer, texts in self._routing.known_peers():
            found = []
            for text in texts:
                with suppress(AddressError):
                    found.append(addresses.parse(text))
            self._book.learn(peer, found)
        self._wake.set()

    # Peers on disk.

    async def _load(self) -> None:
        path = self.settings.known_peers
        if path is None:
            return
        try:
            data = await trio.to_thread.run_sync(_read, path)
            if data is not None:
                self._book.load(data)
        except (OSError, ValueError) as error:
            self._file_problem = f"the known peers in {path} cannot be read: {error}"
            log.warning("network.known_peers_unreadable", path=str(path), error=str(error))

    async def _save(self) -> None:
        path = self.settings.known_peers
        if path is None or not self._book.changed:
            return
        data = self._book.dump()
        try:
            await trio.to_thread.run_sync(_write, path, data)
        except OSError as error:
            self._file_problem = f"the known peers cannot be written to {path}: {error}"
            log.warning("network.known_peers_unwritable", path=str(path), error=str(error))

    async def _save_often(self) -> None:
        while True:
            await trio.sleep(SAVE_S)
            await self._save()

    # Transport.

    def handle(self, protocol: str, handler: Handler, *, members_only: bool = True) -> None:
        """See `protocols.transport.Transport`."""
        self._host.handle(protocol, handler, members_only=members_only)

    async def open_stream(self, peer: str, protocol: str) -> MuxedStream:
        """See `protocols.transport.Transport`."""
        link = self._host.link_to(peer)
        if link is not None:
            try:
                return await self._host.open_on(link, [protocol])
            except UnreachableError:
                if not link.session.closed.is_set():
                    raise
        return await self._host.open_on(await self._reach(peer, far=True), [protocol])

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


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        return None


def _write(path: Path, data: bytes) -> None:
    """Replace a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        try:
            file.write(data)
            file.close()
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise
