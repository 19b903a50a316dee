from __future__ import annotations

import pytest

from storage.sealing import SLOT_BYTES
from swarm.errors import RefusedError, UsageError
from swarm.keeper.coding import LEAST_PIECES, MOST_PIECES, Coding, choose, coding_of, free_slots
from tests.ledger.lending import GIB, Lending

SIZE = 100 * SLOT_BYTES


def test_there_are_as_many_pieces_as_keepers_with_room_and_fourteen_at_most():
    for keepers in range(LEAST_PIECES, 40):
        coding = choose(SIZE, [1_000] * keepers + [0] * 5)
        assert coding.pieces == min(keepers, MOST_PIECES)
    assert choose(SIZE, [1_000] * 14) == Coding(10, 4)
    assert choose(SIZE, [1_000] * 7) == Coding(5, 2)
    assert choose(SIZE, [1_000] * 4) == Coding(2, 2)


def test_any_two_pieces_may_be_lost_and_two_in_seven():
    for pieces in range(LEAST_PIECES, MOST_PIECES + 1):
        coding = coding_of(pieces)
        assert coding.spare >= max(2, pieces * 2 / 7)
        assert coding.pieces <= 2 * coding.needed


def test_a_keeper_that_has_no_room_for_a_piece_is_not_counted():
    assert choose(SIZE, [11] * 14).pieces == 14  # ten slots and one for its manifests
    assert choose(SIZE, [20] * 13 + [10]).pieces == 13
    with pytest.raises(RefusedError, match="0 keepers have room"):
        choose(SIZE, [10] * 14)


def test_too_few_keepers_are_a_reason_to_refuse():
    with pytest.raises(RefusedError, match="3 keepers have room for a piece of it, where 4"):
        choose(SIZE, [1_000] * 3)


@pytest.mark.parametrize(("needed", "spare"), [(0, 2), (2, 0), (30, 3)])
def test_what_cannot_be_cut_is_refused(needed, spare):
    with pytest.raises(UsageError):
        Coding(needed, spare)


def test_free_slots_are_those_that_are_proven_and_that_no_duty_fills():
    world = Lending("kim", "lee", slots=2_048)
    assert free_slots(world.view) == []
    world.audit(*world.keepers)
    assert free_slots(world.view) == [2_048, 2_048]
    world.deal(world.people["alice"], "a", size=GIB, replicas=1)
    assert sorted(free_slots(world.view)) == [1_024, 2_048]
