"""The real child process, killed, hung and cancelled; trio and sockets, no torch on this side."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import psutil
import pytest
import trio
import trio.testing

from swarm.training.child import Child, WorkerSettings
from swarm.training.completion import CompletionJob
from swarm.training.errors import WorkerError
from swarm.training.requests import ScoreJob, TrainJob
from swarm.training.supervisor import Worker
from tests.training.conftest import BEACON, TASK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swarm.training.requests import ScoreResult
    from tests.training.conftest import Room

pytestmark = pytest.mark.slow
SETTINGS = WorkerSettings(nice=0)
LONG = b"steps = 10000"


def job(room: Room, spec: bytes | None = None) -> TrainJob:
    folder = room.folder
    return TrainJob(
        spec=spec or room.spec,
        task=TASK,
        round=1,
        peer="a",
        beacon=BEACON,
        base_root="bafyv0",
        base=folder / "v0",
        dataset=room.train,
        dataset_root="bafyd",
        state=folder / "state",
        out=folder / "u0",
    )


def endless(room: Room) -> TrainJob:
    return job(room, room.spec.replace(b"steps = 6", LONG))


def test_the_node_side_imports_no_torch() -> None:
    code = (
        "import sys, swarm.training.supervisor, swarm.training.spec, swarm.training.assignment, "
        "swarm.training.demo_data; sys.exit(any(m in sys.modules for m in ('torch', 'asyncio')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_jobs_are_done_in_order_and_faults_are_survived(room: Room) -> None:
    worker = Worker(SETTINGS)
    seen: list[int] = []
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        assert worker.pid is None
        await worker.initial(room.spec, room.train, room.folder / "v0")
        first = worker.pid

        # A refused job is the job's fault alone: the process stays.
        with pytest.raises(WorkerError, match=r"config\.json") as caught:
            await worker.evaluate(room.spec, room.folder / "none", room.pool, None)
        assert (caught.value.cause, worker.pid) == ("failed", first)

        result = await worker.train(job(room), lambda step, _steps, _loss: seen.append(step))
        assert seen == [1, 2, 3, 4, 5, 6]
        assert result.samples == 24
        scores = await worker.score(
            ScoreJob(
                room.spec,
                TASK,
                1,
                BEACON,
                "bafyv0",
                room.folder / "v0",
                room.train,
                room.pool,
                [room.folder / "u0"],
            )
        )
        assert scores.scores[0] > 0

        # Given up in the middle: the same process does the next job.
        started = trio.Event()
        async with trio.open_nursery() as inner:
            inner.start_soon(worker.train, endless(room), lambda *_: started.set())
            await started.wait()
            inner.cancel_scope.cancel()
        assert (await worker.describe()).threads == 1
        assert worker.pid == first

        # Killed in the middle: reported, and a new process does the next job.
        def kill(*_: object) -> None:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)

        with pytest.raises(WorkerError, match="SIGKILL") as caught:
            await worker.train(endless(room), kill)
        assert caught.value.cause == "killed"
        await worker.describe()
        second = worker.pid
        assert second not in (None, first)

        # The node stops in the middle of a job, with another one waiting.
        causes: list[str] = []
        started = trio.Event()

        async def ask() -> None:
            with pytest.raises(WorkerError) as closed, trio.CancelScope(shield=True):
                await worker.train(endless(room), lambda *_: started.set())
            causes.append(closed.value.cause)

        nursery.start_soon(ask)
        nursery.start_soon(ask)
        await started.wait()
        nursery.cancel_scope.cancel()
    assert causes == ["closed", "closed"]
    assert second is not None
    assert not psutil.pid_exists(second)
    with pytest.raises(WorkerError):
        await worker.describe()


def scoring(room: Room) -> ScoreJob:
    folder = room.folder
    return ScoreJob(
        room.spec, TASK, 1, BEACON, "bafyv0", folder / "v0", room.train, room.pool, [folder / "u0"]
    )


async def test_scores_are_made_between_two_steps_of_a_long_training(room: Room) -> None:
    worker = Worker(SETTINGS)
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        await worker.initial(room.spec, room.train, room.folder / "v0")
        await worker.train(job(room))
        alone = (room.folder / "u0").read_bytes()
        short = await worker.score(scoring(room))
        first = worker.pid

        started, seen = trio.Event(), []

        def step(at: int, *_: object) -> None:
            seen.append(at)
            started.set()

        async with trio.open_nursery() as inner:
            inner.start_soon(worker.train, endless(room), step)
            await started.wait()
            with trio.fail_after(20):
                assert await worker.score(scoring(room)) == short
                begun = len(seen)
                # Given up by its caller before its turn or in it: the training goes on, and the next is served.
                with trio.CancelScope() as left:
                    left.cancel()
                    await worker.score(scoring(room))
                async with trio.open_nursery() as asking:
                    asking.start_soon(worker.score, scoring(room))
                    await trio.testing.wait_all_tasks_blocked()
                    asking.cancel_scope.cancel()
                assert await worker.score(scoring(room)) == short
            assert worker.pid == first
            assert len(seen) >= begun
            # What was let in is finished when the training that let it in is given up.
            async with trio.open_nursery() as asking:
                found: list[ScoreResult] = []

                async def ask() -> None:
                    found.append(await worker.score(scoring(room)))

                asking.start_soon(ask)
                await trio.testing.wait_all_tasks_blocked()
                inner.cancel_scope.cancel()
            assert found == [short]
        assert worker.pid == first
        # The training that was not interrupted and the one that was have the same bytes.
        spec = room.spec.replace(b"steps = 6", b"steps = 60")
        updates = []
        for wanted in (False, True):
            again = dataclasses.replace(
                job(room, spec),
                state=room.folder / f"state{wanted}",
                out=room.folder / f"u{wanted}",
            )
            begun_again = trio.Event()
            async with trio.open_nursery() as both:
                both.start_soon(worker.train, again, lambda *_, begun=begun_again: begun.set())
                await begun_again.wait()
                if wanted:
                    assert await worker.score(scoring(room)) == short
            updates.append(again.out.read_bytes())
        assert updates[0] == updates[1]
        assert alone != updates[0]
        nursery.cancel_scope.cancel()


async def test_what_was_let_in_and_ended_with_the_process_is_done_again_alone(room: Room) -> None:
    worker = Worker(SETTINGS)
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        await worker.initial(room.spec, room.train, room.folder / "v0")
        await worker.train(job(room))
        short = await worker.score(scoring(room))

        started = trio.Event()
        causes, found = [], []

        async def train() -> None:
            with pytest.raises(WorkerError) as caught:
                await worker.train(endless(room), lambda *_: started.set())
            causes.append(caught.value.cause)

        async def ask() -> None:
            found.append(await worker.score(scoring(room)))

        nursery.start_soon(train)
        await started.wait()
        async with trio.open_nursery() as asking:
            asking.start_soon(ask)
            while len(worker._told) < 2:  # noqa: ASYNC110 - no event tells when one was let in
                await trio.sleep(0.001)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
        assert found == [short]
        assert causes == ["killed"]

        # From now on a score waits until the training is over, and goes before another one.
        order = []

        async def note(name: str, call: Callable[[], Awaitable[object]]) -> None:
            await call()
            order.append(name)

        spec = room.spec.replace(b"steps = 6", b"steps = 300")
        started = trio.Event()
        async with trio.open_nursery() as both:
            both.start_soon(
                note, "first", lambda: worker.train(job(room, spec), lambda *_: started.set())
            )
            await started.wait()
            both.start_soon(note, "second", lambda: worker.train(job(room)))
            await trio.testing.wait_all_tasks_blocked()
            both.start_soon(note, "score", lambda: worker.score(scoring(room)))
        assert order == ["first", "score", "second"]
        nursery.cancel_scope.cancel()


async def test_a_text_that_cannot_be_told_to_the_process_does_not_end_it(room: Room) -> None:
    worker = Worker(SETTINGS)
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        with pytest.raises(WorkerError, match=r"config\.json"):
            await worker.load(room.folder / "none")
        first = worker.pid
        assert first is not None
        with pytest.raises(WorkerError, match="cannot be told") as caught:
            await worker.complete(CompletionJob(room.folder, "\ud800", 5), lambda _: None)
        assert (caught.value.cause, worker.pid) == ("failed", first)
        with pytest.raises(WorkerError, match=r"config\.json"):
            await worker.load(room.folder / "none")
        assert worker.pid == first
        nursery.cancel_scope.cancel()


async def test_a_hung_worker_is_killed_and_the_next_job_is_served(room: Room) -> None:
    worker = Worker(dataclasses.replace(SETTINGS, silence_seconds=1.0))
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        await worker.initial(room.spec, room.train, room.folder / "v0")

        def stop(*_: object) -> None:
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGSTOP)

        with pytest.raises(WorkerError) as caught:
            await worker.train(endless(room), stop)
        assert caught.value.cause == "timeout"
        assert (await worker.train(job(room))).samples == 24
        nursery.cancel_scope.cancel()


async def test_the_process_ends_with_a_node_that_was_killed(room: Room) -> None:
    code = (
        "import trio; from swarm.training.supervisor import *\n"
        "async def main():\n"
        "    worker = Worker(WorkerSettings())\n"
        "    async with trio.open_nursery() as nursery:\n"
        "        await nursery.start(worker.run)\n"
        "        await worker.describe()\n"
        "        print(worker.pid, flush=True)\n"
        "        await trio.sleep_forever()\n"
        "trio.run(main)\n"
    )
    node = await trio.lowlevel.open_process([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert node.stdout is not None
    with trio.fail_after(60):
        child = int(await node.stdout.receive_some(64))
    node.kill()
    await node.wait()
    await node.stdout.aclose()
    with trio.fail_after(10):
        while psutil.pid_exists(child) and psutil.Process(child).status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110 - no event tells of another's child
            await trio.sleep(0.02)


async def test_a_process_that_there_are_no_files_for_is_told_as_one_that_did_not_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(socket, "socketpair", none)
    before = psutil.Process().num_fds()
    with pytest.raises(WorkerError, match="Too many open files"):
        await Child.start(WorkerSettings())
    assert psutil.Process().num_fds() == before
