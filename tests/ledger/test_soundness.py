"""What a node says of the state on its disk, and what it does when that is damaged."""

from __future__ import annotations

import pytest

from storage import state_check
from storage.state_store import StateStore
from swarm.ledger.soundness import SHARE, Soundness
from tests.storage.test_state_witness import damage_newest_head, made, overwrite, records


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(state_check, "CHECKED_RECORDS", 64)
    first = StateStore(tmp_path, map_bytes=2**22)
    first.commit(first.view().layer(records(0, 200)), b"0", b"", 0)
    first.close()
    again = StateStore(tmp_path)
    yield again
    again.close()


async def test_a_whole_state_is_checked_and_nothing_is_said(store, autojump_clock):
    told = []
    soundness = Soundness(store, lambda: told.append("damage"))
    await soundness.run()
    assert store.is_checked
    assert (soundness.problem, told) == (None, [])
    assert SHARE <= 0.2


async def test_a_damaged_state_stops_the_votes_once_and_says_what_to_do(store, autojump_clock):
    overwrite(store, 0, b"key 7", b"?")
    told = []
    soundness = Soundness(store, lambda: told.append("damage"))
    await soundness.run()
    assert told == ["damage"]
    assert "does not vote" in soundness.problem
    assert "move it away" in soundness.problem


async def test_a_state_that_lost_its_newest_block_is_told_until_it_is_back(tmp_path):
    made(tmp_path)
    damage_newest_head(tmp_path)
    store = StateStore(tmp_path)
    soundness = Soundness(store, lambda: None)
    await soundness.run()
    assert "after block 3, up to block 4" in soundness.problem
    layer = store.view().layer({b"k%d" % at: b"4" for at in range(24)})
    store.commit(layer, b"4", b"", 4)
    assert soundness.problem is None
    store.close()
