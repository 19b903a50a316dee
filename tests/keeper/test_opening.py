"""Sealed slots that cannot be opened when a node starts."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from protocols.audit.verify import Sealing
from storage import cid as cids
from storage.slots import SlotStore
from swarm.keeper.opening import open_slots
from tests.storage.faulty_disk import FaultyDisk

if TYPE_CHECKING:
    from pathlib import Path


def test_a_settlement_that_cannot_be_finished_ends_no_start_and_is_told(tmp_path: Path) -> None:
    key, chain = b"k" * 32, b"c" * 32
    disk = FaultyDisk()
    slots = SlotStore(tmp_path / "slots", key, chain, 4, 1, files=disk)
    slots.append()
    slots.settle(slots.stage().root)
    slots.replace(0, (cids.of_raw(b"one"), b"one"))
    staged = slots.stage().root
    disk.faults = {disk.operations + 1: errno.EIO}
    with pytest.raises(OSError, match="Input/output"):
        slots.settle(staged)
    slots.close()
    (waiting,) = (tmp_path / "slots" / "pending").iterdir()
    waiting.rename(tmp_path / "aside")
    waiting.mkdir()  # as a disk that gives the file's name and not the file
    counted: list[int] = []
    space = SimpleNamespace(found=counted.append, take=counted.append, give=counted.append)
    sealing = Sealing(chain, 4, 1)
    found, problem = open_slots(tmp_path / "slots", key, sealing, space)
    assert found is None
    assert "a commitment that was half done" in problem
    assert counted
    waiting.rmdir()
    (tmp_path / "aside").rename(waiting)
    found, problem = open_slots(tmp_path / "slots", key, sealing, space)
    assert problem is None
    assert found.settled.root == staged
    found.close()
