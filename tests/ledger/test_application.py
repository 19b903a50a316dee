from __future__ import annotations

import random
from dataclasses import replace

import pytest

from protocols.consensus.messages import Block, Certificate, Kind, Vote, verify_certificate
from protocols.sync.messages import Proof
from storage import canonical
from storage.state_store import StateStore
from storage.state_tree import verify_proof
from swarm.ledger import application as rooms
from swarm.ledger import beacon, rules, transactions, validators, vrf
from swarm.ledger.application import LedgerApplication
from swarm.ledger.draft import Draft
from swarm.ledger.errors import LedgerError
from swarm.ledger.execute import Context, check_supply, execute_block
from swarm.ledger.source import LedgerSource
from swarm.ledger.state import Outcome, Phases, name_key
from swarm.ledger.transactions import (
    CheckpointCommit,
    CheckpointReveal,
    MergeAttest,
    NameRegister,
    Register,
    ScoreCommit,
    ScoreReveal,
    Stake,
    TaskPost,
    Transfer,
    commit_hash,
    score_hash,
)
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import BASE, SALT, make_genesis, root, signer

VALIDATORS = [signer(f"validator {at}") for at in range(4)]
ALICE = signer("alice")
NOW = 1_800_000_000_000


class Chain:
    """Applications of all validators, and one that only follows."""

    def __init__(self, folder, **params):
        self.genesis = make_genesis(VALIDATORS, [ALICE], **{"epoch_length": 4, **params})
        self.folder = folder
        self.stores = [StateStore(folder / str(at)) for at in range(5)]
        self.nodes = [
            LedgerApplication(store, self.genesis, key)
            for store, key in zip(self.stores, [*VALIDATORS, None], strict=True)
        ]
        self.follower = self.nodes[4]
        self.view = 0

    def leader(self, parent, view):
        epoch = parent.height // self.genesis.params.epoch_length
        key = self.follower.leader(epoch, view)
        return epoch, next(node for node in self.nodes[:4] if node._signer.public_key == key)

    def make(self, parent=None, *, view=None):
        parent = parent if parent is not None else self.follower.finalized()
        self.view += 1
        view = self.view if view is None else view
        epoch, node = self.leader(parent, view)
        return node.prepare(parent, epoch, view, NOW)

    def certificate(self, block):
        voters = sorted(VALIDATORS, key=lambda one: one.public_key)
        votes = [
            Vote.sign(one, self.genesis.chain_id, Kind.FINALIZE, block.epoch, block.view, block.id)
            for one in voters
        ]
        signatures = tuple((at, vote.signature) for at, vote in enumerate(votes))
        return Certificate(Kind.FINALIZE, block.epoch, block.view, block.id, signatures)

    def finalize(self, block, certificate=None):
        certificate = certificate or self.certificate(block)
        for node in self.nodes:
            assert node.process(block)
            node.finalize(block, certificate)

    def grow(self, count):
        for _ in range(count):
            self.finalize(self.make())

    def send(self, who, payload, node=None):
        for one in [node] if node else self.nodes:
            data = transactions.sign(
                who, self.genesis.chain_id, one.next_nonce(who.public_key), payload, valid_until=99
            )
            one.submit(transactions.decode(data))
        return transactions.transaction_id(data)

    def close(self):
        for store in self.stores:
            store.close()


@pytest.fixture
def chain(tmp_path):
    made = Chain(tmp_path)
    yield made
    made.close()


def test_blocks_of_turning_leaders_are_accepted_and_final_everywhere(chain):
    sent = chain.send(ALICE, Transfer(b"b" * 32, 5))
    chain.grow(10)
    roots = {node.finalized().state_root for node in chain.nodes}
    assert len(roots) == 1
    follower = chain.follower
    assert follower.finalized_height() == follower.view().height == 10
    assert follower.view().account(b"b" * 32).balance == 5
    assert (follower.included(sent).height, follower.included(sent).error) == (1, "")
    assert follower.included(b"x" * 32) is None
    assert len(follower.mempool) == 0
    assert len(follower.transactions_of(follower.block(1))) == 1
    assert follower.transactions_of(follower.block(0)) == []
    assert follower.view().epoch == 2
    check_supply(follower.view().raw)


def test_a_failed_transaction_says_why_after_it_is_final(chain):
    sent = chain.send(ALICE, Stake(1))
    chain.grow(1)
    assert "at least" in chain.follower.included(sent).error


def test_a_node_that_starts_again_goes_on_from_where_it_was(chain, tmp_path):
    chain.send(ALICE, NameRegister("gpt", BASE))
    chain.grow(3)
    tip = chain.follower.finalized()
    chain.stores[4].close()
    chain.stores[4] = StateStore(tmp_path / "4")
    again = LedgerApplication(chain.stores[4], chain.genesis)
    assert again.finalized() == tip
    assert again.view().beacon == chain.nodes[0].view().beacon
    chain.nodes[4] = chain.follower = again
    chain.grow(2)


