"""The schedule of one fetch: which chunk is asked of whom. No I/O, no clock, no randomness.

Each provider has a window of bytes in flight that follows its measured rate, and of the room that there is a share by it.
A provider that is silent loses its wants; one that lacks a chunk is not asked for it again until `forget_refusals`;
one that sent a wrong byte is never asked again.
When nothing is left to hand out, a fast provider also asks for what a slow one would deliver much later (work stealing, which
in the end-game leaves at most `MAX_COPIES` wants for one chunk); the first answer counts and the others are cancelled.
A provider that lags is asked for nothing more until it delivers, and does not count among those copies.
A chunk takes room once, however many are asked for it, so that what bad providers owe never keeps good ones from it.

Time is seconds of any clock that does not go back, passed in. Equal calls give equal effects.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from storage.dag import is_manifest

if TYPE_CHECKING:
    from protocols.transport import PeerId
    from storage.cid import Cid

FIRST_WINDOW_BYTES = 4 * 2**20
"""In flight to a provider whose rate is not known yet."""
MIN_WINDOW_BYTES = 2 * 2**20
"""One chunk of any size is always allowed, so that a slow provider holds up little."""
MAX_WINDOW_BYTES = 16 * 2**20
"""In flight to one provider; 160 MB/s at a round trip of 100 ms."""
WINDOW_SECONDS = 0.5
"""A window is what a provider sends in this time."""
MAX_PEER_WANTS = 1_024
"""Wants in flight to one provider, whatever their size; what the protocol allows."""
SILENCE_SECONDS = 10.0
"""A provider that owes chunks and sends no byte for this long is given up."""
SAMPLE_SECONDS = 0.25
"""A rate is measured over at least this much time with something in flight."""
ASSUMED_RATE = 4 * 2**20
"""Bytes a second that a provider is thought to send before it is measured."""
STEAL_FACTOR = 2.0
"""A want is stolen if the thief needs less than its owner by this factor,"""
STEAL_SECONDS = 0.1
"""and by this many seconds more."""
MAX_COPIES = 2
"""Providers that are asked for one chunk at a time, those that lag not counted."""
LAG_SECONDS = 1.0
"""A provider lags that owes chunks and has completed none for this long."""
LOW_LEAVES = 4_096
"""No manifest is asked for while more chunks than this wait: that bounds what a walk keeps in memory."""
MAX_OPEN_MANIFESTS = 16
"""Manifests in flight at a time."""
LIKELY_MANIFEST_BYTES = 2**16
"""What a manifest is thought to have, whose length nobody promised: 1,024 links and a bit."""
_SCAN = 64


@dataclass(frozen=True, slots=True)
class Ask:
    """Want these of a provider."""

    peer: PeerId
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Cancel these wants of a provider; it still answers each."""

    peer: PeerId
    cids: tuple[Cid, ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """Give a provider up; it holds no wants any more."""

    peer: PeerId
    reason: str


Effect: TypeAlias = Ask | Withdraw | Drop


@dataclass(frozen=True, slots=True)
class Sender:
    """A provider that was asked for chunks which have not come.

    Attributes:
        peer: Who it is.
        rate: Bytes a second at which chunks come from it; None before that is known.
        silent: Seconds since a byte came.
    """

    peer: PeerId
    rate: float | None
    silent: float


@dataclass(slots=True)
class _Want:
    cid: Cid
    size: int
    holders: list[PeerId] = field(default_factory=list)
    lacking: set[PeerId] = field(default_factory=set)


@dataclass(slots=True)
class _Provider:
    peer: PeerId
    last_heard: float
    in_flight: dict[Cid, int] = field(default_factory=dict)
    withdrawn: set[Cid] = field(default_factory=set)
    bytes_in_flight: int = 0
    last_answer: float = 0.0
    rate: float | None = None
    sample_start: float = 0.0
    sample_bytes: int = 0

    @property
    def window(self) -> int:
        if self.rate is None:
            return FIRST_WINDOW_BYTES
        return max(MIN_WINDOW_BYTES, min(MAX_WINDOW_BYTES, int(self.rate * WINDOW_SECONDS)))

    def has_room(self, share: float) -> bool:
        """Whether it may be asked for more, of which its share of the room is `share` bytes."""
        window = min(self.window, max(1.0, share))
        return self.bytes_in_flight < window and len(self.in_flight) < MAX_PEER_WANTS

    def seconds_for(self, size: int) -> float:
        """Until a chunk of that size, asked for now, would be here."""
        return (self.bytes_in_flight + size) / (self.rate or ASSUMED_RATE)

    def lags(self, now: float) -> bool:
        return bool(self.in_flight) and now - self.last_answer > LAG_SECONDS

    def rate_now(self, now: float) -> float:
        """Its rate, or less: the chunk that it owes next cannot have come faster than the wait for it."""
        rate = self.rate or ASSUMED_RATE
        waited = now - self.last_answer
        if self.in_flight and waited > 0:
            rate = min(rate, _likely(*next(iter(self.in_flight.items()))) / waited)
        return max(rate, 1.0)

    def rate_told(self, now: float) -> float | None:
        """Its rate now; a wait that is shorter than a sample says nothing of it."""
        waits = now - self.last_answer >= SAMPLE_SECONDS
        return self.rate_now(now) if waits and self.rate is not None else self.rate


class Schedule:
    """Hands the chunks of one fetch out to its providers.

    Attributes:
        last_progress: When a chunk last came that was still needed.
        fell_silent: Who was given up because nothing came; it may have what is missing.
    """

    def __init__(self, now: float) -> None:
        self.last_progress = now
        self.fell_silent: set[PeerId] = set()
        self._wants: dict[Cid, _Want] = {}
        self._leaves: deque[_Want] = deque()
        self._manifests: deque[_Want] = deque()
        self._lacked: deque[_Want] = deque()
        self._manifests_in_flight = 0
        self._providers: dict[PeerId, _Provider] = {}
        self._checking: dict[Cid, int] = {}
        self._bytes_checking = 0
        self._bytes_asked = 0
        self._liars: set[PeerId] = set()

    @property
    def is_checking(self) -> bool:
        """Whether chunks that came wait to be checked and stored."""
        return bool(self._checking)

    @property
    def missing(self) -> int:
        """Chunks that are known to be wanted and have not come."""
        return len(self._wants)

    @property
    def queued(self) -> int:
        """Chunks that are wanted and asked of nobody."""
        return len(self._leaves) + len(self._manifests) + len(self._lacked)

    @property
    def buffered(self) -> int:
        """Bytes of chunks that are in flight, or received and not stored yet."""
        return self._bytes_checking + self._bytes_asked

    @property
    def providers(self) -> tuple[PeerId, ...]:
        """Who can be asked, in the order in which they joined."""
        return tuple(self._providers)

    @property
    def is_starving(self) -> bool:
        """Whether chunks are wanted, none is in flight and none can be asked of anybody."""
        return (
            bool(self._wants)
            and not self._checking
            and not any(cid in self._wants for p in self._providers.values() for cid in p.in_flight)
        )

    def first_wanted(self) -> Cid | None:
        """A chunk that has not come yet."""
        return next(iter(self._wants), None)

    def rate(self, peer: PeerId) -> float | None:
        """Bytes a second that a provider was measured to send; None before that."""
        provider = self._providers.get(peer)
        return None if provider is None else provider.rate

    def senders(self, now: float) -> tuple[Sender, ...]:
        """Who was asked for chunks that are still missing, in the order in which they joined."""
        return tuple(
            Sender(one.peer, one.rate_told(now), now - one.last_heard)
            for one in self._providers.values()
            if any(cid in self._wants for cid in one.in_flight)
        )

    def add(self, cid: Cid, size: int) -> None:
        """A chunk is to be fetched; `size` is the most bytes that it may have."""
        if cid not in self._wants and cid not in self._checking:
            want = self._wants[cid] = _Want(cid, size)
            self._queue(want)

    def join(self, peer: PeerId, now: float) -> None:
        """A provider can be asked."""
        if peer not in self._liars and peer not in self._providers:
            self._providers[peer] = _Provider(peer, now)

    def leave(self, peer: PeerId) -> None:
        """A provider is gone; others are asked for what it owed."""
        provider = self._providers.pop(peer, None)
        if provider is not None:
            for cid in reversed(provider.in_flight):
                self._give_up(peer, cid)

    def heard(self, peer: PeerId, now: float) -> None:
        """Some byte came from a provider."""
        provider = self._providers.get(peer)
        if provider is not None:
            provider.last_heard = now

    def received(self, peer: PeerId, cid: Cid, size: int, now: float) -> tuple[bool, list[Effect]]:
        """A chunk came; not checked yet.

        Returns:
            Whether it is still needed (hand it to the check, then tell `stored` or `refuse`), and what to do.
        """
        provider = self._providers.get(peer)
        if provider is not None:
            self._answer(provider, cid)
            _measure(provider, size, now)
        want = self._wants.pop(cid, None)
        if want is None:
            return False, []
        if want.holders:
            self._land(want)
        else:
            self._unqueue(want)
        effects: list[Effect] = []
        for other in want.holders:
            if other != peer:
                self._providers[other].withdrawn.add(cid)
                effects.append(Withdraw(other, (cid,)))
        self._checking[cid] = size
        self._bytes_checking += size
        self.last_progress = now
        return True, effects

    def stored(self, cid: Cid) -> None:
        """A chunk was checked and written."""
        self._bytes_checking -= self._checking.pop(cid, 0)

    def refuse(self, peer: PeerId, cid: Cid, size: int) -> list[Effect]:
        """A chunk has wrong bytes: its sender is never asked again, and another is asked for it."""
        self.stored(cid)
        self._liars.add(peer)
        self.leave(peer)
        self.add(cid, size)
        return [Drop(peer, "it sent bytes that do not match their CID")]

    def lacks(self, peer: PeerId, cid: Cid) -> None:
        """A provider answered that it does not have a chunk."""
        provider = self._providers.get(peer)
        if provider is None:
            return
        was_withdrawn = cid in provider.withdrawn
        self._answer(provider, cid)
        want = self._wants.get(cid)
        if want is not None:
            if not was_withdrawn:
                want.lacking.add(peer)
            self._give_up(peer, cid)

    def put_back(self, peer: PeerId, cid: Cid) -> None:
        """An `Ask` could not be sent now."""
        provider = self._providers.get(peer)
        if provider is not None:
            self._answer(provider, cid)
            self._give_up(peer, cid)

    def forget_refusals(self) -> None:
        """Ask again those that lacked a chunk: they may have it by now."""
        for want in self._wants.values():
            want.lacking.clear()
        returned, self._lacked = self._lacked, deque()
        for want in returned:
            self._queue(want)

    def tick(self, now: float, budget: int) -> list[Effect]:
        """Hand out what can be handed out.

        Args:
            now: The time.
            budget: Bytes of chunks that may be in flight or wait to be stored; one chunk is always allowed.
        """
        effects: list[Effect] = []
        for provider in list(self._providers.values()):
            if provider.in_flight and now - provider.last_heard > SILENCE_SECONDS:
                self.leave(provider.peer)
                self.fell_silent.add(provider.peer)
                effects.append(Drop(provider.peer, f"no byte came for {SILENCE_SECONDS:.0f} s"))
        able = [p for p in self._providers.values() if not p.lags(now)]
        able.sort(key=lambda p: -p.rate_now(now))
        total = sum(p.rate_now(now) for p in able)
        soonest: dict[Cid, float] = {}
        for provider in able:
            asked: list[Cid] = []
            share = budget * provider.rate_now(now) / total
            while provider.has_room(share):
                is_free = self.buffered < budget or not self.buffered
                want = self._pick(provider) if is_free else None
                if want is None and len(self._providers) > 1:
                    soonest = soonest or self._expected(now)
                    want = self._steal(provider, soonest)
                if want is None:
                    break
                self._assign(provider, want, now)
                asked.append(want.cid)
            if asked:
                effects.append(Ask(provider.peer, tuple(asked)))
        return effects

    def _line(self, want: _Want) -> deque[_Want]:
        if want.lacking:
            return self._lacked
        return self._manifests if is_manifest(want.cid) else self._leaves

    def _queue(self, want: _Want, *, first: bool = False) -> None:
        line = self._line(want)
        if first or line is self._manifests:
            line.appendleft(want)
        else:
            line.append(want)

    def _unqueue(self, want: _Want) -> None:
        for line in (self._lacked, self._manifests, self._leaves):
            if want in line:
                line.remove(want)

    def _pick(self, provider: _Provider) -> _Want | None:
        lines = [self._leaves, self._lacked]
        if len(self._leaves) < LOW_LEAVES and self._manifests_in_flight < MAX_OPEN_MANIFESTS:
            lines.insert(0, self._manifests)
        for line in lines:
            found: _Want | None = None
            turns = 0
            while found is None and turns < min(_SCAN, len(line)):
                if _may_ask(provider, line[0]):
                    found = line.popleft()
                else:
                    line.rotate(-1)
                    turns += 1
            if line is not self._lacked:
                line.rotate(turns)
            if found is not None:
                return found
        return None

    def _expected(self, now: float) -> dict[Cid, float]:
        """For each chunk that one more may be asked for, the seconds until the first of its holders would deliver it."""
        soonest: dict[Cid, float] = {}
        copies: Counter[Cid] = Counter()
        for owner in self._providers.values():
            ahead = 0
            rate = owner.rate_now(now)
            for cid, size in owner.in_flight.items():
                ahead += _likely(cid, size)
                soonest[cid] = min(soonest.get(cid, ahead / rate), ahead / rate)
            if not owner.lags(now):
                copies.update(owner.in_flight.keys())
        return {cid: when for cid, when in soonest.items() if copies[cid] < MAX_COPIES}

    def _steal(self, thief: _Provider, soonest: dict[Cid, float]) -> _Want | None:
        """The chunk that would come last, if the thief is much faster than all who were asked for it."""
        best: _Want | None = None
        latest = 0.0
        for cid, seconds in soonest.items():
            want = self._wants.get(cid)
            if want is None or not want.holders or seconds <= latest or not _may_ask(thief, want):
                continue  # one without holders stands in a line, to be handed out as room comes
            if seconds > STEAL_FACTOR * thief.seconds_for(_likely(cid, want.size)) + STEAL_SECONDS:
                best, latest = want, seconds
        if best is not None:
            del soonest[best.cid]
        return best

    def _assign(self, provider: _Provider, want: _Want, now: float) -> None:
        if not provider.in_flight:
            idle = now - provider.last_answer
            provider.sample_start = provider.sample_start + idle if provider.sample_bytes else now
            provider.last_heard = provider.last_answer = now
        if not want.holders:
            self._bytes_asked += want.size
            self._manifests_in_flight += is_manifest(want.cid)
        want.holders.append(provider.peer)
        provider.in_flight[want.cid] = want.size
        provider.bytes_in_flight += want.size

    def _answer(self, provider: _Provider, cid: Cid) -> None:
        provider.bytes_in_flight -= provider.in_flight.pop(cid, 0)
        provider.withdrawn.discard(cid)

    def _give_up(self, peer: PeerId, cid: Cid) -> None:
        want = self._wants.get(cid)
        if want is None or peer not in want.holders:
            return
        want.holders.remove(peer)
        if not want.holders:
            self._land(want)
            self._queue(want, first=not want.lacking)

    def _land(self, want: _Want) -> None:
        """A chunk is no longer in flight."""
        self._bytes_asked -= want.size
        self._manifests_in_flight -= is_manifest(want.cid)


def _likely(cid: Cid, size: int) -> int:
    """Bytes that a chunk will have, of which `size` is the most."""
    return min(size, LIKELY_MANIFEST_BYTES) if is_manifest(cid) else size


def _may_ask(provider: _Provider, want: _Want) -> bool:
    return provider.peer not in want.lacking and want.cid not in provider.in_flight


def _measure(provider: _Provider, size: int, now: float) -> None:
    provider.last_answer = now
    provider.sample_bytes += size
    seconds = now - provider.sample_start
    if seconds >= SAMPLE_SECONDS:
        sample = provider.sample_bytes / seconds
        provider.rate = sample if provider.rate is None else (provider.rate + sample) / 2
        provider.sample_start = now
        provider.sample_bytes = 0
