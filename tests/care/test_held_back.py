"""What a pause does to the participant and to the keeper, on a real ledger and real slots."""

from types import SimpleNamespace

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from protocols.memory import MemoryNetwork
from storage.blockstore import SegmentBlockstore
from storage.slot_contents import SlotContents
from storage.slots import SlotStore
from swarm.care.controls import SEAL, TRAIN, Controls
from swarm.keeper.room import SLOT_COST
from swarm.keeper.service import Keeping
from swarm.keeper.space import LentSpace
from swarm.participant import service
from tests.ledger.alone import ALICE
from tests.participant.test_service import PATIENCE_SECONDS, Hands, open_room

KEY = ALICE.public_key


@pytest.fixture
def hands():
    hands = Hands()
    hands.may_end = trio.Event()
    return hands


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(service, "PAUSE_LOOK_SECONDS", 0.01)


async def until(condition):
    with trio.fail_after(PATIENCE_SECONDS):
        while not condition():
            await trio.sleep(0.002)
            await wait_all_tasks_blocked()


async def test_a_pause_gives_up_what_is_trained_and_begins_nothing_until_it_is_resumed(
    tmp_path, hands
):
    async with open_room(tmp_path, hands) as room:
        mine = room._participant
        mine._controls.pause([TRAIN], None)
        await until(lambda: mine.activity[room.task] == "paused until `swarm resume`")
        assert not hands.is_held
        room.alone.grow()
        await wait_all_tasks_blocked(0.01)
        assert hands.begun == 1
        assert mine.owing == set()
        assert mine.problems == {}
        mine._controls.resume([TRAIN])
        hands.may_end.set()
        await room.blocks(2)
        assert hands.begun == 2


async def test_a_round_that_the_schedule_would_cut_off_is_not_begun_and_says_so(tmp_path, hands):
    async with open_room(tmp_path, hands) as room:
        mine = room._participant
        mine._controls.pause([TRAIN], None)
        await until(lambda: mine.activity[room.task] == "paused until `swarm resume`")
        mine._times.note(room.task, 100.0)
        mine._controls.room = lambda _part: 60.0
        mine._controls.resume([TRAIN])
        room.alone.grow()
        await until(lambda: mine.activity[room.task].startswith("no time: it takes about 110 s"))
        assert hands.begun == 1
        mine._controls.room = lambda _part: 600.0
        hands.may_end.set()
        await room.blocks(2)
        assert hands.begun == 2


async def test_a_node_that_finishes_ends_its_update_and_owes_it_until_it_is_opened(tmp_path, hands):
    async with open_room(tmp_path, hands) as room:
        mine = room._participant
        mine._controls.is_finishing = True
        assert mine.owing == {room.task}
        hands.may_end.set()

        def rests():
            return mine.activity.get(room.task, "").startswith(("finishing", "waiting"))

        await until(rests)  # however long the disk takes: no block before what is made is handed in
        for _ in range(6):
            if not mine.owing:
                break
            room.alone.grow()
            await wait_all_tasks_blocked()
            await until(rests)
        assert mine.owing == set()
        assert list(room.round.reveals) == [KEY]
        assert hands.begun == 1


def keeping_of(tmp_path, controls, nursery):
    store = SegmentBlockstore(tmp_path / "chunks", 10**9)
    space = LentSpace(store, 400 * SLOT_COST)
    slots = SlotStore(tmp_path / "slots", KEY, b"c" * 32, 4, 1, space=space)
    duties = SimpleNamespace(coming=0, was_whole=lambda *_: True, problems={})
    return Keeping(
        key=KEY,
        view=lambda: None,
        included=lambda _: None,
        heights=None,
        wallet=None,
        store=store,
        space=space,
        slots=slots,
        contents=SlotContents(slots, store),
        duties=duties,
        transport=MemoryNetwork(nursery).join("keeper"),
        folder=tmp_path / "slots",
        share=0.25,
        controls=controls,
    )


async def test_while_sealing_is_paused_what_is_sealed_stays_and_nothing_more_is_wanted(
    tmp_path, nursery
):
    controls = Controls()
    keeping = keeping_of(tmp_path, controls, nursery)
    try:
        wanted = keeping.goal
        assert wanted > 0
        keeping.slots.append()
        controls.pause([SEAL], None)
        keeping._aim(keeping._measure())
        assert keeping.goal == keeping.sealer.goal == 1
        controls.resume([SEAL])
        keeping._aim(keeping._measure())
        assert keeping.sealer.goal == keeping.goal == wanted
    finally:
        keeping.slots.close()
        keeping._store.close()


async def test_sealing_that_was_nearly_done_goes_on_after_a_pause(tmp_path, nursery):
    controls = Controls()
    keeping = keeping_of(tmp_path, controls, nursery)
    try:
        for _ in range(17):
            keeping.slots.append()
        keeping.room = keeping._measure()
        while keeping.goal > 20:
            keeping.lend(keeping.lent - SLOT_COST)
        left = keeping.goal
        assert left > 17
        keeping._aim(keeping.room)
        controls.pause([SEAL], None)
        keeping._aim(keeping.room)
        assert keeping.sealer.goal == 17
        controls.resume([SEAL])
        keeping._aim(keeping.room)
        assert keeping.sealer.goal == left
    finally:
        keeping.slots.close()
        keeping._store.close()