def test_replaying_the_blocks_gives_the_same_roots(chain, tmp_path):
    chain.send(ALICE, Transfer(b"b" * 32, 5))
    chain.grow(6)
    store = StateStore(tmp_path / "replay")
    fresh = LedgerApplication(store, chain.genesis)
    for block, certificate in chain.follower.blocks(1, 100):
        fresh.finalize(Block.decode(block.encode()), certificate)
        assert fresh.view().root == block.state_root
    assert fresh.finalized() == chain.follower.finalized()
    store.close()


def test_a_store_of_another_network_is_refused(chain, tmp_path):
    chain.stores[4].close()
    chain.stores[4] = StateStore(tmp_path / "4")
    with pytest.raises(LedgerError, match="another network"):
        LedgerApplication(chain.stores[4], chain.genesis.with_params(epoch_length=5))


def test_forks_are_executed_on_their_own_parents_and_dropped_when_one_is_final(chain):
    follower = chain.follower
    left = chain.make()
    chain.send(ALICE, Transfer(b"b" * 32, 5))
    right = chain.make()
    assert left.state_root != right.state_root
    assert follower.process(left)
    assert follower.process(right)
    for node in chain.nodes:
        assert node.process(left)
        assert node.process(right)
    above = chain.make(right)
    above_left = chain.make(left)
    assert follower.process(above_left)
    assert follower.process(above)
    assert follower.view().height == 0
    chain.finalize(right)
    assert not follower.process(above_left)
    assert follower._layers.keys() == {above.id}
    chain.finalize(above)
    assert follower.view().height == 2
    assert follower._layers == {}


def changed(block, **fields):
    values = {
        name: getattr(block, name)
        for name in (
            "chain_id",
            "epoch",
            "view",
            "height",
            "parent",
            "timestamp_ms",
            "leader",
            "state_root",
            "payload",
        )
    }
    return Block(**{**values, **fields})


def test_a_block_that_breaks_a_rule_is_not_valid(chain):
    chain.grow(1)
    block = chain.make()
    other = next(one for one in VALIDATORS if one.public_key != block.leader)
    proof, inside = canonical.decode(block.payload, max_bytes=10**6)
    foreign = VrfKey.of(other.seed).prove(
        beacon.vrf_input(chain.follower.view().beacon, block.height)
    )
    stale = VrfKey.of(_key_of(block.leader).seed).prove(b"something else")
    for wrong in (
        changed(block, chain_id=b"x" * 32),
        changed(block, epoch=1),
        changed(block, height=3),
        changed(block, parent=b"p" * 32),
        changed(block, timestamp_ms=chain.follower.finalized().timestamp_ms),
        changed(block, leader=other.public_key),
        changed(block, state_root=b"r" * 32),
        changed(block, payload=b""),
        changed(block, payload=b"\x80"),
        changed(block, payload=canonical.encode([proof, [b"junk"]])),
        changed(block, payload=canonical.encode([proof, inside, 1])),
        changed(block, payload=canonical.encode([proof, [1]])),
        changed(block, payload=canonical.encode([foreign, inside])),
        changed(block, payload=canonical.encode([stale, inside])),
    ):
        assert not chain.follower.process(wrong)
    assert chain.follower.process(block)
    assert chain.follower.process(block)


def _key_of(public_key):
    return next(one for one in VALIDATORS if one.public_key == public_key)


def test_another_validator_cannot_make_the_leaders_block_its_own(chain):
    block = chain.make()
    other = next(one for one in VALIDATORS if one.public_key != block.leader)
    (proof, _) = canonical.decode(block.payload, max_bytes=10**6)
    view = chain.follower.view()
    after = beacon.following(view.beacon, vrf.output(proof))
    context = Context(1, block.timestamp_ms, other.public_key, after)
    changes, _ = execute_block(view.raw, context, [])
    stolen = changed(block, leader=other.public_key, state_root=view.raw.layer(changes).root)
    assert not chain.follower.process(stolen)


def test_a_block_with_a_transaction_twice_is_not_valid(chain):
    chain.send(ALICE, Transfer(b"b" * 32, 5))
    block = chain.make()
    proof, inside = canonical.decode(block.payload, max_bytes=10**6)
    assert len(inside) == 1
    twice = changed(block, payload=canonical.encode([proof, inside * 2]))
    assert not chain.follower.process(twice)


def test_only_the_views_leader_makes_a_block(chain):
    tip = chain.follower.finalized()
    _, leader = chain.leader(tip, 7)
    for node in chain.nodes:
        if node is not leader:
            with pytest.raises(LedgerError):
                node.prepare(tip, 0, 7, NOW)
    assert leader.prepare(tip, 0, 7, 0).timestamp_ms == tip.timestamp_ms + 1


