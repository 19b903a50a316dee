"""Relays: a node that nobody can dial is reached through one that everybody can, and the bytes stay secret from it.

The wire is libp2p's circuit relay v2. A node asks a relay for a place (`RESERVE` on the hop protocol) and keeps its connection;
whoever wants it asks the relay to `CONNECT`; the relay opens a stop stream to it and copies bytes both ways, within limits.
Both ends run Noise and yamux over that, so the relay sees neither keys nor content.

A relay serves members only. What it gives is bounded here: places, circuits, the bytes and the time of each, and its pace.
No vouchers are issued: they serve a third party that asks for a proof, and there is none.

Source: libp2p specs, relay/circuit-v2.md.
"""

from __future__ import annotations

import mmap
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
import trio
from libp2p.peer.id import ID
from libp2p.relay.circuit_v2.pb import circuit_pb2

from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from swarm.network import addresses, envelopes
from swarm.network.wire import BUFFER_BYTES, READ_BYTES, Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.network.addresses import Address
    from swarm.network.host import Host
    from swarm.network.link import Link
    from swarm.network.muxed_stream import MuxedStream

HOP = "/libp2p/circuit/relay/0.2.0/hop"
STOP = "/libp2p/circuit/relay/0.2.0/stop"

RESERVATION_S = 3600
MAX_RESERVATIONS = 128
MAX_RESERVATIONS_PER_IP = 8
MAX_CIRCUITS = 64
MAX_CIRCUITS_PER_PEER = 8
"""Either end counts."""
CIRCUIT_S = 3600
CIRCUIT_BYTES = 64 * 2**20
"""Of one circuit, both ways together."""
CIRCUIT_RATE = 256 * 2**10
"""Bytes a second of one circuit each way: enough for votes and gossip, too little for chunks."""
COPY_BYTES = 16 * 2**10
"""Copied at a time."""
MAX_HOP_STREAMS = 2 * MAX_CIRCUITS_PER_PEER
ANSWER_S = 10.0
"""For one message of a relay or of a peer that is connected through this one."""
MIN_LEASE_S = 60.0
"""A relay whose places last less is not used: renewing would never end."""
MAX_LEASE_S = 24 * 3600.0

log = structlog.get_logger("swarm.network")


