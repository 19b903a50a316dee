"""How this node comes to its peers: it dials those that are wanted, and looks for members as long as there are too few."""

from __future__ import annotations

import math
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import structlog
import trio

from protocols import signing
from protocols.handshake.core import Standing
from protocols.transport import UnreachableError
from swarm.network import addresses
from swarm.network.addresses import Address, AddressError
from swarm.network.link import GREET_S

if TYPE_CHECKING:
    from swarm.network.facade import Facade
    from swarm.network.host import Host
    from swarm.network.link import Link
    from swarm.network.peerbook import Entry, PeerBook
    from swarm.network.routing import Routing
    from swarm.network.settings import NetworkSettings

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
"""Between two questions to the members for peers while there are too few; doubles until something changes."""
MAX_LOOKUP_S = 60.0

log = structlog.get_logger("swarm.network")


async def greeted(link: Link) -> None:
    """Wait for a new link's first Hello.

    Raises:
        UnreachableError: It does not come; the link is closed.
    """
    with trio.move_on_after(GREET_S):
        await link.greeted.wait()
    if link.hello is None:
        link.session.close("no handshake")
        raise UnreachableError(link.peer, f"no handshake: {link.session.reason}")


class Pauses:
    """Between two questions to the members: `LOOKUP_S`, and each twice the one before until something changes."""

    def __init__(self) -> None:
        self._over_at = -math.inf
        self._next = LOOKUP_S

    def is_over(self, now: float) -> bool:
        """Whether it is time to ask."""
        return now >= self._over_at

    def begin(self, now: float) -> None:
        """They are asked now."""
        self._over_at = now + self._next
        self._next = min(2 * self._next, MAX_LOOKUP_S)

    def shorten(self, now: float) -> None:
        """The members are others than before, so the answer may be."""
        self._next = LOOKUP_S
        self._over_at = min(self._over_at, now + LOOKUP_S)


class Search:
    """Dials, and looks for whom to dial.

    Args:
        host: Holds the links.
        book: Whom to dial.
        facade: Knows the addresses that libp2p was told.
        routing: Finds peers of peers.
        settings: Bounds.
    """

    def __init__(
        self,
        host: Host,
        book: PeerBook,
        facade: Facade,
        routing: Routing,
        settings: NetworkSettings,
    ) -> None:
        self._host = host
        self._book = book
        self._facade = facade
        self._routing = routing
        self._settings = settings
        self._pauses = Pauses()
        self._under_way: dict[str, trio.Event] = {}
        self._wake = trio.Event()

    def look_again(self) -> None:
        """There may be somebody new to dial."""
        self._wake.set()

    def members_changed(self) -> None:
        """Members have come or gone: look whom to dial now, and ask for more sooner."""
        self._pauses.shorten(trio.current_time())
        self._wake.set()

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

    async def reach(self, peer: str, *, far: bool) -> Link:
        """A live link to a peer, dialled if need be; many callers share one attempt."""
        if peer == self._host.me:
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
        while (other := self._under_way.get(peer)) is not None:
            await other.wait()
        if (link := self._host.link_to(peer)) is not None:
            return link
        done = self._under_way[peer] = trio.Event()
        try:
            try:
                link = await self._dial_any(peer, found)
                await greeted(link)
            except UnreachableError as error:
                self._book.failed(peer, error.why, trio.current_time(), random.random())  # noqa: S311 - spreads retries
                raise
            self._book.succeeded(peer, peer, trio.current_time())
            return link
        finally:
            del self._under_way[peer]
            done.set()

    async def reach_near(self, peer: str) -> Link:
        """For gossipsub and Kademlia: no search, and no peer that failed a moment ago."""
        if self._book.is_resting(peer, trio.current_time()):
            raise UnreachableError(peer, "it did not answer a moment ago")
        return await self.reach(peer, far=False)

    async def run(self) -> None:
        """Keep enough members: given, remembered and found peers, in parallel, with growing pauses."""
        room = trio.CapacityLimiter(PARALLEL_DIALS)
        async with trio.open_nursery() as nursery:
            while True:
                now = trio.current_time()
                members = self._host.members()
                asking = not self._host.chain_id
                wanted = ASKING_LINKS if asking else self._settings.target_connections
                hungry = (len(self._host.links) if asking else len(members)) < wanted
                free = int(room.available_tokens)
                for entry in self._book.due(now, free, self._host.links, hungry=hungry):
                    entry.trying = True
                    nursery.start_soon(self._try, entry, room)
                if hungry and members and self._pauses.is_over(now):
                    self._pauses.begin(now)
                    nursery.start_soon(self._host.fence, self._look_up)
                self._wake = trio.Event()
                due_at = self._book.next_due(self._host.links, hungry=hungry)
                with trio.move_on_after(min(TICK_S, max(SHORTEST_S, due_at - now))):
                    await self._wake.wait()

    async def _try(self, entry: Entry, room: trio.CapacityLimiter) -> None:
        try:
            async with room:
                if entry.peer is None:
                    link = await self._dial_any(entry.key, list(entry.addresses))
                else:
                    link = self._host.link_to(entry.peer) or await self._dial_any(
                        entry.peer, [address.of(entry.peer) for address in entry.addresses]
                    )
                await greeted(link)
        except UnreachableError as error:
            log.debug("network.dial_failed", peer=entry.key, why=error.why)
            self._book.failed(entry.key, error.why, trio.current_time(), random.random())  # noqa: S311 - spreads retries
        except Exception as error:  # noqa: BLE001 - nothing that one peer says may end the search
            log.warning("network.dial_broke", peer=entry.key, error=repr(error))
            self._book.failed(entry.key, repr(error), trio.current_time(), random.random())  # noqa: S311 - see above
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
        self.look_again()
