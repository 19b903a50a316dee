"""The pieces that a keeper has a seat for, with an exchange over memory streams and a ledger of one deal."""

from __future__ import annotations

import random
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from protocols.signing import Signer
from storage import cid as cids
from storage import dag
from storage.erasure import Recipe, encode_root
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path
from swarm.heights import Heights
from swarm.keeper import duties as duties_of_a_keeper
from swarm.keeper.duties import AGAIN_SECONDS, Duties
from swarm.ledger.keeping import Deal, Duty, Piece
from tests.protocols.exchange.conftest import open_neighbourhood

MIB = 2**20
KEY, DEAL = Signer(b"k" * 32).public_key, b"d" * 32
OWNER = Signer(b"o" * 32).public_key


@dataclass
class Audit:
    number: int


class Ledger:
    """One deal, of whose pieces one keeper keeps the first."""

    def __init__(self, root, size, *others, recipe=b""):
        pieces = (Piece(root, size), *others)
        self._deal = Deal(DEAL, OWNER, pieces, 1, 1, cids.Cid(recipe), 1, 1, 9, 9)
        self.standing = [Duty(DEAL, 0, root, size, 1, False)]
        self.number = 1

    def duties_of(self, _key):
        return self.standing

    def deal(self, _deal):
        return self._deal

    def seats(self, _deal):
        return None

    def keepers_of(self, _root):
        return []

    def audit(self):
        return Audit(self.number)


@pytest.fixture
def patient_clock():
    """Virtual time that jumps only when no thread is at work either."""
    return MockClock(autojump_threshold=0.02)


@asynccontextmanager
async def keeping(near, ledger, limit=2**40):
    node, heights = await near.node(limit=limit), Heights(1)
    limiter = trio.CapacityLimiter(1)
    duties = Duties(
        KEY, lambda: ledger, heights, node.store, node.exchange, node.transport, limiter
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(duties.run)
        yield duties, node, heights
        nursery.cancel_scope.cancel()


async def until(holds):
    while not holds():  # noqa: ASYNC110 - the keeper tells nobody
        await trio.sleep(1)


async def test_a_piece_that_nobody_has_asks_for_no_room(patient_clock):
    ledger = Ledger(cids.of_raw(b"nowhere"), 2**40)
    async with open_neighbourhood() as near, keeping(near, ledger) as (duties, _, _):
        for _ in range(4):
            assert duties.coming == 0
            await trio.sleep(AGAIN_SECONDS)
        assert duties.problems
        assert not duties.was_whole(ledger.standing[0])


async def test_a_piece_that_does_not_fit_asks_for_its_room_until_it_is_promised(
    patient_clock, tmp_path
):
    (tmp_path / "file").write_bytes(b"".join(bytes((n,)) * MIB for n in range(4)))
    async with open_neighbourhood() as near:
        giver = await near.node()
        root = add_path(tmp_path / "file", giver.store).root
        ledger = Ledger(root, 5 * MIB)
        async with keeping(near, ledger, 3 * MIB) as (duties, node, heights):
            await until(lambda: duties.problems)
            assert 4 * MIB < duties.coming <= 5 * MIB
            assert not duties.was_whole(ledger.standing[0])
            node.store.set_limit(2**40)
            await until(lambda: duties.here)
            assert duties.was_whole(ledger.standing[0])
            # At the next audit it is walked again, and takes no second room meanwhile.
            ledger.number = 2
            heights.move(2)
            await trio.testing.wait_all_tasks_blocked()
            assert duties.coming == 0
            await until(lambda: duties.here)
            ledger.standing = []
            heights.move(3)
            await trio.sleep(1)
            assert node.store.holds() == []


@pytest.mark.slow
async def test_pieces_that_nobody_has_keep_no_new_one_waiting(patient_clock, tmp_path, monkeypatch):
    monkeypatch.setattr(duties_of_a_keeper, "PATIENCE_SECONDS", 2.0)
    monkeypatch.setattr(duties_of_a_keeper, "AGAIN_SECONDS", 1.0)
    (tmp_path / "file").write_bytes(b"here")
    async with open_neighbourhood() as near:
        giver = await near.node()
        root = add_path(tmp_path / "file", giver.store).root
        ledger = Ledger(root, MIB)
        (new,) = ledger.standing
        ledger.standing = [
            Duty(DEAL, at, cids.of_raw(b"nowhere %d" % at), MIB, 1, False) for at in range(1, 25)
        ]
        async with keeping(near, ledger) as (duties, _, heights):
            await until(lambda: len(duties.problems) == len(ledger.standing))
            ledger.standing = [*ledger.standing, new]
            heights.move(2)
            began = trio.current_time()
            await until(lambda: duties.here)
            assert trio.current_time() - began <= 5


@pytest.mark.slow
async def test_a_piece_is_not_made_again_from_pieces_larger_than_it(patient_clock, tmp_path):
    """Who pays for a small piece gets no keeper to fetch large ones, for which its slots would give way."""
    (tmp_path / "file").write_bytes(b"".join(bytes((n,)) * MIB for n in range(8)))
    lost = cids.of_raw(b"nowhere")
    async with open_neighbourhood() as near:
        giver = await near.node()
        large = add_path(tmp_path / "file", giver.store).root
        recipe = Recipe(1, 2, 8 * MIB, large, (lost, large))
        giver.store.put_many([(recipe.cid, recipe.encode())])
        ledger = Ledger(lost, MIB, Piece(large, 9 * MIB), recipe=recipe.cid)
        async with keeping(near, ledger) as (duties, node, _):
            await until(lambda: duties.problems)
            assert node.store.has(recipe.cid)
            assert node.store.usage().used < MIB


def below(root, store):
    """A root and everything that it links to."""
    block = store.get(root)
    inside = dag.links(root, block) if dag.is_manifest(root) else []
    return [root, *(deeper for one in inside for deeper in below(one.cid, store))]


@pytest.mark.slow
async def test_a_lost_piece_is_made_again_from_those_that_are_left(patient_clock, tmp_path):
    (tmp_path / "file").write_bytes(random.Random(3).randbytes(5 * MIB // 2))
    maker = MemoryBlockstore()
    recipe = encode_root(add_path(tmp_path / "file", maker).root, maker, 2, 4)
    lost, _, *left = recipe.pieces
    (size,) = {dag.tree_size(one, maker.get(one)) for one in recipe.pieces}
    kept = [recipe.cid, *(one for piece in left for one in below(piece, maker))]
    async with open_neighbourhood() as near:
        giver = await near.node()
        giver.store.put_many([(one, maker.get(one)) for one in kept])
        others = [Piece(one, size) for one in recipe.pieces[1:]]
        async with keeping(near, Ledger(lost, size, *others, recipe=recipe.cid)) as (
            duties,
            node,
            _,
        ):
            await until(lambda: duties.here)
            assert {one for one in below(lost, maker) if not node.store.has(one)} == set()
