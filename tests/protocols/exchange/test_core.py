from __future__ import annotations

import heapq
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocols.exchange import core
from protocols.exchange.core import Ask, Drop, Schedule, Withdraw
from storage.cid import of_dag_pb, of_raw

MIB = 2**20
BUDGET = 32 * MIB


@dataclass
class Provider:
    """A simulated one: sends what it was asked for in order, at its rate."""

    rate: float
    lacks: frozenset[bytes] = frozenset()
    lies: bool = False
    silent_after: float = 1e9
    leaves_at: float = 1e9
    free_at: float = 0.0
    asked: list[bytes] = field(default_factory=list)
    withdrawn: set[bytes] = field(default_factory=set)
    sent: int = 0


class Simulation:
    """A schedule and its providers in virtual time."""

    def __init__(
        self, sizes: dict[bytes, int], providers: dict[str, Provider], budget: int = BUDGET
    ):
        self.now = 0.0
        self.schedule = Schedule(0.0)
        self.sizes = sizes
        self.providers = providers
        self.budget = budget
        self.stored: set[bytes] = set()
        self.trace: list[object] = []
        self.most_buffered = 0
        self._events: list[tuple[float, int, str, bytes, str]] = []
        self._count = 0
        for cid, size in sizes.items():
            self.schedule.add(cid, size)
        for name, provider in providers.items():
            self.schedule.join(name, 0.0)
            self._push(provider.leaves_at, name, b"", "leave")

    def _push(self, when: float, name: str, cid: bytes, what: str) -> None:
        self._count += 1
        heapq.heappush(self._events, (when, self._count, name, cid, what))

    def _apply(self, effects: list[core.Effect]) -> None:
        for effect in effects:
            self.trace.append((self.now, effect))
            provider = self.providers[effect.peer]
            if isinstance(effect, Ask):
                for cid in effect.cids:
                    provider.asked.append(cid)
                    provider.withdrawn.discard(cid)
                    start = max(self.now, provider.free_at)
                    if cid in provider.lacks:
                        self._push(start + 0.01, effect.peer, cid, "lacks")
                        continue
                    provider.free_at = start + self.sizes[cid] / provider.rate
                    if provider.free_at < provider.silent_after:
                        self._push(provider.free_at, effect.peer, cid, "block")
            elif isinstance(effect, Withdraw):
                provider.withdrawn.update(effect.cids)

    def run(self, until: float = 1_000.0) -> float:
        """The time at which all was stored; fails if that does not come."""
        while len(self.stored) < len(self.sizes):
            self._apply(self.schedule.tick(self.now, self.budget))
            self.most_buffered = max(self.most_buffered, self.schedule.buffered)
            assert self.now < until, f"{len(self.stored)} of {len(self.sizes)} chunks"
            self.now += 0.05
            while self._events and self._events[0][0] <= self.now:
                self._happen(*heapq.heappop(self._events)[2:])
        return self.now

    def _happen(self, name: str, cid: bytes, what: str) -> None:
        provider = self.providers[name]
        if what == "leave" or name not in self.schedule.providers:
            self.schedule.leave(name)
        elif what == "lacks":
            self.schedule.lacks(name, cid)
        elif cid in provider.withdrawn:
            provider.withdrawn.discard(cid)
            self.schedule.lacks(name, cid)
        else:
            self.schedule.heard(name, self.now)
            provider.sent += 1
            is_needed, effects = self.schedule.received(name, cid, self.sizes[cid], self.now)
            self._apply(effects)
            if not is_needed:
                return
            if provider.lies:
                self._apply(self.schedule.refuse(name, cid, self.sizes[cid]))
            else:
                assert cid not in self.stored
                self.schedule.stored(cid)
                self.stored.add(cid)


def chunks(count: int, size: int = MIB) -> dict[bytes, int]:
    return {of_raw(b"%d" % number): size for number in range(count)}


def test_equal_providers_share_equally():
    providers = {name: Provider(10 * MIB) for name in "abc"}
    took = Simulation(chunks(300), providers).run()
    assert took < 11.5
    assert max(p.sent for p in providers.values()) - min(p.sent for p in providers.values()) < 15


def test_a_slow_provider_does_not_hold_up_the_fast_one():
    providers = {"slow": Provider(0.2 * MIB), "fast": Provider(50 * MIB)}
    assert Simulation(chunks(200), providers).run() < 5.5
    assert providers["slow"].sent <= 2


def test_the_owner_of_a_stolen_chunk_is_told_that_it_is_no_longer_wanted():
    simulation = Simulation(chunks(20), {"slow": Provider(0.1 * MIB), "fast": Provider(50 * MIB)})
    simulation.run()
    assert any(isinstance(e, Withdraw) and e.peer == "slow" for _, e in simulation.trace)


