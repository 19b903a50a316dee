"""Who lends space: `keeper.core` decides what to commit, and the shell around it seals, answers and fetches in virtual time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from protocols.audit.draw import answer_root, draw_leaves, held_seed
from storage import sampling
from storage.errors import ManifestError
from swarm.keeper import core
from swarm.ledger.transactions import CapacityAnswer, CapacityCommit
from swarm.simulator.examiners import examine
from swarm.simulator.sealed import SealedSlots

if TYPE_CHECKING:
    from protocols.audit.errors import Failure
    from protocols.audit.verify import Commitment
    from storage.cid import Cid
    from storage.slots import LeafProof
    from swarm.ledger.keeping import AuditState, Duty
    from swarm.ledger.keeping import Keeper as Record
    from swarm.ledger.state import LedgerView
    from swarm.simulator.accounts import Account
    from swarm.simulator.depot import Depot
    from swarm.simulator.examiners import Name
    from swarm.simulator.liars import Behaviour
    from swarm.simulator.scenario import Keepers


class Lender:
    """One keeper.

    Args:
        depot: Where it lends.
        number: Among all keepers.
        account: Which acts.
        behaviour: How it lies, if it does.
        kind: Its class.
    """

    def __init__(
        self, depot: Depot, number: int, account: Account, behaviour: Behaviour, kind: Keepers
    ) -> None:
        self.name = f"k{number}"
        self.account = account
        self.behaviour = behaviour
        self.kind = kind
        self.held: set[Cid] = set()
        """Roots of the pieces that are whole here."""
        self.is_gone = False
        """It vanished and does not come back."""
        self._depot = depot
        self._schedule = depot.world.schedule
        self._slots = SealedSlots(account.key, depot.chain_id, depot.sealed)
        self._settled = self._slots.version(0)
        self._began: int | None = None
        self._looking = False
        self._fetching = False
        self._answering = 0
        self._sent = 0
        self._shown: tuple[int, list[LeafProof]] = (0, [])
        self._found: tuple[tuple[int, bytes], Failure | None] | None = None

    # Where it is

    @property
    def is_here(self) -> bool:
        """Whether anybody can reach it."""
        now, away = self._schedule.now, self.kind.away_s
        return not self.is_gone and not (away and 1000 * away[0] <= now < 1000 * away[1])

    @property
    def lost(self) -> int:
        """How many of its slots are gone."""
        return len(self._slots.lost)

    @property
    def shows_in_ms(self) -> int:
        """What it takes to show an auditor the leaves and slots that it asks for."""
        return self._depot.storage.leaves * self.kind.read_ms

    def look_after(self, delay: int) -> None:
        """Look at the ledger once more, a while from now."""
        if not self._looking:
            self._looking = True
            self._schedule.after(delay, self._look)

    def _look(self) -> None:
        self._looking = False
        if not self.is_here or self.account.home.replica is None:
            return
        view = self._depot.view_of(self.account)
        self.account.resend(view.height)
        if self.behaviour.vanishes(view.duties_of(self.account.key)):
            self.is_gone = True
            self._depot.note(self.name, "vanish", "")
            self._depot.count_copies()
            return
        keeper, audit = view.keeper(self.account.key), view.audit()
        self._keep(view)
        if (
            audit is not None
            and keeper is not None
            and audit.number > self._answering
            and core.owes_answer(audit, keeper)
        ):
            self._answer(audit, keeper)
        self._step(view, keeper)

    # What it lends

    def _seal(self) -> int:
        """The slots that are wanted; seals as many of them as there was time for."""
        now, kind = self._schedule.now, self.kind
        if self._began is None:
            self._began = now
        if kind.leave_ms and now >= kind.leave_ms:
            return 0
        self._slots.grow(min(kind.slots, (now - self._began) // kind.seal_ms))
        if len(self._slots) == kind.slots and not self._slots.lost:
            self._slots.lost = self.behaviour.loses(kind.slots)
        return kind.slots

    def _step(self, view: LedgerView, keeper: Record | None) -> None:
        account = view.account(self.account.key)
        if "keeper" not in account.roles:
            return
        goal = self._seal()
        own = core.Own(len(self._slots), self._settled, goal, goal, waiting=self.account.is_waiting)
        match core.next_step(view.height, view.params, account, keeper, own):
            case core.Adopt(slots):
                self._settled = self._slots.version(slots)
            case core.Shrink(slots):
                self._slots.shrink(slots)
                self._settled = self._slots.version(min(slots, self._settled.slots))
            case core.Commit(slots):
                root = self._slots.version(slots).root
                if self.account.submit(CapacityCommit(root, slots)):
                    self._sent = slots
                    self._depot.note(self.name, "commit", str(slots))

    # Its audits

    def _answer(self, audit: AuditState, keeper: Record) -> None:
        """Read what was drawn, and say what it hashes to as soon as it is read."""
        self._answering = audit.number
        count, slots = self._depot.storage.leaves, keeper.slots

        def prove(slot: int, number: int) -> LeafProof:
            return self._slots.leaf(slots, slot, number)

        leaves = draw_leaves(audit.seed, self.account.key, slots, count, prove)
        took = count * self.kind.read_ms
        if self.behaviour.seals_on_demand:  # a leaf tells where the next is: one after the other
            took += count * self.kind.seal_ms
        self._schedule.after(took, self._answered, audit, leaves)

    def _answered(self, audit: AuditState, leaves: list[LeafProof]) -> None:
        self._shown = (audit.number, leaves)
        root = answer_root([one.leaf for one in leaves])
        if self.is_here and self.account.submit(CapacityAnswer(audit.number, root)):
            self._depot.note(self.name, "answer", f"{audit.number} {root.hex()}")
        else:
            self._answering = 0  # its node is down: once more with the next block

    def slots_in_order(self, kept: Commitment, audit: AuditState) -> Failure | None:
        """What any auditor finds who sees what this keeper shows: all are shown the same, so it is worked out once."""
        key = (audit.number, audit.answers[kept.keeper])
        if self._found is None or self._found[0] != key:
            number, leaves = self._shown
            found = examine(
                kept,
                audit,
                self._depot.storage.leaves,
                self._depot.sealing,
                leaves if number == audit.number else [],
                lambda slot: self._slots.whole(kept.slots, slot),
            )
            self._found = (key, found)
            self._depot.note(self.name, "examined", f"{audit.number} {found and found.name}")
        return self._found[1]

    def shows(self, name: Name, audit: AuditState) -> bool:
        """Whether it shows the challenged chunk of a duty."""
        key, deal, at = name
        piece = self._depot.copies.content(deal, at)
        if piece is None or piece.root not in self.held:
            return False
        seed = held_seed(audit.seed2, key, deal, at)
        try:
            way = sampling.path(piece.root, seed, piece.blocks.__getitem__)
        except (KeyError, ManifestError):
            return False
        return sampling.check(piece.root, seed, way)

    # What it keeps for others

    def _keep(self, view: LedgerView) -> None:
        duties = view.duties_of(self.account.key)
        gone = self.held - {duty.root for duty in duties}
        if gone:
            self.held -= gone
            self._depot.count_copies()
        wanted = [duty for duty in duties if duty.root not in self.held]
        if wanted and not self._fetching:
            self._fetch(wanted[0])

    def _fetch(self, duty: Duty) -> None:
        """One piece after the other, from whoever has it and can be reached."""
        if not self._depot.sources(duty.root, self.account):
            return  # again with the next block
        self._fetching = True
        took = duty.size // (self.kind.mb_per_s * 1_000) + self._depot.world.network.delay()
        self._schedule.after(took, self._fetched, duty)

    def _fetched(self, duty: Duty) -> None:
        self._fetching = False
        if self.is_here and self._depot.sources(duty.root, self.account):
            self.held.add(duty.root)
            self._depot.note(self.name, "fetched", duty.root.hex())
            self._depot.count_copies()
