"""A recorded round, checked by another node: real states over the exchange, real steps in the worker process."""

from __future__ import annotations

from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio

from protocols.signing import Signer
from storage import cid as cids
from storage.memory import MemoryBlockstore
from storage.unixfs import add_path
from swarm.errors import NetworkError, NotFoundError, UsageError
from swarm.heights import Heights
from swarm.ledger.replaying import OPEN
from swarm.ledger.state import Finding, Stage
from swarm.ledger.transactions import (
    CheckpointCommit,
    CheckpointReveal,
    Phases,
    ScoreCommit,
    ScoreReveal,
    TaskPost,
    commit_hash,
    score_hash,
)
from swarm.participant.core import Me
from swarm.participant.findings import Findings, Said
from swarm.participant.replays import Replays, States
from swarm.shelf import Shelf
from swarm.training.child import WorkerSettings
from swarm.training.requests import TrainJob
from swarm.training.supervisor import Worker
from tests.ledger.world import MERGED, SALT, World
from tests.protocols.exchange.conftest import open_neighbourhood
from tests.training.conftest import room as room  # a fixture

pytestmark = pytest.mark.slow
WORKER = Signer((1).to_bytes(32, "big"))  # the first peer of a neighbourhood
EVERY = 2


class Wallet:
    """Puts each payload into a block at once."""

    def __init__(self, world: World, heights: Heights) -> None:
        self.world, self.heights = world, heights
        self.by: Signer | None = None

    async def submit(self, payload, last=None):
        assert self.world.run(self.by, payload) == ""
        self.heights.move(self.world.height)
        return b""


class Town:
    """A worker that recorded a round, a verifier, and a ledger that drew the round."""

    def __init__(self, world, task, worker_node, replays, heights, wallet, folder) -> None:
        self.folder = folder
        self.world, self.task, self.worker_node = world, task, worker_node
        self.replays, self.heights, self.wallet = replays, heights, wallet

    @property
    def drawn(self):
        return self.world.view.replay(self.task, 1, WORKER.public_key)

    async def answers(self) -> Finding:
        """What the verifier, and if it comes to that each referee, says."""
        with trio.fail_after(60):
            while self.drawn.stage in OPEN:
                one = self.drawn
                key = one.asked[0]
                self.wallet.by = next(who for who in self.world.validators if who.public_key == key)
                self.replays._me = Me(key, trains=False, validates=True)
                path = self.folder / f"found-{key.hex()[:8]}"
                self.replays._findings = Findings(path)  # from the disk, as after a restart
                assert await self.replays._answer(one), self.replays.problems
        return self.drawn.found[self.drawn.verifier].finding


def settle(world: World, task: bytes, update) -> None:
    who = WORKER
    world.ok((who, CheckpointCommit(task, 1, commit_hash(update, who.public_key, SALT))))
    world.ok((who, CheckpointReveal(task, 1, update, SALT)))
    scores = (300,)
    world.ok(
        *[
            (one, ScoreCommit(task, 1, score_hash(task, 1, one.public_key, 9, scores, SALT)))
            for one in world.validators
        ]
    )
    world.ok(*[(one, ScoreReveal(task, 1, 9, scores, SALT)) for one in world.validators])
    world.attest(task, dict.fromkeys(world.validators, MERGED))


