from __future__ import annotations

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from storage import cid as cids
from storage.errors import (
    ChunkNotFoundError,
    ChunkTooLargeError,
    CorruptChunkError,
    LogError,
    QuotaError,
    StorageError,
    StoreLockedError,
)
from storage.sealer import MAX_REST_S, Pace, Sealer
from storage.sealing import SLOT_BYTES, SLOT_LEAVES
from storage.slot_index import ROW_BYTES, SlotIndex
from storage.slot_tree import Label, slot_root, verify_label, verify_leaf
from storage.slots import (
    SLOT_COST,
    DamagedSlotError,
    SlotBusyError,
    SlotStore,
    UnknownVersionError,
)

ROOT = Path(__file__).parents[2]
KEY, CHAIN = b"k" * 32, b"c" * 32
SEALER = """
import sys
from pathlib import Path
from storage.slots import SlotStore

store = SlotStore(Path(sys.argv[1]), b"k" * 32, b"c" * 32, 4, 2)
while True:
    print(store.append(), flush=True)
"""


def chunk(text):
    data = text.encode() * 1000
    return cids.of_raw(data), data


def open_store(folder, **other):
    return SlotStore(
        folder, **{"public_key": KEY, "chain_id": CHAIN, "log_n": 4, "passes": 2} | other
    )


@pytest.fixture
def store(tmp_path):
    found = open_store(tmp_path / "slots")
    yield found
    found.close()


def is_proven(store, version, slot, number=200):
    told = store.prove(version.root, slot, number)
    label = Label.decode(told.label)
    return verify_label(version.root, version.slots, told.label, slot, told.path) and verify_leaf(
        label.root, told.leaf, number, told.inner
    )


def all_proven(store, version):
    return all(is_proven(store, version, slot) for slot in range(version.slots))


def test_chunks_and_zeros_are_kept_and_found(store, tmp_path):
    first, second = chunk("a"), chunk("b")
    assert [store.append(first), store.append(), store.append(second)] == [0, 1, 2]
    assert store.get(second[0]) == second[1]
    assert store.find(first[0]) == 0
    assert store.chunks() == {first[0]: 0, second[0]: 2}
    assert store.vacant() == 1
    assert store.bytes_used >= sum(
        file.stat().st_size for file in (tmp_path / "slots").glob("*.slots")
    )
    with pytest.raises(ChunkNotFoundError):
        store.get(chunk("c")[0])
    with pytest.raises(ChunkTooLargeError):
        store.append((first[0], bytes(SLOT_BYTES + 1)))


def test_what_was_committed_is_proven_while_slots_are_added_and_replaced(store):
    for text in "abc":
        store.append(chunk(text))
    first = store.stage()
    store.settle(first.root)
    assert all_proven(store, first)
    store.append()
    store.append(chunk("e"))
    store.replace(1, chunk("x"))
    store.replace(2, None)
    assert all_proven(store, first)
    second = store.stage()
    store.append()
    store.replace(0, None)
    assert (first.slots, second.slots, store.staged, store.settled) == (3, 5, second, first)
    assert all_proven(store, first)
    assert all_proven(store, second)
    with pytest.raises(IndexError):
        store.prove(first.root, 3, 0)
    store.settle(second.root)
    assert all_proven(store, second)
    with pytest.raises(UnknownVersionError):
        store.prove(first.root, 0, 0)
    third = store.stage()
    assert third.slots == 6
    assert all_proven(store, third)
    store.settle(third.root)
    store.settle(third.root)
    assert store.verify() == []
    assert set(store.chunks()) == {chunk("x")[0], chunk("e")[0]}
    assert store.root(6) == third.root


