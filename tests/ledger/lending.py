"""A world in which some lend space: audits of 20 blocks, moved through by hand."""

from __future__ import annotations

import hashlib

from swarm.ledger.audits import Panel
from swarm.ledger.transactions import (
    AuditReport,
    CapacityAnswer,
    CapacityCommit,
    KeepPost,
    Register,
)
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import World, root, signer

BLOCKS, ANSWERS, REPORTS = 20, 2, 3
OPEN = ANSWERS + REPORTS + 1
"""The first place within an audit's blocks at which commitments are taken again."""
GIB = 2**30


def capacity_root(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


class Lending(World):
    """Keepers that lend as soon as they are named, and audits run to their end."""

    def __init__(self, *keepers: str, slots=100, **params) -> None:
        small = {
            "audit_blocks": BLOCKS,
            "audit_answer_blocks": ANSWERS,
            "audit_report_blocks": REPORTS,
            "keeper_bond": 10,
            "free_slots": 0,
            "min_keep_price": 0,
            "keep_fee": 0,
            "slash_part": 1_000,
            "standing_audits": 3,
        }
        super().__init__(people=("alice", "bob", *keepers), **{**small, **params})
        self.keepers = [self.people[name] for name in keepers]
        if keepers:
            self.keep(*self.keepers)
            self.ok(*[(one, CapacityCommit(capacity_root("slots"), slots)) for one in self.keepers])

    def keep(self, *who) -> None:
        self.ok(
            *[(one, Register(VrfKey.of(one.seed).public_key, "disk", ("keeper",))) for one in who]
        )

    def lend(self, who, slots: int, name="slots") -> str:
        return self.run(who, CapacityCommit(capacity_root(name), slots))

    def keeper(self, who):
        return self.view.keeper(who.public_key)

    def to(self, place: int) -> None:
        """Up to the block whose height is so far within its audit's."""
        while self.height % BLOCKS != place:
            self.block()

    def answers(self, *who) -> None:
        """Begin the next audit, let these answer, and close the answers."""
        self.to(0)
        number = self.height // BLOCKS
        if who:
            self.ok(*[(one, CapacityAnswer(number, capacity_root("leaves"))) for one in who])
        self.to(ANSWERS)

    def reports(self, *, failed=None, missing=(), by=None) -> None:
        """Every validator, or some, tells the truth: who failed is named by all auditors it was drawn for.

        Args:
            failed: Keeper -> reason.
            missing: (keeper, deal, piece).
            by: The validators that report.
        """
        said = [
            (one, self.reports_of(one, failed, missing))
            for one in (self.validators if by is None else by)
        ]
        if said:
            self.ok(*said)
        self.to(ANSWERS + REPORTS)

    def reports_of(self, auditor, failed=None, missing=()) -> AuditReport:
        """What one validator says of those that it was drawn for."""
        audit = self.view.audit()
        members = self.view.validators(audit.epoch)
        panel, own = Panel(audit.seed2, members, self.genesis.params.auditors), auditor.public_key
        bad = [
            (who.public_key, reason)
            for who, reason in (failed or {}).items()
            if own in panel.of(who.public_key)
        ]
        gone = [
            (who.public_key, deal, piece)
            for who, deal, piece in missing
            if own in panel.of(who.public_key)
        ]
        return AuditReport(audit.number, tuple(sorted(bad)), tuple(sorted(gone)))

    def audit(self, *who, **found) -> None:
        """A whole audit in which these answer."""
        self.answers(*who)
        self.reports(**found)

    def deal(self, who, *names: str, size=GIB, replicas=1, audits=3, price=7) -> bytes:
        pieces = tuple((root(name), size) for name in names)
        return self.ok((who, KeepPost(pieces, replicas, audits, price, b"")))[0].id


def crowd(count: int) -> list:
    return [signer(f"keeper {at}") for at in range(count)]
