"""The live connections of a node: who is connected, under which bounds, and which streams are served to whom.

Replaces libp2p's Swarm and BasicHost, whose faults cannot be reached from outside: inbound slots that are never given back,
tasks of strangers whose exceptions end the process, system tasks, and sockets that stay open.
Every task that a peer's bytes can reach is fenced here: an exception resets one stream or closes one connection.
"""

from __future__ import annotations

import errno
import socket
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import structlog
import trio

from protocols.handshake import core as handshake_core
from protocols.handshake import messages as handshake_messages
from protocols.handshake import service as handshake_service
from protocols.handshake.core import Standing
from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from swarm.errors import NetworkError
from swarm.network import addresses, identify, multistream
from swarm.network.faults import Offenders
from swarm.network.multistream import NotSpokenError
from swarm.network.muxer import MuxedStream, Session
from swarm.network.outsiders import Outsiders
from swarm.network.wire import Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection

    from trio_typing import TaskStatus

    from protocols.handshake.messages import Hello
    from swarm.network.addresses import Address
    from swarm.network.secure import Keys
    from swarm.network.settings import NetworkSettings

    StreamHandler: TypeAlias = Callable[[MuxedStream], Awaitable[None]]

DIAL_S = 5.0
"""For one address: TCP, Noise and the choice of a muxer."""
UPGRADE_S = 10.0
"""For an inbound connection to become one."""
GREET_S = 10.0
"""For a new connection's first Hello."""
ASKING_S = 2.0
"""For a peer that asks to become a member, when it opens a stream for members."""
NEGOTIATE_S = 15.0
"""For a stream to choose its protocol."""
OPEN_S = 15.0
"""For this node to open a stream on a live connection."""
FLUSH_S = 120.0
"""After a handler is done, for what it has written to reach the socket."""
LINGER_S = 10.0
"""After a handler is done, for the peer to finish its side."""
LINGER_BYTES = 2**20
MAX_UPGRADING = 64
"""Inbound connections that have not proven who they are."""
MAX_LINKS_PER_PEER = 4
MAX_STREAMS_PER_PROTOCOL = 64
"""Inbound streams that one connection may have open on one protocol."""
MAX_STRANGER_STREAMS = 16
"""Inbound streams of a connection that has not shown our chain id."""
MAX_OUTSIDER_STREAMS = 256
"""The same of an outsider's: Kubo opens one for each block that it sends, and does not send again what was reset."""
CIRCUIT_DIAL_S = 15.0
"""For one address behind a relay: the relay, the circuit, Noise and the choice of a muxer."""
OURS = "/swarm/"
"""Protocols that only nodes of this kind speak start so."""
ACCEPT_PAUSE_S = 0.2
"""When the machine is out of file descriptors."""

log = structlog.get_logger("swarm.network")