def test_a_chunk_can_be_read_at_once_and_for_as_long_as_it_is_not_taken_out(store):
    store.append()
    store.settle(store.stage().root)
    store.replace(0, chunk("a"))
    assert store.vacant() is None
    assert store.get(chunk("a")[0]) == chunk("a")[1]
    version = store.stage()
    assert store.get(chunk("a")[0]) == chunk("a")[1]
    store.settle(version.root)
    assert store.get(chunk("a")[0]) == chunk("a")[1]
    store.replace(0, None)
    assert store.find(chunk("a")[0]) is None


def test_a_slot_that_was_put_back_as_it_was_waits_for_nothing(store, tmp_path):
    store.append(chunk("a"))
    settled = store.stage()
    store.settle(settled.root)
    used = store.bytes_used
    store.replace(0, chunk("b"))
    store.replace(0, chunk("b"))
    assert store.bytes_used == used + SLOT_BYTES + ROW_BYTES
    store.replace(0, chunk("a"))
    assert store.bytes_used == used
    assert list((tmp_path / "slots" / "pending").iterdir()) == []
    assert store.stage() == settled


def test_a_staged_slot_is_not_replaced_before_it_is_settled(store):
    store.append()
    store.replace(0, chunk("a"))
    version = store.stage()
    with pytest.raises(SlotBusyError):
        store.replace(0, None)
    with pytest.raises(StorageError):
        store.stage()
    store.unstage()
    assert store.staged is None
    store.replace(0, chunk("b"))
    assert store.stage().root != version.root


def test_shrinking_gives_bytes_back_at_once_and_says_what_to_commit(store, tmp_path):
    for _ in range(5):
        store.append()
    store.settle(store.stage().root)
    store.replace(1, chunk("b"))
    store.replace(3, chunk("a"))
    store.replace(3, None)
    store.stage()
    version = store.shrink(3)
    assert (version.slots, len(store), store.staged) == (3, 3, None)
    assert version == store.settled
    assert all_proven(store, version)
    assert (tmp_path / "slots" / "000000.slots").stat().st_size == 3 * SLOT_BYTES
    assert store.get(chunk("b")[0]) == chunk("b")[1]
    assert all_proven(store, store.stage())
    assert store.append() == 3
    store.unstage()
    store.replace(1, None)
    assert store.shrink(0).slots == 0
    assert list((tmp_path / "slots").glob("*.slots")) == []


def test_shrinking_gives_no_slot_back_that_holds_a_chunk_or_is_about_to(store):
    for slot in range(6):
        store.append(chunk("a") if slot == 2 else None)
    store.settle(store.stage().root)
    store.replace(4, chunk("b"))
    assert store.top == 5
    version = store.shrink(1)
    assert (version.slots, len(store)) == (1, 5)
    assert all_proven(store, version)
    assert {store.get(chunk(one)[0]) for one in "ab"} == {chunk(one)[1] for one in "ab"}
    store.replace(4, None)
    assert (store.top, store.holding) == (3, 1)
    store.shrink(1)
    assert len(store) == 3


def test_what_the_ledger_counts_is_adopted_without_what_was_replaced_since(store):
    for _ in range(3):
        store.append()
    store.replace(1, chunk("a"))
    store.stage()
    assert store.adopt(2) == store.settled
    assert (store.settled.slots, store.staged, store.unstaged) == (2, None, 1)
    assert all_proven(store, store.settled)
    assert store.get(chunk("a")[0]) == chunk("a")[1]
    assert store.stage(3).root != store.root(3)


class Account:
    """Bytes that were taken, of so many."""

    def __init__(self, limit=2**60):
        self.limit, self.taken = limit, 0

    def found(self, size):
        self.taken += size

    def take(self, size):
        if self.taken + size > self.limit:
            raise QuotaError(size, self.limit - self.taken)
        self.taken += size

    def give(self, size):
        self.taken -= size


