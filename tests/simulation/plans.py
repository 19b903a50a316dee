"""Plans drawn from a seed, and the one way to play them: trouble, then calm, then everybody has to be level."""

from __future__ import annotations

from swarm.simulator.chance import Chance
from swarm.simulator.scenario import Churn, Consensus, Crash, Liars, Links, Partition, Scenario
from swarm.simulator.simulation import Simulation

EVENTS = 150_000
"""More than any run of four nodes in order needs."""
CONSENSUS = Consensus(delta_ms=100, block_interval_ms=150, epoch_length=4)
KINDS = (
    "twin",
    "twin",
    "twin",
    "equivocator",
    "silent",
    "stale",
    "mute",
    "slow",
    "withholder",
    "spammer",
    "wrong_root",
    None,
)


def drawn(seed: int) -> Scenario:
    """Four validators, up to f that lie, and any that only fail."""
    chance = Chance("plan", seed)
    chaos = 2_000
    kind = chance.pick(KINDS)
    strength = chance.pick((0, 500_000, 1_000_000)) if kind == "twin" else 0
    liars = () if kind is None else (Liars(kind, nodes=(chance.below(4),), strength=strength),)
    weights = chance.pick(((1, 1, 1, 1), (10, 10, 10, 10), (3, 4, 4, 4), (2, 3, 3, 2)))
    if weights == (2, 3, 3, 2) and liars:  # a third of ten is 3.3: nobody is above it
        weights = (3, 3, 3, 3)
    cuts = []
    for _ in range(chance.below(3)):
        begin = chance.below(chaos)
        end = min(chaos, begin + chance.between(300, 2_000))
        half = tuple(sorted(chance.sample(range(4), chance.between(1, 2))))
        cuts.append(Partition(begin, end, half, one_way=chance.happens(300_000)))
    crashes = []
    for _ in range(chance.below(4)):
        at, node, down = chance.below(chaos), chance.below(4), chance.between(50, 1_500)
        crashes.append(Crash(at, node, min(down, chaos + 500 - at)))  # or the calm is none
    interval = chance.pick((60, 150, 300))
    return Scenario(
        title=f"seed {seed}",
        weights=weights,
        chaos_ms=chaos,
        calm_ms=4_000,  # a silent leader or two, while D is still what the trouble made of it (seed 2345)
        consensus=Consensus(100, interval, 4),
        links=Links(
            latency_ms=chance.pick(((2, 10, 20, 20), (2, 10, 60, 400))),
            loss=chance.pick((0, 50_000, 150_000, 300_000)),
            duplicates=chance.pick((0, 100_000)),
            skew_ms=800,
        ),
        churn=Churn(down_ms=(50, 800), torn_writes=chance.pick((0, 0, 10_000))),
        crashes=tuple(crashes),
        partitions=tuple(cuts),
        liars=liars,
    )


def crash_often(chaos_ms: int = 3_000) -> Scenario:
    """Nobody lies; every tenth write of a log tears."""
    return Scenario(
        chaos_ms=chaos_ms,
        calm_ms=2_500,
        consensus=CONSENSUS,
        links=Links((2, 10, 20, 20), loss=100_000),
        churn=Churn(down_ms=(50, 800), torn_writes=100_000),
    )


def play(scenario: Scenario, seed: int) -> Simulation:
    """Trouble, then calm; checks what must hold at the end, and that it went on."""
    simulation = Simulation(scenario, seed, most_events=EVENTS)
    simulation.run_until(scenario.chaos_ms)
    before = max(simulation.heights)
    simulation.run_until(simulation.length_ms)
    simulation.check()
    level = [one.height for one in simulation.honest if heard(simulation, one)]
    assert min(level) >= before + 3, f"{before} -> {level}: seed {seed}, {scenario}"
    return simulation


def heard(simulation: Simulation, node) -> bool:
    """Whether a node is level with the others by rights: nobody helps one that never says a word."""
    return simulation.scenario.liars == () or all(
        one.kind != "mute" or node.place not in simulation.scenario.places(one)
        for one in simulation.scenario.liars
    )


def evidence_weight(simulation: Simulation, accused) -> int:
    """The weight of some keys."""
    return sum(simulation.scenario.weight(simulation.place_of[key]) for key in accused)
