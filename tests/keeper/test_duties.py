"""The pieces that a keeper has a seat for, with an exchange over memory streams and a ledger of one deal."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest
import trio
from trio.testing import MockClock

from protocols.signing import Signer
from storage import cid as cids
from storage.unixfs import add_path
from swarm.heights import Heights
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
    """One deal of one piece, kept by one keeper."""

    def __init__(self, root, size):
        self._deal = Deal(DEAL, OWNER, (Piece(root, size),), 1, 1, cids.Cid(b""), 1, 1, 9, 9)
        self.standing = [Duty(DEAL, 0, root, size, 1, False)]
        self.number = 1

    def duties_of(self, _key):
        return self.standing

    def deal(self, _deal):
        return self._deal

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
