"""Who is near a key, and who provides a root: libp2p's Kademlia tables and messages, searched and paced by us.

The records and the wire are `/ipfs/kad/1.0.0`. Only members are asked, answered or kept: the protocol's name is shared by every
network. Values are refused; only provider records are kept, within bounds.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import structlog
import trio
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.kad_dht.peer_routing import PeerRouting
from libp2p.kad_dht.provider_store import ProviderStore
from libp2p.kad_dht.routing_table import RoutingTable
from libp2p.kad_dht.utils import sort_peer_ids_by_distance
from libp2p.peer.id import ID
from libp2p.peer.peerinfo import PeerInfo
from libp2p.records.validator import NamespacedValidator

from protocols.transport import UnreachableError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from storage.cid import Cid
    from swarm.network.facade import Facade

PARALLEL = 8
"""Peers asked at once in a search."""
CLOSEST = 20
"""Peers that keep a provider record, Kademlia's k."""
ASK_S = 3.0
SEARCH_S = 6.0
MAX_ASKED = 40
"""Peers asked in one search."""
MAX_ROOTS = 4096
"""Roots that this node announces; the one announced first makes room."""
PACE_S = 1.2
"""Between two announcements: a receiver takes ten in ten seconds."""
REPUBLISH_S = 3600.0
RETRY_S = 5.0
"""Before a root that nobody has taken is announced again."""
REANNOUNCE_S = 60.0
"""After a new member has come, roots are announced again, at most this often."""
REFRESH_S = 60.0
MAX_KEYS = 2**15
"""Keys with provider records of others."""
INBOUND_S = 30.0
"""A member may keep a stream to our table open this long."""
INBOUND_STREAMS = 64

log = structlog.get_logger("swarm.network")


class MembersTable(RoutingTable):
    """A routing table that takes nobody who has not been a member."""

    def __init__(self, me: ID, facade: Facade, is_known: Callable[[str], bool]) -> None:
        super().__init__(me, facade)  # type: ignore[arg-type]  # a facade of a host
        self._is_known = is_known

    async def add_peer(self, peer_obj: Any, *, skip_server_mode_check: bool = False) -> bool:  # noqa: ANN401 - libp2p's
        """Add a member; others are not added."""
        peer = peer_obj.peer_id if isinstance(peer_obj, PeerInfo) else peer_obj
        if not self._is_known(peer.to_base58()):
            return False
        return await super().add_peer(peer_obj, skip_server_mode_check=skip_server_mode_check)


class BoundedProviders(ProviderStore):
    """Provider records within bounds."""

    def add_provider(self, key: bytes, provider: PeerInfo) -> None:
        """Keep a record; the key kept longest makes room."""
        super().add_provider(key, provider)
        while len(self.providers) > MAX_KEYS:
            del self.providers[next(iter(self.providers))]