def test_equal_providers_do_not_steal_from_each_other():
    providers = {name: Provider(20 * MIB) for name in "abc"}
    Simulation(chunks(200), providers).run()
    assert sum(len(p.asked) for p in providers.values()) == 200


def test_at_most_two_are_asked_for_one_chunk_at_a_time():
    providers = {
        name: Provider(rate * MIB) for name, rate in zip("abcd", (0.1, 1, 10, 50), strict=True)
    }
    Simulation(chunks(60), providers).run()
    counts = [sum(p.asked.count(cid) for p in providers.values()) for cid in chunks(60)]
    assert max(counts) <= core.MAX_COPIES


def test_a_liar_is_dropped_and_never_asked_again():
    providers = {"liar": Provider(50 * MIB, lies=True), "honest": Provider(5 * MIB)}
    simulation = Simulation(chunks(40), providers)
    simulation.run()
    assert providers["liar"].sent == 1
    assert next(e for _, e in simulation.trace if isinstance(e, Drop)).peer == "liar"
    simulation.schedule.join("liar", simulation.now)
    assert simulation.schedule.providers == ("honest",)


def test_a_provider_that_leaves_is_made_up_for():
    providers = {"leaver": Provider(20 * MIB, leaves_at=1.0), "stayer": Provider(10 * MIB)}
    assert Simulation(chunks(100), providers).run() < 10


def test_a_silent_provider_is_given_up_after_ten_seconds():
    simulation = Simulation(chunks(4), {"only": Provider(20 * MIB, silent_after=0.0)})
    with pytest.raises(AssertionError):
        simulation.run(until=12)
    dropped = [when for when, effect in simulation.trace if isinstance(effect, Drop)]
    assert len(dropped) == 1
    assert 10 <= dropped[0] < 10.2
    assert simulation.schedule.is_starving


def test_the_chunks_of_a_silent_provider_are_stolen_long_before_it_is_given_up():
    providers = {"silent": Provider(20 * MIB, silent_after=0.3), "other": Provider(20 * MIB)}
    assert Simulation(chunks(40), providers).run() < 5


def test_a_chunk_that_one_lacks_is_asked_of_another():
    names = list(chunks(30))
    providers = {
        "one": Provider(10 * MIB, lacks=frozenset(names[:15])),
        "two": Provider(10 * MIB, lacks=frozenset(names[15:])),
    }
    assert Simulation(chunks(30), providers).run() < 5


BAD = {
    "silent": {"rate": 20 * MIB, "silent_after": 0.0},
    "silent later": {"rate": 20 * MIB, "silent_after": 0.5},
    "slow": {"rate": 0.01 * MIB},
    "lying": {"rate": 20 * MIB, "lies": True},
    "slow and lying": {"rate": 0.5 * MIB, "lies": True},
}


@pytest.mark.parametrize(
    ("count", "budget"), [(1, 2 * MIB), (2, 2 * MIB), (1, BUDGET), (12, BUDGET)]
)
@pytest.mark.parametrize("kind", BAD)
def test_bad_providers_cost_a_good_one_little_time_however_many(kind, count, budget):
    good = {"rate": 40 * MIB}
    alone = Simulation(chunks(200), {"good": Provider(**good)}, budget).run()
    bad = {f"bad{number}": Provider(**BAD[kind]) for number in range(count)}
    simulation = Simulation(chunks(200), {**bad, "good": Provider(**good)}, budget)
    assert simulation.run() < 1.1 * alone + core.LAG_SECONDS + 0.5
    assert simulation.most_buffered <= budget


def test_a_chunk_that_two_owe_and_do_not_send_is_asked_of_a_third():
    schedule = Schedule(0.0)
    cid = of_raw(b"x")
    schedule.add(cid, MIB)
    for peer in ("silent", "mute"):
        schedule.join(peer, 0.0)
    assert schedule.tick(0.0, BUDGET) == [Ask("silent", (cid,))]
    assert schedule.tick(0.9, BUDGET) == [Ask("mute", (cid,))]
    schedule.join("third", 5.0)
    assert schedule.tick(5.0, BUDGET) == [Ask("third", (cid,))]
    effects = [Withdraw("silent", (cid,)), Withdraw("mute", (cid,))]
    assert schedule.received("third", cid, MIB, 5.2) == (True, effects)
    schedule.stored(cid)
    assert schedule.received("mute", cid, MIB, 5.3) == (False, [])
    assert schedule.buffered == 0


