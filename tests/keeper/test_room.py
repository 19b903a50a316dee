from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm.keeper.room import MAX_MARGIN, SLOT_COST, Room

GIB = 2**30
EMPTY = Room(100 * GIB, 0, 0, 0, 0, 1_000 * GIB, 10 * GIB)


def test_slots_fill_what_is_lent_but_for_a_margin():
    assert EMPTY.margin == MAX_MARGIN
    assert EMPTY.goal == (100 * GIB - MAX_MARGIN) // SLOT_COST
    assert replace(EMPTY, lent=10_000).goal == 0


@pytest.mark.parametrize("field", ["chunks", "shelf", "coming"])
def test_chunks_unpacked_files_and_coming_pieces_take_room_from_slots(field):
    taken = replace(EMPTY, **{field: 30 * GIB})
    assert EMPTY.goal - taken.goal == pytest.approx(30 * GIB / SLOT_COST, abs=1)


def test_slots_stay_until_half_of_the_margin_is_taken_and_then_make_it_whole_again():
    full = replace(EMPTY, slots=EMPTY.goal)
    barely = replace(full, chunks=MAX_MARGIN // 2)
    assert barely.stay == full.slots
    over = replace(full, chunks=MAX_MARGIN // 2 + 2 * SLOT_COST)
    assert over.stay == over.goal < full.slots
    after = replace(over, slots=over.stay)
    assert after.lent - after.chunks - after.slots * SLOT_COST >= after.margin


def test_a_disk_that_fills_from_elsewhere_takes_slots_as_well():
    slots = EMPTY.goal
    left = replace(EMPTY, slots=slots, disk_free=4 * GIB)
    assert left.is_urgent
    assert left.stay < slots
    given_back = (slots - left.stay) * SLOT_COST
    assert left.disk_free + given_back >= left.keep_free + left.margin


@given(
    st.integers(0, 2**45),
    st.integers(0, 2**45),
    st.integers(0, 2**40),
    st.integers(0, 2**25),
    st.integers(0, 2**45),
)
def test_slots_never_take_what_chunks_use_nor_the_disks_reserve(lent, chunks, coming, slots, free):
    room = Room(lent, chunks, 0, coming, slots, free, 10 * GIB)
    assert 0 <= room.stay <= max(slots, 0)
    grown = room.goal - slots
    if grown > 0:
        assert room.goal * SLOT_COST + chunks + coming <= lent
        assert free - grown * SLOT_COST >= room.keep_free


def test_slots_that_wait_to_take_the_place_of_others_take_room_from_slots_and_are_few():
    waiting = replace(EMPTY, waiting=EMPTY.batch)
    assert EMPTY.goal - waiting.goal == EMPTY.batch
    assert EMPTY.batch * SLOT_COST <= MAX_MARGIN // 4
    assert replace(EMPTY, lent=10 * SLOT_COST).batch == 1
