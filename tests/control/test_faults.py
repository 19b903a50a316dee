"""What a fault of a lower room is for a person: an exit code, and what to do."""

from __future__ import annotations

import errno

from storage.errors import CorruptChunkError
from swarm.control.faults import translate
from swarm.errors import RefusedError


def test_a_chunk_that_the_disk_damaged_is_no_bug_and_can_be_repaired():
    told = translate(CorruptChunkError("bafkrei"))
    assert isinstance(told, RefusedError)
    assert told.exit_code == 4
    assert "swarm verify --repair" in (told.hint or "")


def test_a_disk_that_fails_is_told_as_that_and_is_no_bug():
    told = translate(OSError(errno.EIO, "Input/output error", "/data/chunks/0001.seg"))
    assert isinstance(told, RefusedError)
    assert told.message == "the disk fails: /data/chunks/0001.seg: Input/output error"
    assert "swarm verify" in told.hint
