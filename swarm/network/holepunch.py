"""Hole punching: two nodes behind routers that meet through a relay open a direct connection at the same moment.

The wire is libp2p's `/libp2p/dcutr`. The node at which the relayed connection came in asks (`CONNECT`), both tell where peers
outside see them, it measures the way, says `SYNC`, and half a way later both dial: each router sees a connection going out
before the other's comes in. TCP's simultaneous open makes one connection of both.

It needs routers that give a port the same number for every destination, and that drop what they do not expect without an answer.

Source: libp2p specs, relay/DCUtR.md.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

import structlog
import trio
from libp2p.relay.circuit_v2.pb.dcutr_pb2 import HolePunch

from protocols.transport import RemoteProtocolError, StreamError, UnreachableError
from swarm.network import addresses, envelopes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swarm.network.addresses import Address
    from swarm.network.host import Host
    from swarm.network.link import Link
    from swarm.network.muxed_stream import MuxedStream

PROTOCOL = "/libp2p/dcutr"
ATTEMPTS = 3
MAX_TARGETS = 2
"""Addresses of a peer that are dialled; one of each family, so that nobody sends this node through a range."""
MEET_S = 4.0
"""For both connections to become one."""
KNOCK_PAUSE_S = 0.2
"""After a router has refused, before the next knock."""
ANSWER_S = 10.0
MAX_WAY_S = 3.0
"""A longer way to and fro through the relay is not waited for."""
REST_S = 60.0
"""Before the same peer is punched through to again."""
MAX_AT_ONCE = 4
MAX_REMEMBERED = 1024

log = structlog.get_logger("swarm.network")


def targets(found: Sequence[Address]) -> list[Address]:
    """What of a peer's addresses is dialled: public IP addresses, the first of each family."""
    chosen: dict[str, Address] = {}
    for one in found:
        if one.relay is None and addresses.is_public(one):
            chosen.setdefault(one.kind, one.bare)
    return list(chosen.values())[:MAX_TARGETS]


class HolePuncher:
    """Turns relayed connections into direct ones.

    Args:
        host: The connections.
        outside: Where peers outside see this node, with ports that are the same for every destination.
    """

    def __init__(self, host: Host, outside: Callable[[], list[Address]]) -> None:
        self._host = host
        self._outside = outside
        self._last: OrderedDict[str, float] = OrderedDict()
        self._room = trio.CapacityLimiter(MAX_AT_ONCE)
        self.tried = 0
        self.worked = 0
        host.serving.handle(PROTOCOL, self._answer, members_only=True, limit=1)

    def _may(self, peer: str) -> bool:
        now = trio.current_time()
        if now - self._last.get(peer, -REST_S) < REST_S:
            return False
        self._last[peer] = now
        self._last.move_to_end(peer)
        while len(self._last) > MAX_REMEMBERED:
            self._last.popitem(last=False)
        return True

    async def improve(self, link: Link) -> bool:
        """Make a relayed connection that came in a direct one; whether there is one now."""
        if self._host.direct_to(link.peer) is not None:
            return True
        if not self._may(link.peer):
            return False
        async with self._room:
            self.tried += 1
            for attempt in range(ATTEMPTS):
                try:
                    if await self._once(link):
                        self.worked += 1
                        log.info("network.punched", peer=link.peer, attempts=attempt + 1)
                        return True
                except (UnreachableError, StreamError, RemoteProtocolError) as error:
                    log.debug("network.punch_failed", peer=link.peer, error=str(error))
                    return False
                except trio.TooSlowError:
                    return False
        log.info("network.not_punched", peer=link.peer)
        return False

    async def _once(self, link: Link) -> bool:
        stream = await link.open([PROTOCOL])
        try:
            with trio.fail_after(ANSWER_S):
                mine = HolePunch(type=HolePunch.CONNECT, ObsAddrs=envelopes.packed(self._outside()))
                began = trio.current_time()
                await envelopes.send(stream, mine)
                theirs = await envelopes.receive(stream, HolePunch())
                way = trio.current_time() - began
                found = targets(envelopes.unpacked(theirs.ObsAddrs))
                if theirs.type != HolePunch.CONNECT or not found or way > MAX_WAY_S:
                    raise UnreachableError(link.peer, "it cannot be met half way")
                await envelopes.send(stream, HolePunch(type=HolePunch.SYNC))
            await trio.sleep(way / 2)
        finally:
            # Left open until both have dialled: closing it does not tell the peer anything.
            await stream.close()
        return await self._meet(link.peer, found, is_client=False)

    async def _answer(self, stream: MuxedStream) -> None:
        link = self._host.link_of(stream)
        if link is None or not link.is_relayed or not link.dialled:
            return
        if self._room.available_tokens < 1:
            return
        with trio.fail_after(ANSWER_S):
            theirs = await envelopes.receive(stream, HolePunch())
            found = targets(envelopes.unpacked(theirs.ObsAddrs))
            mine = HolePunch(type=HolePunch.CONNECT, ObsAddrs=envelopes.packed(self._outside()))
            await envelopes.send(stream, mine)
            if theirs.type != HolePunch.CONNECT or not found:
                return
            sync = await envelopes.receive(stream, HolePunch())
        if sync.type == HolePunch.SYNC:
            async with self._room:
                await self._meet(link.peer, found, is_client=True)

    async def _meet(self, peer: str, found: Sequence[Address], *, is_client: bool) -> bool:
        """Knock at the peer's addresses from the port that this node listens on, until there is a direct connection."""
        with trio.move_on_after(MEET_S):
            async with trio.open_nursery() as nursery:
                for address in found:
                    nursery.start_soon(self._knock, peer, address, is_client)
                await self._host.wait_for_direct(peer)
                nursery.cancel_scope.cancel()
        return self._host.direct_to(peer) is not None

    async def _knock(self, peer: str, address: Address, is_client: bool) -> None:
        while self._host.direct_to(peer) is None:
            try:
                stream = await self._host.dialling.connect_from_port(address)
            except OSError:
                stream = None
            if stream is None:
                await trio.sleep(KNOCK_PAUSE_S)
                continue
            self._host.punched(stream, peer, is_client=is_client)
            return
