"""The consensus log: what was appended comes back, a torn tail goes, damage is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import records
from storage.consensus_log import HEADER_BYTES, ConsensusLog
from storage.errors import LogError
from tests.storage.faulty_disk import BROKEN, FULL, FaultyDisk

BATCHES = [[b"one"], [b"two", b"three"], [b"four" * 100], [b""], [b"five"]]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log" / "votes"


def write(path, batches=BATCHES):
    with ConsensusLog(path) as log:
        for batch in batches:
            log.append(batch)
    return [entry for batch in batches for entry in batch]


def read(path):
    with ConsensusLog(path) as log:
        return log.entries()


def test_what_was_appended_comes_back_in_order(path):
    assert read(path) == []
    assert write(path) == read(path)


def test_a_new_log_says_that_it_is_new_and_an_old_one_does_not(path):
    with ConsensusLog(path) as log:
        assert log.created
    with ConsensusLog(path) as log:
        assert not log.created


def test_cut_at_any_byte_it_keeps_whole_appends_and_goes_on(path):
    write(path)
    whole = path.read_bytes()
    ends, at = [HEADER_BYTES], HEADER_BYTES
    for offset, body in records.scan(whole, HEADER_BYTES):
        at = offset + len(body)
        ends.append(at)
    assert at == len(whole)
    for cut in range(HEADER_BYTES, len(whole)):
        path.write_bytes(whole[:cut])
        kept = sum(end <= cut for end in ends) - 1
        expected = [entry for batch in BATCHES[:kept] for entry in batch]
        with ConsensusLog(path) as log:
            assert log.entries() == expected
            log.append([b"after"])
        assert read(path) == [*expected, b"after"]


def test_a_tail_of_zeros_or_garbage_is_cut(path):
    entries = write(path)
    whole = path.read_bytes()
    for tail in (bytes(4096), os.urandom(4096), b"\xff" * 9):
        path.write_bytes(whole + tail)
        assert read(path) == entries
        assert path.read_bytes() == whole


def test_a_changed_byte_before_the_last_append_is_refused(path):
    write(path)
    whole = bytearray(path.read_bytes())
    last = [offset for offset, _ in records.scan(bytes(whole), HEADER_BYTES)][-1]
    for at in range(HEADER_BYTES, last - records.HEADER.size):
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(LogError, match="move it away"):
            ConsensusLog(path)
        assert path.read_bytes() == bytes(damaged), "a refused log is left as it was"


def test_a_record_inside_an_entry_does_not_pass_for_one_of_ours(path):
    write(path, [[b"first"], [records.pack(b"\x00" * 8 + b"forged") * 3]])
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert read(path) == [b"first"]


def test_rotation_keeps_only_what_it_is_told(path):
    write(path)
    with ConsensusLog(path) as log:
        before = log.size_bytes
        log.rotate([b"kept"])
        assert log.size_bytes < before
        log.append([b"more"])
        assert log.size_bytes == path.stat().st_size
    assert read(path) == [b"kept", b"more"]


def test_a_crash_before_the_rename_leaves_the_old_log(path):
    entries = write(path)
    path.with_name(path.name + ".new").write_bytes(b"half a file")
    assert read(path) == entries


def test_another_version_or_file_is_refused(path):
    write(path)
    whole = bytearray(path.read_bytes())
    whole[15] = 9
    path.write_bytes(whole)
    with pytest.raises(LogError, match="version 9"):
        ConsensusLog(path)
    path.write_bytes(b"something else entirely, long enough")
    with pytest.raises(LogError, match="not a consensus log"):
        ConsensusLog(path)


def test_a_full_disk_leaves_no_half_of_an_append(path):
    disk = FaultyDisk()
    log = ConsensusLog(path, disk)
    log.append([b"one"])
    size = log.size_bytes
    disk.faults = {disk.operations + 1: FULL}
    with pytest.raises(OSError, match="No space"):
        log.append([b"two" * 50])
    assert path.stat().st_size == size
    log.close()
    assert read(path) == [b"one"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=4), max_size=6))
def test_any_entries_survive(tmp_path, batches):
    path = tmp_path / "any"
    path.unlink(missing_ok=True)
    assert write(path, batches) == read(path)


class NoFiles(FaultyDisk):
    """A disk on which a file cannot be opened either."""

    def open(self, path):
        self.point("open")
        return super().open(path)


@pytest.mark.parametrize("code", [FULL, BROKEN])
def test_wherever_a_rewrite_fails_what_is_appended_then_is_kept(path, code):
    failing, has_failed = 0, True
    while has_failed:
        failing += 1
        path.unlink(missing_ok=True)
        disk = NoFiles()
        log = ConsensusLog(path, disk)
        log.append([b"old", b"needed"])
        disk.faults = {disk.operations + failing: code}
        try:
            log.rotate([b"needed"])
        except OSError:
            disk.faults = {}
        has_failed = not disk.faults
        disk.faults = {}
        log.append([b"after"])
        log.append([b"again"])
        log.close()
        kept = read(path)
        assert kept[-3:] == [b"needed", b"after", b"again"]
    assert failing > 5, "each operation of a rewrite has failed once"


def test_an_append_that_failed_is_written_over_by_the_next(path):
    disk = FaultyDisk()
    log = ConsensusLog(path, disk)
    log.append([b"one"])
    first = disk.operations + 1
    disk.faults = {first: FULL, first + 1: FULL}  # nor can what was written be cut off again
    with pytest.raises(OSError, match="No space"):
        log.append([b"two" * 500])
    log.append([b"two"])
    log.close()
    assert read(path) == [b"one", b"two"]