@dataclass(frozen=True, slots=True)
class Served:
    """A protocol that this node serves."""

    handler: StreamHandler
    members_only: bool
    limit: int


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
        self.keeps_port: Callable[[Address], bool] = lambda _: False
        self.circuit: Callable[[Address], Awaitable[Wire]] | None = None
        self.listening: list[Address] = []
        self._settings = settings
        self._mine = mine
        self._interfaces = interfaces
        self._served: dict[str, Served] = {}
        self._nursery: trio.Nursery | None = None
        self._listeners: list[trio.SocketListener] = []
        self._per_ip: Counter[str] = Counter()
        self._live = 0
        self._upgrading = 0
        self._changed = trio.Event()
        self._linked = trio.Event()
        self.handle(handshake_messages.PROTOCOL, self._answer, members_only=False, limit=1)
        self.handle(identify.PROTOCOL, self._identify_to, members_only=False, limit=2)
        self.handle(identify.PING_PROTOCOL, identify.answer_pings, members_only=False, limit=2)

    # Serving and listening.

    def handle(
        self,
        protocol: str,
        handler: StreamHandler,
        *,
        members_only: bool,
        limit: int | None = None,
    ) -> None:
        """Serve a protocol from now on; `limit` streams of one connection at a time."""
        most = MAX_STREAMS_PER_PROTOCOL
        if not members_only and not protocol.startswith(OURS):
            self.outsiders.protocols.add(protocol)
            most = MAX_OUTSIDER_STREAMS
        self._served[protocol] = Served(handler, members_only, most if limit is None else limit)

    @property
    def protocols(self) -> Collection[str]:
        """What is served."""
        return self._served.keys()

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
            NetworkError: One of them is taken, or not of this machine.
        """
        try:
            for text in self._settings.listen:
                wanted = addresses.parse(text)
                self._listeners += await trio.open_tcp_listeners(wanted.port, host=wanted.host)
        except OSError as error:
            for listener in self._listeners:
                listener.socket.close()
            self._listeners = []
            message = f"cannot listen on {text}: {error.strerror or error}"
            hint = "another node may be running there; give another port"
            raise NetworkError(message, hint) from error
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
            self._nursery.start_soon(self._fence, function, *args)

    async def _fence(self, function: Callable[..., Awaitable[object]], *args: object) -> None:
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
            on_stream=lambda stream: self._start(self._serve, link, stream),
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
                    nursery.start_soon(self._fence, self._greet, link)
                else:
                    nursery.start_soon(self._fence, self._await_greeting, link)
                nursery.start_soon(self._fence, self.outsiders.watch, link)
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
            stream = await self.open_on(link, [handshake_messages.PROTOCOL])
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
            served = [
                name for name, one in self._served.items() if link.is_member or not one.members_only
            ]
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
        stream = await self.open_on(link, [identify.PROTOCOL])
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

    # Inbound streams.

    async def _serve(self, link: Link, stream: MuxedStream) -> None:
        """One inbound stream, from its protocol's choice to its end."""
        most = MAX_OUTSIDER_STREAMS if link.is_outsider else MAX_STRANGER_STREAMS
        if not link.is_member and sum(other.inbound for other in link.session.streams) > most:
            stream.break_off("too many streams of a stranger")
            self.faults["too many streams"] += 1
            return
        protocol = ""

        async def admit(wanted: str) -> bool:
            if wanted in self.outsiders.protocols and link.hello is None and not link.dialled:
                return self.outsiders.admit(link)
            return not self._served[wanted].members_only or await link.settled()

        try:
            with trio.fail_after(NEGOTIATE_S):
                protocol = await multistream.accept(stream, self._served, admit)
            served = self._served[protocol]
            if self._settings.traffic is not None and self._settings.traffic.refuses(protocol):
                stream.break_off("this node does not serve now")
                return
            if link.inbound[protocol] >= served.limit:
                stream.break_off(f"more than {served.limit} streams of {protocol}")
                self.faults["too many streams"] += 1
                return
            link.inbound[protocol] += 1
            try:
                stream.protocol = protocol
                await served.handler(stream)
                await _linger(stream)
            finally:
                link.inbound[protocol] -= 1
        except (StreamError, trio.TooSlowError, trio.ClosedResourceError) as error:
            log.debug("network.stream_lost", peer=link.peer, protocol=protocol, error=str(error))
        except RemoteProtocolError as error:
            self.faults[protocol or "multistream"] += 1
            self.note_misbehaviour(link.peer, f"{protocol or 'multistream'}: {error}")
        except Exception as error:  # noqa: BLE001 - the transport's promise: it resets this stream and no more
            self.faults[protocol or "multistream"] += 1
            log.warning(
                "network.handler_failed", peer=link.peer, protocol=protocol, error=repr(error)
            )
        finally:
            if not stream.is_over:
                stream.break_off("the handler is done")

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
            UnreachableError: Nobody answers there in `DIAL_S`, or another peer than expected.
        """
        who = address.peer or str(address)
        nursery = self._nursery
        if nursery is None:
            raise UnreachableError(who, "the network is not running")
        if not self.has_room and not self.outsiders.make_room():
            raise UnreachableError(who, f"{self._live} connections are open")
        self._live += 1
        limit = DIAL_S if address.relay is None else CIRCUIT_DIAL_S
        wire: Wire | None = None
        try:
            with trio.fail_after(limit):
                wire, kept_port = await self._connect(address)
                link = await self._upgrade(wire, address.peer)
            link.kept_port = kept_port
        except BaseException as error:
            self._live -= 1
            if wire is not None:
                wire.close_now()
            if isinstance(error, trio.TooSlowError):
                raise UnreachableError(who, f"no answer in {limit:g} s") from None
            if isinstance(error, (OSError, ValueError)):
                cause = error.__cause__ if isinstance(error.__cause__, OSError) else error
                raise UnreachableError(
                    who, getattr(cause, "strerror", None) or str(cause)
                ) from error
            if isinstance(error, (RemoteProtocolError, WireError)):
                raise UnreachableError(who, str(error)) from error
            raise
        link.may_be_outsider = outsider
        nursery.start_soon(self._hold_dialled, link)
        return link

    async def _connect(self, address: Address) -> tuple[Wire, bool]:
        """A wire to an address, and whether it leaves from the port that this node listens on."""
        if address.relay is not None:
            if self.circuit is None:
                raise UnreachableError(str(address), "relays are not used here")
            return await self.circuit(address), False
        stream = await self.connect_from_port(address) if self.keeps_port(address) else None
        kept_port = stream is not None
        if stream is None:
            stream = await trio.open_tcp_stream(address.host, address.port)
        try:
            wire = Wire(stream, is_initiator=True, traffic=self._settings.traffic)
        except BaseException:
            stream.socket.close()
            raise
        return wire, kept_port

    async def connect_from_port(self, address: Address) -> trio.SocketStream | None:
        """Connect from the port that this node listens on, so that a router gives both the same number.

        Returns:
            None where this machine cannot: it listens on no such port, or a connection of both ends was there a moment ago.

        Raises:
            OSError: Nobody answers there.
        """
        bound = next((one for one in self.listening if one.kind == address.kind), None)
        if bound is None or addresses.is_loopback(bound.host):
            return None
        family = socket.AF_INET if address.kind == "ip4" else socket.AF_INET6
        made = trio.socket.socket(family, socket.SOCK_STREAM)
        try:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            await made.bind((bound.host, bound.port))
            await made.connect((address.host, address.port))
            return trio.SocketStream(made)
        except OSError as error:
            made.close()
            if error.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL}:
                return None
            raise
        except BaseException:
            made.close()
            raise

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
            await self._fence(self._hold, link)
        finally:
            link.wire.close_now()
            self._live -= 1

    async def open_on(self, link: Link, protocols: Collection[str]) -> MuxedStream:
        """Open a stream on a link for the first of `protocols` that the peer speaks.

        Raises:
            UnreachableError: The connection is gone, full or silent, or the peer speaks none of them.
        """
        stream: MuxedStream | None = None
        opened = False
        try:
            with trio.fail_after(OPEN_S):
                stream = link.session.open_stream()
                stream.protocol = await multistream.propose(stream, protocols)
            opened = True
        except trio.TooSlowError:
            raise UnreachableError(link.peer, f"no answer in {OPEN_S:g} s") from None
        except (StreamError, RemoteProtocolError) as error:
            raise UnreachableError(link.peer, str(error)) from error
        finally:
            if stream is not None and not opened:
                stream.break_off("its protocol was not agreed on")
        return stream


async def _linger(stream: MuxedStream) -> None:
    """Finish a stream whose handler is done, and give the peer a while to finish its side."""
    stream.finish()
    with trio.move_on_after(FLUSH_S):
        await stream.flushed()
    left = LINGER_BYTES
    with trio.move_on_after(LINGER_S), suppress(StreamError):
        while left > 0:
            data = await stream.receive_some()
            if not data:
                return
            left -= len(data)