def test_every_slot_is_counted_before_it_is_written_and_until_it_is_gone(tmp_path):
    account = Account()
    store = open_store(tmp_path, space=account)

    def agree():
        on_disk = sum(one.stat().st_size for one in tmp_path.rglob("*.slot*"))
        assert account.taken == store.bytes_used == on_disk // SLOT_BYTES * SLOT_COST

    for _ in range(4):
        store.append()
    agree()
    store.settle(store.stage().root)
    store.replace(0, chunk("a"))
    store.replace(0, chunk("b"))
    store.replace(1, chunk("c"))
    store.replace(1, None)
    store.replace(3, chunk("d"))
    store.replace(3, None)
    agree()
    assert account.taken == 5 * SLOT_COST
    store.settle(store.stage().root)
    agree()
    store.shrink(2)
    agree()
    account.limit = account.taken
    with pytest.raises(QuotaError):
        store.append()
    with pytest.raises(QuotaError):
        store.replace(1, chunk("e"))
    agree()
    store.close()
    store = open_store(tmp_path, space=(again := Account()))
    assert again.taken == account.taken
    store.close()


def test_a_damaged_chunk_does_not_count_as_held_until_its_slot_is_mended(store, tmp_path):
    cid, _ = chunk("a")
    store.append(chunk("a"))
    store.settle(store.stage().root)
    file = tmp_path / "slots" / "000000.slots"
    whole = file.read_bytes()
    file.write_bytes(b"x" + whole[1:])
    assert store.length(cid) == len(chunk("a")[1])
    with pytest.raises(CorruptChunkError):
        store.get(cid)
    assert store.length(cid) is None
    store.mend(0, chunk("a"))
    assert store.get(cid) == chunk("a")[1]
    assert store.length(cid) == len(chunk("a")[1])


def test_everything_is_there_when_it_is_opened_again(tmp_path):
    store = open_store(tmp_path)
    for text in "abc":
        store.append(chunk(text))
    first = store.stage()
    store.settle(first.root)
    store.replace(1, chunk("x"))
    store.append()
    second = store.stage()
    store.replace(2, chunk("y"))
    store.close()
    store = open_store(tmp_path)
    assert (store.settled, store.staged, len(store)) == (first, second, 4)
    assert all_proven(store, first)
    assert all_proven(store, second)
    assert store.get(chunk("y")[0]) == chunk("y")[1]
    store.settle(second.root)
    assert all_proven(store, second)
    store.close()


def test_one_process_has_it_open_and_for_one_key_chain_and_cost(tmp_path):
    store = open_store(tmp_path)
    with pytest.raises(StoreLockedError):
        open_store(tmp_path)
    store.close()
    for other in ({"public_key": b"x" * 32}, {"chain_id": b"x" * 32}, {"log_n": 5}, {"passes": 3}):
        with pytest.raises(LogError):
            open_store(tmp_path, **other)
    open_store(tmp_path).close()


