"""The schedule of one fetch: which chunk is asked of whom, and who has what. No I/O, no clock, no randomness.

A chunk is asked of one peer at a time, each peer for about half a second's worth of bytes.
When none is left to hand out, a peer with room takes over the chunk that another would deliver last, if it is much faster.
A peer that says DONT_HAVE is not asked for that chunk again for a while; when all say so, each is asked to tell when it has it.
A peer that is silent loses its wants to others, is asked again, and is given up after `MAX_STRIKES` silences.

Time is seconds of any clock that does not go back, passed in. Equal calls give equal effects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from storage import dag

if TYPE_CHECKING:
    from collections.abc import Iterable

    from protocols.transport import PeerId
    from storage.cid import Cid

FIRST_WINDOW_BYTES = 8 * 2**20
"""In flight to a peer whose rate is not known yet."""
MIN_WINDOW_BYTES = 2 * 2**20
MAX_WINDOW_BYTES = 16 * 2**20
"""Below what a connection may have unread: chunks beyond that would be lost."""
WINDOW_SECONDS = 0.5
"""A window is what a peer sends in this time."""
MAX_PEER_WANTS = 128
"""In flight to one peer; Kubo opens a stream for each."""
SILENCE_SECONDS = 8.0
"""A peer that owes chunks and sends nothing for this long has a strike."""
MAX_STRIKES = 3
WANT_SECONDS = 30.0
"""A chunk that a peer does not send for so long, while it sends others, counts as not held there."""
REASK_SECONDS = 5.0
"""Between two rounds of asking for what nobody had."""
SAMPLE_SECONDS = 0.25
ASSUMED_RATE = 4 * 2**20
"""Bytes a second that a peer is thought to send before it is measured."""
STEAL_FACTOR = 2.0
"""A chunk is taken over if the thief needs less than its owner by this factor,"""
STEAL_SECONDS = 0.5
"""and by this many seconds more: what is under way already comes twice."""
LOW_LEAVES = 4_096
"""No manifest is asked for while more leaves than this wait."""
MAX_OPEN_MANIFESTS = 64
_SCAN = 64


@dataclass(frozen=True, slots=True)
class Ask:
    """Send want-block for these."""

    peer: PeerId
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Inquire:
    """Send want-have for these: the peer tells when it has them."""

    peer: PeerId
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Cancel these."""

    peer: PeerId
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Give a peer up."""

    peer: PeerId
    reason: str


Effect: TypeAlias = Ask | Inquire | Withdraw | Drop


@dataclass(slots=True)
class _Want:
    cid: Cid
    size: int
    holder: PeerId | None = None
    asked_at: float = 0.0
    lacking: set[PeerId] = field(default_factory=set)
    told: set[PeerId] = field(default_factory=set)


@dataclass(slots=True)
class _Peer:
    peer: PeerId
    last_heard: float
    last_chunk: float = 0.0
    in_flight: dict[Cid, int] = field(default_factory=dict)
    bytes_in_flight: int = 0
    strikes: int = 0
    rate: float | None = None
    sample_start: float = 0.0
    sample_bytes: int = 0

    @property
    def window(self) -> int:
        if self.rate is None:
            return FIRST_WINDOW_BYTES
        return max(MIN_WINDOW_BYTES, min(MAX_WINDOW_BYTES, int(self.rate * WINDOW_SECONDS)))

    @property
    def has_room(self) -> bool:
        return self.bytes_in_flight < self.window and len(self.in_flight) < MAX_PEER_WANTS

    def rate_now(self, now: float) -> float:
        """Its rate, or less: the chunk that it owes next cannot have come faster than the wait for it."""
        rate = self.rate or ASSUMED_RATE
        waited = now - self.last_chunk
        if self.in_flight and waited > 0:
            rate = min(rate, next(iter(self.in_flight.values())) / waited)
        return max(rate, 1.0)


class Schedule:
    """Hands the chunks of one fetch out to peers.

    Attributes:
        last_progress: When a chunk last came that was still needed.
    """

    def __init__(self, now: float) -> None:
        self.last_progress = now
        self._wants: dict[Cid, _Want] = {}
        self._leaves: dict[Cid, None] = {}
        self._manifests: dict[Cid, None] = {}
        self._nowhere: dict[Cid, None] = {}
        self._manifests_in_flight = 0
        self._reask_at = now + REASK_SECONDS
        self._peers: dict[PeerId, _Peer] = {}

    @property
    def peers(self) -> tuple[PeerId, ...]:
        """Who can be asked."""
        return tuple(self._peers)

    @property
    def queued(self) -> int:
        """Chunks that are wanted and asked of nobody."""
        return len(self._leaves) + len(self._manifests) + len(self._nowhere)

    @property
    def in_flight(self) -> int:
        """Bytes that were asked for and have not come."""
        return sum(peer.bytes_in_flight for peer in self._peers.values())

    @property
    def is_starving(self) -> bool:
        """Whether chunks are wanted and none is asked of anybody."""
        return bool(self._wants) and not any(peer.in_flight for peer in self._peers.values())

    def is_asking(self, peer: PeerId, cid: Cid) -> bool:
        """Whether a chunk is asked of that peer now."""
        want = self._wants.get(cid)
        return want is not None and (want.holder == peer or peer in want.told)

    def first_wanted(self) -> Cid | None:
        """A chunk that has not come yet."""
        return next(iter(self._wants), None)

    def add(self, cid: Cid, size: int) -> None:
        """A chunk is to be fetched; `size` is what it probably has."""
        if cid not in self._wants:
            want = self._wants[cid] = _Want(cid, size)
            self._queue(want)

    def join(self, peer: PeerId, now: float) -> None:
        """A peer can be asked."""
        self._peers.setdefault(peer, _Peer(peer, now))
        self._forget_refusals()

    def leave(self, peer: PeerId) -> None:
        """A peer is gone; others are asked for what it owed."""
        found = self._peers.pop(peer, None)
        if found is not None:
            for cid in found.in_flight:
                self._release(self._wants[cid])

    def heard(self, peer: PeerId, now: float) -> None:
        """Something came from a peer."""
        found = self._peers.get(peer)
        if found is not None:
            found.last_heard = now

    def received(self, peer: PeerId, cid: Cid, size: int, now: float) -> tuple[bool, list[Effect]]:
        """A chunk came, and its name is its hash.

        Returns:
            Whether it is still needed, and whom to tell that it is not wanted any more.
        """
        want = self._wants.pop(cid, None)
        if want is None:
            return False, []
        self._unqueue(cid)
        effects: list[Effect] = []
        others = want.told - {peer}
        is_due = want.holder == peer
        if want.holder is not None:
            others |= {want.holder} - {peer}
            self._take_back(want)
        effects += [Withdraw(other, (cid,)) for other in sorted(others) if other in self._peers]
        found = self._peers.get(peer)
        if found is not None:
            found.strikes = 0
            found.last_heard = found.last_chunk = now
            if is_due or found.in_flight:  # or another fetch asked for it, and no sample has begun
                _measure(found, size, now)
        self.last_progress = now
        return True, effects

    def has(self, peer: PeerId, cid: Cid) -> None:
        """A peer says that it holds a chunk."""
        want = self._wants.get(cid)
        if want is not None:
            want.lacking.discard(peer)
            want.told.discard(peer)
            if cid in self._nowhere:
                del self._nowhere[cid]
                self._queue(want)

    def lacks(self, peer: PeerId, cid: Cid) -> None:
        """A peer says that it does not hold a chunk."""
        want = self._wants.get(cid)
        if want is not None:
            want.lacking.add(peer)
            if want.holder == peer:
                self._release(want)

    def withdraw_all(self) -> list[Effect]:
        """What to cancel when the fetch ends."""
        found: dict[PeerId, list[Cid]] = {}
        for want in self._wants.values():
            for peer in want.told | ({want.holder} if want.holder is not None else set()):
                found.setdefault(peer, []).append(want.cid)
        return [Withdraw(peer, tuple(owed)) for peer, owed in found.items() if peer in self._peers]

    def tick(self, now: float, budget: int) -> list[Effect]:
        """Hand out what can be handed out.

        Args:
            now: The time.
            budget: Bytes that may still be asked for; one chunk is always allowed.
        """
        effects = self._judge(now)
        if now >= self._reask_at:
            self._reask_at = now + REASK_SECONDS
            self._forget_refusals()
        idle = not self.in_flight
        for peer in sorted(self._peers.values(), key=lambda one: -(one.rate or 0.0)):
            asked: list[Cid] = []
            while peer.has_room and (budget > 0 or idle):
                want = self._pick(peer) or self._steal(peer, now, effects)
                if want is None:
                    break
                self._assign(peer, want, now)
                budget -= want.size
                idle = False
                asked.append(want.cid)
            if asked:
                effects.append(Ask(peer.peer, tuple(asked)))
        return effects + self._inquire()

    def _judge(self, now: float) -> list[Effect]:
        """Find the peers that are silent, and the chunks that do not come."""
        effects: list[Effect] = []
        for peer in list(self._peers.values()):
            if not peer.in_flight:
                continue
            if now - peer.last_heard > SILENCE_SECONDS:
                peer.strikes += 1
                peer.last_heard = now
                late = list(peer.in_flight)
                if peer.strikes >= MAX_STRIKES:
                    self.leave(peer.peer)
                    effects.append(Drop(peer.peer, f"silent {MAX_STRIKES} times"))
                else:
                    effects += self._recall(peer, late)
            else:
                first = self._wants[next(iter(peer.in_flight))]
                if now - first.asked_at > WANT_SECONDS:
                    first.lacking.add(peer.peer)
                    effects += self._recall(peer, [first.cid])
        return effects

    def _recall(self, peer: _Peer, late: list[Cid]) -> list[Effect]:
        """Take chunks back; a peer alone is simply asked again."""
        for cid in late:
            self._release(self._wants[cid])
        return [Withdraw(peer.peer, tuple(late))] if len(self._peers) > 1 else []

    def _inquire(self) -> list[Effect]:
        """Ask for word of what nobody had."""
        effects: list[Effect] = []
        for peer in self._peers:
            new = [cid for cid in self._nowhere if peer not in self._wants[cid].told]
            if new:
                effects.append(Inquire(peer, tuple(new[:MAX_PEER_WANTS])))
                for cid in new[:MAX_PEER_WANTS]:
                    self._wants[cid].told.add(peer)
        return effects

    def _pick(self, peer: _Peer) -> _Want | None:
        lines: list[Iterable[Cid]] = [self._leaves]
        if len(self._leaves) < LOW_LEAVES and self._manifests_in_flight < MAX_OPEN_MANIFESTS:
            # The last that was found comes first: depth before breadth.
            lines.insert(0, reversed(self._manifests))
        for line in lines:
            for seen, cid in enumerate(line):
                if seen == _SCAN:
                    break
                want = self._wants[cid]
                if peer.peer not in want.lacking:
                    return want
        return None

    def _steal(self, thief: _Peer, now: float, effects: list[Effect]) -> _Want | None:
        """Take from a slower peer the chunk that would come last."""
        latest: tuple[float, _Peer, _Want] | None = None
        for owner in self._peers.values():
            if owner is thief or not owner.in_flight:
                continue
            want = self._wants[next(reversed(owner.in_flight))]
            seconds = owner.bytes_in_flight / owner.rate_now(now)
            if thief.peer not in want.lacking and (latest is None or seconds > latest[0]):
                latest = seconds, owner, want
        if latest is None:
            return None
        seconds, owner, want = latest
        own = (thief.bytes_in_flight + want.size) / thief.rate_now(now)
        if seconds <= STEAL_FACTOR * own + STEAL_SECONDS:
            return None
        self._take_back(want)
        effects.append(Withdraw(owner.peer, (want.cid,)))
        return want

    def _assign(self, peer: _Peer, want: _Want, now: float) -> None:
        if not peer.in_flight:
            peer.last_heard = peer.last_chunk = peer.sample_start = now
            peer.sample_bytes = 0
        self._unqueue(want.cid)
        want.holder, want.asked_at = peer.peer, now
        peer.in_flight[want.cid] = want.size
        peer.bytes_in_flight += want.size
        if dag.is_manifest(want.cid):
            self._manifests_in_flight += 1

    def _take_back(self, want: _Want) -> None:
        if want.holder is None:
            return
        peer = self._peers.get(want.holder)
        if peer is not None:
            peer.bytes_in_flight -= peer.in_flight.pop(want.cid)
        want.holder = None
        if dag.is_manifest(want.cid):
            self._manifests_in_flight -= 1

    def _release(self, want: _Want) -> None:
        self._take_back(want)
        if self._peers and want.lacking.issuperset(self._peers):
            self._nowhere[want.cid] = None
        else:
            self._queue(want)

    def _queue(self, want: _Want) -> None:
        line = self._manifests if dag.is_manifest(want.cid) else self._leaves
        line[want.cid] = None

    def _unqueue(self, cid: Cid) -> None:
        for line in (self._leaves, self._manifests, self._nowhere):
            line.pop(cid, None)

    def _forget_refusals(self) -> None:
        for cid in self._nowhere:
            self._wants[cid].told.clear()
            self._queue(self._wants[cid])
        self._nowhere.clear()
        for want in self._wants.values():
            want.lacking.clear()


def _measure(peer: _Peer, size: int, now: float) -> None:
    peer.sample_bytes += size
    spent = now - peer.sample_start
    if spent >= SAMPLE_SECONDS:
        fresh = peer.sample_bytes / spent
        peer.rate = fresh if peer.rate is None else (peer.rate + fresh) / 2
        peer.sample_start, peer.sample_bytes = now, 0
