"""A worker's part in a task, on a real ledger and with a worker process that does what the test says."""

from __future__ import annotations

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from storage import cid
from storage.errors import QuotaError
from storage.memory import MemoryBlockstore
from storage.unixfs import listing
from swarm.errors import RefusedError
from swarm.ledger.state import Phase
from swarm.ledger.transactions import Phases, Register, TaskPost, commit_hash
from swarm.ledger.vrf import VrfKey
from swarm.participant.announcements import Announcements
from swarm.participant.core import Me
from swarm.participant.replays import States
from swarm.participant.service import Participant
from swarm.participant.tries import MAX_FAILURES
from swarm.shelf import Shelf
from swarm.store.retention import Facts, Retention, released
from swarm.training.errors import WorkerError
from swarm.training.requests import TrainResult
from swarm.wallet import Wallet
from tests.ledger.alone import ALICE, open_alone
from tests.ledger.world import BASE
from tests.protocols.exchange.conftest import open_neighbourhood

TRAIN_BLOCKS = 4
PATIENCE_SECONDS = 120
"""Each step writes durably, and a busy disk can take its time."""
UNITS = b"""
[task]
name = "gpt"
kind = "lm"
rounds = 2
budget = "10"
[data]
dataset = "d"
pool = "p"
[train]
units = 8
"""


class Hands:
    """What the worker process would do: an update a job, when it is told to."""

    def __init__(self) -> None:
        self.begun = 0
        self.error: Exception | None = None
        self.lost: Exception | None = None  # once, when the work is done
        self.may_end = trio.Event()
        self.may_end.set()
        self.is_held = False
        self.unit_seconds = 0.0
        self.units: list[int] = []
        self.losses = [1.0]

    async def train(self, job, on_progress):
        self.begun += 1
        self.units.append(job.units)
        if self.error is not None:
            raise self.error
        for step, loss in enumerate(self.losses, 1):
            on_progress(step, len(self.losses), loss)
        self.is_held = not self.may_end.is_set()
        try:
            await self.may_end.wait()
        finally:
            self.is_held = False
        if self.lost is not None:
            self.lost, lost = None, self.lost
            raise lost
        job.out.write_bytes(b"update %d" % self.begun)
        if job.record is not None:
            job.record.mkdir()
            (job.record / "transcript").write_bytes(b"%d steps a segment" % job.every)
        job.state.mkdir(exist_ok=True)
        (job.state / "moments").write_bytes(b"moments")
        return TrainResult(1.0, 1.0, 1, 8, 1, self.unit_seconds * job.units)


class Room:
    """A participant named Alice on a chain that has one task."""

    def __init__(self, alone, task, hands, nursery, build, folder) -> None:
        self.alone, self.task, self.hands, self.folder = alone, task, hands, folder
        self.wallet = Wallet(ALICE, alone.ledger, alone.heights, lambda _data: None)
        self._nursery, self._build = nursery, build

    async def begin(self) -> None:
        """Start it, as a process starts: with nothing but its folder."""
        self._scope, self._ended = trio.CancelScope(), trio.Event()
        self._participant = self._build(self.wallet)

        async def run(scope: trio.CancelScope, ended: trio.Event) -> None:
            with scope:
                await self._participant.run()
            ended.set()

        self._nursery.start_soon(run, self._scope, self._ended)
        await self.settled()

    async def kill(self) -> None:
        self._scope.cancel()
        await self._ended.wait()

    async def settled(self) -> None:
        """Until it waits for a block, or its work for the test."""
        with trio.fail_after(PATIENCE_SECONDS):
            while True:
                await wait_all_tasks_blocked(0.001)
                activity = self._participant.activity.get(self.task)
                over = self.round is None and not any(self.folder.iterdir())
                if activity == "waiting for the others" or self.hands.is_held or over:
                    return

    async def released(self) -> None:
        while self.hands.is_held:
            await trio.lowlevel.checkpoint()
        await self.settled()

    async def blocks(self, count: int) -> None:
        for _ in range(count):
            self.alone.grow()
            await self.settled()

    @property
    def round(self):
        return self.alone.ledger.view().round(self.task)