class CircuitWire(Wire):
    """What a relay copies, used like a socket.

    Args:
        stream: To the relay.
        remote: The relay's address, as one of a circuit.
        is_initiator: This side asked for the circuit.
    """

    def __init__(self, stream: MuxedStream, remote: Address, *, is_initiator: bool) -> None:
        self._circuit = stream
        self.traffic = None  # counted where the relay's connection is
        self.is_initiator = is_initiator
        self.remote = remote
        self._buffer = memoryview(
            mmap.mmap(-1, BUFFER_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        )
        self._start = self._end = 0
        self.bytes_in = 0
        self.bytes_out = 0

    async def more(self) -> bool:
        """Read on, behind what has arrived; false at the end.

        Raises:
            WireError: The connection is gone.
        """
        left = self._end - self._start
        if self._start:
            self._buffer[:left] = bytes(self._buffer[self._start : self._end])
            self._start, self._end = 0, left
        try:
            data = await self._circuit.receive_some(min(READ_BYTES, BUFFER_BYTES - left))
        except StreamError as error:
            message = f"the relay's connection is gone: {error}"
            raise WireError(message) from error
        self._buffer[left : left + len(data)] = data
        self._end += len(data)
        self.bytes_in += len(data)
        return bool(data)

    async def send_all(self, data: bytes | memoryview) -> None:
        """Write everything; a write that is cancelled leaves the connection of no use."""
        try:
            # A frame that waits for the socket keeps its own bytes: the writer uses its buffer again.
            await self._circuit.send_all(bytes(data))
        except StreamError as error:
            message = f"the relay's connection is gone: {error}"
            raise WireError(message) from error
        self.bytes_out += len(data)

    def close_now(self) -> None:
        """Give the stream up at once."""
        if not self._circuit.is_over:
            self._circuit.break_off("the circuit is closed")


@dataclass(frozen=True, slots=True)
class Place:
    """A reservation that this node gave.

    Attributes:
        ip: Of the peer that has it.
        until: Trio time.
    """

    ip: str
    until: float


class Places:
    """Who may be reached through this relay, and how many circuits run; pure."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._ends: Counter[str] = Counter()
        self._circuits = 0

    def reserve(self, peer: str, ip: str, now: float) -> bool:
        """Give a peer a place, or give it its own for longer; false where there is none."""
        self._places = {name: one for name, one in self._places.items() if now < one.until}
        others = [one.ip for name, one in self._places.items() if name != peer]
        if len(others) >= MAX_RESERVATIONS or others.count(ip) >= MAX_RESERVATIONS_PER_IP:
            return False
        self._places[peer] = Place(ip, now + RESERVATION_S)
        return True

    def has(self, peer: str, now: float) -> bool:
        """Whether a peer has a place."""
        place = self._places.get(peer)
        return place is not None and now < place.until

    def open(self, source: str, target: str) -> bool:
        """Count a circuit; false where there is room for none."""
        full = self._circuits >= MAX_CIRCUITS
        if full or any(self._ends[end] >= MAX_CIRCUITS_PER_PEER for end in (source, target)):
            return False
        self._circuits += 1
        self._ends.update((source, target))
        return True

    def close(self, source: str, target: str) -> None:
        """A circuit has ended."""
        self._circuits -= 1
        self._ends -= Counter((source, target))

    def __len__(self) -> int:
        return self._circuits


class Relay:
    """Both sides of relaying: serves places and circuits to members where it may, and uses those of others.

    Args:
        host: The connections.
        serves: Whether this node relays for others now.
        wall: UTC seconds, which reservations are told in.
    """

    def __init__(self, host: Host, serves: Callable[[], bool], wall: Callable[[], float]) -> None:
        self._host = host
        self._serves = serves
        self._wall = wall
        self.places = Places()
        self.reserved: dict[str, Address] = {}
        """Relay to the address under which this node is reached through it."""
        host.serving.handle(HOP, self._hop, members_only=True, limit=MAX_HOP_STREAMS)
        host.serving.handle(STOP, self._stop, members_only=True)
        host.dialling.circuit = self.connect

    # Serving.

    async def _hop(self, stream: MuxedStream) -> None:
        link = self._host.link_of(stream)
        if link is None:
            return
        with trio.fail_after(ANSWER_S):
            message = await envelopes.receive(stream, circuit_pb2.HopMessage())
        if not self._serves() or link.is_relayed:
            await _refuse(stream, circuit_pb2.PERMISSION_DENIED)
        elif message.type == circuit_pb2.HopMessage.RESERVE:
            await self._reserve_for(link, stream)
        elif message.type == circuit_pb2.HopMessage.CONNECT:
            await self._connect_for(link, stream, bytes(message.peer.id))
        else:
            await _refuse(stream, circuit_pb2.UNEXPECTED_MESSAGE)

    async def _reserve_for(self, link: Link, stream: MuxedStream) -> None:
        if not self.places.reserve(link.peer, link.wire.remote.host, trio.current_time()):
            await _refuse(stream, circuit_pb2.RESERVATION_REFUSED)
            return
        own = [one.of(self._host.me) for one in self._host.announced() if one.relay is None]
        reply = circuit_pb2.HopMessage(
            type=circuit_pb2.HopMessage.STATUS,
            status=circuit_pb2.OK,
            reservation=circuit_pb2.Reservation(
                expire=int(self._wall()) + RESERVATION_S, addrs=envelopes.packed(own)
            ),
            limit=_limit(),
        )
        await envelopes.send(stream, reply)

    async def _connect_for(self, link: Link, stream: MuxedStream, wanted: bytes) -> None:
        target = ID(wanted).to_base58() if len(wanted) <= 64 else ""
        onward = self._host.direct_to(target)
        if onward is None or not self.places.has(target, trio.current_time()):
            await _refuse(stream, circuit_pb2.NO_RESERVATION)
            return
        if target == link.peer or not self.places.open(link.peer, target):
            await _refuse(stream, circuit_pb2.RESOURCE_LIMIT_EXCEEDED)
            return
        try:
            try:
                there = await self._knock(onward, link.peer)
            except (UnreachableError, StreamError, RemoteProtocolError, trio.TooSlowError) as error:
                log.debug("network.circuit_failed", peer=target, error=str(error))
                await _refuse(stream, circuit_pb2.CONNECTION_FAILED)
                return
            try:
                reply = circuit_pb2.HopMessage(
                    type=circuit_pb2.HopMessage.STATUS, status=circuit_pb2.OK, limit=_limit()
                )
                await envelopes.send(stream, reply)
                log.debug("network.circuit_opened", source=link.peer, target=target)
                await _copy_both_ways(stream, there)
            finally:
                there.break_off("the circuit is over")
                stream.break_off("the circuit is over")
        finally:
            self.places.close(link.peer, target)

    async def _knock(self, onward: Link, source: str) -> MuxedStream:
        """Ask the target whether it takes the circuit; the stream to it."""
        there = await onward.open([STOP])
        good = False
        try:
            with trio.fail_after(ANSWER_S):
                question = circuit_pb2.StopMessage(
                    type=circuit_pb2.StopMessage.CONNECT,
                    peer=circuit_pb2.PeerId(id=ID.from_base58(source).to_bytes()),
                    limit=_limit(),
                )
                await envelopes.send(there, question)
                answer = await envelopes.receive(there, circuit_pb2.StopMessage())
            good = answer.type == circuit_pb2.StopMessage.STATUS and answer.status == circuit_pb2.OK
        finally:
            if not good:
                there.break_off("the circuit was not taken")
        if not good:
            raise UnreachableError(onward.peer, "it does not take the circuit")
        return there

    # Using.

    async def reserve(self, link: Link) -> float:
        """Ask a relay for a place, or for the same for longer.

        Returns:
            After how many seconds it ends.

        Raises:
            UnreachableError: It gives none.
        """
        stream = await link.open([HOP])
        try:
            with trio.fail_after(ANSWER_S):
                request = circuit_pb2.HopMessage(type=circuit_pb2.HopMessage.RESERVE)
                await envelopes.send(stream, request)
                answer = await envelopes.receive(stream, circuit_pb2.HopMessage())
        except (StreamError, RemoteProtocolError, trio.TooSlowError) as error:
            raise UnreachableError(link.peer, f"no place at this relay: {error}") from error
        finally:
            await stream.reset()
        if answer.status != circuit_pb2.OK:
            raise UnreachableError(link.peer, f"no place at this relay: {_status(answer.status)}")
        lasts = min(float(answer.reservation.expire) - self._wall(), MAX_LEASE_S)
        if lasts < MIN_LEASE_S:
            raise UnreachableError(
                link.peer, f"its places last {lasts:.0f} s; are both clocks right?"
            )
        remote = link.wire.remote
        self.reserved[link.peer] = addresses.Address(
            remote.kind, remote.host, remote.port, None, link.peer
        )
        return lasts

    async def connect(self, address: Address) -> CircuitWire:
        """A circuit to the peer of an address, through its relay.

        Raises:
            UnreachableError: The relay is away or does not connect.
        """
        relay, peer = address.relay, address.peer
        if relay is None or peer is None:
            raise UnreachableError(str(address), "it names no relay or no peer")
        link = self._host.direct_to(relay)
        if link is None:
            at = addresses.Address(address.kind, address.host, address.port, relay)
            link = await self._host.dial(at)
        await link.settled()
        stream = await link.open([HOP])
        good = False
        try:
            question = circuit_pb2.HopMessage(
                type=circuit_pb2.HopMessage.CONNECT,
                peer=circuit_pb2.PeerId(id=ID.from_base58(peer).to_bytes()),
            )
            with trio.fail_after(ANSWER_S):
                await envelopes.send(stream, question)
                answer = await envelopes.receive(stream, circuit_pb2.HopMessage())
            good = answer.status == circuit_pb2.OK
        except (StreamError, RemoteProtocolError, trio.TooSlowError) as error:
            raise UnreachableError(peer, f"the relay {relay} does not connect: {error}") from error
        finally:
            if not good:
                stream.break_off("no circuit")
        if not good:
            why = f"the relay {relay} does not connect: {_status(answer.status)}"
            raise UnreachableError(peer, why)
        return CircuitWire(stream, address.bare, is_initiator=True)

    async def _stop(self, stream: MuxedStream) -> None:
        """A circuit that comes in, held until its end."""
        link = self._host.link_of(stream)
        if link is None:
            return
        with trio.fail_after(ANSWER_S):
            message = await envelopes.receive(stream, circuit_pb2.StopMessage())
        taken = message.type == circuit_pb2.StopMessage.CONNECT and link.peer in self.reserved
        status = circuit_pb2.OK if taken else circuit_pb2.PERMISSION_DENIED
        reply = circuit_pb2.StopMessage(type=circuit_pb2.StopMessage.STATUS, status=status)
        await envelopes.send(stream, reply)
        if taken:
            wire = CircuitWire(stream, self.reserved[link.peer], is_initiator=False)
            await self._host.welcome(wire)


def _limit() -> circuit_pb2.Limit:
    return circuit_pb2.Limit(duration=CIRCUIT_S, data=CIRCUIT_BYTES)


def _status(number: circuit_pb2.Status.ValueType) -> str:
    try:
        return circuit_pb2.Status.Name(number).lower().replace("_", " ")
    except ValueError:
        return f"status {number}"


async def _refuse(stream: MuxedStream, status: circuit_pb2.Status.ValueType) -> None:
    reply = circuit_pb2.HopMessage(type=circuit_pb2.HopMessage.STATUS, status=status)
    await envelopes.send(stream, reply)


async def _copy_both_ways(one: MuxedStream, other: MuxedStream) -> None:
    """Copy until an end is reached or a limit is used up."""
    left = CIRCUIT_BYTES

    async def copy(source: MuxedStream, target: MuxedStream) -> None:
        nonlocal left
        try:
            while data := await source.receive_some(COPY_BYTES):
                left -= len(data)
                if left < 0:
                    break
                await target.send_all(data)
                await trio.sleep(len(data) / CIRCUIT_RATE)
            else:
                target.finish()
                return
        except StreamError as error:
            log.debug("network.circuit_lost", error=str(error))
        nursery.cancel_scope.cancel()

    with trio.move_on_after(CIRCUIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(copy, one, other)
            nursery.start_soon(copy, other, one)
