from dataclasses import dataclass

import pytest
import trio

from swarm.care.sampled import Sampled, newest
from tests.protocols.exchange.conftest import open_neighbourhood


@dataclass
class Task:
    id: int
    posted: int
    done: int
    open: bool


@dataclass
class Block:
    timestamp_ms: int


@dataclass
class Settled:
    started: int
    settled: int


class Ledger:
    """Blocks of two seconds; rounds by (task, number)."""

    def __init__(self, tasks, rounds, first=1) -> None:
        self._tasks, self._rounds, self._first = tasks, rounds, first

    def view(self):
        return self

    def tasks(self):
        return self._tasks

    def settled(self, task, number):
        found = self._rounds.get((task, number))
        return None if found is None else Settled(*found)

    def first_block(self):
        return self._first

    def block(self, height):
        return Block(2_000 * height)


TASKS = [Task(1, 5, 2, open=False), Task(2, 8, 1, open=True), Task(3, 9, 0, open=True)]
ROUNDS = {(1, 1): (5, 20), (1, 2): (20, 30), (2, 1): (9, 40)}


def test_the_newest_round_and_the_newest_task_that_is_over_are_found():
    ledger = Ledger(TASKS, ROUNDS)
    assert newest(ledger, TASKS) == ((9, 40), (5, 30))
    assert newest(ledger, []) == (None, None)
    assert newest(ledger, TASKS[2:]) == (None, None)


def test_times_are_those_of_the_blocks_and_unknown_where_one_is_pruned():
    sampled = Sampled(None, Ledger(TASKS, ROUNDS))
    sampled._look()
    assert (sampled.round_seconds, sampled.task_seconds) == (62.0, 50.0)
    sampled = Sampled(None, Ledger(TASKS, ROUNDS, first=7))
    sampled._look()
    assert (sampled.round_seconds, sampled.task_seconds) == (62.0, None)


@pytest.mark.parametrize(
    ("latencies", "told"),
    [
        ([], {}),
        ([0.2], {"0.5": 0.2, "0.99": 0.2}),
        ([0.1, 0.2, 0.9], {"0.5": 0.2, "0.99": 0.9}),
    ],
)
def test_the_quantiles_of_what_is_known(latencies, told):
    sampled = Sampled(None, None)
    sampled.latencies = latencies
    assert sampled.quantiles() == told


async def test_a_peer_that_answers_no_ping_has_no_latency(autojump_clock, nursery):
    async with open_neighbourhood() as there:
        ours, _ = there.transport(), there.transport()
        sampled = Sampled(ours, Ledger(TASKS, ROUNDS))
        nursery.start_soon(sampled.run)
        await trio.sleep(30)
        assert sampled.latencies == []
        nursery.cancel_scope.cancel()
