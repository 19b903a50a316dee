"""What this node does about routers: learns how it is seen, has itself dialled back, takes places at relays, punches through.

One task looks every few seconds while it is not known how this node is reached, and each minute afterwards.
The rules are in `reachability`; each way through has a module of its own.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import structlog
import trio

from protocols.transport import StreamError, UnreachableError
from swarm.network import addresses
from swarm.network.autonat import DialBack
from swarm.network.holepunch import HolePuncher
from swarm.network.mdns import LocalDiscovery
from swarm.network.reachability import Reachability, Verdict
from swarm.network.relay import Relay
from swarm.network.upnp import AGAIN_S, PortMapper

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.network.addresses import Address
    from swarm.network.host import Host
    from swarm.network.link import Link
    from swarm.network.settings import NetworkSettings

SETTLE_S = 0.3
"""After a member has come, before a look: others come with it."""
LOOK_S = 5.0
"""Between two looks while it is not known how this node is reached."""
SETTLED_LOOK_S = 60.0
OBSERVE_AGAIN_S = 600.0
"""Before the same peer is asked again where it sees this node."""
TRY_AGAIN_S = 25.0
"""Before the same peer is asked again to dial back, while the verdict is open; it rests for 20 s itself."""
SETTLED_TRY_AGAIN_S = 900.0
ASKED_AT_ONCE = 4
RELAYS = 2
"""Places that a node behind a router has."""
RELAY_AGAIN_S = 300.0
"""Before a relay that gave no place is asked again."""
RETIRE_S = 1.0
"""After a direct connection is there, before the relayed one beside it is closed."""
MAX_REVERSED = 2
"""Public addresses of a peer that came through a relay which are tried at first."""

log = structlog.get_logger("swarm.network")


class Routers:
    """Keeps this node reachable.

    Args:
        host: The connections.
        settings: Which of the ways are used.
        interfaces: IP addresses of this machine.
        learn: Called with an address that was found on the local network.
        moved: Called with a peer whose relayed connection has given way to a direct one.
    """

    def __init__(
        self,
        host: Host,
        settings: NetworkSettings,
        interfaces: Callable[[], list[str]],
        learn: Callable[[Address], None],
        moved: Callable[[str], None],
    ) -> None:
        self._host = host
        self._settings = settings
        self._interfaces = interfaces
        self._learn = learn
        self._moved = moved
        self.reach = Reachability()
        self._dial_back = DialBack(host)
        self.relay = Relay(host, self._serves, time.time)
        self.puncher = HolePuncher(host, self._outside)
        self.mapper: PortMapper | None = None
        self._mapped: list[Address] = []
        self._leases: dict[str, tuple[Link, float]] = {}
        """Of each place the connection that it was asked for on, and when it is asked for again."""
        self._refused: dict[str, float] = {}
        self._observed: dict[Link, float] = {}
        self._asked: dict[Link, float] = {}
        self._told: list[Address] = []
        self._wake = trio.Event()
        self._nursery: trio.Nursery | None = None
        host.more_addresses = self.announced
        host.dialling.keeps_port = self._keeps_port

    # What is known.

    def announced(self) -> list[Address]:
        """Addresses of this node beside those that it listens on: forwarded, confirmed, and through relays."""
        found = dict.fromkeys((*self._mapped, *self.reach.confirmed()))
        if self.verdict() is not Verdict.DIRECT:
            found |= dict.fromkeys(self.relay.reserved.values())
        return list(found)

    def verdict(self) -> Verdict:
        """How others reach this node."""
        return self.reach.verdict(relays=len(self.relay.reserved), own=self._interfaces())

    def report(self) -> dict[str, Any]:
        """For the doctor.

        Returns:
            `verdict` and `mapping` (values of the enumerations), `seen` (see `Reachability.told`), `listening` and `confirmed`
            (multiaddrs), `relays` (peer ids), `forwarded` (None, or which address by what), `forwarding_problem`, `circuits`
            (that this node relays now), `punched` (how many of how many).
        """
        forwarded = self.mapper.forwarded if self.mapper is not None else None
        return {
            "verdict": self.verdict().value,
            "mapping": self.reach.mapping(self._interfaces()).value,
            "seen": self.reach.told(),
            "listening": [str(one) for one in self._bound()],
            "confirmed": [str(one) for one in self.reach.confirmed()],
            "relays": sorted(self.relay.reserved),
            "forwarded": None if forwarded is None else f"{forwarded.outside} by {forwarded.by}",
            "forwarding_problem": "" if self.mapper is None else self.mapper.problem,
            "circuits": len(self.relay.places),
            "punched": [self.puncher.worked, self.puncher.tried],
        }

    def _bound(self) -> list[Address]:
        found = []
        for bound in self._host.listening:
            found += addresses.expand(bound, self._interfaces())
        return found

    def _listening(self) -> list[Address]:
        return [one for one in self._bound() if not addresses.is_loopback(one.host)]

    def _has_public_interface(self) -> bool:
        return any(addresses.is_public(one) for one in self._listening())

    def _serves(self) -> bool:
        """A node that others can dial relays for those that they cannot."""
        public = self.reach.confirmed() or (
            self._has_public_interface() and not self.reach.is_shut()
        )
        return self._settings.relay and bool(public)

    def _outside(self) -> list[Address]:
        return [one for one in self.reach.agreed() if one.port]

    def _keeps_port(self, address: Address) -> bool:
        """Connections to the internet leave from the listening port until it is known that nothing is to be learnt."""
        return addresses.is_public(address) and self.verdict() is not Verdict.DIRECT

    # Members come and go.

    def member_joined(self, link: Link) -> None:
        """A member's connection is there."""
        self._wake.set()
        if self._nursery is None:
            return
        links = self._host.links.get(link.peer, ())
        if any(other.is_relayed for other in links) and self._host.direct_to(link.peer) is not None:
            self._nursery.start_soon(self._host.fence, self._retire, link.peer)
        elif link.is_relayed and not link.dialled:
            self._nursery.start_soon(self._host.fence, self._improve, link)

    def member_lost(self) -> None:
        """A member's connections are gone, and with them a place that it gave."""
        self._wake.set()

    async def _retire(self, peer: str) -> None:
        await trio.sleep(RETIRE_S)
        direct = self._host.direct_to(peer)
        if direct is None or not direct.is_member:
            return
        relayed = [link for link in self._host.links.get(peer, ()) if link.is_relayed]
        for link in relayed:
            link.session.close("a direct connection is there")
        if relayed:
            self._moved(peer)

    async def _improve(self, link: Link) -> None:
        """Put a direct connection beside a relayed one that came in."""
        told = [addresses.parse(text) for text in link.hello.addresses] if link.hello else []
        public = [one for one in told if one.relay is None and addresses.is_public(one)]
        for address in public[:MAX_REVERSED]:
            try:
                await self._host.dial(address.of(link.peer))
            except UnreachableError:
                continue
            return
        if self._outside():
            await self.puncher.improve(link)

    # Running.

    async def run(self) -> None:
        """Look after this node's addresses until cancelled; a node of this machine alone has none."""
        if all(addresses.is_loopback(one.host) for one in self._host.listening):
            return
        # Until the machine has a network: nothing tells when that is.
        while not self._listening():  # noqa: ASYNC110 - see above
            await trio.sleep(LOOK_S)
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                if self._settings.upnp and not self._has_public_interface():
                    nursery.start_soon(self._map_port)
                if self._settings.mdns:
                    nearby = LocalDiscovery(
                        self._host.me,
                        lambda: self._host.chain_id,
                        self._listening,
                        self._interfaces,
                        self._learn,
                    )
                    nursery.start_soon(self._host.fence, nearby.run)
                await self._look_often()
            finally:
                self._nursery = None

    async def _map_port(self) -> None:
        """Have the port forwarded, once somebody chose it or there is a peer elsewhere: others of this machine need no router."""
        chosen = any(addresses.parse(text).port for text in self._settings.listen)
        while not ((here := self._listening()) and (chosen or self._has_peer_elsewhere())):  # noqa: ASYNC110 - links have no one event
            await trio.sleep(LOOK_S)
        self.mapper = PortMapper(here[0].port, self._forwarded)
        while True:
            try:
                await self.mapper.run()
            except Exception as error:  # noqa: BLE001 - nothing that a router says may end the node
                self.mapper.problem = f"what the router says is not understood: {error!r}"
                log.warning("network.router_not_understood", error=repr(error))
            await trio.sleep(AGAIN_S)

    def _has_peer_elsewhere(self) -> bool:
        own = self._interfaces()
        return any(
            link.is_member and link.wire.remote.host not in own
            for links in self._host.links.values()
            for link in links
        )

    def _forwarded(self, found: list[Address]) -> None:
        self._mapped = [one for one in found if addresses.is_public(one)]
        self.reach.mapped(self._mapped)
        self._wake.set()

    async def _look_often(self) -> None:
        while True:
            await self._host.fence(self._look)
            settled = self.verdict() is not Verdict.UNKNOWN and not self._wants_relays()
            with trio.move_on_after(SETTLED_LOOK_S if settled else LOOK_S):
                await self._wake.wait()
            self._wake = trio.Event()
            await trio.sleep(SETTLE_S)

    async def _look(self) -> None:
        now = trio.current_time()
        self.reach.forget_old(now)
        outside = self._members_outside()
        for table in (self._observed, self._asked):
            for link in [one for one in table if one.session.closed.is_set()]:
                del table[link]
        async with trio.open_nursery() as nursery:
            for link in [
                one for one in outside if self._is_due(self._observed, one, OBSERVE_AGAIN_S)
            ]:
                nursery.start_soon(self._host.fence, self._observe, link)
        again = TRY_AGAIN_S if self.verdict() is Verdict.UNKNOWN else SETTLED_TRY_AGAIN_S
        due = [one for one in outside if self._is_due(self._asked, one, again)]
        async with trio.open_nursery() as nursery:
            for link in due[:ASKED_AT_ONCE]:
                nursery.start_soon(self._host.fence, self._have_tried, link)
        await self._keep_places(outside)
        if self._outside() and self._nursery is not None:
            for link in [one for links in self._host.links.values() for one in links]:
                if link.is_relayed and not link.dialled and link.is_member:
                    self._nursery.start_soon(self._host.fence, self.puncher.improve, link)
        announced = self.announced()
        if announced != self._told:
            self._told = announced
            log.info(
                "network.reachable",
                verdict=self.verdict().value,
                addresses=[str(one) for one in announced],
            )
            self._host.say_hello()

    def _members_outside(self) -> list[Link]:
        """Direct connections to members of the internet, one of each subnet."""
        found: dict[str, Link] = {}
        for peer in list(self._host.links):
            link = self._host.direct_to(peer)
            if link is not None and link.is_member and addresses.is_public(link.wire.remote):
                found.setdefault(addresses.subnet(link.wire.remote.host), link)
        return list(found.values())

    def _is_due(self, table: dict[Link, float], link: Link, pause: float) -> bool:
        return trio.current_time() - table.get(link, -pause) >= pause

    async def _observe(self, link: Link) -> None:
        now = self._observed[link] = trio.current_time()
        try:
            found = (await self._host.identify(link)).observed
        except (UnreachableError, StreamError):
            return
        if found is not None:
            kept_port = link.kept_port or not link.dialled
            self.reach.observed(link.wire.remote.host, found, now, kept_port=kept_port)

    async def _have_tried(self, link: Link) -> None:
        given = [addresses.parse(text) for text in self._settings.announce]
        candidates = self.reach.candidates(given, self._listening())
        own = [one for one in candidates if one.kind == link.wire.remote.kind]
        if not own:
            return
        now = self._asked[link] = trio.current_time()
        for address, ok in await self._dial_back.ask(link, own):
            self.reach.dialled_back(link.wire.remote.host, address, now, ok=ok)

    # Places at relays.

    def _wants_relays(self) -> bool:
        if not self._settings.relay or self.reach.confirmed():
            return False
        behind = self.reach.is_shut() or not (self._has_public_interface() or self._mapped)
        return behind and len(self.relay.reserved) < RELAYS

    async def _keep_places(self, outside: list[Link]) -> None:
        now = trio.current_time()
        reserved = self.relay.reserved
        for peer in list(reserved):
            link = self._host.direct_to(peer)
            if link is None or self.reach.confirmed():
                del reserved[peer], self._leases[peer]
                continue
            asked_on, due_at = self._leases[peer]
            # A relay may forget a place with the connection, and does when it starts again.
            if now >= due_at or asked_on.session.closed.is_set():
                await self._host.fence(self._take_place, link)
        for link in outside:
            if not self._wants_relays():
                return
            rests = now - self._refused.get(link.peer, -RELAY_AGAIN_S) < RELAY_AGAIN_S
            if link.dialled and link.peer not in reserved and not rests:
                await self._host.fence(self._take_place, link)

    async def _take_place(self, link: Link) -> None:
        now = trio.current_time()
        self._refused = {peer: at for peer, at in self._refused.items() if now - at < RELAY_AGAIN_S}
        self._refused[link.peer] = now  # whatever goes wrong from here on, it rests
        try:
            lasts = await self.relay.reserve(link)
        except UnreachableError as error:
            self.relay.reserved.pop(link.peer, None)
            self._leases.pop(link.peer, None)
            log.info("network.no_place", relay=link.peer, reason=error.why)
        else:
            del self._refused[link.peer]
            self._leases[link.peer] = (link, now + lasts / 2)
            log.info("network.place_taken", relay=link.peer, seconds=round(lasts))
