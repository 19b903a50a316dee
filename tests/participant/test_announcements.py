"""Only what a worker committed to is fetched because of an announcement, and only by validators."""

from __future__ import annotations

import pytest
import trio

from protocols.memory import open_memory_network
from storage import canonical, cid
from swarm.ledger.transactions import CheckpointCommit, Phases, Register, TaskPost, commit_hash
from swarm.ledger.vrf import VrfKey
from swarm.participant import announcements
from swarm.participant.announcements import MAX_FETCHES, Announcements
from swarm.training.spec import max_update_bytes, parse_spec
from tests.ledger.alone import ALICE, BOB, VALIDATOR, open_alone
from tests.ledger.world import BASE, SALT, root

SPEC = b"""
[task]
name = "gpt"
kind = "lm"
rounds = 1
budget = "10"
[data]
dataset = "train"
pool = "pool"
"""
TOPIC = "/swarm/test/updates"


class Taken:
    """Where a shelf would be: notes what is taken, and lets it take as long as the test says."""

    def __init__(self) -> None:
        self.wanted: list[tuple[bytes, tuple[str, ...], int | None]] = []
        self.error: Exception | None = None
        self.done = trio.Event()

    async def take(self, wanted, providers=None, progress=None, *, max_bytes=None, is_file=False):
        assert is_file
        self.wanted.append((wanted, tuple(providers), max_bytes))
        await self.done.wait()
        if self.error is not None:
            raise self.error


@pytest.fixture
def alone(tmp_path):
    with open_alone(tmp_path, worker_bond=0) as made:
        yield made


@pytest.fixture
def task(alone):
    """A task in which Alice committed to the update "hers"."""
    key = VrfKey.of(ALICE.seed).public_key
    for payload in (
        Register(key, "cpu", ("worker",)),
        TaskPost(
            "gpt", "lm", SPEC, BASE, BASE, BASE, 1, 10**10, Phases(50, 50, 50, 50, 50), tolerance=0
        ),
    ):
        assert alone.run(ALICE, payload) == ""
    (task,) = alone.ledger.view().open_tasks()
    opened = commit_hash(root("hers"), ALICE.public_key, SALT)
    assert alone.run(ALICE, CheckpointCommit(task, 1, opened)) == ""
    return task


async def heard(alone, account, *messages) -> Taken:
    """What is taken after messages of a peer; the node lives through them."""
    taken = Taken()
    async with open_memory_network() as network, trio.open_nursery() as nursery:
        node, peer = network.join("node"), network.join("peer")
        listener = Announcements(node, TOPIC, account.public_key, alone.ledger.view, taken)
        nursery.start_soon(listener.run)
        await trio.testing.wait_all_tasks_blocked()
        for message in messages:
            await peer.publish(TOPIC, message)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    return taken


def message(task, number=1, worker=ALICE.public_key, wanted=None, salt=SALT, version=1) -> bytes:
    wanted = root("hers") if wanted is None else wanted
    return canonical.encode([version, task, number, worker, wanted, salt])


async def test_an_announcement_that_opens_a_commitment_is_fetched_from_its_worker(
    alone, task, autojump_clock
) -> None:
    taken = await heard(alone, VALIDATOR, message(task))
    assert taken.wanted == [(root("hers"), (ALICE.peer_id,), max_update_bytes(parse_spec(SPEC)))]


async def test_what_opens_no_commitment_is_not_fetched(alone, task, autojump_clock) -> None:
    lies = [
        message(task, salt=b"x" * 32),
        message(task, wanted=root("another's")),
        message(task, worker=BOB.public_key),
        message(task, number=2),
        message(b"x" * 32),
        message(task, version=2),
        message(task, wanted=b"no CID"),
        message(task, salt=7),
        message(task, worker=7),
        message(7),
        canonical.encode([1]),
        canonical.encode(1),
        b"\xff",
        bytes(60_000),
    ]
    taken = await heard(alone, VALIDATOR, *lies, message(task))
    assert len(taken.wanted) == 1


async def test_who_is_no_validator_fetches_nothing(alone, task, autojump_clock) -> None:
    assert (await heard(alone, BOB, message(task))).wanted == []


async def test_an_update_announced_again_and_again_is_fetched_once_at_a_time(
    alone, task, autojump_clock
) -> None:
    taken = await heard(alone, VALIDATOR, *[message(task)] * (MAX_FETCHES * 3))
    assert len(taken.wanted) == 1


@pytest.mark.parametrize("error", [OSError("disk"), RuntimeError("a fault of ours")])
async def test_a_fetch_that_fails_in_any_way_does_not_end_the_node(
    alone, task, autojump_clock, error
) -> None:
    taken = Taken()
    taken.error = error
    taken.done.set()
    async with open_memory_network() as network, trio.open_nursery() as nursery:
        node, peer = network.join("node"), network.join("peer")
        view = alone.ledger.view
        nursery.start_soon(Announcements(node, TOPIC, VALIDATOR.public_key, view, taken).run)
        await trio.testing.wait_all_tasks_blocked()
        teller = Announcements(peer, TOPIC, ALICE.public_key, view, taken)
        for _ in range(2):
            await teller.tell(task, 1, root("hers"), SALT)
            await trio.sleep(1)
        assert [one[0] for one in taken.wanted] == [root("hers")] * 2
        nursery.cancel_scope.cancel()


def test_the_bound_on_announcements_is_that_of_a_whole_message() -> None:
    longest = canonical.encode([1, bytes(32), 2**32, bytes(32), cid.of_raw(b""), bytes(32)])
    assert len(longest) <= announcements._MAX_BYTES
