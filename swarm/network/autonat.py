"""Whether an address of a node answers: another node dials it back and says so.

The wire is libp2p's `/libp2p/autonat/1.0.0`: `Dial` with addresses, then a `DialResponse` with a status.
A node is dialled back at the IP address only at which it is seen here, which must be public; each dial is one handshake with the
asking peer's key, at ports that it names. So nobody is dialled on another's behalf, and what is sent is little more than was
asked with.

Source: libp2p specs, autonat/autonat-v1.md.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog
import trio
from libp2p.host.autonat.pb.autonat_pb2 import Message
from libp2p.peer.id import ID

from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from swarm.network import addresses, envelopes
from swarm.network.wire import Wire, WireError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.network.addresses import Address
    from swarm.network.host import Host
    from swarm.network.link import Link
    from swarm.network.muxed_stream import MuxedStream

PROTOCOL = "/libp2p/autonat/1.0.0"
DIAL_BACK_S = 5.0
"""For one address: TCP and Noise."""
ANSWER_S = 25.0
"""For a peer that was asked, which may try some addresses one after the other."""
MAX_PORTS = 4
"""Of one request that are tried; they all lie at the IP address that is seen here."""
REST_S = 20.0
"""Before the same peer, or another one of its IP address, is served again."""
MAX_DIALS_A_MINUTE = 30
"""Requests that are served, of all peers together."""
MAX_REMEMBERED = 1024
OK = Message.OK
NOTHING_ANSWERS = Message.E_DIAL_ERROR
REFUSED = Message.E_DIAL_REFUSED
MALFORMED = Message.E_BAD_REQUEST

log = structlog.get_logger("swarm.network")


class Pace:
    """Who was served when; refuses whoever asks too often."""

    def __init__(self) -> None:
        self._last: OrderedDict[str, float] = OrderedDict()

    def take(self, peer: str, ip: str, now: float) -> bool:
        """Whether a request may be served now; counts it if so."""
        recent = sum(1 for name, at in self._last.items() if name[0] == "p" and now - at < 60)
        names = (f"p{peer}", f"i{ip}")
        if recent >= MAX_DIALS_A_MINUTE:
            return False
        if any(now - self._last.get(name, -REST_S) < REST_S for name in names):
            return False
        for name in names:
            self._last[name] = now
            self._last.move_to_end(name)
        while len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        return True


def allowed(asked: Sequence[Address], seen: Address) -> list[Address]:
    """What a peer may have dialled: its own public IP address as it is seen here, at the ports that it names.

    Args:
        asked: What it names.
        seen: The other end of its connection.
    """
    if seen.relay is not None or not addresses.is_public(seen):
        return []
    found = {
        one.bare: None
        for one in asked
        if one.relay is None and one.kind == seen.kind and one.host == seen.host and one.port
    }
    return list(found)[:MAX_PORTS]


class DialBack:
    """Serves dial-backs to members, and asks them for some.

    Args:
        host: The connections.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._pace = Pace()
        host.serving.handle(PROTOCOL, self._serve, members_only=True, limit=1)

    async def _serve(self, stream: MuxedStream) -> None:
        link = self._host.link_of(stream)
        if link is None:
            return
        with trio.fail_after(DIAL_BACK_S):
            message = await envelopes.receive(stream, Message())
        reply = Message(type=Message.DIAL_RESPONSE)
        peer = message.dial.peer
        targets = allowed(envelopes.unpacked(peer.addrs), link.wire.remote)
        now = trio.current_time()
        if message.type != Message.DIAL or peer.id != ID.from_base58(link.peer).to_bytes():
            reply.dialResponse.status = MALFORMED
        elif not targets or not self._pace.take(link.peer, link.wire.remote.host, now):
            reply.dialResponse.status = REFUSED
        else:
            reply.dialResponse.status = NOTHING_ANSWERS
            for address in targets:
                if await self._answers(address, link.peer):
                    reply.dialResponse.status = OK
                    reply.dialResponse.addr = envelopes.packed([address])[0]
                    break
        await envelopes.send(stream, reply)

    async def _answers(self, address: Address, peer: str) -> bool:
        """Whether a peer proves itself at an address, on a fresh connection that is closed at once."""
        wire: Wire | None = None
        try:
            with trio.fail_after(DIAL_BACK_S):
                stream = await trio.open_tcp_stream(address.host, address.port)
                try:
                    wire = Wire(stream, is_initiator=True)
                except BaseException:
                    stream.socket.close()
                    raise
                secured = await self._host.keys.secure(wire, peer)
        except (OSError, ValueError, WireError, RemoteProtocolError, trio.TooSlowError):
            return False
        else:
            return secured.peer == peer
        finally:
            if wire is not None:
                wire.close_now()

    async def ask(self, link: Link, own: Sequence[Address]) -> list[tuple[Address, bool]]:
        """Have a peer dial addresses of this node, all of one IP address.

        Returns:
            Each that it tried, with whether it reached this node there; empty when it did not try.
        """
        request = Message(type=Message.DIAL)
        request.dial.peer.id = self._host.keys.id.to_bytes()
        request.dial.peer.addrs.extend(envelopes.packed(own))
        try:
            stream = await link.open([PROTOCOL])
        except UnreachableError:
            return []
        try:
            with trio.fail_after(ANSWER_S):
                await envelopes.send(stream, request)
                answer = await envelopes.receive(stream, Message())
        except (StreamError, RemoteProtocolError, trio.TooSlowError) as error:
            log.debug("network.dial_back_lost", peer=link.peer, error=str(error))
            return []
        finally:
            await stream.reset()
        status = answer.dialResponse.status
        if answer.type == Message.DIAL_RESPONSE and status == NOTHING_ANSWERS:
            return [(address, False) for address in own]
        if answer.type == Message.DIAL_RESPONSE and status == OK:
            reached = envelopes.unpacked([answer.dialResponse.addr])
            return [(address, True) for address in own if address in reached]
        return []
