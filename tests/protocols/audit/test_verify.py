from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from protocols.audit.draw import answer_root, draw_leaves, draw_slots
from protocols.audit.errors import AuditFailedError, Failure
from protocols.audit.messages import LeafAnswer, SlotAnswer
from protocols.audit.verify import Commitment, LeafCheck, check_slot
from storage import cid as cids
from storage import merkle
from storage.sealing import SLOT_BYTES, ZEROS, slot_key, unseal
from storage.slot_tree import Label, slot_leaves, slot_root
from storage.slots import LeafProof
from tests.protocols.audit.keepers import LEAVES, SEALING, SEED, make_keeper


@pytest.fixture
def keeper(tmp_path):
    made = make_keeper(tmp_path)
    yield made
    made.slots.close()


def told(leaf):
    return LeafAnswer(leaf.leaf, leaf.label, leaf.inner, leaf.path)


def run(keeper, leaves, answer=None, count=LEAVES):
    check = LeafCheck(keeper.commitment, SEED, count, answer or keeper.answer)
    for leaf in leaves:
        check.take(told(leaf))
    return check.finish()


def failure_of(call):
    with pytest.raises(AuditFailedError) as caught:
        call()
    return caught.value.failure


def test_an_honest_keepers_leaves_are_accepted(keeper):
    run(keeper, keeper.drawn())


def test_a_leaf_that_was_not_drawn_is_refused_although_it_is_committed(keeper):
    leaves = keeper.drawn()
    swapped = [leaves[1], leaves[0], *leaves[2:]]
    assert failure_of(lambda: run(keeper, swapped)) is Failure.NO_PATH
    assert failure_of(lambda: run(keeper, [leaves[0]] * LEAVES)) is Failure.NO_PATH


def test_every_changed_byte_of_a_leaf_and_its_way_is_refused(keeper):
    first, *rest = keeper.drawn()
    wrong = bytes(32)
    changed = [
        replace(first, leaf=first.leaf[:-1] + bytes((first.leaf[-1] ^ 1,))),
        replace(first, label=wrong + first.label[32:]),
        replace(first, label=first.label[:-1] + b"\x01"),
        replace(first, inner=[*first.inner[:-1], wrong]),
        replace(first, path=[*first.path[:-1], wrong]),
        replace(first, path=first.path[:-1]),
        replace(first, path=[*first.path, wrong]),
    ]
    for one in changed:
        assert failure_of(lambda one=one: run(keeper, [one, *rest])) is Failure.NO_PATH


def test_leaves_must_be_those_of_the_answer_on_the_ledger(keeper):
    leaves = keeper.drawn()
    assert failure_of(lambda: run(keeper, leaves, answer=bytes(32))) is Failure.OTHER_LEAVES
    assert failure_of(lambda: run(keeper, leaves[:-1])) is Failure.OTHER_LEAVES


@pytest.mark.parametrize("slot", range(5))
def test_whole_slots_of_chunks_and_of_zeros_are_accepted(keeper, slot):
    shown = keeper.slots.prove_slot(keeper.commitment.root, slot)
    label = check_slot(
        keeper.commitment, slot, SlotAnswer(shown.sealed, shown.label, shown.path), SEALING
    )
    assert (label.cid is None) == (slot in {2, 4})


def test_a_slot_in_the_place_of_another_is_refused(keeper):
    shown = keeper.slots.prove_slot(keeper.commitment.root, 2)
    answer = SlotAnswer(shown.sealed, shown.label, shown.path)
    assert failure_of(lambda: check_slot(keeper.commitment, 4, answer, SEALING)) is Failure.NO_PATH


def test_bytes_that_are_not_under_the_label_are_refused(keeper):
    shown = keeper.slots.prove_slot(keeper.commitment.root, 2)
    answer = SlotAnswer(bytes(SLOT_BYTES), shown.label, shown.path)
    assert failure_of(lambda: check_slot(keeper.commitment, 2, answer, SEALING)) is Failure.NO_PATH


class Faker:
    """Commits to bytes that are quick to make and were never sealed, and claims that they are zeros or a chunk."""

    def __init__(self, slots, cid=None, length=0):
        self.sealed = [self.make(slot) for slot in range(slots)]
        self.labels = [Label(slot_root(one), cid, length).encode() for one in self.sealed]
        self.commitment = Commitment(b"f" * 32, merkle.root(self.labels), slots)

    def make(self, slot):
        return hashlib.shake_128(b"cheap%d" % slot).digest(SLOT_BYTES)

    def prove(self, slot, number):
        leaves = slot_leaves(self.sealed[slot])
        return LeafProof(
            slot,
            number,
            leaves[number],
            self.labels[slot],
            merkle.prove(leaves, number),
            merkle.prove(self.labels, slot),
        )


@pytest.mark.parametrize("cid", [None, cids.of_raw(b"never held")])
def test_cheap_bytes_that_were_never_sealed_pass_as_leaves_and_fail_as_a_slot(cid):
    faker = Faker(3, cid, 10 if cid else 0)
    leaves = draw_leaves(SEED, faker.commitment.keeper, 3, LEAVES, faker.prove)
    check = LeafCheck(faker.commitment, SEED, LEAVES, answer_root([one.leaf for one in leaves]))
    for leaf in leaves:
        check.take(told(leaf))
    check.finish()
    slot = draw_slots(SEED, faker.commitment.keeper, 3)[0]
    shown = SlotAnswer(faker.sealed[slot], faker.labels[slot], merkle.prove(faker.labels, slot))
    failure = failure_of(lambda: check_slot(faker.commitment, slot, shown, SEALING))
    assert failure is Failure.OTHER_CONTENT


def test_a_chunk_made_by_unsealing_cheap_bytes_is_refused():
    sealed = hashlib.shake_128(b"cheap").digest(SLOT_BYTES)
    for named in (ZEROS, bytes(40)[:-1] + b"\1"):
        key = slot_key(b"f" * 32, SEALING.chain_id, 0, SEALING.log_n, named)
        made = unseal(key, sealed, SEALING.passes)
        label = Label(slot_root(sealed), cids.of_raw(made), SLOT_BYTES).encode()
        commitment = Commitment(b"f" * 32, merkle.root([label]), 1)
        answer = SlotAnswer(sealed, label, [])
        failure = failure_of(lambda: check_slot(commitment, 0, answer, SEALING))  # noqa: B023
        assert failure is Failure.OTHER_CONTENT


def test_a_label_that_names_nothing_known_is_refused():
    faker = Faker(1)
    faker.labels[0] = faker.labels[0][:32] + b"\xff" * 40
    commitment = Commitment(b"f" * 32, merkle.root(faker.labels), 1)
    answer = SlotAnswer(faker.sealed[0], faker.labels[0], [])
    failure = failure_of(lambda: check_slot(commitment, 0, answer, SEALING))
    assert failure is Failure.OTHER_CONTENT
