"""What the composition root does by itself; the whole node is tested with real processes."""

from __future__ import annotations

import errno
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trio

from protocols.audit.verify import Sealing
from storage import cid as cids
from storage.slots import SlotStore
from swarm.node import AGAIN_SECONDS, Node, _again_and_again
from tests.storage.faulty_disk import FaultyDisk

if TYPE_CHECKING:
    from pathlib import Path


async def test_a_background_task_that_fails_is_run_again_after_a_pause(autojump_clock) -> None:
    runs: list[float] = []

    async def task() -> None:
        runs.append(trio.current_time())
        async with trio.open_nursery():
            if len(runs) < 3:
                message = "the disk failed"
                raise OSError(message)

    await _again_and_again(task)
    assert runs == [0, AGAIN_SECONDS, 2 * AGAIN_SECONDS]


async def test_a_background_task_that_is_cancelled_is_not_run_again(autojump_clock) -> None:
    runs = []

    async def task() -> None:
        runs.append(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(60):
        await _again_and_again(task)
    assert runs == [1]


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
    node = SimpleNamespace(
        settings=SimpleNamespace(home=tmp_path, keep=True),
        signer=SimpleNamespace(public_key=key),
        space=SimpleNamespace(found=counted.append, take=counted.append, give=counted.append),
    )
    sealing = Sealing(chain, 4, 1)
    assert Node._open_slots(node, sealing) is None
    assert "a commitment that was half done" in node.slots_problem
    assert counted
    waiting.rmdir()
    (tmp_path / "aside").rename(waiting)
    found = Node._open_slots(node, sealing)
    assert found is not None
    assert found.settled.root == staged
    found.close()