@asynccontextmanager
async def open_town(room, *, cheat="", settled=True):
    world = World(
        validators=5,
        people=("alice",),
        replay_one_in=1,
        replay_blocks=50,
        replay_steps=EVERY,
    )
    async with open_neighbourhood() as there, trio.open_nursery() as nursery:
        worker_node, verifier_node = await there.node(), await there.node(MemoryBlockstore())
        assert worker_node.peer == WORKER.peer_id
        process = Worker(WorkerSettings(nice=0))
        await nursery.start(process.run)
        store, folder = worker_node.store, room.folder
        await process.initial(room.spec, room.train, folder / "v0")
        roots = [
            add_path(path, one).root
            for one in (store, verifier_node.store)
            for path in (folder / "v0", room.train, room.pool)
        ][:3]
        world.register(WORKER)
        base, dataset, pool = roots
        phases = Phases(5, 3, 3, 3, 3)
        post = TaskPost("tiny", "lm", room.spec, base, dataset, pool, 4, 10**9, phases, 0)
        task = world.ok((world.people["alice"], post))[0].id
        heights = Heights(world.height)
        await record(process, world, task, room, cheat)
        update = add_path(folder / "u1", store).root
        states = add_path(folder / "record", store).root
        store.hold(states, States(task, 1).label)
        if settled:
            settle(world, task, update)
        heights.move(world.height)
        wallet = Wallet(world, heights)
        replays = Replays(
            me=Me(world.validators[0].public_key, trains=False, validates=True),
            view=lambda: world.view,
            heights=heights,
            wallet=wallet,
            shelf=Shelf(folder / "shelf", verifier_node.store, verifier_node.exchange),
            store=verifier_node.store,
            worker=process,
            folder=folder,
            block_seconds=0.2,
            fetch_seconds=2.0,
        )
        yield Town(world, task, worker_node, replays, heights, wallet, folder)
        nursery.cancel_scope.cancel()


async def record(process, world, task, room, cheat) -> None:
    folder, state, current = room.folder, world.view.task(task), world.round(task)
    spec = room.spec
    if cheat == "another rate":
        spec = spec.replace(b"learning_rate = 0.01", b"learning_rate = 0.0105")
    await process.train(
        TrainJob(
            spec=spec,
            task=task,
            round=1,
            peer=WORKER.peer_id,
            beacon=current.start_beacon,
            base_root=cids.text(current.base),
            base=folder / "v0",
            dataset=room.pool if cheat == "other data" else room.train,
            dataset_root=cids.text(state.dataset),
            state=folder / "state",
            out=folder / "u1",
            record=None if cheat == "no record" else folder / "record",
            every=EVERY,
        )
    )
    (folder / "record").mkdir(exist_ok=True)


async def test_honest_work_is_found_to_match_by_a_node_that_fetched_it(room) -> None:
    async with open_town(room) as town:
        assert town.drawn.stage is Stage.CHECK
        assert await town.answers() is Finding.MATCH
        assert town.drawn.stage is Stage.CLEARED


@pytest.mark.parametrize("cheat", ["another rate", "other data"])
async def test_who_trains_at_another_rate_or_on_other_data_is_convicted(room, cheat) -> None:
    async with open_town(room, cheat=cheat) as town:
        assert await town.answers() is Finding.MISMATCH
        assert town.drawn.stage is Stage.CONVICTED
        assert all(one.distance > 30_000 for one in town.drawn.found.values())


async def test_who_has_no_record_loses_the_reward(room) -> None:
    async with open_town(room, cheat="no record") as town:
        assert await town.answers() is Finding.WITHHELD
        assert town.drawn.stage is Stage.LOST


async def test_a_fault_of_the_verifiers_own_says_nothing_of_the_peer(room) -> None:
    async with open_town(room) as town:
        working = town.replays._again._worker
        town.replays._again._worker = Worker(WorkerSettings())  # nobody runs it

        async def gone() -> None:
            async with trio.open_nursery() as nursery:
                await nursery.start(town.replays._again._worker.run)
                nursery.cancel_scope.cancel()

        await gone()
        assert not await town.replays._answer(town.drawn)
        assert "shutting down" in town.replays.problems[WORKER.peer_id]
        assert town.drawn.found == {}
        town.replays._again._worker = working
        assert await town.answers() == Finding.MATCH
        assert town.replays.problems == {}


async def test_a_state_larger_than_the_verifiers_own_shelf_says_nothing_of_the_peer(room) -> None:
    async with open_town(room) as town:
        town.replays._again._shelf._limit = 60_000
        assert not await town.replays._answer(town.drawn)
        assert "84,194 bytes" in town.replays.problems[WORKER.peer_id]
        assert town.drawn.sealed == {}


