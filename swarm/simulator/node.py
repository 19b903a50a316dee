"""One validator: the shipped `Replica` and a ledger, and a shell in which disk, clock and wires are simulated.

What it persisted and what became final is all that it has after a crash.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

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
from protocols.consensus.evidence import verify_evidence
from protocols.consensus.messages import Cast, Proposal, epoch_of, verify_certificate
from protocols.consensus.replica import Replica
from protocols.consensus.views import Timing
from swarm.ledger.errors import LedgerError
from swarm.simulator.errors import SimulationError
from swarm.simulator.trace import told

if TYPE_CHECKING:
    from collections.abc import Callable

    from protocols.consensus.application import Application
    from protocols.consensus.events import Effect, Event
    from protocols.consensus.messages import Block, Certificate, Message, Vote
    from protocols.signing import Signer
    from swarm.simulator.liars import Behaviour
    from swarm.simulator.simulation import Simulation

START_UTC_MS = 1_700_000_000_000
SYNC_MS = 50
"""From finding that it is behind to asking a peer."""
SNAPSHOT_BLOCKS = 8
"""The log is replaced by a snapshot after so many final blocks."""


class CrashError(Exception):
    """The node died at a write."""


class Node:
    """A validator.

    Args:
        world: The run that it is part of.
        place: Its number among the validators.
        signer: Its key.
        behaviour: How it lies, if it does.
        application: Opens its ledger, which lives on what survived.
        side: Which of two twins it is.
    """

    def __init__(
        self,
        world: Simulation,
        place: int,
        signer: Signer,
        behaviour: Behaviour,
        application: Callable[[Signer], Application],
        side: int = 0,
    ) -> None:
        self.world = world
        self.place = place
        self.signer = signer
        self.behaviour = behaviour
        self.side = side
        self.half = 0
        self.name = f"n{place}" + "'" * side
        self.skew_ms = 0
        self.application = application(signer)
        self.chain: list[tuple[Block, Certificate]] = []
        self.sent: list[Vote] = []
        self.archive: list[bytes] = []
        self.replica: Replica | None = None
        self._open = application
        self._log: list[bytes] = []
        self._life = 0
        self._timer: int | None = None
        self._syncing = False

    @property
    def height(self) -> int:
        """Of its last final block."""
        return len(self.chain)

    # Life

    def boot(self) -> None:
        """Start, or start again from the log."""
        if self.replica is not None:
            return
        self._life += 1
        self._timer = None
        self._syncing = False
        application, consensus = self.application, self.world.scenario.consensus
        self.replica = Replica(
            application.chain_id,
            application.epoch_length,
            self.signer,
            application.finalized(),
            application.validators,
            application.leader,
            Timing(consensus.delta_ms, consensus.block_interval_ms),
        )
        self._feed(Start(tuple(self._log)))

    def crash(self, down_ms: int) -> None:
        """Die; come back after a while with what was durable."""
        if self.replica is None:
            return
        self.replica = None
        self._life += 1
        self.application = self._open(self.signer)
        self.world.measures.crashes += 1
        self.world.trace.note(self.world.schedule.now, self.name, "crash", str(down_ms))
        self.world.schedule.after(down_ms, self.boot)

    # What happens to it

    def receive(self, peer: bytes, message: Message) -> None:
        """A message came, over a connection that proved who is on the other side."""
        if self.replica is not None:
            self._feed(Received(peer, message))

    def _tick(self, life: int, when: int) -> None:
        if self._life == life and self._timer == when:
            self._timer = None
            self._feed(Tick())

    def _answer(self, life: int, event: Event) -> None:
        if self._life == life:
            self._feed(event)

    def _feed(self, event: Event) -> None:
        queue: deque[Event] = deque((event,))
        tick = self.world.schedule.now
        now = Now(tick, START_UTC_MS + tick + self.skew_ms)
        try:
            while queue and self.replica is not None:
                for effect in self.replica.handle(queue.popleft(), now):
                    self._carry_out(effect, now, queue)
        except CrashError:
            self.crash(self.world.chance.between(*self.world.scenario.churn.down_ms))

    # What it does

    def _carry_out(self, effect: Effect, now: Now, queue: deque[Event]) -> None:  # noqa: C901, PLR0912, RUF100 - one case an effect
        world = self.world
        what = ""
        match effect:
            case SetTimer(when):
                self._timer = when
                world.schedule.at(when, self._tick, self._life, when)
                return
            case Broadcast(message):
                what = told(message)
                self._remember(message)
                for place in range(world.scenario.validators):
                    if place != self.place:
                        world.send(self, place, message)
            case SendTo(peer, message):
                what = told(message)
                world.send(self, world.place_of[peer], message)
            case Persist(entries):
                self._persist(entries)
                what = str(len(entries))
            case Process(block):
                what = block.id.hex()
                valid = self.application.process(block)
                self._later(Processed(block.id, valid), queue)
            case Prepare(parent, epoch, view):
                what = f"{epoch} {view} {parent.id.hex()}"
                self._prepare(parent, epoch, view, now, queue)
            case Commit(block, finalization):
                what = f"{block.height} {block.id.hex()}"
                self._commit(block, finalization)
            case Accuse(accused, evidence):
                if verify_evidence(evidence, self.application.chain_id) != accused:
                    why = f"{self.name} accuses with evidence that proves nothing"
                    raise SimulationError(why)
                what = accused.hex()
                world.accuse(self, accused, evidence)
            case Behind(epoch):
                what = str(epoch)
                self._sync_later()
            case Blame(peer, why):
                what = f"{world.place_of[peer]} {why}"
                world.measures.blamed[why] += 1
            case Halt(why):
                what = why
                world.measures.halts.append(f"{self.name}: {why}")
        world.trace.note(now.tick_ms, self.name, type(effect).__name__, what)

    def _persist(self, entries: tuple[bytes, ...]) -> None:
        world = self.world
        kept = len(entries)
        torn = not world.calm and world.chance.happens(world.scenario.churn.torn_writes)
        if torn:
            kept = world.chance.between(0, len(entries))
        self._log += entries[:kept]
        self.archive += entries[:kept]
        if torn:
            raise CrashError

    def _prepare(self, parent: Block, epoch: int, view: int, now: Now, queue: deque[Event]) -> None:
        try:
            block = self.application.prepare(parent, epoch, view, now.utc_ms)
        except LedgerError:  # the parent's state is not here yet: as in the service, no block
            return
        self._later(Prepared(view, block), queue)

    def _later(self, event: Event, queue: deque[Event]) -> None:
        """An answer of the ledger, after what it takes to execute a block."""
        delay = self.world.chance.between(*self.world.scenario.compute.execute_ms)
        if delay:
            self.world.schedule.after(delay, self._answer, self._life, event)
        else:
            queue.append(event)

    def _remember(self, message: Message) -> None:
        if isinstance(message, Cast):
            if message.vote.voter == self.signer.public_key:  # a leader's may be passed on
                self.sent.append(message.vote)
        elif isinstance(message, Proposal):
            self.sent.append(message.vote)
            self.world.measures.proposed(self.world.schedule.now, message.block)

    def parent_of(self, block: Block) -> Block | None:
        """The block before one that this node holds."""
        if self.replica is None:
            return None
        return self.replica.core.tree.find(block.parent) or self.application.finalized()

    # Final blocks

    def _commit(self, block: Block, finalization: Certificate) -> None:
        application = self.application
        if block.height <= self.height:
            return
        voters = application.validators(block.epoch)
        if not verify_certificate(finalization, application.chain_id, voters):
            message = (
                f"{self.name} commits block {block.height} with a certificate that does not hold"
            )
            raise SimulationError(message)
        application.finalize(block, finalization)
        self.chain.append((block, finalization))
        self.world.committed(self, block)
        if block.height % SNAPSHOT_BLOCKS == 0 and self.replica is not None:
            self._log = self.replica.snapshot()

    def _sync_later(self) -> None:
        if not self._syncing:
            self._syncing = True
            self.world.schedule.after(SYNC_MS, self._sync, self._life)

    def _sync(self, life: int) -> None:
        """What the sync protocol does: take final blocks of a peer, certificates checked."""
        self._syncing = False
        if self._life != life:
            return
        world = self.world
        peers = [
            one
            for one in world.nodes
            if one is not self
            and one.replica is not None
            and one.behaviour.serves()
            and world.network.connected(one.place, self.place, world.schedule.now)
            and world.talk(one, self)
        ]
        if peers:
            self._take(world.chance.pick(peers))

    def _take(self, peer: Node) -> None:
        group: list[Block] = []
        for block, certificate in peer.chain[self.height :]:
            if self.replica is None:
                return
            group.append(block)
            if certificate.block_id != block.id:
                continue  # final through a descendant, whose certificate follows
            if not self._checks(group, certificate):
                return
            for one in group:
                if not self.application.process(one):
                    message = (
                        f"{self.name} refuses block {one.height}, which is final at {peer.name}"
                    )
                    raise SimulationError(message)
                self._commit(one, certificate)
                self._feed(Advanced(one, certificate))
            group = []

    def _checks(self, group: list[Block], certificate: Certificate) -> bool:
        application = self.application
        before = application.finalized()
        for block in group:
            epoch = epoch_of(block.height, application.epoch_length)
            if block.parent != before.id or block.epoch != epoch:
                return False
            before = block
        voters = application.validators(before.epoch)
        return verify_certificate(certificate, application.chain_id, voters)
