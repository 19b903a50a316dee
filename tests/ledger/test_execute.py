from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.consensus.evidence import encode_evidence
from protocols.consensus.messages import Kind, Vote
from storage import cid
from storage.errors import CidError
from swarm.ledger.draft import Draft
from swarm.ledger.errors import BlockError, UnknownEpochError
from swarm.ledger.fields import check_name
from swarm.ledger.names import reads_as_cid
from swarm.ledger.rewards import next_base_fee
from swarm.ledger.state import NO_CID, Phase, Phases, account_key
from swarm.ledger.transactions import (
    CheckpointCommit,
    CheckpointReveal,
    DatasetPublish,
    Evidence,
    MergeAttest,
    NameRegister,
    NameUpdate,
    Register,
    ScoreCommit,
    ScoreReveal,
    Stake,
    TaskPost,
    Transfer,
    Unjail,
    Unstake,
    Withdraw,
    commit_hash,
    score_hash,
)
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import BASE, MERGED, SALT, World, root, signer


@pytest.fixture
def world():
    return World()


@pytest.fixture
def alice(world):
    return world.people["alice"]


@pytest.fixture
def bob(world):
    return world.people["bob"]


def test_a_transfer_moves_units_and_the_nonce(world, alice, bob):
    held = world.account(bob).balance
    assert world.run(alice, Transfer(bob.public_key, 5)) == ""
    assert world.account(bob).balance == held + 5
    assert world.account(alice).nonce == 1


def test_a_transfer_to_oneself_changes_nothing(world, alice):
    held = world.account(alice).balance
    assert world.run(alice, Transfer(alice.public_key, 5)) == ""
    assert world.account(alice).balance == held


def test_a_failed_transaction_pays_its_gas_and_uses_its_nonce_and_nothing_else(alice):
    world = World(base_fee_floor=2)
    leader_held = world.account(world.leader).balance
    held, burned = world.account(alice).balance, world.view.money().burned
    one = world.tx(alice, Transfer(b"x" * 32, 10**17), max_fee=5, tip=1)
    (receipt,) = world.block(one)
    assert "balance" in receipt.error
    assert receipt.fee == one.gas_used * 3
    assert world.account(alice).balance == held - receipt.fee
    assert world.account(alice).nonce == 1
    assert world.view.money().burned == burned + one.gas_used * 2
    earned = world.account(world.leader).earned
    assert world.account(world.leader).balance == leader_held + earned + one.gas_used


