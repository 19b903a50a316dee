"""What a fault of a node's own costs its worker: nothing that the round still has time for."""

from __future__ import annotations

from storage import cid
from swarm.training.errors import WorkerError
from tests.ledger.alone import ALICE
from tests.participant.test_service import Hands, open_room


async def test_a_worker_that_gets_its_checkpoint_late_still_trains_in_the_round(tmp_path) -> None:
    hands = Hands()
    hands.error = WorkerError("failed", "OSError: [Errno 28] No space left on device")
    async with open_room(tmp_path, hands, train=40) as room:
        await room.blocks(12)
        tried, hands.error = hands.begun, None
        assert 3 < tried < 8  # each wait is twice the one before
        await room.blocks(14)
        assert hands.begun == tried + 1
        assert ALICE.public_key in room.round.commits
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
        (room.folder / "replay.found").write_bytes(b"of another part")
        while room.round is not None:
            await room.blocks(1)
        (room.folder / "replay.found").unlink()
        assert list(room.folder.iterdir()) == []