def test_the_last_block_of_an_epoch_is_proposed_again_unchanged_in_a_later_view(chain):
    chain.grow(3)
    boundary = chain.make()
    assert boundary.height == 4
    for node in chain.nodes:
        assert node.process(boundary)
    final = chain.certificate(boundary)
    later = Certificate(final.kind, final.epoch, final.view + 5, final.block_id, final.signatures)
    chain.finalize(boundary, later)
    chain.grow(2)


def test_unfinal_layers_are_bounded_and_one_that_was_dropped_is_executed_again(chain, monkeypatch):
    monkeypatch.setattr(rooms, "MAX_LAYERS", 3)
    chain.grow(1)
    blocks = [chain.follower.finalized()]
    for _ in range(3):
        for node in chain.nodes:
            assert node.process(blocks[-1])
        blocks.append(chain.make(blocks[-1]))
    for at in range(6):
        chain.follower.process(chain.make(chain.follower.finalized(), view=100 + at))
    assert len(chain.follower._layers) == 3
    for block in blocks[1:]:
        chain.finalize(block)
    assert chain.follower.view().height == 4


def test_a_name_is_proven_from_a_finalized_header_alone(chain):
    chain.send(ALICE, NameRegister("gpt", BASE))
    chain.grow(2)
    block, certificate, value, proof = chain.follower.prove(name_key("gpt", 0))
    assert certificate.block_id == block.id
    assert verify_certificate(
        certificate, chain.genesis.chain_id, chain.follower.validators(block.epoch)
    )
    assert verify_proof(block.state_root, name_key("gpt", 0), value, proof)
    assert not verify_proof(block.state_root, name_key("gpt", 0), None, proof)
    absent = chain.follower.prove(name_key("none"))
    assert absent[2] is None
    assert verify_proof(block.state_root, name_key("none"), None, absent[3])


def test_peers_that_sync_get_blocks_in_order_and_proofs(chain):
    source = LedgerSource(chain.follower)
    assert source.prove(b"x") is None
    assert source.blocks(1, 10) == []
    chain.grow(5)
    found = source.blocks(2, 2)
    assert [block.height for block, _ in found] == [2, 3]
    assert all(certificate.block_id == block.id for block, certificate in found)
    assert source.finalized_height() == 5
    assert source.genesis_bytes() == chain.genesis.encode()
    proof = source.prove(name_key("gpt"))
    assert Proof.decode(proof.encode()) == proof
    # A block that its child made final carries the child's certificate and gives no proof.
    parent = chain.make()
    for node in chain.nodes:
        assert node.process(parent)
    child = chain.make(parent)
    for node in chain.nodes:
        assert node.process(child)
    chain.finalize(parent, chain.certificate(child))
    assert source.prove(name_key("gpt")) is None
    chain.finalize(child)
    assert source.prove(name_key("gpt")) is not None


def test_a_block_is_final_only_after_its_parent(chain):
    first = chain.make()
    for node in chain.nodes:
        node.process(first)
    second = chain.make(first)
    with pytest.raises(LedgerError, match="not the child"):
        chain.follower.finalize(second, chain.certificate(second))
    chain.finalize(first)
    chain.finalize(second)
    chain.follower.finalize(second, chain.certificate(second))
    assert chain.follower.finalized() == second


def test_a_full_mempool_makes_blocks_within_their_bounds(chain):
    rng = random.Random(1)
    crowd = [signer(f"free {at}") for at in range(40)]
    for who in crowd:
        for _ in range(2):
            chain.send(who, Transfer(bytes([rng.randrange(256)]) * 32, 0))
    block = chain.make()
    assert len(chain.follower.transactions_of(block)) == 80
    chain.finalize(block)
    assert all(len(node.mempool) == 0 for node in chain.nodes)


def train(chain, worker, name="update"):
    """A whole round in which one validator trained; ends with the block that settles it."""
    vrf_key, made = VrfKey.of(worker.seed).public_key, root(name)
    chain.send(worker, Register(vrf_key, "cpu", ("validator", "worker")))
    chain.grow(1)
    phases = Phases(3, 3, 3, 3, 3)
    task = chain.send(ALICE, TaskPost("gpt", "lm", b"", BASE, BASE, BASE, 1, 10**9, phases, 10))
    chain.grow(1)
    chain.send(worker, CheckpointCommit(task, 1, commit_hash(made, worker.public_key, SALT)))
    chain.grow(1)
    chain.send(worker, CheckpointReveal(task, 1, made, SALT))
    chain.grow(2)
    for one in VALIDATORS:
        opened = score_hash(task, 1, one.public_key, 500, (90,), SALT)
        chain.send(one, ScoreCommit(task, 1, opened))
    chain.grow(1)
    for one in VALIDATORS:
        chain.send(one, ScoreReveal(task, 1, 500, (90,), SALT))
    chain.grow(1)
    for one in VALIDATORS:
        chain.send(one, MergeAttest(task, 1, made, 400))
    chain.grow(1)
    assert chain.follower.view().history(task)[0].outcome is Outcome.MERGED