def test_a_newcomer_without_units_registers_and_works_where_nothing_is_asked(world):
    newcomer = signer("newcomer")
    world.register(newcomer)
    account = world.account(newcomer)
    assert (account.roles, account.registered, account.bond) == (("worker",), 1, 0)
    assert list(world.view.workers()) == [newcomer.public_key]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"nonce": 1}, "nonce"),
        ({"valid_until": 0}, "expired"),
        ({"max_fee": 1}, "base fee"),
        ({"max_fee": 10**15}, "cover the fee"),
    ],
)
def test_what_may_not_stand_in_a_block_makes_it_invalid(fault, words, alice, bob):
    world = World(base_fee_floor=2)
    fees = {"max_fee": fault.get("max_fee", 2), "tip": fault.get("max_fee", 2) // 10}
    rest = {key: value for key, value in fault.items() if key != "max_fee"}
    if fault.get("max_fee", 0) > 10:
        fees["tip"] = fault["max_fee"]
    before = dict(world.memory.values)
    with pytest.raises(BlockError, match=words):
        world.block(world.tx(alice, Transfer(bob.public_key, 1), **fees, **rest))
    assert world.memory.values == before


def test_a_transaction_is_not_accepted_twice(world, alice, bob):
    one = world.tx(alice, Transfer(bob.public_key, 1))
    world.block(one)
    with pytest.raises(BlockError, match="nonce"):
        world.block(one)


def test_a_transaction_of_another_chain_is_refused(world, alice, bob):
    other = World(epoch_length=11)
    with pytest.raises(BlockError, match="another chain"):
        world.block(other.tx(alice, Transfer(bob.public_key, 1)))


def test_a_block_holds_no_more_gas_than_it_may(alice, bob):
    world = World(max_block_gas=1_000_000)
    many = [world.tx(alice, Transfer(bob.public_key, 1)) for _ in range(60)]
    with pytest.raises(BlockError, match="gas"):
        world.block(*many)


def test_the_base_fee_moves_by_an_eighth_at_most_and_stays_above_its_floor():
    params = World(base_fee_floor=8).genesis.params
    full, target = params.max_block_gas, params.max_block_gas // 2
    assert next_base_fee(800, full, params) == 900
    assert next_base_fee(800, target, params) == 800
    assert next_base_fee(800, 0, params) == 700
    assert next_base_fee(8, 0, params) == 8
    assert next_base_fee(8, full, params) == 9
    free = World().genesis.params
    assert next_base_fee(0, 0, free) == 0
    assert next_base_fee(0, full, free) == 1
    assert next_base_fee(1, target + 1, free) == 2


@pytest.mark.parametrize(
    ("base_fee", "used", "following"),
    [
        # The three of go-ethereum's `TestCalcBaseFee`: gas limit 20,000,000.
        (1_000_000_000, 10_000_000, 1_000_000_000),
        (1_000_000_000, 9_000_000, 987_500_000),
        (1_000_000_000, 11_000_000, 1_012_500_000),
        # By hand, from the text of EIP-1559: both divisions round down, a rise is 1 at least; and ours: so is a fall.
        (1_000_000_000, 20_000_000, 1_125_000_000),
        (1_000_000_000, 0, 875_000_000),
        (7, 20_000_000, 8),
        (7, 10_000_001, 8),
        (7, 9_999_999, 6),
        (7, 0, 6),
        (79, 0, 70),
        (79, 20_000_000, 88),
        (999_999_999, 10_000_001, 1_000_000_011),
        (999_999_999, 9_999_999, 999_999_987),
        (10**24, 13_333_333, 10**24 + 41_666_662_500_000_000_000_000),
    ],
)
def test_the_base_fee_follows_the_vectors_of_eip_1559(base_fee, used, following):
    params = World(max_block_gas=20_000_000).genesis.params
    assert next_base_fee(base_fee, used, params) == following


@pytest.mark.parametrize("floor", [0, 1, 3])
@pytest.mark.parametrize("used", [0, 29_999_999])
def test_the_base_fee_falls_back_to_its_floor_after_busy_blocks(floor, used):
    params = World(base_fee_floor=floor).genesis.params
    fee = floor
    for _ in range(40):
        fee = next_base_fee(fee, params.max_block_gas, params)
    for _ in range(fee):
        fee = next_base_fee(fee, used, params)
    assert fee == floor


def test_a_newcomer_without_units_registers_after_a_busy_block_as_before_it(alice, bob):
    world = World(max_block_gas=1_000_000)
    world.block(*[world.tx(alice, Transfer(bob.public_key, 1)) for _ in range(25)])
    assert world.view.base_fee == 1
    world.block()
    world.register(signer("newcomer"))


def test_names_are_taken_once_and_versions_go_up_by_one_from_the_named_predecessor(
    world, alice, bob
):
    assert world.run(alice, NameRegister("gpt", BASE)) == ""
    assert world.run(bob, NameRegister("gpt", BASE)) == "the name is taken"
    assert world.run(bob, NameUpdate("gpt", MERGED, 1, BASE)) != ""
    assert world.run(alice, NameUpdate("gpt", MERGED, 2, BASE)) != ""
    assert world.run(alice, NameUpdate("gpt", MERGED, 1, MERGED)) != ""
    assert world.run(alice, NameUpdate("none", MERGED, 1, BASE)) != ""
    assert world.view.name("gpt").version == 0
    assert world.run(alice, NameUpdate("gpt", MERGED, 1, BASE)) == ""
    entry = world.view.name("gpt")
    assert (entry.root, entry.version, entry.previous) == (MERGED, 1, BASE)
    assert world.view.name_version("gpt", 0).previous == NO_CID
    assert world.view.name_version("gpt", 1).previous == BASE
    assert world.view.name_version("gpt", 2) is None


def test_no_new_name_reads_as_a_cid_and_old_ones_go_on(world, alice, monkeypatch):
    text = cid.text(BASE)
    assert "reads as a CID" in world.run(alice, NameRegister(text, BASE))
    phases = Phases(5, 3, 3, 3, 3)
    task = TaskPost(text, "lm", b"", BASE, root("d"), root("p"), 1, 10, phases, 0)
    assert "reads as a CID" in world.run(alice, task)
    assert world.view.name(text) is None
    with monkeypatch.context() as before:  # the rule was there
        before.setattr("swarm.ledger.rules.reads_as_cid", lambda _: False)
        assert world.run(alice, NameRegister(text, BASE)) == ""
    assert world.run(alice, NameUpdate(text, MERGED, 1, BASE)) == ""
    assert world.run(alice, replace(task, base=MERGED)) == ""
    assert world.view.name(text).version == 1


_BASES = (
    ("b", "abcdefghijklmnopqrstuvwxyz234567"),
    ("v", "0123456789abcdefghijklmnopqrstuv"),
    ("h", "ybndrfg8ejkmcpqxot1uwisza345h769"),
)


@given(st.binary(min_size=32, max_size=32), st.sampled_from((0x55, 0x70, 0x71)))
def test_every_cid_that_a_name_could_be_is_refused(digest, codec):
    found = bytes((1, codec, 0x12, 0x20)) + digest
    bits = int.from_bytes(found, "big") << 2  # 288 bits in 58 fives
    texts = [
        first + "".join(letters[bits >> 5 * (57 - at) & 31] for at in range(58))
        for first, letters in _BASES
    ]
    number, short = int.from_bytes(found, "big"), ""
    while number:
        number, digit = divmod(number, 36)
        short = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + short
    for text in (*texts, "k" + short):
        assert cid.parse(text) == found
        check_name(text)  # so it is as a name is written
        assert reads_as_cid(text)


@pytest.mark.parametrize("name", ["bafy", "bafk-1", "qm", "a" * 45, "-".join(["a" * 31] * 2)])
def test_what_no_cid_could_be_is_a_name_as_before(world, alice, name):
    with pytest.raises(CidError):
        cid.parse(name)
    assert world.run(alice, NameRegister(name, BASE)) == ""


def test_a_task_that_nobody_could_score_is_refused(world, alice):
    """The beacon of the first block draws the batches: who commits in it would know it before its leader has spoken."""
    with pytest.raises(AssertionError, match="the first one draws the batches"):
        world.post(alice, score_commit=1)
    task = world.post(alice, score_commit=2)
    assert world.round(task).phase is Phase.TRAIN


def test_a_dataset_is_listed_once(world, alice, bob):
    asked = DatasetPublish(root("data"), 10, 1, "CC0-1.0")
    assert world.run(alice, asked) == ""
    assert world.run(bob, asked) != ""
    (found,) = world.view.datasets()
    assert (found.publisher, found.height, found.licence) == (alice.public_key, 1, "CC0-1.0")


def test_a_workers_bond_is_locked_and_unbonds_when_it_leaves(alice):
    world = World(worker_bond=100, epoch_length=2)
    key = VrfKey.of(alice.seed).public_key
    held = world.account(alice).balance
    assert world.run(alice, Register(key, "cpu", ("worker",))) == ""
    assert (world.account(alice).bond, world.account(alice).balance) == (100, held - 100)
    assert world.run(alice, Register(key, "gpu", ("worker",))) == ""
    assert (world.account(alice).bond, world.account(alice).registered) == (100, 1)
    assert world.run(alice, Register(key, "gpu", ())) == ""
    assert world.account(alice).bond == 0
    assert world.run(alice, Withdraw()) != ""
    world.blocks(6)
    assert world.run(alice, Withdraw()) == ""
    assert world.account(alice).balance == held
    assert "bond" in world.run(signer("poor"), Register(key, "cpu", ("worker",)))


def test_a_vrf_key_of_small_order_is_refused(world, alice):
    assert world.run(alice, Register(bytes(32), "cpu", ())) != ""
    assert world.run(alice, Register(b"\x01" + bytes(31), "cpu", ())) != ""


def test_stake_counts_two_epochs_later_and_ceases_to_two_epochs_later(alice):
    world = World(epoch_length=3)
    world.ok((alice, Register(VrfKey.of(alice.seed).public_key, "cpu", ("validator",))))
    assert "at least" in world.run(alice, Stake(99))
    assert world.run(alice, Stake(5000)) == ""
    assert world.height == 3  # the last block of epoch 0 fixed epoch 2
    assert world.view.validators(1).find(alice.public_key) is None
    assert world.view.validators(2).find(alice.public_key).weight == 5000
    with pytest.raises(UnknownEpochError):
        world.view.validators(3)
    assert world.run(alice, Unstake(4950)) != ""
    assert world.run(alice, Unstake(5000)) == ""
    left = world.height
    world.block()
    assert world.height == 6  # the last block of epoch 1 fixed epoch 3
    assert world.view.validators(2).find(alice.public_key) is not None
    assert world.view.validators(3).find(alice.public_key) is None
    while world.height + 1 < left + 9:
        assert "nothing has unbonded" in world.run(alice, Withdraw())
    assert world.run(alice, Withdraw()) == ""
    assert world.account(alice).stake == 0


def test_an_epoch_set_holds_the_most_staked_alone_and_never_nobody():
    world = World(validators=3, max_validators=3, epoch_length=2)
    rich = world.people["alice"]
    world.ok(
        (rich, Register(VrfKey.of(rich.seed).public_key, "cpu", ("validator",))),
        (rich, Stake(5000)),
    )
    world.block()
    members = world.view.validators(2)
    assert len(members.validators) == 3
    assert members.find(rich.public_key) is not None
    world = World(validators=1, epoch_length=2)
    world.ok((world.validators[0], Unstake(1000)))
    world.blocks(9)
    assert [one.public_key for one in world.view.validators(5).validators] == [
        world.validators[0].public_key
    ]


def double_vote(world, accused, view=3, epoch=0):
    votes = [
        Vote.sign(accused, world.genesis.chain_id, Kind.NOTARIZE, epoch, view, block)
        for block in (b"a" * 32, b"b" * 32)
    ]
    return Evidence(encode_evidence(*votes))


def test_evidence_slashes_once_and_pays_a_tenth_to_the_reporter(alice):
    world = World(slash_correlation=0)
    accused = world.validators[1]
    held, burned = world.account(alice).balance, world.view.money().burned
    assert world.run(alice, double_vote(world, accused)) == ""
    assert world.account(accused).stake == 900
    assert world.account(alice).balance == held + 10
    assert world.view.money().burned == burned + 90
    assert "has been punished" in world.run(alice, double_vote(world, accused))
    again = Vote.sign(accused, world.genesis.chain_id, Kind.NOTARIZE, 0, 3, b"c" * 32)
    other = Vote.sign(accused, world.genesis.chain_id, Kind.NOTARIZE, 0, 3, b"a" * 32)
    assert "has been punished" in world.run(alice, Evidence(encode_evidence(again, other)))
    assert world.account(accused).stake == 900
    assert world.run(alice, double_vote(world, accused, view=4)) == ""
    assert world.account(accused).stake == 810


def test_stake_on_its_way_out_is_slashed_too(alice):
    world = World(slash_correlation=0)
    accused = world.validators[1]
    world.ok((accused, Unstake(1000)))
    assert world.run(alice, double_vote(world, accused)) == ""
    assert [one.amount for one in world.account(accused).unbonding] == [900]


def test_evidence_that_proves_nothing_is_refused(world, alice):
    accused = world.validators[1]
    for evidence in (
        Evidence(b"junk"),
        double_vote(world, alice),  # no validator
        double_vote(world, accused, epoch=1),  # an epoch to come
        double_vote(World(epoch_length=7), accused),  # another chain
    ):
        assert world.run(alice, evidence) != ""
    assert world.account(accused).stake == 1000


def test_who_was_no_validator_of_the_epoch_is_not_slashed(world, alice, bob):
    assert world.run(bob, Stake(5000)) == ""
    assert "no validator" in world.run(alice, double_vote(world, bob))
    assert world.account(bob).stake == 5000


def test_a_draft_takes_back_what_was_not_kept(world, alice):
    draft = Draft(world.memory)
    kept = replace(draft.account(alice.public_key), balance=1)
    draft.put_account(kept)
    draft.keep()
    for balance in (2, 3):
        draft.put_account(replace(kept, balance=balance, stake=balance))
    draft.put_evidence(b"e/unread")
    draft.roll_back()
    assert draft.account(alice.public_key) == kept
    assert alice.public_key not in draft.stakers()
    assert not draft.evidence_counted(b"e/unread")
    assert list(draft.changes()) == [account_key(alice.public_key)]


def test_emission_never_passes_the_pool_and_the_leader_is_paid(world):
    money = world.view.money()
    world.block()
    after = world.view.money()
    amount = money.pool * 5 // (10_000 * 34_560)
    assert after.training == after.small == amount * 20 // 100
    assert after.storage == amount * 20 // 100
    assert world.account(world.leader).earned == amount * 10 // 100
    assert after.emitted == after.treasury + world.account(world.leader).earned


def test_what_waits_for_a_settled_round_is_a_day_of_emission_at_most():
    world = World(blocks_per_day=3)
    world.blocks(10)
    one_block = world.view.money().pool * 5 // 30_000
    assert world.view.money().training <= (one_block + 10**13) * 20 // 100 * 3
    assert world.view.money().small <= (one_block + 10**13) * 20 // 100 * 3
    assert world.view.money().storage <= (one_block + 10**13) * 20 // 100 * 3


@pytest.mark.parametrize("seed", range(1, 7))
def test_whatever_is_sent_every_unit_is_accounted_for(seed):
    """`World.block` counts all units and steps of nonces after each block."""
    rng = random.Random(seed)
    world = World(
        epoch_length=4,
        score_redraws=0,
        worker_bond=50,
        base_fee_floor=rng.choice((0, 1)),
        people=("alice", "bob", "eve"),
    )
    crowd = [*world.people.values(), *world.validators]
    world.memory.apply(gift(world, world.validators))
    tasks: list[bytes] = []
    for _ in range(80):
        inside = [
            world.tx(who, random_payload(rng, world, who, crowd, tasks), max_fee=10, tip=2)
            for who in rng.sample(crowd, 5)
        ]
        receipts = world.block(*inside)
        tasks += [
            one.id
            for one, receipt in zip(inside, receipts, strict=True)
            if isinstance(one.payload, TaskPost) and not receipt.error
        ]
        for name in ("name-0", "name-1", "name-2"):
            check_versions(world, name)
    outcomes = {one.outcome for task in tasks for one in world.view.history(task)}
    assert len(outcomes) >= 2


def gift(world, people):
    """Units for accounts that genesis gave only a stake, taken from the first account."""
    draft = Draft(world.memory)
    alice = draft.account(world.people["alice"].public_key)
    share = alice.balance // 10
    draft.put_account(replace(alice, balance=alice.balance - share * len(people)))
    for one in people:
        account = draft.account(one.public_key)
        draft.put_account(replace(account, balance=account.balance + share))
    return draft.changes()


def check_versions(world, name):
    """Each version of a name names the one before."""
    entry = world.view.name(name)
    if entry is None:
        return
    roots = [world.view.name_version(name, version) for version in range(entry.version + 1)]
    assert [one.version for one in roots] == list(range(entry.version + 1))
    assert [one.previous for one in roots] == [b"", *[one.root for one in roots[:-1]]]
    assert roots[-1].root == entry.root


def random_payload(rng, world, who, crowd, tasks):
    view = world.view
    task = rng.choice(tasks) if tasks else b"t" * 32
    current = view.round(task)
    number = current.number if current is not None else 1
    mine = root(f"{number} {who.peer_id}")
    count = len(current.submissions) if current is not None else 0
    scores = tuple(range(20, 20 + count))
    lengths = Phases(*[rng.randrange(2, 6) for _ in range(5)])
    name = f"name-{rng.randrange(3)}"
    kind, budget = rng.choice(("lm", "gan")), rng.randrange(10**5)
    of_round = [
        CheckpointCommit(task, number, commit_hash(mine, who.public_key, SALT)),
        CheckpointReveal(task, number, mine, SALT),
        ScoreCommit(task, number, score_hash(task, number, who.public_key, 5, scores, SALT)),
        ScoreReveal(task, number, 5, scores, SALT),
        MergeAttest(task, number, MERGED, 4),
    ]
    others = [
        Transfer(rng.choice(crowd).public_key, rng.randrange(10**6)),
        Stake(rng.randrange(1, 500)),
        Unstake(rng.choice((100, 500, 1000))),
        Withdraw(),
        Unjail(),
        Register(VrfKey.of(who.seed).public_key, "cpu", rng.choice(((), ("worker",), ("worker",)))),
        NameRegister(name, BASE),
        NameUpdate(name, MERGED, rng.randrange(1, 4), BASE),
        TaskPost(name, kind, b"", BASE, BASE, BASE, 3, budget, lengths, 10),
        double_vote(world, rng.choice(world.validators), rng.randrange(5), view.epoch),
        *of_round,
    ]
    if current is not None and rng.random() < 0.8:
        return of_round[current.phase - 1]
    return rng.choice(others)