def test_a_slot_that_was_torn_is_sealed_again(tmp_path):
    store = open_store(tmp_path)
    store.append()
    store.close()
    file = tmp_path / "000000.slots"
    with file.open("ab") as torn:
        torn.write(os.urandom(SLOT_BYTES // 2))
    (tmp_path / "pending" / "0-torn.slot").write_bytes(b"torn")
    store = open_store(tmp_path)
    assert len(store) == 1
    assert file.stat().st_size == SLOT_BYTES
    assert list((tmp_path / "pending").iterdir()) == []
    assert store.append() == 1
    assert store.verify() == []
    store.close()


def test_a_settlement_that_was_cut_short_is_brought_to_its_end(tmp_path):
    store = open_store(tmp_path / "whole")
    for text in "abc":
        store.append(chunk(text))
    store.settle(store.stage().root)
    for slot in range(3):
        store.replace(slot, chunk(f"new {slot}"))
    version = store.stage()
    store.close()
    for moved in range(4):
        folder = tmp_path / str(moved)
        shutil.copytree(tmp_path / "whole", folder)
        index = SlotIndex(folder, index_owner(folder))
        with index.transaction():
            index.apply()
        waiting = index.all_pending()
        index.close()
        with (folder / "000000.slots").open("r+b") as file:
            for one in waiting[:moved]:
                file.write((folder / "pending" / one.file).read_bytes())
            if moved < 3:
                file.write(b"torn")
        store = open_store(folder)
        assert (store.settled, store.staged) == (version, None)
        assert all_proven(store, version)
        assert store.verify() == []
        store.close()


def index_owner(_folder):
    from storage import canonical

    return canonical.encode([1, KEY, CHAIN, 4, 2])


def test_a_form_that_the_disk_lost_is_one_damaged_slot_and_no_end_of_all_others(tmp_path):
    folder = tmp_path / "slots"
    store = open_store(folder)
    for _ in range(2):
        store.append()
    kept, lost = chunk("kept"), chunk("lost")
    store.replace(0, lost)
    store.replace(1, kept)
    version = store.stage()
    (waiting,) = (folder / "pending").glob("0-*.slot")
    waiting.unlink()
    store.settle(version.root)
    store.close()
    store = open_store(folder)
    assert (store.settled, store.staged, store.verify()) == (version, None, [0])
    assert store.get(kept[0]) == kept[1]
    store.mend(0, lost)
    assert store.get(lost[0]) == lost[1]
    assert is_proven(store, version, 0)
    store.close()


def test_a_form_that_cannot_be_read_for_now_is_not_given_up(tmp_path, monkeypatch):
    store = open_store(tmp_path / "slots")
    store.append()
    held = chunk("held")
    store.replace(0, held)
    version = store.stage()
    with monkeypatch.context() as context:
        context.setattr(Path, "read_bytes", refusing(errno.EMFILE))
        with pytest.raises(OSError, match="Too many open files"):
            store.settle(version.root)
    store.settle(version.root)
    assert (store.settled, store.verify(), store.get(held[0])) == (version, [], held[1])
    store.close()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.EACCES])
def test_a_slot_that_cannot_be_read_for_now_is_not_damaged(store, monkeypatch, code):
    held = chunk("held")
    store.append(held)
    version = store.stage()
    store.settle(version.root)
    with monkeypatch.context() as context:
        context.setattr(Path, "open", refusing(code))
        for read in (
            lambda: store.get(held[0]),
            lambda: store.prove(version.root, 0, 3),
            lambda: store.prove_slot(version.root, 0),
            store.verify,
        ):
            with pytest.raises(OSError, match=os.strerror(code)):
                read()
    assert store.length(held[0]) == len(held[1])
    assert (store.get(held[0]), store.verify()) == (held[1], [])
    assert is_proven(store, version, 0)


@pytest.mark.parametrize("code", [errno.ENOENT, errno.EIO])
def test_a_slot_that_the_disk_lost_is_damaged(store, monkeypatch, code):
    held = chunk("held")
    store.append(held)
    version = store.stage()
    store.settle(version.root)
    monkeypatch.setattr(Path, "open", refusing(code))
    with pytest.raises(DamagedSlotError):
        store.prove(version.root, 0, 3)
    with pytest.raises(CorruptChunkError):
        store.get(held[0])
    assert store.length(held[0]) is None
    assert store.verify() == [0]


def refusing(code):
    def refuse(_path, *_, **__):
        raise OSError(code, os.strerror(code))

    return refuse


def test_damage_is_found_and_mended_without_a_new_commitment(store, tmp_path):
    store.append(chunk("a"))
    store.append()
    version = store.stage()
    store.settle(version.root)
    file = tmp_path / "slots" / "000000.slots"
    whole = file.read_bytes()
    damaged = bytearray(whole)
    for at in (5_000, SLOT_BYTES + 9):
        damaged[at] ^= 1
    file.write_bytes(damaged)
    assert store.verify() == [0, 1]
    for slot in (0, 1):
        with pytest.raises(DamagedSlotError):
            store.prove(version.root, slot, 77)
        with pytest.raises(DamagedSlotError):
            store.prove_slot(version.root, slot)
    with pytest.raises(CorruptChunkError):
        store.get(chunk("a")[0])
    with pytest.raises(StorageError, match="something else"):
        store.mend(0, chunk("b"))
    store.mend(0, chunk("a"))
    store.mend(1)
    assert file.read_bytes() == whole
    file.write_bytes(whole[:SLOT_BYTES])
    assert store.verify() == [1]


