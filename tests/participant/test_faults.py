"""What a fault of a node's own costs its worker: nothing that the round still has time for."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from storage import cid
from swarm.training.errors import WorkerError
from tests.ledger.alone import ALICE
from tests.ledger.world import BASE
from tests.participant.test_service import Hands, open_room


async def test_a_worker_whose_fault_goes_away_still_trains_in_a_long_round(tmp_path) -> None:
    hands = Hands()
    hands.error = WorkerError("failed", "OSError: [Errno 28] No space left on device")
    async with open_room(tmp_path, hands, train=40) as room:
        await room.blocks(12)
        tried, hands.error = hands.begun, None
        assert 3 < tried < 8  # each wait is twice the one before
        for _ in range(14):
            if not room.round.commits:
                await room.blocks(1)
        assert hands.begun == tried + 1
        assert list(room.round.commits) == [ALICE.public_key]
        assert room.round.attempt == 1


async def test_what_a_task_left_that_ended_while_the_node_was_off_is_removed_at_its_start(
    tmp_path,
) -> None:
    async with open_room(tmp_path) as room:
        assert list(room.folder.glob("*.optimiser"))
        await room.kill()
        while room.round is not None:
            room.alone.grow()
        await room.begin()
        assert list(room.folder.iterdir()) == []


async def test_half_written_files_of_a_task_that_is_over_are_removed_too(tmp_path) -> None:
    async with open_room(tmp_path) as room:
        for kind in ("update.safetensors.part", "evidence.part"):
            (room.folder / f"{room.task.hex()[:32]}.{kind}").write_bytes(b"half")
        while room.round is not None:
            await room.blocks(1)
        assert list(room.folder.iterdir()) == []


async def test_what_cannot_be_read_for_a_while_after_a_restart_is_not_forgotten(tmp_path) -> None:
    async with open_room(tmp_path, train=3) as room:
        await room.blocks(1)
        await room.kill()
        (kept,) = room.folder.glob("*.round")
        kept.rename(tmp_path / "aside")
        kept.symlink_to(kept)  # a read fails, as with too many open files
        room.alone.ledger.mempool.__init__(room.alone.ledger.chain_id, room.alone.ledger.view)
        room._participant = room._build(room.wallet)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(room._participant.run)
            with trio.fail_after(20):
                while room.task not in room._participant.problems:
                    await wait_all_tasks_blocked(0.001)
            kept.unlink()
            (tmp_path / "aside").rename(kept)
            await room.blocks(2)
            assert room.hands.begun == 1
            assert room.round.submissions[0].root == cid.of_raw(b"update 1")
            nursery.cancel_scope.cancel()


class Reader(Hands):
    """Reads the checkpoint before it trains."""

    async def train(self, job, on_progress):
        if job.base.read_bytes() != b"base":
            raise WorkerError("failed", "the checkpoint is malformed")
        return await super().train(job, on_progress)


async def test_what_the_disk_changed_on_the_shelf_is_unpacked_anew(tmp_path) -> None:
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / cid.text(BASE)).write_bytes(b"bad?")
    async with open_room(tmp_path, Reader(), train=8) as room:
        await room.blocks(4)
        assert list(room.round.commits or room.round.reveals) == [ALICE.public_key]
        assert [path.name[0] for path in (tmp_path / "shelf").iterdir()] == ["b"]
