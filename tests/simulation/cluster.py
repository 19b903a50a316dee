"""Many nodes, one seed, virtual time: the shipped `Replica` under a network and a crash plan drawn from the seed.

No thread, socket or clock: a heap of events. What a node persisted is all that it has after a crash.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from dataclasses import dataclass, field

from protocols.consensus.application import Validator
from protocols.consensus.events import (
    Accuse,
    Advanced,
    Behind,
    Blame,
    Broadcast,
    Commit,
    Halt,
    Now,
    Persist,
    Prepare,
    Prepared,
    Process,
    Processed,
    Received,
    SendTo,
    SetTimer,
    Start,
    Tick,
)
from protocols.consensus.evidence import audit, contradict, verify_evidence, votes_of
from protocols.consensus.journal import decode_entries
from protocols.consensus.messages import (
    Block,
    Cast,
    Certificate,
    Kind,
    Proposal,
    Vote,
    epoch_of,
    genesis_block,
    verify_certificate,
)
from protocols.consensus.replica import Replica
from protocols.consensus.views import Timing
from protocols.signing import Signer

CHAIN = hashlib.sha256(b"simulation").digest()
EVENTS = 200_000
"""More than any run in order needs."""
START_UTC = 1_700_000_000_000
SIGNERS = sorted((Signer(bytes([7, n]) * 16) for n in range(8)), key=lambda s: s.public_key)


@dataclass
class Plan:
    """What a run is made of; `drawn` makes one from a seed.

    The liars: `twins` run twice with one key, each for one half of the honest nodes (and for the other half too for a
    share of `mixed` of the messages); `silent` never propose; `stale` propose on any certified block but the newest.
    """

    nodes: int = 4
    weights: tuple[int, ...] = (1, 1, 1, 1)
    twins: tuple[int, ...] = ()
    mixed: float = 0.0
    silent: tuple[int, ...] = ()
    stale: tuple[int, ...] = ()
    loss: float = 0.0
    duplicates: float = 0.0
    latency_ms: tuple[int, int] = (2, 20)
    tail: float = 0.0
    cuts: tuple[tuple[int, int, frozenset[tuple[int, int]]], ...] = ()
    crashes: tuple[tuple[int, int, int], ...] = ()
    crash_writes: float = 0.0
    skew_ms: tuple[int, ...] = (0, 0, 0, 0)
    chaos_ms: int = 5_000
    calm_ms: int = 3_000
    epoch_length: int = 4
    delta_ms: int = 100
    block_interval_ms: int = 150

    @classmethod
    def drawn(cls, seed: int) -> Plan:
        """A plan of up to f faults that lie and any that only fail."""
        rng = random.Random(f"plan {seed}")
        plan = cls()
        plan.loss = rng.choice((0.0, 0.05, 0.15, 0.3))
        plan.duplicates = rng.choice((0.0, 0.1))
        plan.tail = rng.choice((0.0, 0.05))
        liar = rng.randrange(4)
        match rng.randrange(6):
            case 0 | 1 | 2:
                plan.twins = (liar,)
                plan.mixed = rng.choice((0.0, 0.5, 1.0))
            case 3:
                plan.silent = (liar,)
            case 4:
                plan.stale = (liar,)
        plan.weights = rng.choice(((1, 1, 1, 1), (10, 10, 10, 10), (3, 4, 4, 4), (2, 3, 3, 2)))
        if plan.weights == (2, 3, 3, 2):  # a third of ten is 3.3: nobody above it
            plan.crash_writes = rng.choice((0.0, 0.01))
        plan.skew_ms = tuple(rng.randrange(-800, 800) for _ in range(4))
        cuts = []
        for _ in range(rng.randrange(4)):
            begin = rng.randrange(plan.chaos_ms)
            end = min(plan.chaos_ms, begin + rng.randrange(300, 3_000))
            half = set(rng.sample(range(4), rng.choice((1, 2))))
            one_way = rng.random() < 0.3
            links = {
                (a, b)
                for a in range(4)
                for b in range(4)
                if (a in half) != (b in half) and (not one_way or a in half)
            }
            cuts.append((begin, end, frozenset(links)))
        plan.cuts = tuple(cuts)
        plan.crashes = tuple(
            (rng.randrange(plan.chaos_ms), rng.randrange(4), rng.randrange(50, 1_500))
            for _ in range(rng.randrange(5))
        )
        if rng.random() < 0.3:
            plan.crash_writes = 0.01
        plan.block_interval_ms = rng.choice((0, 150, 300))
        return plan


class CrashError(Exception):
    """The node died at a write."""


class ToyLedger:
    """State root = hash of the parent's root and the payload; what is final survives a crash."""

    def __init__(self, genesis: Block) -> None:
        self.chain: list[tuple[Block, Certificate | None]] = [(genesis, None)]
        self.executed: dict[bytes, Block] = {}

    def tip(self) -> Block:
        return self.chain[-1][0]

    @staticmethod
    def root(parent: Block, payload: bytes) -> bytes:
        return hashlib.sha256(parent.state_root + payload).digest()

    def process(self, block: Block) -> bool:
        tip = self.tip()
        parent = tip if block.parent == tip.id else self.executed.get(block.parent)
        assert parent is not None, "the parent of a block must be executed before it"
        if block.state_root != self.root(parent, block.payload):
            return False
        self.executed[block.id] = block
        return True

    def finalize(self, block: Block, certificate: Certificate) -> None:
        assert block.parent == self.tip().id
        assert block.height == self.tip().height + 1
        assert block.id in self.executed, "only what was executed is committed"
        self.chain.append((block, certificate))

    def crash(self) -> None:
        self.executed = {}


