"""At whatever parameters a genesis may have, no block that holds the rules raises, and no unit is lost.

An exception in the rules halts the chain on every node at once. Parameters are drawn at and near the ends of their ranges;
keepers, auditors, owners, validators and workers do what they may, the right thing more often than not.
`SOAK=50 pytest tests/ledger/test_odd_params.py` looks fifty times as long.
"""

from __future__ import annotations

import functools
import hashlib
import os
import random
from dataclasses import replace

import pytest

from swarm.ledger.audits import Panel
from swarm.ledger.errors import GenesisError
from swarm.ledger.execute import Context, check_supply, execute_block, genesis_changes
from swarm.ledger.genesis import CAP, RANGES, Genesis, GenesisValidator, Params
from swarm.ledger.keeping import AuditPhase, Verdict
from swarm.ledger.transactions import (
    AuditReport,
    CapacityAnswer,
    CapacityCommit,
    KeepEnd,
    KeepPost,
    Register,
    Stake,
    TaskPost,
    Transfer,
    Unjail,
    Unstake,
    Withdraw,
)
from swarm.ledger.vrf import VrfKey
from tests.ledger.test_execute import random_payload
from tests.ledger.test_slashing import double_vote
from tests.ledger.world import BASE, Memory, World, check_pool, root, signer

SOAK = int(os.environ.get("SOAK", "1"))
SEEDS = 8
BLOCKS = 160
PEOPLE = ("alice", "bob", "kim", "lee", "max")
SMALL = {
    "epoch_length": (1, 2, 3, 7),
    "unbonding": (0, 1, 5, 40),
    "min_bond": (0, 1, 100),
    "worker_bond": (0, 50),
    "base_fee_floor": (0, 1, 3),
    "min_task_budget": (0, 1),
    "audit_blocks": (5, 6, 7, 9, 20),
    "keeper_bond": (0, 1, 7, 10**6),
    "free_slots": (0, 1, 50, 2**32),
    "strike_limit": (1, 2, 3),
    "standing_audits": (1, 2, 3),
    "max_keepers": (0, 1, 2, 3, 1_024),
    "max_deals": (0, 1, 2, 3, 128),
    "max_validators": (4, 5, 7),
    "min_keep_price": (0, 1, 50),
    "jail_blocks": (0, 1, 6),
    "small_budget": (0, 100, 10**5),
    "replay_one_in": (0, 1, 2),
    "replay_blocks": (4, 5),
    "score_redraws": (0, 1),
}
"""Where the ends of a range let nothing happen within a test."""
ENDS = (
    "max_block_gas",
    "blocks_per_day",
    "emission_per_day",
    "emission_match_percent",
    "slash_part",
    "slash_correlation",
    "score_share",
    "score_spread",
    "deviation_rounds",
    "deviation_limit",
    "freeze_rounds",
    "auditors",
    "keep_fee",
    "keep_burn",
)


@functools.cache
def vrf_key(who) -> bytes:
    return VrfKey.of(who.seed).public_key


def odd_params(rng) -> Params:
    """Parameters that a genesis may have."""
    drawn = {name: rng.choice(values) for name, values in SMALL.items()}
    for name in ENDS:
        low, high = RANGES[name]
        drawn[name] = rng.choice((low, low + 1, getattr(Params(), name), high))
    answers = rng.randrange(1, drawn["audit_blocks"] - 3)
    reports = rng.randrange(2, drawn["audit_blocks"] - 1 - answers)
    return replace(Params(), **drawn, audit_answer_blocks=answers, audit_report_blocks=reports)


