"""A ledger in a dict: blocks without consensus or disk, every unit counted after each."""

from __future__ import annotations

import hashlib

from protocols.signing import Signer
from storage import cid
from swarm.ledger import transactions
from swarm.ledger.errors import LedgerError
from swarm.ledger.execute import Context, check_supply, execute_block, genesis_changes
from swarm.ledger.genesis import Genesis, GenesisValidator, Params
from swarm.ledger.state import LedgerView, Phases
from swarm.ledger.transactions import (
    CheckpointCommit,
    CheckpointReveal,
    MergeAttest,
    Register,
    ScoreCommit,
    ScoreReveal,
    TaskPost,
    commit_hash,
    score_hash,
)
from swarm.ledger.vrf import VrfKey

SALT = b"s" * 32
BASE = cid.of_raw(b"base")
MERGED = cid.of_raw(b"merged")


def signer(name: str) -> Signer:
    return Signer(hashlib.sha256(name.encode()).digest())


def root(name: str) -> cid.Cid:
    return cid.of_raw(name.encode())


class Memory:
    """A view over a dict."""

    root = bytes(32)

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def get(self, key):
        return self.values.get(key)

    def scan(self, prefix):
        for key in sorted(self.values):
            if key.startswith(prefix):
                yield key, self.values[key]

    def apply(self, changes):
        for key, value in changes.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value


def make_genesis(validators, allocations=(), **params) -> Genesis:
    defaults = {"epoch_length": 10, "min_bond": 100, "unbonding": 5}
    return Genesis.create(
        "test",
        1_700_000_000_000,
        [
            GenesisValidator(one.public_key, VrfKey.of(one.seed).public_key, 1000)
            for one in validators
        ],
        allocations=[(one.public_key, 10**15) for one in allocations],
        params=Params(**{**defaults, **params}),
    )


class World:
    """A chain of blocks that one hand writes."""

    def __init__(self, *, validators=4, people=("alice", "bob"), **params) -> None:
        self.validators = [signer(f"validator {at}") for at in range(validators)]
        self.people = {name: signer(name) for name in people}
        self.genesis = make_genesis(self.validators, self.people.values(), **params)
        self.memory = Memory()
        self.memory.apply(genesis_changes(self.genesis))
        self.leader = self.validators[0]
        self.nonces: dict[bytes, int] = {}
        self.failures: list[str] = []
        check_supply(self.memory)

    @property
    def view(self) -> LedgerView:
        return LedgerView(self.memory)

    @property
    def height(self) -> int:
        return self.view.height

    def account(self, who: Signer):
        return self.view.account(who.public_key)

    def tx(self, who: Signer, payload, *, nonce=None, valid_until=None, **fees):
        if nonce is None:
            nonce = max(self.account(who).nonce, self.nonces.get(who.public_key, 0))
            self.nonces[who.public_key] = nonce + 1
        data = transactions.sign(
            who,
            self.genesis.chain_id,
            nonce,
            payload,
            valid_until=self.height + 10 if valid_until is None else valid_until,
            **fees,
        )
        return transactions.decode(data)

    def block(self, *inside):
        head = self.view.head
        height = head.height + 1
        beacon = hashlib.sha256(b"beacon %d" % height).digest()
        context = Context(height, head.timestamp_ms + 1, self.leader.public_key, beacon)
        before = {one.sender: self.view.account(one.sender).nonce for one in inside}
        try:
            changes, receipts = execute_block(self.memory, context, inside)
        except LedgerError:
            self.nonces.clear()
            raise
        self.memory.apply(changes)
        self.nonces.clear()
        check_supply(self.memory)
        check_pool(self)
        for sender, nonce in before.items():
            used = sum(one.sender == sender for one in inside)
            assert self.view.account(sender).nonce == nonce + used
        return receipts

    def run(self, who: Signer, payload, **kwargs):
        """One transaction in a block of its own; its error."""
        return self.block(self.tx(who, payload, **kwargs))[0].error

    def ok(self, *pairs):
        """Payloads in one block, none of which may fail."""
        receipts = self.block(*[self.tx(who, payload) for who, payload in pairs])
        errors = [one.error for one in receipts if one.error]
        assert not errors, errors
        return receipts

    def blocks(self, count: int) -> None:
        for _ in range(count):
            self.block()

    # Rounds

    def register(self, *workers: Signer) -> None:
        self.ok(
            *[
                (one, Register(VrfKey.of(one.seed).public_key, "cpu", ("worker",)))
                for one in workers
            ]
        )

    def post(
        self, who: Signer, *, name="gpt", kind="lm", rounds=2, budget=1000, tolerance=10, **phases
    ):
        lengths = {
            "train": 5,
            "reveal": 3,
            "score_commit": 3,
            "score_reveal": 3,
            "attest": 3,
            **phases,
        }
        payload = TaskPost(
            name,
            kind,
            b"spec",
            BASE,
            root("data"),
            root("pool"),
            rounds,
            budget,
            Phases(**lengths),
            tolerance,
        )
        return self.ok((who, payload))[0].id

    def round(self, task: bytes):
        return self.view.round(task)

    def commits(self, task: bytes, made: dict) -> None:
        number = self.round(task).number
        self.ok(
            *[
                (who, CheckpointCommit(task, number, commit_hash(root(name), who.public_key, SALT)))
                for who, name in made.items()
            ]
        )

    def reveals(self, task: bytes, made: dict) -> None:
        number = self.round(task).number
        self.ok(
            *[(who, CheckpointReveal(task, number, root(name), SALT)) for who, name in made.items()]
        )

    def score(self, task: bytes, by: dict, base_loss=50_000) -> None:
        """Commit and reveal scores: validator -> {root name: score}."""
        current = self.round(task)
        lists = {
            who: tuple(scores[one.root] for one in current.submissions)
            for who, scores in (
                (who, {root(name): value for name, value in given.items()})
                for who, given in by.items()
            )
        }
        number = current.number
        self.ok(
            *[
                (
                    who,
                    ScoreCommit(
                        task,
                        number,
                        score_hash(task, number, who.public_key, base_loss, scores, SALT),
                    ),
                )
                for who, scores in lists.items()
            ]
        )
        while self.round(task).phase < 4:
            self.block()
        self.ok(
            *[
                (who, ScoreReveal(task, number, base_loss, scores, SALT))
                for who, scores in lists.items()
            ]
        )

    def attest(self, task: bytes, by: dict, loss=49_000) -> None:
        number = self.round(task).number
        self.ok(*[(who, MergeAttest(task, number, merged, loss)) for who, merged in by.items()])


def check_pool(world: World) -> None:
    """What was emitted left the pool, unit by unit."""
    money = world.view.money()
    assert (
        money.pool + money.training + money.small + money.scoring + money.storage + money.emitted
        == world.genesis.emission_pool
    )
