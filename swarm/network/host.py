"""The live connections of a node: who is connected, and under which bounds.

Replaces libp2p's Swarm and BasicHost, whose faults cannot be reached from outside: inbound slots that are never given back,
tasks of strangers whose exceptions end the process, system tasks, and sockets that stay open.
Every task that a peer's bytes can reach is fenced here: an exception resets one stream or closes one connection.
"""

from __future__ import annotations

import socket
from collections import Counter
from typing import TYPE_CHECKING

import structlog
import trio

from protocols.handshake import core as handshake_core
from protocols.handshake import messages as handshake_messages
from protocols.handshake import service as handshake_service
from protocols.handshake.core import Standing
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from swarm.network import addresses, identify
from swarm.network.dialling import Dialling
from swarm.network.faults import Offenders
from swarm.network.link import GREET_S, OPEN_S, Link
from swarm.network.listening import listeners
from swarm.network.multistream import NotSpokenError
from swarm.network.muxer import Session
from swarm.network.outsiders import Outsiders
from swarm.network.serving import Serving
from swarm.network.wire import Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_typing import TaskStatus

    from protocols.handshake.messages import Hello
    from swarm.network.addresses import Address
    from swarm.network.muxed_stream import MuxedStream
    from swarm.network.secure import Keys
    from swarm.network.settings import NetworkSettings

UPGRADE_S = 10.0
"""For an inbound connection to become one."""
MAX_UPGRADING = 64
"""Inbound connections that have not proven who they are."""
MAX_LINKS_PER_PEER = 4
ACCEPT_PAUSE_S = 0.2
"""When the machine is out of file descriptors."""

log = structlog.get_logger("swarm.network")


