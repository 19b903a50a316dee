"""How much a data folder lends, across starts of its node; and when coded pieces are let go."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from storage import cid as cids
from storage.memory import MemoryBlockstore
from swarm.keeper import offers
from swarm.keeper.memory import Lent
from swarm.keeper.offers import GRACE_BLOCKS, Offers

GB = 10**9
RECIPE = cids.of_raw(b"recipe")
PIECES = [cids.of_raw(bytes([at])) for at in range(3)]


@pytest.fixture
def start(tmp_path):
    def open_again(started_with, *, is_temporary=False):
        return Lent(tmp_path / "lent.cbor", started_with, is_temporary=is_temporary)

    return open_again


def test_what_was_said_last_holds_when_the_node_starts_as_it_did_before(start):
    start(500 * GB).change(200 * GB)
    assert start(500 * GB).now == 200 * GB
    assert start(500 * GB).now == 200 * GB


def test_a_start_with_another_number_ends_what_was_said(start):
    start(500 * GB).change(200 * GB)
    assert start(300 * GB).now == 300 * GB
    assert start(500 * GB).now == 500 * GB


def test_a_node_for_one_command_has_the_room_of_the_folders_own_node(start):
    assert start(10 * GB, is_temporary=True).now == 10 * GB
    start(500 * GB)
    assert start(10 * GB, is_temporary=True).now == 500 * GB
    start(500 * GB).change(200 * GB)
    assert start(10 * GB, is_temporary=True).now == 200 * GB
    assert start(500 * GB).now == 200 * GB


@pytest.mark.parametrize("damage", [b"", b"\xff" * 9, b"\x83\x01\x61a\x02", b"\x81\x01"])
def test_a_damaged_memory_counts_as_none(start, tmp_path, damage):
    start(500 * GB).change(200 * GB)
    (tmp_path / "lent.cbor").write_bytes(damage)
    assert start(500 * GB).now == 500 * GB


class Ledger:
    """A view with coded deals, and duties that were shown."""

    def __init__(self, recipes=(), shown=()):
        self._deals = [SimpleNamespace(recipe=recipe) for recipe in recipes]
        self._duties = [(b"key", SimpleNamespace(root=root, shown=True)) for root in shown]

    def deals(self):
        return self._deals

    def duties(self):
        return self._duties


@pytest.fixture
def store():
    found = MemoryBlockstore()
    for piece in PIECES:
        found.hold(piece, offers.label(RECIPE))
    found.hold(PIECES[0], "task of another kind")
    return found


def offered(store):
    return [root for root, name in store.holds() if name == offers.label(RECIPE)]


def test_a_piece_is_let_go_once_a_keeper_has_shown_it(store):
    ending = Offers(None, None, store, lambda: None)
    assert ending.let_go(Ledger([RECIPE]), 10) == 0
    assert ending.let_go(Ledger([RECIPE], [PIECES[1]]), 11) == 1
    assert offered(store) == [PIECES[0], PIECES[2]]
    assert len(store.holds()) == 3


def test_pieces_wait_for_a_deal_that_is_on_its_way_to_the_ledger(store):
    ending = Offers(None, None, store, lambda: None)
    assert ending.let_go(Ledger(), 10) == 0
    assert ending.let_go(Ledger([RECIPE]), 20) == 0
    assert ending.let_go(Ledger(), 30 + GRACE_BLOCKS) == 0
    assert ending.let_go(Ledger(), 29 + 2 * GRACE_BLOCKS) == 0
    assert len(offered(store)) == 3


def test_pieces_go_when_their_deal_is_over(store):
    ending = Offers(None, None, store, lambda: None)
    ending.let_go(Ledger([RECIPE]), 10)
    ending.let_go(Ledger(), 20)
    assert ending.let_go(Ledger(), 20 + GRACE_BLOCKS) == 3
    assert store.holds() == [(PIECES[0], "task of another kind")]