class Routing:
    """Provider records and searches.

    Args:
        facade: The host as libp2p sees it.
        members: The connected members.
        is_known: Whether a peer has been a member in this run.
    """

    def __init__(
        self,
        facade: Facade,
        members: Callable[[], list[str]],
        is_known: Callable[[str], bool],
    ) -> None:
        self._facade = facade
        self._members = members
        self._me = facade.get_id()
        self._roots: OrderedDict[bytes, float] = OrderedDict()
        self._news = trio.Event()
        self._joined_at = -math.inf
        host: Any = facade
        dht = KadDHT(
            host,
            DHTMode.SERVER,
            validator=NamespacedValidator({}, strict_validation=True),
            validator_changed=True,
            strict_validation=True,
        )
        dht.routing_table = self._table = MembersTable(self._me, facade, is_known)
        dht.peer_routing = self._peers = PeerRouting(host, self._table)
        dht.provider_store = self._store = BoundedProviders(host, self._peers)
        dht._inbound_limiter = trio.CapacityLimiter(INBOUND_STREAMS)
        self._dht = dht
        facade.set_stream_handler("/ipfs/kad/1.0.0", self._serve)

    async def _serve(self, stream: Any) -> None:  # noqa: ANN401 - libp2p's INetStream
        with trio.move_on_after(INBOUND_S):
            await self._dht.handle_stream(stream)

    async def run(self) -> None:
        """Announce and refresh until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._announce_all)
            nursery.start_soon(self._refresh_all)

    async def member_joined(self, peer: str) -> None:
        """Take a new member into the table and announce our roots to it in time."""
        await self._table.add_peer(ID.from_base58(peer), skip_server_mode_check=True)
        self._joined_at = trio.current_time()
        self._news.set()

    # Searching.

    async def closest(self, key: bytes) -> list[ID]:
        """The members nearest to a key, nearest first."""
        near: set[ID] = set()

        async def ask(peer: ID) -> list[ID]:
            found = await self._peers._query_peer_for_closest(peer, key)
            near.add(peer)
            return found

        await self._search(key, ask, lambda: False)
        return sort_peer_ids_by_distance(key, list(near))[:CLOSEST]

    async def find_providers(self, cid: Cid, limit: int) -> list[str]:
        """Who announced a root, nearest answers first; this node left out."""
        key = _key(cid)
        found: dict[str, None] = {}

        def take(providers: list[PeerInfo]) -> None:
            for provider in providers:
                if provider.peer_id != self._me:
                    if provider.addrs:
                        self._facade.peerstore.add_addrs(provider.peer_id, provider.addrs, 3600)
                    found.setdefault(provider.peer_id.to_base58())

        take(self._store.get_providers(key))

        async def ask(peer: ID) -> list[ID]:
            providers, closer = await self._store._get_providers_from_peer_with_closers(peer, key)
            take(providers)
            return closer

        if len(found) < limit:
            await self._search(key, ask, lambda: len(found) >= limit)
        members = set(self._members())
        return sorted(found, key=lambda peer: peer not in members)[:limit]

    async def _search(
        self,
        key: bytes,
        ask: Callable[[ID], Awaitable[list[ID]]],
        is_enough: Callable[[], bool],
    ) -> None:
        """Ask ever nearer peers, `PARALLEL` at once, until none is left or `SEARCH_S` are over."""
        asked: set[ID] = {self._me}
        known: set[ID] = set(self._table.find_local_closest_peers(key, CLOSEST))
        known.update(ID.from_base58(peer) for peer in self._members()[:MAX_ASKED])

        async def ask_one(peer: ID) -> None:
            try:
                with trio.move_on_after(ASK_S):
                    known.update((await ask(peer))[:CLOSEST])
            except (UnreachableError, OSError, ValueError) as error:
                log.debug("network.search_failed", peer=str(peer), error=str(error))
            except Exception as error:  # noqa: BLE001 - what one peer answers may not end the search among the others
                log.warning("network.search_broke", peer=str(peer), error=repr(error))

        with trio.move_on_after(SEARCH_S):
            while len(asked) < MAX_ASKED and not is_enough():
                near = sort_peer_ids_by_distance(key, list(known - asked))
                if not near:
                    return
                async with trio.open_nursery() as nursery:
                    for peer in near[:PARALLEL]:
                        asked.add(peer)
                        nursery.start_soon(ask_one, peer)

    async def addresses_of(self, peer: str) -> list[str]:
        """Addresses of a peer, searched for if they are not known."""
        if not self._facade.known(peer):
            await self.closest(ID.from_base58(peer).to_bytes())
        return self._facade.known(peer)

    def known_peers(self) -> list[tuple[str, list[str]]]:
        """Peers of whom addresses are known, with these."""
        store = self._facade.peerstore
        return [
            (peer.to_base58(), [str(addr) for addr in store.addrs(peer)])
            for peer in store.peer_ids()
            if peer != self._me and store.addrs(peer)
        ]

    # Announcing.

    def provide(self, cid: Cid) -> None:
        """Announce a root, from now on and again on a schedule."""
        key = _key(cid)
        if key not in self._roots:
            self._roots[key] = -math.inf
            while len(self._roots) > MAX_ROOTS:
                dropped, _ = self._roots.popitem(last=False)
                self._store.providers.get(dropped, {}).pop(str(self._me), None)
        self._store.add_provider(key, PeerInfo(self._me, self._facade.get_addrs()))
        self._news.set()

    async def _announce_all(self) -> None:
        """One root each `PACE_S`: the one that has waited longest."""
        swept_at = -math.inf
        while True:
            now = trio.current_time()
            if self._joined_at > swept_at and now - swept_at > REANNOUNCE_S:
                swept_at = now
                for key in self._roots:
                    self._roots[key] = min(self._roots[key], now - REPUBLISH_S)
            due_at = min(self._roots.values(), default=math.inf) + REPUBLISH_S
            if due_at > now or not self._members():
                self._news = trio.Event()
                with trio.move_on_after(min(due_at - now, RETRY_S) if due_at > now else RETRY_S):
                    await self._news.wait()
                continue
            key = min(self._roots, key=self._roots.__getitem__)
            self._roots[key] = now
            if not await self._announce(key) and key in self._roots:
                self._roots[key] = now - REPUBLISH_S + RETRY_S
            await trio.sleep(PACE_S)

    async def _announce(self, key: bytes) -> bool:
        """Tell the members nearest to a key; whether one has taken it."""
        taken = 0

        async def tell(peer: ID) -> None:
            nonlocal taken
            with trio.move_on_after(ASK_S):
                taken += await self._store._send_add_provider(peer, key)

        try:
            self._store.add_provider(key, PeerInfo(self._me, self._facade.get_addrs()))
            nearest = await self.closest(key)
            async with trio.open_nursery() as nursery:
                for peer in nearest:
                    nursery.start_soon(tell, peer)
        except Exception as error:  # noqa: BLE001 - whatever fails in libp2p, the announcement comes again
            log.debug("network.announce_failed", error=repr(error))
        return taken > 0

    async def _refresh_all(self) -> None:
        """Keep the table full and the stores small."""
        while True:
            await trio.sleep(REFRESH_S)
            try:
                await self.closest(self._me.to_bytes())
                self._store.cleanup_expired()
            except Exception as error:  # noqa: BLE001 - see above
                log.debug("network.refresh_failed", error=repr(error))


def _key(cid: Cid) -> bytes:
    """What the DHT calls a root: its multihash."""
    return cid[2:]
