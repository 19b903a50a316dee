"""A run: a scenario under a seed, and what must hold whatever they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from protocols.consensus.application import Validator
from protocols.consensus.evidence import audit, contradict, votes_of
from protocols.consensus.journal import decode_entries
from protocols.consensus.messages import Certificate, Kind, Proposal, Vote
from swarm.simulator import keys
from swarm.simulator.chance import Chance
from swarm.simulator.errors import SimulationError
from swarm.simulator.events import Schedule
from swarm.simulator.liars import KINDS
from swarm.simulator.liars.behaviour import Behaviour, Honest
from swarm.simulator.measures import Measures
from swarm.simulator.memo import remembered
from swarm.simulator.network import Network
from swarm.simulator.node import START_UTC_MS, Node
from swarm.simulator.plain import PlainLedger
from swarm.simulator.town import Town
from swarm.simulator.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.consensus.application import Application
    from protocols.consensus.messages import Block, Message
    from protocols.signing import Signer
    from swarm.simulator.scenario import Scenario

    Progress = Callable[[int, int], None]

MOST_EVENTS: Final = 100_000_000
STEPS: Final = 200
"""Into so many pieces a run is cut, to say how far it is."""


class Simulation:
    """A network that lives for one run.

    Args:
        scenario: What it is made of.
        seed: Of everything that is drawn.
        most_events: After so many the run is given up.
    """

    def __init__(self, scenario: Scenario, seed: int, *, most_events: int = MOST_EVENTS) -> None:
        self.scenario = scenario
        self.seed = seed
        self.schedule = Schedule(most_events)
        self.trace = Trace()
        self.measures = Measures()
        self.chance = Chance("nodes", seed)
        self.network = Network(scenario, Chance("network", seed))
        self.twins_of_blocks: dict[bytes, Block] = {}
        """Of a block that was proposed to one half, the one that the other half got."""
        self.signers = sorted(
            (keys.signer("validator", at) for at in range(scenario.validators)),
            key=lambda one: one.public_key,
        )
        self.place_of = {one.public_key: place for place, one in enumerate(self.signers)}
        self.town = Town(self) if scenario.ledger is not None else None
        self.behaviours = self._assign("validator")
        self.nodes: list[Node] = []
        self._at: list[list[Node]] = []
        self._open_nodes()
        self.honest = [one for one in self.nodes if not one.behaviour.contradicts]
        """All that no evidence may name: also those that are silent, slow or wrong without contradiction."""
        for at, node in enumerate(one for one in self.nodes if not one.behaviour.doubles):
            node.half = at % 2
        self._plan()

    # A run

    @property
    def calm(self) -> bool:
        """Whether the time of trouble is over."""
        return self.schedule.now >= self.scenario.chaos_ms

    @property
    def length_ms(self) -> int:
        """Of the whole run."""
        return self.scenario.chaos_ms + self.scenario.calm_ms

    def run(self, progress: Progress | None = None) -> None:
        """Play to the end.

        Args:
            progress: Is told virtual milliseconds, done and in all.

        Raises:
            SimulationError: A rule was broken while it ran.
        """
        with remembered():
            for step in range(1, STEPS + 1):
                self.schedule.run(self.length_ms * step // STEPS)
                if progress is not None:
                    progress(self.schedule.now, self.length_ms)

    def run_until(self, when: int) -> None:
        """Play up to a time; for tests that look at the middle of a run."""
        with remembered():
            self.schedule.run(when)

    def _plan(self) -> None:
        scenario = self.scenario
        skew = scenario.links.skew_ms
        for node in self.nodes:
            node.skew_ms = self.chance.between(-skew, skew)
            if scenario.links.skews:
                node.skew_ms = scenario.links.skews[node.place]
            self.schedule.at(0, node.boot)
        churn = scenario.churn
        for _ in range(churn.per_minute * scenario.chaos_ms // 60_000):
            at, place = self.chance.below(scenario.chaos_ms), self.chance.below(len(self._at))
            self.schedule.at(at, self._crash, place, self.chance.between(*churn.down_ms))
        for one in scenario.crashes:
            self.schedule.at(one.at_ms, self._crash, one.node, one.down_ms)
        if self.town is not None:
            self.town.open()

    def _crash(self, place: int, down_ms: int) -> None:
        for node in self._at[place]:
            node.crash(down_ms)

    def _assign(self, role: str) -> dict[int, Behaviour]:
        """Who of those that play a role lies."""
        found: dict[int, Behaviour] = {}
        for liars in self.scenario.liars:
            kind = KINDS[liars.kind]
            if kind.role == role:
                places = self.scenario.places(liars)
                for place in places:
                    stream = Chance("liar", liars.kind, place, self.seed)
                    found[place] = kind(places, liars.strength, stream)
        return found

    def behaviour_of(self, role: str, place: int) -> Behaviour:
        """How a worker or a keeper lies, if it does."""
        return self._assign(role).get(place) or Honest((), 0, self.chance)

    def _open_nodes(self) -> None:
        for place, signer in enumerate(self.signers):
            behaviour = self.behaviours.get(place) or Honest((), 0, self.chance)
            here = []
            for side in range(1 + behaviour.doubles):
                opened = self._opener(len(self.nodes) + side)
                here.append(Node(self, place, signer, behaviour, opened, side))
            self._at.append(here)
            self.nodes += here

    def _opener(self, machine: int) -> Callable[[Signer], Application]:
        if self.town is not None:
            return self.town.opener()
        validators = tuple(
            Validator(one.public_key, self.scenario.weight(place))
            for place, one in enumerate(self.signers)
        )
        length = self.scenario.consensus.epoch_length
        kept: list[PlainLedger] = []

        def opened(signer: Signer) -> PlainLedger:
            if not kept:
                kept.append(PlainLedger(validators, length, signer, START_UTC_MS, machine))
            kept[0].restart()
            return kept[0]

        return opened

    # What nodes do

    def talk(self, source: Node, target: Node) -> bool:
        """Whether no liar at either end shuts the other out."""
        return source.behaviour.meets(source, target) and target.behaviour.meets(target, source)

    def send(self, source: Node, place: int, message: Message) -> None:
        """Put a message on the wire to a place."""
        if source.behaviour.honest:
            self._carry(source, place, message)
            return
        for delay, said in source.behaviour.outgoing(source, place, message):
            if isinstance(said, Proposal) and said is not message:
                self.measures.proposed(self.schedule.now, said.block)
            if delay:
                self.schedule.after(delay, self._carry, source, place, said)
            else:
                self._carry(source, place, said)

    def _carry(self, source: Node, place: int, message: Message) -> None:
        measures, schedule = self.measures, self.schedule
        measures.messages[type(message).__name__] += 1
        for target in self._at[place]:
            if not self.talk(source, target):
                continue
            delays = self.network.delays(source.place, place, schedule.now)
            measures.lost += not delays
            for delay in delays:
                schedule.after(delay, target.receive, source.signer.public_key, message)

    def committed(self, node: Node, block: Block) -> None:
        """A node holds a block final."""
        now = self.schedule.now
        first = not node.behaviour.contradicts and self.measures.committed(now, block)
        if self.town is not None:
            self.town.committed(node, block, first=first)

    def accuse(self, node: Node, accused: bytes, evidence: bytes) -> None:
        """A node found two votes that contradict each other."""
        if node.behaviour.contradicts:
            return  # a liar's word is no finding
        self.measures.accused.setdefault(accused, evidence)
        if self.town is not None:
            self.town.report(node, evidence)

    # What must hold

    def check(self) -> None:
        """Whatever the scenario: no fork, nobody accused who did not contradict itself, no node that contradicts itself.

        Raises:
            SimulationError: One of these does not hold.
        """
        measures = self.measures
        if measures.forks:
            self._fail(f"two blocks are final at height {min(measures.forks)}")
        if measures.halts:
            self._fail(measures.halts[0])
        for node in self.honest:
            if node.signer.public_key in measures.accused:
                self._fail(f"{node.name} is accused and did nothing that it may not do")
            self._check_votes(node)
        if self.town is not None:
            self.town.check()

    def _check_votes(self, node: Node) -> None:
        seen: dict[tuple[int, int], dict[Kind, Vote]] = {}
        for vote in node.sent:
            before = seen.setdefault((vote.epoch, vote.view), {})
            if before.setdefault(vote.kind, vote) != vote:
                self._fail(f"{node.name} cast two votes of one kind in view {vote.view}")
            if any(contradict(vote, other) for other in before.values()):
                self._fail(f"{node.name} contradicted itself in view {vote.view}")

    def _fail(self, why: str) -> None:
        message = f"{why}; seed {self.seed} of {self.scenario.title!r}"
        raise SimulationError(message)

    def audit(self) -> dict[bytes, bytes]:
        """What an auditor finds in all that the honest nodes wrote: evidence by public key."""
        votes: list[Vote] = []
        for node in self.honest:
            for entry in decode_entries(node.archive):
                if isinstance(entry, Vote):
                    votes.append(entry)
                elif isinstance(entry, Certificate):
                    votes += votes_of(entry, node.application.validators(entry.epoch))
        return audit(dict.fromkeys(votes))

    @property
    def heights(self) -> list[int]:
        """Of the nodes that are not accusable, by place."""
        return [node.height for node in self.honest]