async def test_a_check_does_not_wait_for_a_dataset_that_a_person_waits_for(room) -> None:
    async with open_town(room) as town, trio.open_nursery() as nursery:
        fetching = trio.Event()

        async def never(*_):
            fetching.set()
            await trio.sleep_forever()

        town.replays._for_person._samples.take = never
        task = town.world.view.task(town.task)
        ask = partial(town.replays.ask, task, 1, WORKER.peer_id, None, lambda *_: None)
        nursery.start_soon(ask)
        with trio.fail_after(60):
            await fetching.wait()
        assert await town.answers() is Finding.MATCH
        nursery.cancel_scope.cancel()


async def test_a_person_is_told_what_came_of_it_and_what_hinders_it(room) -> None:
    async with open_town(room, settled=False) as town:
        update = add_path(room.folder / "u1", town.worker_node.store).root
        who, task = WORKER, town.task
        commit = commit_hash(update, who.public_key, SALT)
        town.world.ok((who, CheckpointCommit(task, 1, commit)))
        town.world.ok((who, CheckpointReveal(task, 1, update, SALT)))
        state, peer = town.world.view.task(task), WORKER.peer_id
        stages: list[str] = []

        async def ask(number=1, peer=peer, segment=None):
            return await town.replays.ask(
                state, number, peer, segment, lambda stage, *_: stages.append(stage)
            )

        found = await ask(segment=2)
        assert (found["outcome"], found["distance"], found["stage"]) == ("match", 0.0, None)
        assert (found["first_step"], found["last_step"], found["segments"]) == (3, 4, 3)
        assert (found["step"], found["step_distance"]) == (None, None)
        assert "running the steps again" in stages
        with pytest.raises(NotFoundError, match="no round 7"):
            await ask(7)
        with pytest.raises(NotFoundError, match="revealed nothing"):
            await ask(peer=Signer(b"x" * 32).peer_id)
        with pytest.raises(UsageError, match="no peer id"):
            await ask(peer="nobody")
        with pytest.raises(UsageError, match="3 segments"):
            await ask(segment=4)
        town.worker_node.store.chunks.clear()
        with pytest.raises(NetworkError, match="withholds"):
            await ask(segment=3)


async def test_states_are_let_go_when_nobody_can_ask_for_them_and_not_before(room) -> None:
    async with open_town(room, settled=False) as town:
        store = town.worker_node.store
        mine = town.replays
        mine._store, mine._me = store, Me(WORKER.public_key, trains=True, validates=False)
        held = [label for _, label in store.holds()]
        mine._let_go(town.world.view)
        assert [label for _, label in store.holds()] == held  # the round is not settled
        settle(town.world, town.task, add_path(room.folder / "u1", store).root)
        mine._let_go(town.world.view)
        assert [label for _, label in store.holds()] == held  # it was drawn
        while town.drawn.stage in OPEN:
            town.world.block()
        mine._let_go(town.world.view)
        assert States(town.task, 1).label not in [label for _, label in store.holds()]


async def test_a_finding_is_on_the_disk_before_it_is_sealed_and_opened_after_a_restart(
    room,
) -> None:
    async with open_town(room) as town:
        one = town.drawn
        key = (one.task, one.round, one.worker)
        town.wallet.by = next(
            who for who in town.world.validators if who.public_key == one.verifier
        )
        town.replays._me = Me(one.verifier, trains=False, validates=True)
        town.replays._findings = Findings(town.folder / "found")
        assert await town.replays._answer(one)
        assert town.drawn.stage in (Stage.OPENING, Stage.SECOND)
        said = Findings(town.folder / "found").get(key)
        assert isinstance(said, Said)
        assert said.found.finding is Finding.MATCH
        assert len(said.found.proof) == 16
        town.replays._findings.keep([])
        assert Findings(town.folder / "found").get(key) is None