def test_a_whole_slot_hashes_to_its_label(store):
    store.append()
    version = store.stage()
    told = store.prove_slot(version.root, 0)
    assert slot_root(told.sealed) == Label.decode(told.label).root
    assert verify_label(version.root, 1, told.label, 0, told.path)
    with pytest.raises(IndexError):
        store.prove(version.root, 0, SLOT_LEAVES)


def test_rows_take_what_the_quota_counts(tmp_path):
    index = SlotIndex(tmp_path, b"owner")
    source = random.Random(1)
    with index.transaction():
        for slot in range(3000):
            index.put(slot, Label(source.randbytes(32), cids.of_raw(source.randbytes(8)), 2**20))
    index.close()
    assert (tmp_path / "slots.db").stat().st_size < 3000 * ROW_BYTES


@pytest.mark.slow
def test_sealing_goes_on_after_kill_9(tmp_path):
    told = 0
    for lines in (1, 7, 3):
        command = [sys.executable, "-c", SEALER, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as sealing:
            for _ in range(lines):
                told = int(sealing.stdout.readline())
            sealing.send_signal(signal.SIGKILL)
            told = max([told, *(int(line) for line in sealing.stdout if line.endswith("\n"))])
        store = open_store(tmp_path)
        assert told + 1 <= len(store) <= told + 2
        assert store.verify() == []
        store.close()


def test_the_pace_is_the_share_that_was_lent():
    assert Pace(0.25, 1e12).rest_s(0.1, SLOT_BYTES) == pytest.approx(0.3)
    assert Pace(1.0, 1e12).rest_s(0.1, SLOT_BYTES) == 0
    assert Pace(1.0, SLOT_BYTES).rest_s(0.1, SLOT_BYTES) == pytest.approx(0.9)
    assert Pace(0.01).rest_s(10, SLOT_BYTES) == MAX_REST_S
    for share, rate in ((0, 1), (1.1, 1), (0.5, 0)):
        with pytest.raises(ValueError):
            Pace(share, rate)


def test_a_sealer_seals_to_its_goal_and_stops(store):
    reached = threading.Event()
    append = store.append

    def counted(**how):
        slot = append(**how)
        if slot == 3:
            reached.set()
        return slot

    store.append = counted
    sealer = Sealer(store, Pace(1.0, 1e12))
    sealer.start()
    sealer.goal = 2
    sealer.goal = 4
    assert reached.wait(30)
    sealer.stop()
    assert len(store) == 4


def test_a_sealer_that_is_stopped_gives_up_the_slot_in_work(tmp_path):
    slow = open_store(tmp_path / "slow", passes=2**15)  # half a minute
    begun = threading.Event()
    key = slow._key
    slow._key = lambda *about: (begun.set(), key(*about))[1]
    sealer = Sealer(slow, Pace(1.0, 1e12))
    sealer.goal = 1
    sealer.start()
    assert begun.wait(30)
    sealer.stop()
    assert len(slow) == 0
    slow.close()


@pytest.mark.parametrize("kind", [StorageError, MemoryError, ValueError])
def test_a_sealer_that_fails_says_why_and_rests(store, kind):
    told = []
    failed = threading.Event()

    def fail(**_):
        message = "the disk is full"
        raise kind(message)

    store.append = fail
    sealer = Sealer(store, Pace(), lambda error: (told.append(str(error)), failed.set()))
    sealer.goal = 1
    sealer.start()
    assert failed.wait(30)
    sealer.stop()
    assert told == ["the disk is full"]
