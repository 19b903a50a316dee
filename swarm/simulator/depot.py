"""Lent space and kept content in a simulated town: who lends, who audits, who pays, and what came of each audit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from protocols.audit.draw import AUDIT_SLOTS
from protocols.audit.verify import Sealing
from storage.cid import Cid
from swarm.ledger.genesis import UNIT
from swarm.ledger.keeping import AuditPhase
from swarm.ledger.transactions import KeepPost, Register
from swarm.ledger.vrf import VrfKey
from swarm.simulator import sealed
from swarm.simulator.copies import Copies
from swarm.simulator.examiners import Examiner
from swarm.simulator.lenders import Lender
from swarm.simulator.pieces import content

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.ledger.keeping import Keeper
    from swarm.ledger.state import LedgerView
    from swarm.simulator.accounts import Account
    from swarm.simulator.liars import Behaviour
    from swarm.simulator.scenario import Storage
    from swarm.simulator.town import Town

FIRST_MS: Final = 1_000
"""When keepers register."""
GAP_MS: Final = 20
NO_RECIPE: Final = Cid(b"")
"""Each piece is a whole."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How one audit ended.

    Attributes:
        number: Of the audit.
        at_ms: When it was settled.
        proven: Slots of all keepers in good standing.
        keepers: The record of each that was audited, before and after, by its place among the keepers.
        lost: Slots that some of them had lost, likewise.
    """

    number: int
    at_ms: int
    proven: int
    keepers: dict[int, tuple[Keeper, Keeper]]
    lost: dict[int, int]


class Depot:
    """Everybody who has to do with storage.

    Args:
        town: Whose ledger it is.
        storage: The scenario's rules of audits.
    """

    def __init__(self, town: Town, storage: Storage) -> None:
        self.storage = storage
        self.world = town.world
        self.chain_id: bytes = town.genesis.chain_id
        self.interval_ms = town.genesis.params.block_interval_ms
        self.sealing = Sealing(self.chain_id, sealed.LOG_N, sealed.PASSES)
        self.sealed: sealed.Sealer = sealed.sealer()
        self.lenders: dict[bytes, Lender] = {}
        self.audits: list[Ended] = []
        self.copies = Copies()
        self._town = town
        self._audited: dict[bytes, Keeper] = {}
        self._places: dict[bytes, int] = {}
        self._examiners: dict[str, Examiner] = {}
        self._at_home: dict[str, list[Lender]] = {}
        self._owner: Account | None = None
        self._unposted: list[tuple[Cid, ...]] = []

    def view_of(self, account: Account) -> LedgerView:
        """The newest state where an account lives."""
        return self._town.ledger(account.home).view()

    def note(self, who: str, what: str, which: str) -> None:
        """A line of the trace."""
        self.world.trace.note(self.world.schedule.now, who, what, which)

    # People

    def open(
        self,
        owner: Account,
        keepers: Sequence[Account],
        auditors: Sequence[tuple[Account, Behaviour]],
    ) -> None:
        """Let everybody in.

        Args:
            owner: Pays for the deals.
            keepers: In the order of the scenario.
            auditors: The validators.
        """
        world, deals = self.world, self.world.scenario.deals
        self._owner = owner
        for account, behaviour in auditors:
            self._examiners[account.home.name] = Examiner(self, account, behaviour)
        kinds = [kind for kind in world.scenario.keepers for _ in range(kind.count)]
        for at, (account, kind) in enumerate(zip(keepers, kinds, strict=True)):
            lender = Lender(self, at, account, world.behaviour_of("keeper", at), kind)
            self.lenders[account.key] = lender
            self._places[account.key] = at
            self._at_home.setdefault(account.home.name, []).append(lender)
            world.schedule.at(FIRST_MS + at * GAP_MS, self._register, account, kind.name)
            for second in kind.away_s:
                world.schedule.at(1000 * second, self.count_copies)
        for deal in range(deals.count if deals is not None else 0):
            assert deals is not None  # noqa: S101 - for the type
            made = [content(world.seed, deal, at, deals.piece_kib) for at in range(deals.pieces)]
            self.copies.contents |= {one.root: one for one in made}
            self._unposted.append(tuple(one.root for one in made))

    def _register(self, account: Account, hardware: str) -> None:
        payload = Register(VrfKey.of(account.signer.seed).public_key, hardware, ("keeper",))
        if not account.submit(payload):  # its node is down
            self.world.schedule.after(FIRST_MS, self._register, account, hardware)

    # Blocks

    def committed(self, home: str, view: LedgerView, *, first: bool) -> None:
        """A block is final at a node: whoever lives there looks."""
        if first:
            self._watch(view)
            self._post(view)
        if home in self._examiners:
            self._examiners[home].look(view)
        for lender in self._at_home.get(home, ()):
            lender.look_after(self.world.network.delay())

    def _watch(self, view: LedgerView) -> None:
        """Follow the deals and the newest audit; how keepers stood while it ran is forgotten with its end."""
        self.copies.follow(view.deals(), self.world.schedule.now)
        audit = view.audit()
        if audit is None:
            return
        if audit.phase is not AuditPhase.SETTLED:
            self._audited = {one.public_key: one for one in view.keepers() if one.slots}
        elif self._audited:
            ended: dict[int, tuple[Keeper, Keeper]] = {}
            for key, before in self._audited.items():
                ended[self._places[key]] = before, view.keeper(key) or before
            lost = {self._places[key]: one.lost for key, one in self.lenders.items() if one.lost}
            proven = sum(after.proven for _, after in ended.values() if after.in_order)
            now = self.world.schedule.now
            self.audits.append(Ended(audit.number, now, proven, ended, lost))
            self._audited = {}

    # Content

    def _post(self, view: LedgerView) -> None:
        """One deal after the other, once as many keepers as it wants are proven."""
        deals, owner = self.world.scenario.deals, self._owner
        if not self._unposted or deals is None or owner is None or owner.is_waiting:
            return
        if sum(one.in_order for one in view.keepers()) < deals.replicas:
            return
        pieces = tuple((root, self.copies.contents[root].size) for root in self._unposted[0])
        price = deals.price * UNIT // 1000
        if owner.submit(KeepPost(pieces, deals.replicas, deals.audits, price, NO_RECIPE)):
            del self._unposted[0]

    def sources(self, root: Cid, account: Account) -> bool:
        """Whether somebody whom an account can reach has all of a root."""
        network, now, here = self.world.network, self.world.schedule.now, account.home.place
        owner = self._owner
        has = [one.account for one in self.lenders.values() if root in one.held and one.is_here]
        if owner is not None and not self.copies.is_placed(root):
            has.append(owner)
        return any(
            network.connected(one.home.place, here, now)
            and network.connected(here, one.home.place, now)
            for one in has
            if one is not account
        )

    def count_copies(self) -> None:
        """Somebody got a piece, lost one, went or came back."""

        def holders(root: Cid) -> int:
            return sum(root in one.held and one.is_here for one in self.lenders.values())

        self.copies.count(self.world.schedule.now, holders)

    # What chance says

    def catching(self, lost: int, slots: int) -> float:
        """The chance that an audit finds one of the lost slots: 1 - (1 - f)^k, where k are leaves and whole slots."""
        return 1 - (1 - lost / slots) ** (self.storage.leaves + AUDIT_SLOTS)