def test_a_provider_that_lags_is_asked_again_once_it_delivers():
    schedule = Schedule(0.0)
    names = [of_raw(b"%d" % number) for number in range(9)]
    for cid in names:
        schedule.add(cid, MIB)
    schedule.join("slow", 0.0)
    (first,) = schedule.tick(0.0, BUDGET)
    assert first == Ask("slow", tuple(names[:4]))
    schedule.heard("slow", 5.0)
    assert schedule.tick(5.0, BUDGET) == []
    schedule.received("slow", names[0], MIB, 5.1)
    schedule.received("slow", names[1], MIB, 5.1)
    schedule.received("slow", names[2], MIB, 5.1)
    (second,) = schedule.tick(5.1, BUDGET)
    assert second == Ask("slow", (names[4],))


def test_what_all_lack_starves_until_refusals_are_forgotten():
    schedule = Schedule(0.0)
    cid = of_raw(b"x")
    schedule.add(cid, 5)
    schedule.join("a", 0.0)
    assert schedule.tick(0.0, BUDGET) == [Ask("a", (cid,))]
    schedule.lacks("a", cid)
    assert schedule.tick(0.1, BUDGET) == []
    assert schedule.is_starving
    assert schedule.first_wanted() == cid
    schedule.forget_refusals()
    assert schedule.tick(0.2, BUDGET) == [Ask("a", (cid,))]
    assert not schedule.is_starving


def test_a_budget_bounds_what_is_in_flight_and_one_chunk_is_always_allowed():
    simulation = Simulation(
        chunks(60), {"a": Provider(100 * MIB), "b": Provider(100 * MIB)}, 6 * MIB
    )
    simulation.run()
    assert simulation.most_buffered <= 6 * MIB
    tight = Simulation(chunks(5), {"a": Provider(100 * MIB)}, 1)
    tight.run()
    assert tight.most_buffered == MIB


def test_a_window_follows_the_measured_rate():
    for rate, least, most in ((1, 4, 4), (20, 8, 12), (400, 15, 17)):
        simulation = Simulation(chunks(600), {"a": Provider(rate * MIB)}, 100 * MIB)
        with pytest.raises(AssertionError):
            simulation.run(until=1.2)
        assert least * MIB <= simulation.most_buffered <= most * MIB


def test_manifests_are_asked_for_first_and_few_at_a_time():
    schedule = Schedule(0.0)
    for number in range(100):
        schedule.add(of_raw(b"%d" % number), 1_000)
        schedule.add(of_dag_pb(b"%d" % number), 1_000)
    schedule.join("a", 0.0)
    (ask,) = schedule.tick(0.0, BUDGET)
    assert isinstance(ask, Ask)
    kinds = [cid[1] for cid in ask.cids]
    assert kinds[: core.MAX_OPEN_MANIFESTS] == [0x70] * core.MAX_OPEN_MANIFESTS
    assert kinds[core.MAX_OPEN_MANIFESTS :] == [0x55] * 100


def test_a_want_that_could_not_be_sent_is_handed_out_again():
    schedule = Schedule(0.0)
    cid = of_raw(b"x")
    schedule.add(cid, 5)
    schedule.join("a", 0.0)
    schedule.tick(0.0, BUDGET)
    schedule.put_back("a", cid)
    assert schedule.buffered == 0
    assert schedule.tick(0.1, BUDGET) == [Ask("a", (cid,))]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
@example(9_768_156)  # a want that stood in a line was stolen
def test_with_one_honest_provider_every_chunk_comes_whatever_the_others_do(seed):
    chance = random.Random(seed)
    sizes = {
        (of_dag_pb if chance.random() < 0.2 else of_raw)(b"%d" % number): chance.randint(1, 2 * MIB)
        for number in range(chance.randint(1, 60))
    }
    names = list(sizes)
    providers = {"honest": Provider(chance.uniform(0.5, 50) * MIB)}
    for number in range(chance.randint(0, 4)):
        providers[f"other{number}"] = Provider(
            chance.uniform(0.05, 80) * MIB,
            lacks=frozenset(chance.sample(names, chance.randint(0, len(names)))),
            lies=chance.random() < 0.3,
            silent_after=chance.choice([0.0, 1.0, 1e9]),
            leaves_at=chance.choice([0.5, 2.0, 1e9]),
        )
    budget = chance.choice([1, 4 * MIB, BUDGET])
    simulation = Simulation(sizes, dict(providers), budget)
    simulation.run(until=600)
    assert simulation.schedule.queued == 0
    assert not simulation.schedule.is_checking
    assert simulation.schedule.first_wanted() is None


def test_equal_inputs_give_equal_traces():
    def trace() -> list[object]:
        providers = {
            "a": Provider(3 * MIB),
            "b": Provider(9 * MIB, lies=True),
            "c": Provider(MIB, leaves_at=2),
        }
        simulation = Simulation(chunks(50), providers)
        simulation.run()
        return simulation.trace

    assert trace() == trace()