@asynccontextmanager
async def open_room(tmp_path, hands=None, spec=b"", rounds=1, train=TRAIN_BLOCKS, **params):
    with open_alone(tmp_path / "ledger", worker_bond=0, **params) as alone:
        async with open_neighbourhood() as there, trio.open_nursery() as nursery:
            node = await there.node(MemoryBlockstore())
            node.store.put_many([(cid.of_raw(b"base"), b"base")])
            vrf = VrfKey.of(ALICE.seed).public_key
            phases = Phases(train, 4, 4, 4, 4)
            asked = TaskPost("gpt", "lm", spec, BASE, BASE, BASE, rounds, 10**10, phases, 0)
            for payload in (Register(vrf, "cpu", ("worker",)), asked):
                assert alone.run(ALICE, payload) == ""
            (task,) = alone.ledger.view().open_tasks()
            hands, view = hands or Hands(), alone.ledger.view
            shelf = Shelf(tmp_path / "shelf", node.store, node.exchange)

            def build(wallet) -> Participant:
                return Participant(
                    me=Me(ALICE.public_key, trains=True, validates=False),
                    view=view,
                    heights=alone.heights,
                    wallet=wallet,
                    shelf=shelf,
                    store=node.store,
                    worker=hands,
                    announcements=Announcements(
                        node.transport, "/updates", ALICE.public_key, view, shelf
                    ),
                    provide=lambda _root: None,
                    folder=tmp_path / "rounds",
                    block_seconds=1.0,
                )

            room = Room(alone, task, hands, nursery, build, tmp_path / "rounds")
            room.store = node.store
            await room.begin()
            yield room
            nursery.cancel_scope.cancel()


async def test_a_worker_trains_commits_and_opens_what_it_committed_to(tmp_path) -> None:
    async with open_room(tmp_path) as room:
        await room.blocks(3)
        assert room.hands.begun == 1
        assert room.round.reveals == {ALICE.public_key: cid.of_raw(b"update 1")}


async def test_a_worker_keeps_what_it_recorded_in_the_store_where_its_network_asks_for_it(
    tmp_path,
) -> None:
    async with open_room(tmp_path, replay_one_in=10, replay_steps=7) as room:
        held = [one for one, label in room.store.holds() if label.startswith("states ")]
        (record,) = [one for one in held if cid.codec(one) != cid.RAW]
        assert [one.name for one in listing(record, room.store)] == ["transcript"]
        assert room.store.has(cid.of_raw(b"7 steps a segment"))
        assert not list(room.folder.glob("*.record"))


async def test_the_update_and_the_base_of_a_recorded_round_stay_as_long_as_its_states_do(
    tmp_path,
) -> None:
    async with open_room(tmp_path, replay_one_in=10) as room:
        number = room.round.number
        states = States(room.task, number).label
        over = Facts({room.task: None}, {"gpt": 99}, {})  # the task is, and the check is not
        ended = released(room.store.holds(), over, Retention())
        left = [one for one in room.store.holds() if one not in ended]
        assert {label for _, label in left if label != "checkpoint 0 gpt"} == {states}
        assert {cid.of_raw(b"update 1"), BASE} < {one for one, label in left if label == states}


async def test_a_worker_killed_after_its_commitment_opens_it_when_it_is_back(tmp_path) -> None:
    async with open_room(tmp_path) as room:
        await room.blocks(1)
        assert room.round.phase is Phase.REVEAL
        await room.kill()
        room.alone.ledger.mempool.__init__(room.alone.ledger.chain_id, room.alone.ledger.view)
        await room.begin()
        await room.blocks(1)
        assert room.hands.begun == 1
        assert room.round.submissions[0].root == cid.of_raw(b"update 1")


async def test_a_worker_killed_between_the_update_and_a_final_commitment_keeps_update_and_salt(
    tmp_path,
) -> None:
    async with open_room(tmp_path) as room:
        (sent,) = room.alone.ledger.mempool.pending(ALICE.public_key)
        await room.kill()
        await room.begin()
        await room.blocks(2)
        assert room.hands.begun == 1
        assert room.round.submissions[0].root == cid.of_raw(b"update 1")
        assert room.round.commits[ALICE.public_key] == sent.payload.hash


async def test_training_longer_than_a_phase_is_finished_and_counts_in_the_next_attempt(
    tmp_path,
) -> None:
    hands = Hands()
    hands.may_end = trio.Event()
    async with open_room(tmp_path, hands) as room:
        drawn = room.round.start_beacon
        await room.blocks(TRAIN_BLOCKS + 2)
        assert (room.round.attempt, room.hands.begun) == (2, 1)
        assert room.round.start_beacon == drawn
        room.hands.may_end.set()
        await room.released()
        await room.blocks(3)
        assert room.hands.begun == 1
        assert room.round.submissions[0].root == cid.of_raw(b"update 1")


