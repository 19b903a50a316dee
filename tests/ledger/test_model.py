"""Any sequence of transactions leaves the ledger as a plain model of dicts says.

`SOAK=50 pytest tests/ledger/test_model.py` looks fifty times as long.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from swarm.ledger.state import Phases
from swarm.ledger.transactions import (
    CheckpointCommit,
    DatasetPublish,
    KeepEnd,
    KeepPost,
    NameRegister,
    NameUpdate,
    Register,
    Stake,
    TaskPost,
    Transfer,
    Unjail,
    Unstake,
    Withdraw,
)
from swarm.ledger.vrf import VrfKey
from tests.ledger.model import PARAMS, Model
from tests.ledger.test_slashing import double_vote
from tests.ledger.world import BASE, MERGED, World, root

SOAK = int(os.environ.get("SOAK", "1"))
PHASES = Phases(1_000_000, 1, 2, 1, 1)
NAMES = ("gpt", "gan")
ROOTS = (BASE, MERGED)
people = st.integers(0, 5)
amounts = st.one_of(st.integers(1, 300), st.sampled_from([100, 1000, 2000, 10**15, 10**17]))
names, roots = st.sampled_from(NAMES), st.sampled_from(ROOTS)


class Both(RuleBasedStateMachine):
    """The ledger and the model, side by side; transactions gather until their block is made."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(validators=3, people=("alice", "bob", "carol", "sleeper"), **PARAMS)
        *people, sleeper = self.world.people.values()
        self.crowd = [*people, *self.world.validators, sleeper]
        self.leader = self.world.leader.public_key
        rich = [one.public_key for one in self.world.people.values()]
        staked = [one.public_key for one in self.world.validators]
        self.model = Model(
            dict.fromkeys(rich, 10**15), dict.fromkeys(staked, 1000), keyed=set(staked)
        )
        self.waiting: list[tuple] = []

    def ask(self, who: int, payload, expected) -> None:
        """Put a transaction into the next block, one an account; `expected(key, id)` asks the model."""
        signer = self.crowd[who]
        if any(sender is signer for sender, _, _ in self.waiting):
            return
        fee = 2 * self.world.view.base_fee
        one = self.world.tx(signer, payload, max_fee=fee, tip=1)
        if self.model.balance[signer.public_key] < one.gas_used * fee:
            self.world.nonces.clear()  # it could not stand in a block
        else:
            self.waiting.append((signer, one, expected))
        if len(self.waiting) == 3:
            self.block(0)

    @initialize()
    def begin(self):
        """Validators have units, and a worker that never commits keeps every round in TRAIN."""
        for at in range(3):
            self.transfer(at, at + 3, 10**12)
        self.register(6, worker=True)

    @rule(who=people, to=people, amount=amounts)
    def transfer(self, who, to, amount):
        receiver = self.crowd[to].public_key
        payload = Transfer(receiver, amount)
        self.ask(who, payload, lambda key, _: self.model.transfer(key, receiver, amount))

    @rule(who=people, amount=amounts)
    def stake(self, who, amount):
        self.ask(who, Stake(amount), lambda key, _: self.model.put_stake(key, amount))

    @rule(who=people, amount=amounts)
    def unstake(self, who, amount):
        self.ask(who, Unstake(amount), lambda key, _: self.model.unstake(key, amount))

    @precondition(lambda self: any(self.model.outgoing.values()))
    @rule(at=st.integers(0, 5))
    def withdraw(self, at):
        who = [bool(self.model.outgoing[one.public_key]) for one in self.crowd].index(True)
        who = who if at else at
        self.ask(who, Withdraw(), lambda key, _: self.model.withdraw(key))

    @rule(who=people, worker=st.booleans())
    def register(self, who, worker):
        vrf_key = VrfKey.of(self.crowd[who].seed).public_key
        payload = Register(vrf_key, "cpu", ("worker",) if worker else ())
        self.ask(who, payload, lambda key, _: self.model.register(key, worker))

    @rule(
        who=st.integers(0, 2),
        accused=st.integers(2, 5),
        back=st.integers(-1, 3),
        view=st.integers(1, 2),
    )
    def evidence(self, who, accused, back, view):
        epoch = max(0, self.model.height // 4 - back)
        payload = double_vote(self.world, self.crowd[accused], view, epoch)
        guilty = self.crowd[accused].public_key
        self.ask(who, payload, lambda key, _: self.model.evidence(key, guilty, epoch, view))

    @precondition(lambda self: self.model.jail)
    @rule(at=st.integers(0, 5))
    def unjail(self, at):
        who = [one.public_key in self.model.jail for one in self.crowd].index(True) if at else at
        self.ask(who, Unjail(), lambda key, _: self.model.unjail(key))

    @rule(who=people, name=names, base=roots)
    def take_name(self, who, name, base):
        payload = NameRegister(name, base)
        self.ask(who, payload, lambda key, _: self.model.take_name(key, name, base))

    @rule(who=people, name=names, new=roots, version=st.integers(1, 3), before=roots)
    def update_name(self, who, name, new, version, before):
        payload = NameUpdate(name, new, version, before)
        self.ask(
            who, payload, lambda key, _: self.model.update_name(key, name, new, version, before)
        )

    @rule(who=people, data=roots)
    def publish(self, who, data):
        payload = DatasetPublish(data, 1, 1, "MIT")
        self.ask(who, payload, lambda _key, _: self.model.publish(data))

    @rule(who=people, name=names, base=roots, budget=amounts)
    def post(self, who, name, base, budget):
        payload = TaskPost(name, "lm", b"", base, BASE, BASE, 1, budget, PHASES, 1)
        self.ask(who, payload, lambda key, id_: self.model.post(key, id_, name, base, budget))

    @precondition(lambda self: self.model.tasks)
    @rule(who=people)
    def commit(self, who):
        task = max(self.model.tasks)
        payload = CheckpointCommit(task, 1, b"h" * 32)
        self.ask(who, payload, lambda key, _: self.model.commit(key, task))

    @rule(who=people, pieces=st.integers(1, 3), audits=st.integers(1, 3), price=amounts)
    def keep(self, who, pieces, audits, price):
        parts = tuple((root(str(at)), 5) for at in range(pieces))
        payload = KeepPost(parts, 2, audits, price, b"")
        self.ask(who, payload, lambda key, id_: self.model.keep(key, id_, pieces, 2, audits, price))

    @precondition(lambda self: self.model.deals)
    @rule(who=people)
    def end_keep(self, who):
        deal = min(self.model.deals)
        self.ask(who, KeepEnd(deal), lambda key, _: self.model.end_keep(key, deal))

    @rule(empty=st.integers(0, 9))
    def block(self, empty):
        """What waits, and some blocks without anything, so that epochs pass."""
        base_fee = self.world.view.base_fee
        self.model.begin()
        expected = []
        for who, one, expect in self.waiting:
            self.model.pay_fee(who.public_key, one.gas_used * base_fee, one.gas_used, self.leader)
            expected.append(expect(who.public_key, one.id))
        receipts = self.world.block(*[one for _, one, _ in self.waiting])
        assert [not one.error for one in receipts] == expected, receipts
        self.waiting = []
        self.model.end(self.leader)
        for _ in range(empty):
            self.model.begin()
            self.world.block()
            self.model.end(self.leader)

    @invariant()
    def they_agree(self):
        view, model = self.world.view, self.model
        assert view.height == model.height
        for one in self.crowd:
            key = one.public_key
            account = view.account(key)
            found = (account.balance, account.stake, account.bond)
            assert found == (model.balance[key], model.stake[key], model.bond[key])
            outgoing = [[part.amount, part.height - 12] for part in account.unbonding]
            assert outgoing == model.outgoing[key]
            assert view.jailed_until(key) == model.jail.get(key)
        assert set(view.workers()) == set(model.worker)
        fixed = view.validators(model.height // 4 + 1).validators
        assert {one.public_key: one.weight for one in fixed} == model.sets[model.height // 4 + 1]
        entries = {one.name: [one.owner, one.root, one.version, one.task] for one in view.names()}
        assert entries == model.names
        assert {one.root for one in view.datasets()} == model.datasets
        assert {one.id: one.escrow for one in view.tasks()} == {
            key: one[1] for key, one in model.tasks.items()
        }
        assert {one.id: [one.owner, one.escrow, one.ended] for one in view.deals()} == model.deals
        money = view.money()
        assert (money.burned, money.emitted, money.pool, money.treasury) == (
            model.burned,
            model.emitted,
            model.pool,
            model.treasury,
        )
        assert {name: getattr(money, name) for name in model.aside} == model.aside
        assert model.held == model.genesis + model.emitted - model.burned == money.supply


Both.TestCase.settings = settings(
    max_examples=12 * SOAK,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestBoth = Both.TestCase
