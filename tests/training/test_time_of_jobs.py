"""How long a job may take where another is let in: a process that says what the test tells it to, and virtual time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio

from swarm.training import messages
from swarm.training.child import Child, WorkerSettings
from swarm.training.errors import WorkerError
from swarm.training.supervisor import Worker

if TYPE_CHECKING:
    from trio.testing import MockClock

SETTINGS = WorkerSettings(job_seconds=3600, silence_seconds=600)


class Scripted:
    """A process of one job at a time, and of one let in between two steps of a training."""

    def __init__(self, seconds: dict[str, int], step: int) -> None:
        self.ready = True
        self.pid = 1
        self.stopped = False
        self._seconds, self._step = seconds, step
        self._say, self._said = trio.open_memory_channel[dict[str, Any]](math.inf)
        self._told, self._jobs = trio.open_memory_channel[dict[str, Any]](math.inf)

    async def send(self, message: bytes) -> None:
        self._told.send_nowait(messages.unpack(message[messages.PREFIX :]))

    async def receive(self) -> dict[str, Any]:
        return await self._said.receive()

    async def stop(self) -> None:
        self.stopped = True

    async def run(self) -> None:
        while not self.stopped:
            await self._do(await self._jobs.receive())

    async def _do(self, job: dict[str, Any]) -> None:
        for _ in range(self._seconds[job["job"]] // self._step):
            await trio.sleep(self._step)
            self._say.send_nowait({"id": job["id"], "progress": []})
            if job["job"] == "train":
                await trio.lowlevel.checkpoint()
                while self._jobs.statistics().current_buffer_used:
                    await self._do(self._jobs.receive_nowait())
        self._say.send_nowait({"id": job["id"], "result": {}})


async def play(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, int]) -> dict[str, str]:
    """What comes of a training and of a score that is asked for meanwhile, by kind."""
    found: dict[str, str] = {}
    worker = Worker(SETTINGS)

    async def ask(kind: str) -> None:
        try:
            await worker._call(kind, {})
            found[kind] = "done"
        except WorkerError as error:
            found[kind] = f"{error.cause}: {error.why}"

    async with trio.open_nursery() as nursery:

        async def start(_: WorkerSettings) -> Scripted:
            child = Scripted(seconds, 100)
            nursery.start_soon(child.run)
            return child

        monkeypatch.setattr(Child, "start", start)
        await nursery.start(worker.run)
        async with trio.open_nursery() as asking:
            asking.start_soon(ask, "train")
            await trio.sleep(950)
            asking.start_soon(ask, "score")
        nursery.cancel_scope.cancel()
    return found


async def test_the_time_in_which_a_training_stands_still_is_not_its_own(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    found = await play(monkeypatch, {"train": 3000, "score": 3000})
    assert found == {"score": "done", "train": "done"}


async def test_a_job_that_takes_too_long_is_the_one_that_is_named(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: MockClock
) -> None:
    late = "timeout: job score took too long"
    found = await play(monkeypatch, {"train": 3000, "score": 4000})
    assert found == {"score": late, "train": late}
    late = "timeout: job train took too long"
    found = await play(monkeypatch, {"train": 4000, "score": 3000})
    assert found == {"score": "done", "train": late}