@dataclass
class Node:
    name: str
    place: int
    signer: Signer
    ledger: ToyLedger
    side: int = 0
    log: list[bytes] = field(default_factory=list)
    archive: list[bytes] = field(default_factory=list)
    replica: Replica | None = None
    timer: int | None = None
    life: int = 0
    syncing: bool = False
    sent: list[Vote] = field(default_factory=list)


class Cluster:
    """A run of a plan under a seed."""

    def __init__(self, seed: int, plan: Plan, replica_type: type[Replica] = Replica) -> None:
        self.seed, self.plan = seed, plan
        self.rng = random.Random(f"run {seed}")
        self.replica_type = replica_type
        self.now = 0
        self.heap: list[tuple[int, int, object]] = []
        self.order = 0
        self.trace = hashlib.sha256()
        self.accused: dict[bytes, bytes] = {}
        self.halts: list[str] = []
        self.blames: list[str] = []
        self.checked: dict[int, bytes] = {}
        self.forked = False
        self.signers = SIGNERS[: plan.nodes]
        self.validators = tuple(
            Validator(s.public_key, w) for s, w in zip(self.signers, plan.weights, strict=True)
        )
        self.genesis = genesis_block(CHAIN, START_UTC, bytes(32))
        self.nodes: list[Node] = []
        for place, signer in enumerate(self.signers):
            self.nodes.append(Node(f"n{place}", place, signer, ToyLedger(self.genesis), 0))
            if place in plan.twins:
                self.nodes.append(Node(f"n{place}'", place, signer, ToyLedger(self.genesis), 1))
        self.honest = [n for n in self.nodes if n.place not in (*plan.twins, *plan.stale)]
        self.side = {n.place: (i % 2) for i, n in enumerate(self.honest)}
        for node in self.nodes:
            self.boot(node)
        for at, place, down in plan.crashes:
            self.at(at, ("crash", place, down))

    # time

    def at(self, when: int, what: object) -> None:
        self.order += 1
        heapq.heappush(self.heap, (when, self.order, what))

    def clock(self, node: Node) -> Now:
        return Now(self.now, START_UTC + self.now + self.plan.skew_ms[node.place])

    def run(self, until: int) -> None:
        while self.heap and self.heap[0][0] <= until:
            self.now, _, what = heapq.heappop(self.heap)
            assert self.order < EVENTS, f"a storm of messages: seed {self.seed}, {self.plan}"
            self.step(what)
        self.now = until

    @property
    def calm(self) -> bool:
        return self.now >= self.plan.chaos_ms

    def step(self, what) -> None:
        match what:
            case ("deliver", node, life, peer, message) if node.replica is not None:
                self.feed(node, Received(peer, message))
            case ("tick", node, life, when) if node.life == life and node.timer == when:
                node.timer = None
                self.feed(node, Tick())
            case ("answer", node, life, event) if node.life == life:
                self.feed(node, event)
            case ("crash", place, down):
                for node in self.nodes:
                    if node.place == place and node.replica is not None:
                        self.crash(node, down)
            case ("boot", node):
                self.boot(node)
            case ("sync", node, life) if node.life == life:
                self.sync(node)

    # life

    def leader(self, epoch: int, view: int) -> bytes:
        return self.signers[(epoch + view) % len(self.signers)].public_key

    def boot(self, node: Node) -> None:
        node.life += 1
        node.timer = None
        node.syncing = False
        node.replica = self.replica_type(
            CHAIN,
            self.plan.epoch_length,
            node.signer,
            node.ledger.tip(),
            lambda _: self.validators,
            self.leader,
            Timing(self.plan.delta_ms, self.plan.block_interval_ms),
        )
        self.feed(node, Start(tuple(node.log)))

    def crash(self, node: Node, down: int) -> None:
        node.replica = None
        node.life += 1
        node.ledger.crash()
        self.at(self.now + down, ("boot", node))

    def feed(self, node: Node, event) -> None:
        queue = [event]
        try:
            while queue and node.replica is not None:
                for effect in node.replica.handle(queue.pop(0), self.clock(node)):
                    self.carry_out(node, effect, queue)
        except CrashError:
            self.crash(node, self.rng.randrange(50, 800))

    def carry_out(self, node: Node, effect, queue: list) -> None:  # noqa: C901 - one case an effect
        plan = self.plan
        match effect:
            case Persist(entries):
                if not self.calm and self.rng.random() < plan.crash_writes:
                    kept = self.rng.randrange(len(entries) + 1)
                    node.log += entries[:kept]
                    raise CrashError
                node.log += entries
                node.archive += entries
            case Broadcast(message):
                for place in range(plan.nodes):
                    if place != node.place:
                        self.send(node, place, message)
            case SendTo(peer, message):
                place = [s.public_key for s in self.signers].index(peer)
                self.send(node, place, message)
            case Prepare(parent, epoch, view):
                payload = self.rng.randbytes(8)
                now = self.clock(node).utc_ms
                block = Block(
                    CHAIN,
                    epoch,
                    view,
                    parent.height + 1,
                    parent.id,
                    max(now, parent.timestamp_ms + 1),
                    node.signer.public_key,
                    ToyLedger.root(parent, payload),
                    payload,
                )
                self.at(self.now + 1, ("answer", node, node.life, Prepared(view, block)))
            case Process(block):
                valid = node.ledger.process(block)
                delay = self.rng.choice((0, 1, 5))
                self.at(self.now + delay, ("answer", node, node.life, Processed(block.id, valid)))
            case Commit(block, finalization):
                self.commit(node, block, finalization)
            case SetTimer(when):
                node.timer = when
                self.at(max(when, self.now), ("tick", node, node.life, when))
            case Accuse(accused, evidence):
                assert verify_evidence(evidence, CHAIN) == accused, self.seed
                self.accused[accused] = evidence
            case Behind():
                self.later_sync(node)
            case Blame(_, why):
                self.blames.append(why)
            case Halt(why):
                self.halts.append(f"{node.name}: {why}")
        self.note(node, effect)

    def note(self, node: Node, effect) -> None:
        self.trace.update(f"{self.now} {node.name} {type(effect).__name__} ".encode())
        if isinstance(effect, Broadcast | SendTo):
            self.trace.update(effect.message.encode())

    def commit(self, node: Node, block: Block, finalization: Certificate) -> None:
        assert verify_certificate(finalization, CHAIN, self.validators), self.seed
        node.ledger.finalize(block, finalization)
        if node in self.honest:
            known = self.checked.setdefault(block.height, block.id)
            self.forked |= known != block.id
        if block.height % 8 == 0 and node.replica is not None:
            node.log = node.replica.snapshot()

    # wires

    def send(self, node: Node, place: int, message) -> None:
        plan = self.plan
        if isinstance(message, Cast):
            node.sent.append(message.vote)
        if isinstance(message, Proposal):
            node.sent.append(message.vote)
            if node.place in plan.silent:
                return
            if node.place in plan.stale:
                message = self.stale(node, message)
        for target in self.nodes:
            if target.place != place or not self.talks(node, target):
                continue
            copies = 1 + (self.rng.random() < plan.duplicates)
            for _ in range(copies):
                if not self.calm and self.rng.random() < plan.loss:
                    continue
                delay = self.rng.randint(*plan.latency_ms)
                if not self.calm and self.rng.random() < plan.tail:
                    delay *= 20
                what = ("deliver", target, target.life, node.signer.public_key, message)
                self.at(self.now + delay, what)

    def stale(self, node: Node, proposal: Proposal) -> Proposal:
        """The same view's proposal as a liar makes it: on an older block, as if what followed were nothing."""
        core = node.replica.core
        older = [
            (certificate, core.tree.find(certificate.block_id))
            for view in core.views.values()
            if view.number < proposal.view
            and (certificate := view.finalization or view.notarization) is not None
        ]
        older = [(c, b) for c, b in older if b is not None and b.height < core.last_height]
        if not older:
            return proposal
        certificate, parent = self.rng.choice(older)
        payload = self.rng.randbytes(8)
        block = Block(
            CHAIN,
            core.epoch,
            proposal.view,
            parent.height + 1,
            parent.id,
            parent.timestamp_ms + 1,
            node.signer.public_key,
            ToyLedger.root(parent, payload),
            payload,
        )
        vote = Vote.sign(node.signer, CHAIN, Kind.NOTARIZE, core.epoch, proposal.view, block.id)
        return Proposal(proposal.view, block, certificate, proposal.nullifications, vote)

    def talks(self, source: Node, target: Node) -> bool:
        """Cuts, and a twin's halves: each twin knows one side of the honest nodes."""
        for begin, end, links in self.plan.cuts:
            if begin <= self.now < end and (source.place, target.place) in links:
                return False
        if self.calm and not self.plan.twins:
            return True
        for twin, other in ((source, target), (target, source)):
            if twin.place in self.plan.twins:
                if other.place in self.plan.twins:
                    return twin.side == other.side
                if self.rng.random() < self.plan.mixed:
                    return True
                return self.side.get(other.place, 0) == twin.side
        return True

    def later_sync(self, node: Node) -> None:
        if not node.syncing:
            node.syncing = True
            self.at(self.now + 50, ("sync", node, node.life))

    def sync(self, node: Node) -> None:
        """What the sync protocol does: final blocks of a peer, certificates checked."""
        node.syncing = False
        peers = [n for n in self.nodes if n is not node and n.replica and self.talks(n, node)]
        if not peers or node.replica is None:
            return
        peer = self.rng.choice(peers)
        for block, certificate in peer.ledger.chain[node.ledger.tip().height + 1 :]:
            if block.parent != node.ledger.tip().id or node.replica is None:
                return
            assert verify_certificate(certificate, CHAIN, self.validators)
            assert epoch_of(block.height, self.plan.epoch_length) == block.epoch
            assert node.ledger.process(block)
            self.commit(node, block, certificate)
            self.feed(node, Advanced(block, certificate))

    # after a run

    def heights(self) -> list[int]:
        return [node.ledger.tip().height for node in self.honest]

    def check(self) -> None:
        """The invariants that hold whatever the plan, with up to f liars."""
        where = f"seed {self.seed}, plan {self.plan}"
        assert not self.forked, f"a fork: {where}"
        assert not self.halts, f"{self.halts}: {where}"
        honest = {node.signer.public_key for node in self.honest}
        assert not honest & self.accused.keys(), f"an honest node was accused: {where}"
        for node in self.honest:
            seen: dict[tuple[int, int, Kind], Vote] = {}
            for vote in node.sent:
                mine = seen.setdefault((vote.epoch, vote.view, vote.kind), vote)
                assert mine == vote, f"{node.name} contradicted itself: {where}"
            for (epoch, view, kind), vote in seen.items():
                other = seen.get((epoch, view, Kind.NULLIFY))
                if kind is Kind.FINALIZE and other is not None:
                    assert not contradict(vote, other), f"{node.name}: {where}"

    def audit(self) -> dict[bytes, bytes]:
        """What an auditor finds in all that the honest nodes wrote."""
        votes: list[Vote] = []
        for node in self.honest:
            for entry in decode_entries(node.archive):
                if isinstance(entry, Vote):
                    votes.append(entry)
                elif isinstance(entry, Certificate):
                    votes += votes_of(entry, self.validators)
        return audit(dict.fromkeys(votes))


def play(seed: int, plan: Plan, replica_type: type[Replica] = Replica) -> Cluster:
    """Chaos, then calm; checks what must hold at the end."""
    cluster = Cluster(seed, plan, replica_type)
    cluster.run(plan.chaos_ms)
    before = max(cluster.heights())
    cluster.run(plan.chaos_ms + plan.calm_ms)
    cluster.check()
    after = min(cluster.heights())
    assert after >= before + 3, f"{before} -> {cluster.heights()}: seed {seed}, plan {plan}"
    return cluster
