"""What a node owes of work that is run again: a slow peer, a task that cannot be read, or a fault of one check hold up none of the rest."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import trio

from swarm.heights import Heights
from swarm.ledger import replays as rules
from swarm.ledger.replaying import OPENING, SEALING, Finding, Found, seal_of
from swarm.ledger.state import Stage
from swarm.ledger.transactions import ReplayFinding, ReplaySeal
from swarm.participant.again import WithheldError
from swarm.participant.core import Me
from swarm.participant.findings import Findings, Said
from swarm.participant.replays import RESEND_BLOCKS, Replays
from swarm.participant.tries import MAX_FAILURES
from tests.ledger.world import MERGED, SALT, World

PROOF = (1000,) * 16
MOST_TURNS = 10**6
"""Of the event loop, for what a thread writes; not seconds, since the clock of a test jumps where all wait."""
MATCH = Found(Finding.MATCH, 0, PROOF)


class Watched(Heights):
    """Says whether somebody waits for the next block."""

    is_awaited = False

    def move(self, height):
        self.is_awaited = False
        super().move(height)

    async def above(self, height):
        self.is_awaited = height >= self.height
        return await super().above(height)


def key_of(one):
    return one.task, one.round, one.worker


class Place:
    """Two validators, one of which is this node, and two workers whose rounds it is the first to run again."""

    def __init__(self, folder) -> None:
        for trial in range(60):
            names = ("alice", f"a{trial}", f"b{trial}")
            self.world = World(
                validators=2,
                people=names,
                replay_one_in=1,
                replay_blocks=40,
                replay_steps=2,
                epoch_length=10_000,
            )
            workers = [self.world.people[name] for name in names[1:]]
            self.settle(workers)
            drawn = {one.verifier for one in self.world.view.replays()}
            if len(drawn) == 1 and len(self.world.view.replays()) == 2:
                break
        self.me, self.other = sorted(
            self.world.validators, key=lambda one: one.public_key not in drawn
        )
        self.heights = Watched(self.world.height)
        self.sent: list[object] = []
        self.refusal: Exception | None = None
        self.folder = folder
        self.node = self.build(folder)

    def build(self, folder, *, validates=True) -> Replays:
        node = Replays(
            me=Me(self.me.public_key, trains=False, validates=validates),
            view=lambda: self.world.view,
            heights=self.heights,
            wallet=self,
            shelf=SimpleNamespace(lease=None),
            store=SimpleNamespace(holds=list),
            worker=None,
            folder=folder,
            block_seconds=1.0,
        )
        node._again.run = self.again
        self.asked: list[bytes] = []
        self.is_asleep = False
        self.faults: dict[bytes, Exception] = {}
        self.silent: set[bytes] = set()
        return node

    async def again(self, asked, seconds, *_, **__):
        self.asked.append(asked.worker)
        if asked.worker in self.silent:
            self.is_asleep = True
            await trio.sleep(seconds)
            self.is_asleep = False
            message = "it was not given in time"
            raise WithheldError(message)
        if asked.worker in self.faults:
            raise self.faults[asked.worker]
        result = SimpleNamespace(outcome="match", why="", proof=PROOF, distance=0.0)
        return SimpleNamespace(result=result)

    async def submit(self, payload, last=None):
        if self.refusal is not None:
            raise self.refusal
        self.sent.append(payload)
        return b""

    def settle(self, workers) -> None:
        world = self.world
        world.register(*workers)
        task = world.post(world.people["alice"], budget=10**12, rounds=1, tolerance=0)
        made = {one: f"u{at}" for at, one in enumerate(workers)}
        world.commits(task, made)
        world.reveals(task, made)
        scores = {f"u{at}": 300 - at for at in range(len(workers))}
        world.score(task, dict.fromkeys(world.validators, scores))
        world.attest(task, dict.fromkeys(world.validators, MERGED))

    async def settled(self) -> None:
        """Until the node waits for a block, and what it runs again is done or waits for a peer."""
        for _ in range(MOST_TURNS):
            is_done = self.is_asleep or self.node._running is None
            if self.heights.is_awaited and is_done:
                return
            await trio.lowlevel.checkpoint()
        pytest.fail("the node does not come back to wait for a block")

    def replay(self, worker):
        task = self.world.view.replays() or [self.last]
        return self.world.view.replay(task[0].task, 1, worker)

    async def block(self) -> None:
        """What was sent, and what the other validator says at once, is final."""
        inside = [(self.me, one) for one in self.sent]
        self.sent.clear()
        for one in self.world.view.replays():
            self.last = one
            if self.other.public_key in one.asked:
                key = key_of(one)
                seal = seal_of(*key, self.other.public_key, MATCH, SALT)
                said = ReplaySeal(*key, seal)
                if one.stage not in SEALING:
                    said = ReplayFinding(*key, int(MATCH.finding), 0, PROOF, SALT)
                inside.append((self.other, said))
        self.world.ok(*inside)
        self.heights.move(self.world.height)
        await self.settled()


async def test_an_opening_does_not_wait_for_a_peer_that_gives_nothing(
    tmp_path, monkeypatch, autojump_clock
) -> None:
    monkeypatch.setattr(rules, "SECOND_IN", 1)  # each check is done twice, and who is silent fined
    place = Place(tmp_path)
    quick, slow = (one.worker for one in place.world.view.replays())
    place.silent = {slow}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.node.run)
        await place.settled()
        assert place.asked == [quick]
        while place.replay(quick).stage not in (Stage.CLEARED, Stage.UNANSWERED):
            await place.block()
        assert place.asked == [quick, slow]
        assert place.replay(quick).stage is Stage.CLEARED
        assert place.me.public_key in place.replay(quick).found
        await trio.sleep(40)  # and what the other withholds is said when its time is over
        await place.settled()
        assert [one.worker for one in place.sent] == [slow]
        nursery.cancel_scope.cancel()


async def test_one_segment_is_run_at_a_time_and_what_fails_makes_way_for_the_others(
    tmp_path, autojump_clock
) -> None:
    place = Place(tmp_path)
    first, second = (one.worker for one in place.world.view.replays())
    place.faults = {first: OSError("the disk")}
    place.silent = {second}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.node.run)
        await place.settled()
        for _ in range(3):
            await place.block()
        assert place.asked == [first, second]
        nursery.cancel_scope.cancel()


async def test_a_task_that_this_version_cannot_read_is_a_problem_of_this_node_and_stops_no_other_check(
    tmp_path,
) -> None:
    place = Place(tmp_path)  # the task's file is `spec`, which is none
    del place.node._again.run
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.node.run)
        await place.settled()
        for _ in range(2):
            await place.block()
        assert len(place.node.problems) == 2
        assert all("is not TOML" in why for why in place.node.problems.values())
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("fault", [OSError("the disk"), ZeroDivisionError("a fault of ours")])
async def test_a_fault_of_one_check_is_a_problem_and_the_others_are_answered(
    tmp_path, fault
) -> None:
    place = Place(tmp_path)
    bad, good = (one.worker for one in place.world.view.replays())
    place.faults = {bad: fault}
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.node.run)
        await place.settled()
        for _ in range(8):
            await place.block()
        assert place.replay(good).stage is Stage.CLEARED
        assert MAX_FAILURES <= place.asked.count(bad) < 2 * MAX_FAILURES  # each wait is longer
        assert [str(fault) in why for why in place.node.problems.values()] == [True]
        place.faults = {}
        for _ in range(8):
            await place.block()
        assert place.replay(bad).stage is Stage.CLEARED
        assert place.node.problems == {}
        nursery.cancel_scope.cancel()


async def test_what_cannot_be_sent_is_sent_with_a_later_block_and_not_run_again(tmp_path) -> None:
    place = Place(tmp_path)
    place.refusal = OSError("too many wait")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.node.run)
        await place.settled()
        for _ in range(2 * MAX_FAILURES):
            await place.block()
        assert len(place.asked) == 2
        place.refusal = None
        await place.block()
        assert {type(one) for one in place.sent} == {ReplaySeal}
        assert len(place.sent) == 2
        nursery.cancel_scope.cancel()


async def test_a_node_that_was_started_without_validating_opens_what_it_sealed_and_begins_nothing(
    tmp_path,
) -> None:
    place = Place(tmp_path)
    sealed, _ = place.world.view.replays()
    seal = seal_of(*key_of(sealed), place.me.public_key, MATCH, SALT)
    place.world.ok((place.me, ReplaySeal(*key_of(sealed), seal)))
    while place.replay(sealed.worker).stage not in OPENING:
        await place.block()
    Findings(tmp_path / "replay.found").put(key_of(sealed), Said(MATCH, SALT))
    node = place.node = place.build(tmp_path, validates=False)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(node.run)
        await place.settled()
        assert place.sent == [ReplayFinding(*key_of(sealed), int(Finding.MATCH), 0, PROOF, SALT)]
        assert place.asked == []
        await place.block()
        assert place.replay(sealed.worker).stage is Stage.CLEARED
        await place.block()
        assert Findings(tmp_path / "replay.found").get(key_of(sealed)) is None
        nursery.cancel_scope.cancel()


async def test_an_opening_that_no_block_holds_is_sent_again(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(rules, "SECOND_IN", 1)  # who does not open is fined
    place = Place(tmp_path)
    first = place.world.view.replays()[0].worker
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place.node.run)
        await place.settled()
        while place.replay(first).stage not in OPENING:
            await place.block()
        lost = [one for one in place.sent if one.worker == first]
        assert [type(one) for one in lost] == [ReplayFinding]
        for _ in range(RESEND_BLOCKS):
            place.sent = []  # another transaction took its number, as after a restart
            await place.block()
        assert [one for one in place.sent if one.worker == first] == lost
        await place.block()
        assert place.replay(first).stage is Stage.CLEARED
        nursery.cancel_scope.cancel()


async def test_what_was_sealed_is_kept_while_the_ledger_is_fetched_anew(tmp_path) -> None:
    place = Place(tmp_path)
    key = key_of(place.world.view.replays()[0])
    node = place.node
    node._findings.put(key, Said(MATCH, SALT))
    node._tidy(World(validators=2, people=("alice",)).view)
    assert Findings(tmp_path / "replay.found").get(key) == Said(MATCH, SALT)


def test_a_finding_that_could_not_be_written_is_not_remembered(tmp_path) -> None:
    kept, lost = (b"t" * 32, 1, b"k" * 32), (b"t" * 32, 1, b"l" * 32)
    findings = Findings(tmp_path / "found" / "replay")
    findings.put(kept, Said(MATCH, SALT))
    (tmp_path / "found").rename(tmp_path / "away")
    (tmp_path / "found").write_bytes(b"no folder")
    with pytest.raises(OSError, match="found"):
        findings.put(lost, Said(MATCH, SALT))
    with pytest.raises(OSError, match="found"):
        findings.keep([])
    assert findings.get(lost) is None
    (tmp_path / "found").unlink()
    (tmp_path / "away").rename(tmp_path / "found")
    assert findings.get(kept) == Findings(tmp_path / "found" / "replay").get(kept)
    findings.put(lost, Said(MATCH, SALT))
    findings.keep({lost})
    again = Findings(tmp_path / "found" / "replay")
    assert (again.get(kept), again.get(lost)) == (None, Said(MATCH, SALT))