async def test_a_commitment_that_lands_in_the_next_attempt_is_opened(tmp_path) -> None:
    async with open_room(tmp_path) as room:
        (sent,) = room.alone.ledger.mempool.pending(ALICE.public_key)
        room.alone.ledger.mempool._remove(sent)
        room.wallet._pending.clear()
        await room.blocks(TRAIN_BLOCKS)
        assert room.round.attempt == 2
        for waiting in room.alone.ledger.mempool.pending(ALICE.public_key):
            room.alone.ledger.mempool._remove(waiting)
        room.alone.ledger.submit(sent)
        await room.blocks(2)
        assert room.hands.begun == 1
        assert room.round.submissions[0].root == cid.of_raw(b"update 1")


@pytest.mark.parametrize(
    "error", [WorkerError("failed", "the spec"), QuotaError(2, 1), RuntimeError("a fault of ours")]
)
async def test_work_that_always_fails_is_given_up_for_the_attempt_and_tried_in_the_next(
    tmp_path, error
) -> None:
    hands = Hands()
    hands.error = error
    async with open_room(tmp_path, hands) as room:
        await room.blocks(TRAIN_BLOCKS - 1)
        assert room.hands.begun == MAX_FAILURES
        room.hands.error = None
        await room.blocks(3)
        assert room.round.attempt == 2
        assert room.round.submissions[0].root == cid.of_raw(b"update 4")


async def test_what_cannot_be_sent_for_a_while_is_sent_with_a_later_block(
    tmp_path, monkeypatch
) -> None:
    hands = Hands()
    hands.may_end = trio.Event()
    async with open_room(tmp_path, hands) as room:
        refused, submit = [], room.wallet.submit

        async def full(payload, last=None):
            refused.append(payload)
            if len(refused) <= MAX_FAILURES:
                raise RefusedError("too many transactions wait")
            return await submit(payload, last)

        monkeypatch.setattr(room.wallet, "submit", full)
        hands.may_end.set()
        await room.released()
        await room.blocks(TRAIN_BLOCKS)
        assert len(refused) > MAX_FAILURES
        assert ALICE.public_key in room.round.commits
        assert room.round.attempt == 1


@pytest.mark.parametrize(
    ("unit_seconds", "units"), [(9.0, 1), (5.0, 1), (2.0, 2), (0.9, 5), (0.01, 8)]
)
async def test_a_slow_worker_gets_fewer_units_than_a_fast_one_once_its_speed_is_known(
    tmp_path, unit_seconds, units
) -> None:
    hands = Hands()
    hands.unit_seconds = unit_seconds
    async with open_room(tmp_path, hands, UNITS, rounds=2, train=10) as room:
        while room.round.number == 1:
            assert hands.units == [1]
            await room.blocks(1)
        assert hands.units == [1, units]


async def test_units_that_are_lost_are_given_again_before_the_deadline_as_many_as_still_fit(
    tmp_path,
) -> None:
    hands = Hands()
    hands.unit_seconds = 1.0
    async with open_room(tmp_path, hands, UNITS, rounds=2, train=12) as room:
        while room.round.number == 1:
            if room.round.commits:
                hands.may_end = trio.Event()
            await room.blocks(1)
        assert hands.units == [1, 6]
        await room.blocks(4)
        hands.lost = WorkerError("killed", "the process was ended by SIGKILL")
        hands.may_end.set()
        await room.released()
        await room.blocks(2)
        assert hands.units == [1, 6, 4]
        assert ALICE.public_key in room.round.commits
        assert (room.round.number, room.round.attempt) == (2, 1)


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), -float("inf")])
async def test_a_loss_that_is_no_number_is_told_as_none(tmp_path, loss) -> None:
    hands = Hands()
    hands.may_end = trio.Event()
    hands.losses = [1.0, loss]
    async with open_room(tmp_path, hands) as room:
        assert room._participant.activity[room.task] == "training, step 2 of 2"
        assert room._participant.losses == {}


async def test_a_task_that_is_over_leaves_nothing_in_the_folder(tmp_path) -> None:
    async with open_room(tmp_path) as room:
        await room.blocks(1)
        (update,) = room.folder.glob("*.safetensors")
        assert cid.of_raw(update.read_bytes()) == cid.of_raw(b"update 1")
        while room.round is not None:
            await room.blocks(1)
        assert list(room.folder.iterdir()) == []


def test_the_bytes_of_a_commitment_bind_the_worker() -> None:
    salt, one = b"s" * 32, cid.of_raw(b"update")
    assert commit_hash(one, b"a" * 32, salt) != commit_hash(one, b"b" * 32, salt)