class Host:
    """Listens, dials, and holds the links.

    Args:
        keys: This node's.
        settings: Addresses and bounds.
        mine: This node's Hello as of now.
        interfaces: IP addresses of this machine.
    """

    def __init__(
        self,
        keys: Keys,
        settings: NetworkSettings,
        mine: Callable[[], Hello],
        interfaces: Callable[[], list[str]],
    ) -> None:
        self.keys = keys
        self.me = keys.id.to_base58()
        self.chain_id = b""
        self.links: dict[str, list[Link]] = {}
        self.offenders = Offenders()
        self.outsiders = Outsiders(self.links, settings.max_outsiders)
        self.faults: Counter[str] = Counter()
        self.on_member: list[Callable[[Link], None]] = []
        self.on_told: list[Callable[[Link], None]] = []
        self.on_lost: list[Callable[[str], None]] = []
        self.more_addresses: Callable[[], list[Address]] = list
        self.listening: list[Address] = []
        self._settings = settings
        self._mine = mine
        self._interfaces = interfaces
        self.dialling = Dialling(lambda: self.listening, self._upgrade, settings.traffic)
        self.serving = Serving(
            self.outsiders, settings.traffic, self.faults, self.note_misbehaviour
        )
        self._nursery: trio.Nursery | None = None
        self._listeners: list[trio.SocketListener] = []
        self._per_ip: Counter[str] = Counter()
        self._live = 0
        self._upgrading = 0
        self._changed = trio.Event()
        self._linked = trio.Event()
        self.serving.handle(handshake_messages.PROTOCOL, self._answer, members_only=False, limit=1)
        self.serving.handle(identify.PROTOCOL, self._identify_to, members_only=False, limit=2)
        self.serving.handle(
            identify.PING_PROTOCOL, identify.answer_pings, members_only=False, limit=2
        )

    # Listening.

    async def run(self, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the links until cancelled; no socket is left open. `bind` comes before."""
        listeners = self._listeners
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for listener in listeners:
                    nursery.start_soon(self._accept_all, listener)
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            for listener in listeners:
                listener.socket.close()
            self.listening = []
            self._listeners = []
            for links in list(self.links.values()):
                for link in list(links):
                    link.session.close("this node is stopping")

    async def bind(self) -> None:
        """Take the addresses to listen on.

        Raises:
            NetworkError: One of them cannot be had.
        """
        self._listeners = await listeners(self._settings.listen)
        for listener in self._listeners:
            # Set after the bind, which has failed if another node listens here; lets connections leave from this port.
            listener.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            host, port = listener.socket.getsockname()[:2]
            self.listening.append(addresses.of_socket(host, port))

    def announced(self) -> list[Address]:
        """Where others can dial this node, without its peer id."""
        found: dict[Address, None] = {}
        for text in self._settings.announce:
            found[addresses.parse(text).bare] = None
        found |= dict.fromkeys(self.more_addresses())
        for bound in self.listening:
            for address in addresses.expand(bound, self._interfaces()):
                found[address] = None
        return list(found)[: handshake_messages.MAX_ADDRESSES]

    async def _accept_all(self, listener: trio.SocketListener) -> None:
        while True:
            try:
                stream = await listener.accept()
            except trio.ClosedResourceError:
                return
            except OSError as error:
                log.warning("network.accept_failed", error=str(error))
                await trio.sleep(ACCEPT_PAUSE_S)
                continue
            self._start(self._welcome, stream)

    def _start(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self.fence, function, *args)

    async def fence(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run one peer's work; an exception is said in the log and goes no further."""
        try:
            await function(*args)
        except Exception as error:  # noqa: BLE001 - nothing that one peer causes may end the node
            self.faults[type(error).__name__] += 1
            log.warning("network.task_failed", task=function.__qualname__, error=repr(error))

    async def _welcome(self, stream: trio.SocketStream) -> None:
        """An inbound connection, from accept to its end."""
        try:
            wire = Wire(stream, is_initiator=False, traffic=self._settings.traffic)
        except (OSError, ValueError):
            stream.socket.close()
            return
        await self.welcome(wire)

    async def welcome(self, wire: Wire) -> None:
        """A connection of which the other side is the client, to its end: accepted, punched, or through a relay."""
        ip = wire.remote.host
        free = addresses.is_loopback(ip)
        if (
            (not self.has_room and not self.outsiders.make_room())
            or self._upgrading >= MAX_UPGRADING
            or (not free and self._per_ip[ip] >= self._settings.max_connections_per_ip)
        ):
            self.faults["connection refused: full"] += 1
            wire.close_now()
            return
        self._live += 1
        self._per_ip[ip] += 1
        try:
            self._upgrading += 1
            try:
                with trio.fail_after(UPGRADE_S):
                    link = await self._upgrade(wire, None)
            finally:
                self._upgrading -= 1
            await self._hold(link)
        except (RemoteProtocolError, WireError, trio.TooSlowError) as error:
            self.faults["inbound connection failed"] += 1
            log.debug("network.inbound_failed", address=str(wire.remote), error=str(error))
        finally:
            wire.close_now()
            self._live -= 1
            self._per_ip[ip] -= 1
            if not self._per_ip[ip]:
                del self._per_ip[ip]

    async def _upgrade(self, wire: Wire, peer: str | None) -> Link:
        secured = await self.keys.secure(wire, peer)
        if peer is not None and secured.peer != peer:
            message = f"{secured.peer} answered where {peer} was expected"
            raise RemoteProtocolError(message)
        if secured.peer == self.me:
            message = "this is our own address"
            raise RemoteProtocolError(message)
        now = trio.current_time()
        if self.offenders.is_refused(secured.peer, now):
            message = f"{secured.peer} is refused for a while: it misbehaved"
            raise RemoteProtocolError(message)
        others = self.links.get(secured.peer, [])
        if len(others) >= MAX_LINKS_PER_PEER:
            others[0].session.close("the peer has newer connections")
        session = Session(
            secured.channel,
            secured.peer,
            opener=wire.is_initiator,
            on_stream=lambda stream: self._start(self.serving.serve, link, stream),
            traffic=wire.traffic,
        )
        link = Link(wire, secured.peer, session, now)
        self.links.setdefault(secured.peer, []).append(link)
        self._linked.set()
        self._linked = trio.Event()
        return link

    async def _hold(self, link: Link) -> None:
        """Run a link until its end."""
        try:
            async with trio.open_nursery() as nursery:
                if link.dialled:
                    nursery.start_soon(self.fence, self._greet, link)
                else:
                    nursery.start_soon(self.fence, self._await_greeting, link)
                nursery.start_soon(self.fence, self.outsiders.watch, link)
                await link.session.run()
                nursery.cancel_scope.cancel()
        finally:
            self._drop(link)

    def _drop(self, link: Link) -> None:
        link.session.close("this node closed the connection")
        link.greeted.set()
        link.judged.set()
        links = self.links.get(link.peer, [])
        if link in links:
            links.remove(link)
        if not links:
            self.links.pop(link.peer, None)
        log.debug("network.link_lost", peer=link.peer, reason=link.session.reason)
        if link.is_member and not any(other.is_member for other in links):
            for callback in self.on_lost:
                callback(link.peer)

    # The handshake.

    def say_hello(self) -> None:
        """Tell every peer at once what has changed, instead of at the next refresh."""
        self._changed.set()
        self._changed = trio.Event()
        for links in self.links.values():
            for link in links:
                if link.hello is not None:
                    self._judge(link, link.hello)

    async def _greet(self, link: Link) -> None:
        try:
            stream = await link.open([handshake_messages.PROTOCOL])
            await self._converse(link, stream, opener=True)
        except (UnreachableError, StreamError) as error:
            is_other_kind = isinstance(error.__cause__, NotSpokenError)
            if not (link.may_be_outsider and is_other_kind and self.outsiders.admit(link)):
                link.session.close(f"no handshake: {error}")

    async def _await_greeting(self, link: Link) -> None:
        with trio.move_on_after(GREET_S):
            await link.greeted.wait()
        if link.hello is None and not link.is_outsider:
            link.session.close(f"no handshake for {GREET_S:g} s")

    # Identify.

    async def _identify_to(self, stream: MuxedStream) -> None:
        link = self.link_of(stream)
        if link is not None:
            served = self.serving.told_to(link)
            key = self.keys.pair.public_key.serialize()
            agent = self._mine().software
            await stream.send_all(
                identify.told(key, agent, self.announced(), served, link.wire.remote)
            )

    async def identify(self, link: Link) -> identify.Identity:
        """Ask a peer for its software and its protocols.

        Raises:
            UnreachableError: It does not say.
        """
        stream = await link.open([identify.PROTOCOL])
        try:
            with trio.fail_after(OPEN_S):
                found = await identify.ask(stream)
        except trio.TooSlowError:
            raise UnreachableError(link.peer, f"no identity within {OPEN_S:g} s") from None
        except (StreamError, RemoteProtocolError) as error:
            raise UnreachableError(link.peer, str(error)) from error
        finally:
            await stream.reset()
        link.agent = found.agent
        return found

    def link_of(self, stream: MuxedStream) -> Link | None:
        """The link that a stream belongs to."""
        links = self.links.get(stream.peer, ())
        return next((link for link in links if link.session is stream.session), None)

    async def _answer(self, stream: MuxedStream) -> None:
        link = self.link_of(stream)
        if link is None or link.dialled or link.hello is not None:
            await stream.reset()
            return
        await self._converse(link, stream, opener=False)

    async def _converse(self, link: Link, stream: MuxedStream, *, opener: bool) -> None:
        try:
            await handshake_service.converse(
                stream,
                opener=opener,
                mine=self._mine,
                heard=lambda hello: self._judge(link, hello),
                changed=lambda: self._changed,
            )
            link.session.close("the peer ended the handshake")
        except RemoteProtocolError as error:
            self.note_misbehaviour(link.peer, str(error))
            link.session.close(str(error))
        except StreamError as error:
            link.session.close(str(error))

    def _judge(self, link: Link, hello: Hello) -> None:
        before = link.standing
        first = link.hello is None
        link.hello = hello
        link.is_outsider = False
        link.standing = handshake_core.standing(self.chain_id, hello.chain_id)
        link.greeted.set()
        link.judged.set()
        link.judged = trio.Event()
        for told in self.on_told:
            told(link)
        if link.is_member and (first or before is not Standing.MEMBER):
            self._supersede(link)
            for member in self.on_member:
                member(link)
        if not link.is_member:
            if before is Standing.MEMBER and not any(
                other.is_member for other in self.links.get(link.peer, ())
            ):
                for lost in self.on_lost:
                    lost(link.peer)
            strangers = sum(
                not other.is_member and not other.is_outsider
                for links in self.links.values()
                for other in links
            )
            if first and strangers > self._settings.max_strangers:
                link.session.close("too many peers of other networks")

    def _supersede(self, newer: Link) -> None:
        """Close what a member dialled long before: who dials anew has lost it, and this side would wait for `SILENCE_S`."""
        for link in () if newer.dialled else self.links.get(newer.peer, ()):
            is_alike = not link.dialled and link.is_relayed == newer.is_relayed
            if is_alike and newer.since - link.since > GREET_S:
                link.session.close("the peer has connected anew")

    def note_misbehaviour(self, peer: str, reason: str) -> None:
        """Remember what a peer did; after several times it is disconnected and refused for a while."""
        log.info("network.misbehaviour", peer=peer, reason=reason)
        if self.offenders.note(peer, reason, trio.current_time()):
            log.warning("network.peer_refused", peer=peer, reason=reason)
            self.disconnect(peer, f"it misbehaved: {reason}")

    def disconnect(self, peer: str, why: str) -> None:
        """Close every connection to a peer."""
        for link in list(self.links.get(peer, ())):
            link.session.close(why)

    def stop_serving(self, is_refused: Callable[[str], bool]) -> None:
        """Break off what is being served in some protocols."""
        for links in self.links.values():
            for stream in (one for link in links for one in link.session.streams):
                if stream.inbound and is_refused(stream.protocol):
                    stream.break_off("this node does not serve now")

    # Outbound.

    def link_to(self, peer: str) -> Link | None:
        """The best live connection to a peer: a member's before others, direct before relayed, the newest of equals."""
        live = [link for link in self.links.get(peer, ()) if not link.session.closed.is_set()]
        if not live:
            return None
        return max(
            live,
            key=lambda link: (
                link.is_member,
                link.hello is not None,
                not link.is_relayed,
                link.since,
            ),
        )

    def members(self) -> list[str]:
        """Connected peers that have shown our chain id."""
        return [
            peer
            for peer, links in self.links.items()
            if any(link.is_member and not link.session.closed.is_set() for link in links)
        ]

    def direct_to(self, peer: str) -> Link | None:
        """The newest live connection to a peer that goes through no relay."""
        live = [
            link
            for link in self.links.get(peer, ())
            if not link.is_relayed and not link.session.closed.is_set()
        ]
        return max(live, key=lambda link: link.since, default=None)

    async def wait_for_direct(self, peer: str) -> None:
        """Wait until there is one."""
        while self.direct_to(peer) is None:
            await self._linked.wait()

    @property
    def has_room(self) -> bool:
        """Whether one more connection fits."""
        return self._live < self._settings.max_connections

    async def dial(self, address: Address, *, outsider: bool = False) -> Link:
        """Connect to one address; the link has not been greeted yet.

        Args:
            address: Where.
            outsider: Keep the connection too if the peer speaks no handshake of ours.

        Raises:
            UnreachableError: See `Dialling.dial`, or no connection more fits.
        """
        who = address.peer or str(address)
        nursery = self._nursery
        if nursery is None:
            raise UnreachableError(who, "the network is not running")
        if not self.has_room and not self.outsiders.make_room():
            raise UnreachableError(who, f"{self._live} connections are open")
        self._live += 1
        try:
            link = await self.dialling.dial(address)
        except BaseException:
            self._live -= 1
            raise
        link.may_be_outsider = outsider
        nursery.start_soon(self._hold_dialled, link)
        return link

    def punched(self, stream: trio.SocketStream, peer: str, *, is_client: bool) -> None:
        """Take a connection that both sides have opened at once; who is its client, was agreed on before."""
        try:
            wire = Wire(stream, is_initiator=is_client, traffic=self._settings.traffic)
        except (OSError, ValueError):
            stream.socket.close()
            return
        if is_client:
            self._start(self._take, wire, peer)
        else:
            self._start(self.welcome, wire)

    async def _take(self, wire: Wire, peer: str) -> None:
        self._live += 1
        try:
            with trio.fail_after(UPGRADE_S):
                link = await self._upgrade(wire, peer)
            await self._hold(link)
        except (RemoteProtocolError, WireError, trio.TooSlowError) as error:
            log.debug("network.punched_in_vain", address=str(wire.remote), error=str(error))
        finally:
            wire.close_now()
            self._live -= 1

    async def _hold_dialled(self, link: Link) -> None:
        try:
            await self.fence(self._hold, link)
        finally:
            link.wire.close_now()
            self._live -= 1
