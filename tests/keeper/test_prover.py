from __future__ import annotations

from dataclasses import replace

import pytest

from protocols.audit.draw import held_seed
from storage import cid as cids
from storage import sampling
from storage.errors import ChunkNotFoundError, StorageError
from storage.memory import MemoryBlockstore
from storage.slots import SlotStore
from storage.unixfs import add_path
from swarm.keeper.prover import Audited, SlotProver
from swarm.ledger.keeping import Duty

KEY, DEAL = b"k" * 32, b"d" * 32
MIB = 2**20


class Counting(MemoryBlockstore):
    """Counts what is read."""

    read = 0

    def get(self, cid):
        self.read += 1
        return super().get(cid)


class Case:
    """A keeper with one duty: a file of four chunks."""

    def __init__(self, folder):
        (folder / "file").write_bytes(b"".join(bytes((n,)) * MIB for n in range(4)))
        self.store = Counting()
        self.duty = Duty(DEAL, 0, add_path(folder / "file", self.store).root, 5 * MIB, 1, False)
        self.whole = False
        self.prover = SlotProver(KEY, None, self.store, lambda _: self.whole)
        self.audit(self.duty)

    def audit(self, duty):
        seed2 = b"2" * 32
        self.prover.audited = Audited(
            7, b"1" * 32, seed2, bytes(32), 0, 8, frozenset(), {(DEAL, 0): duty}
        )
        self.seed = held_seed(seed2, KEY, DEAL, 0)

    def held(self):
        return self.prover.held(7, DEAL, 0)


@pytest.fixture
def case(tmp_path):
    return Case(tmp_path)


def test_of_a_piece_that_was_never_all_here_nothing_is_shown(case):
    """Its author could keep a chunk back, and have whoever showed another one struck for it."""
    with pytest.raises(StorageError, match="not all here"):
        case.held()
    case.whole = True
    assert sampling.check(case.duty.root, case.seed, case.held())


def test_of_a_piece_that_was_shown_before_whatever_is_left_is_shown(case):
    case.audit(replace(case.duty, shown=True))
    assert sampling.check(case.duty.root, case.seed, case.held())


def test_the_way_to_a_chunk_is_read_a_block_at_a_time(case):
    case.whole = True
    blocks = case.held()
    before = case.store.read
    assert len(blocks) == 2
    assert case.store.read == before
    assert blocks[1] == sampling.path(case.duty.root, case.seed, case.store.get)[1]
    case.store.chunks.clear()
    with pytest.raises(ChunkNotFoundError):
        blocks[0]


def test_a_damaged_slot_with_a_chunk_is_sealed_again_if_the_store_has_the_chunk(tmp_path):
    slots = SlotStore(tmp_path, KEY, b"c" * 32, 4, 1)
    data = b"z" * MIB
    cid = cids.of_raw(data)
    slots.append((cid, data))
    slots.append()
    version = slots.stage()
    slots.settle(version.root)
    store = MemoryBlockstore()
    prover = SlotProver(KEY, slots, store, lambda _: True)
    prover.audited = Audited(7, b"1" * 32, b"", version.root, 2, 8, frozenset(), {})
    with (tmp_path / "000000.slots").open("r+b") as file:
        file.write(b"damage")
    with pytest.raises(StorageError):
        prover.slot(7, 0)
    store.put_many([(cid, data)])
    assert prover.slot(7, 0).slot == 0
    assert slots.get(cid) == data
    slots.close()