def test_who_trained_well_makes_blocks_two_epochs_later_that_all_accept(tmp_path):
    chain = Chain(tmp_path, epoch_length=8, score_share=10_000)
    try:
        worker = VALIDATORS[0]
        train(chain, worker)
        chain.grow(16 - chain.follower.finalized_height())
        members = chain.follower.view().validators(2)
        assert members.find(worker.public_key).lead == 3300
        parent = chain.follower.finalized()
        for_scores = [
            view
            for view in range(chain.view + 1, chain.view + 60)
            if beacon.draw_slot(members.seed, 2, view, 10_000) < 3300
        ]
        by_stake = replace(
            members, validators=tuple(replace(one, lead=0) for one in members.validators)
        )
        view = next(
            at
            for at in for_scores
            if validators.leader(by_stake, at).public_key != worker.public_key
        )
        assert {chain.follower.leader(2, at) for at in for_scores} == {worker.public_key}
        block = chain.make(parent, view=view)
        assert block.leader == worker.public_key
        for node in chain.nodes:
            assert node.process(block)
        other = chain.nodes[1]
        with pytest.raises(LedgerError, match="do not lead"):
            other.prepare(parent, 2, view, NOW)
        chain.finalize(block)
        chain.view = view
        chain.grow(3)
    finally:
        chain.close()


def test_a_block_counts_the_views_since_its_parents_that_brought_none(chain):
    def missed(*views, epoch=0):
        found = [chain.follower.leader(epoch, view) for view in views]
        return {key: found.count(key) for key in found}

    chain.finalize(chain.make(view=4))
    chain.finalize(chain.make(view=5))
    chain.finalize(chain.make(view=7))
    assert Draft(chain.stores[4].view()).missed == missed(1, 2, 3, 6)
    chain.finalize(chain.make(view=8))  # the last of its epoch
    assert Draft(chain.stores[4].view()).missed == {}
    chain.finalize(chain.make(view=2))
    assert Draft(chain.stores[4].view()).missed == missed(1, epoch=1)


def test_what_its_account_can_pay_no_more_takes_no_place_in_a_block(tmp_path):
    chain = Chain(tmp_path, max_block_bytes=2**16)
    crowd = [signer(f"mallory {at}") for at in range(12)]
    try:
        for who in crowd:
            chain.send(ALICE, Transfer(who.public_key, 10**9))
        chain.grow(1)
        for who in crowd:
            for nonce in range(50):  # the first takes away what the others would be paid with
                one = transactions.sign(
                    who,
                    chain.genesis.chain_id,
                    nonce,
                    Transfer(ALICE.public_key, 0 if nonce else 10**9 - 300_000),
                    valid_until=99,
                    max_fee=10,
                    tip=10,
                )
                for node in chain.nodes:
                    node.submit(one)
        chain.send(ALICE, Transfer(b"b" * 32, 1))
        block = chain.make()
        assert len(chain.follower.transactions_of(block)) == len(crowd) + 1
        chain.finalize(block)
        assert [len(node.mempool) for node in chain.nodes] == [0] * 5
    finally:
        chain.close()


def test_a_fault_in_a_rule_keeps_its_transaction_out_of_blocks_and_ends_no_node(
    tmp_path, monkeypatch
):
    chain = Chain(tmp_path)
    run = rules.run

    def broken(draft, transaction, context):
        if transaction.payload == Transfer(b"x" * 32, 7):
            draft.put_account(replace(draft.account(ALICE.public_key), balance=0))
            raise KeyError(7)
        return run(draft, transaction, context)

    try:
        for to, amount in ((b"b" * 32, 1), (b"x" * 32, 7)):
            chain.send(ALICE, Transfer(to, amount))
        shown = chain.make()  # by a leader without the fault
        assert len(chain.follower.transactions_of(shown)) == 2
        monkeypatch.setattr(rules, "run", broken)
        other = Chain(tmp_path / "other")
        try:
            assert not other.follower.process(shown)
            for to, amount in ((b"b" * 32, 1), (b"x" * 32, 7)):
                other.send(ALICE, Transfer(to, amount))
            made = other.make()
            (kept,) = other.follower.transactions_of(made)
            assert transactions.decode(kept).payload == Transfer(b"b" * 32, 1)
            assert other.follower.process(made)
            other.finalize(made)
            assert other.follower.view().account(ALICE.public_key).balance > 0
        finally:
            other.close()
    finally:
        chain.close()