class OddWorld(World):
    """A chain at odd parameters, whose leaders, missed views and beacons are drawn."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(seed)
        self.seed = seed
        self.validators = [signer(f"validator {at}") for at in range(4)]
        self.people = {name: signer(name) for name in PEOPLE}
        self.crowd = [*self.people.values(), *self.validators]
        params = odd_params(rng)
        stakes = [rng.choice((max(1, params.min_bond), 333, 1_000, 10**6)) for _ in range(4)]
        self.genesis = Genesis.create(
            "odd",
            1,
            [
                GenesisValidator(one.public_key, vrf_key(one), stake)
                for one, stake in zip(self.validators, stakes, strict=True)
            ],
            allocations=[(one.public_key, 10**15) for one in self.crowd],
            params=params,
            emission_pool=rng.choice((0, 1, 10**9, 10**17)),
        )
        self.memory = Memory()
        self.memory.apply(genesis_changes(self.genesis))
        self.nonces: dict[bytes, int] = {}
        self.deals: list[bytes] = []
        self.tasks: list[bytes] = []
        self.seen: set[object] = set()

    def step(self) -> None:
        """A block of what comes to people's minds."""
        rng, head = self.rng, self.view.head
        inside, gas = [], 0
        for who, payload in self.wishes():
            tip = rng.randrange(3)
            one = self.tx(who, payload, max_fee=2 * head.base_fee + tip, tip=tip)
            fits = gas + one.gas_used <= self.genesis.params.max_block_gas
            if fits and self.account(who).balance >= one.gas_used * (2 * head.base_fee + tip):
                inside.append(one)
                gas += one.gas_used
        self.nonces.clear()
        beacon = hashlib.sha256(b"%d %d" % (self.seed, head.height)).digest()
        leader, *missed = (one.public_key for one in rng.choices(self.validators, k=3))
        context = Context(head.height + 1, head.timestamp_ms + 1, leader, beacon, tuple(missed))
        changes, receipts = execute_block(self.memory, context, inside)
        assert execute_block(self.memory, context, inside)[0] == changes
        self.memory.apply(changes)
        check_supply(self.memory)
        check_pool(self)
        for one, receipt in zip(inside, receipts, strict=True):
            if not receipt.error:
                self.seen.add(type(one.payload))
                self.deals += [one.id] if isinstance(one.payload, KeepPost) else []
                self.tasks += [one.id] if isinstance(one.payload, TaskPost) else []
        self.check_keeping()

    def check_keeping(self) -> None:
        """What holds of keepers and deals after every block."""
        params = self.genesis.params
        assert len(self.view.deals()) <= params.max_deals
        assert len(self.view.keepers()) <= params.max_keepers
        for one in self.view.keepers():
            assert 0 <= one.proven <= one.slots
            assert 0 <= one.strikes < params.strike_limit
            assert one.collateral <= max(0, one.slots - params.free_slots) * params.keeper_bond
            self.seen |= {one.verdict, ("suspended", one.suspended)}
        audit = self.view.audit()
        over = audit.number - (audit.phase is not AuditPhase.SETTLED) if audit is not None else 0
        for deal in self.view.deals():
            assert 0 <= deal.escrow <= deal.cost * deal.audits
            assert deal.last > over
        for _, duty in self.view.duties():
            self.seen.add(("shown", duty.shown))

    def wishes(self):
        """Who sends what: mostly what an audit waits for, and whatever else."""
        rng, view = self.rng, self.view
        audit = view.audit()
        asked = {}
        if not view.height:
            asked = {one: Register(vrf_key(one), "disk", ("keeper",)) for one in self.crowd}
        elif audit is not None and audit.phase is AuditPhase.ANSWER:
            lending = {one.public_key for one in view.keepers()} - audit.answers.keys()
            answer = CapacityAnswer(audit.number, b"a" * 32)
            asked = {
                one: answer
                for one in self.crowd
                if one.public_key in lending and rng.random() < 0.8
            }
        elif audit is not None and audit.phase is AuditPhase.REPORT:
            asked = {
                one: self.report(one.public_key)
                for one in self.validators
                if one.public_key not in audit.reported and rng.random() < 0.85
            }
        elif rng.random() < 0.5:
            asked = {rng.choice(self.crowd): CapacityCommit(b"r" * 32, rng.choice((1, 5, 50)))}
        for one in rng.sample(self.crowd, rng.randrange(6)):
            if one not in asked:
                asked[one] = self.anything(one)
        return asked.items()

    def report(self, auditor: bytes) -> AuditReport:
        """About those that it was drawn for, by a whim that all auditors share in an audit."""
        audit = self.view.audit()
        members = self.view.validators(audit.epoch)
        panel = Panel(audit.seed2, members, self.genesis.params.auditors)
        mood = random.Random(audit.number)
        failed, missing = [], []
        for keeper in self.view.keepers():
            fails, hides = mood.random() < 0.25, mood.random() < 0.3
            if auditor in panel.of(keeper.public_key):
                if fails != (self.rng.random() < 0.1):
                    failed.append((keeper.public_key, 1))
                missing += [
                    (keeper.public_key, duty.deal, duty.piece)
                    for duty in self.view.duties_of(keeper.public_key)
                    if hides and duty.due <= audit.number
                ]
        return AuditReport(audit.number, tuple(failed), tuple(sorted(missing)[:128]))

    def anything(self, who):
        """What an account may think of, extreme numbers included."""
        rng, view = self.rng, self.view
        if rng.random() < 0.4:
            return random_payload(rng, self, who, self.crowd, self.tasks)
        number = view.height // self.genesis.params.audit_blocks
        sizes = (1, 2**20, 2**22, 2**30 + 1, 2**60)
        pieces = tuple(
            (root(f"piece {at}"), rng.choice(sizes)) for at in range(rng.randrange(1, 4))
        )
        roles = rng.choice((("keeper",), ("keeper", "worker"), ("worker",), ()))
        return rng.choice(
            (
                Register(vrf_key(who), "disk", roles),
                CapacityCommit(b"r" * 32, rng.choice((0, 1, 50, 500, 2**32))),
                CapacityAnswer(rng.choice((max(1, number), 2**32)), b"a" * 32),
                AuditReport(max(1, number), (), ()),
                KeepPost(
                    pieces,
                    rng.randrange(1, 5),
                    rng.choice((1, 1, 2, 3, 9, 2**20)),
                    rng.choice((1, 2, 49, 50, 51, 10**6, CAP)),
                    rng.choice((b"", BASE)),
                ),
                KeepEnd(rng.choice(self.deals) if self.deals else b"d" * 32),
                Transfer(rng.choice(self.crowd).public_key, rng.choice((0, 1, 1_000, CAP))),
                Stake(rng.choice((1, 100, 1_000, 10**15))),
                Unstake(rng.choice((1, 100, 333, 1_000))),
                Withdraw(),
                Unjail(),
                double_vote(
                    self,
                    rng.choice(self.crowd),
                    rng.choice((0, 1, 2, 2**63 - 1)),
                    max(0, view.epoch - rng.randrange(6)),
                ),
            )
        )


@pytest.mark.slow
def test_at_odd_parameters_no_block_raises_and_every_unit_is_accounted_for():
    seen: set[object] = set()
    for seed in range(SEEDS * SOAK):
        world = OddWorld(seed)
        try:
            for _ in range(BLOCKS):
                world.step()
        except Exception as error:
            error.add_note(f"seed {seed}, height {world.height}, {world.genesis.params}")
            raise
        seen |= world.seen
    assert set(Verdict) - {Verdict.LOST_PIECE} <= seen
    assert {("suspended", True), ("shown", True), KeepEnd, Unjail, Withdraw} <= seen


def test_a_genesis_of_odd_parameters_is_read_as_it_was_written():
    for seed in range(20):
        params = odd_params(random.Random(seed))
        made = Genesis.create(
            "odd", 1, [GenesisValidator(b"k" * 32, b"v" * 32, 100)], params=params
        )
        assert Genesis.decode(made.encode()) == made


def test_one_beyond_either_end_of_a_range_is_no_genesis():
    made = OddWorld(0).genesis
    for name, (low, high) in RANGES.items():
        for value in (low - 1, high + 1, True):
            with pytest.raises(GenesisError):
                made.with_params(**{name: value})
