"""What a node does with a background task that fails."""

from __future__ import annotations

import trio

from swarm.background import AGAIN_SECONDS, again_and_again


async def test_a_background_task_that_fails_is_run_again_after_a_pause(autojump_clock) -> None:
    runs: list[float] = []

    async def task() -> None:
        runs.append(trio.current_time())
        async with trio.open_nursery():
            if len(runs) < 3:
                message = "the disk failed"
                raise OSError(message)

    await again_and_again(task)
    assert runs == [0, AGAIN_SECONDS, 2 * AGAIN_SECONDS]


async def test_a_background_task_that_is_cancelled_is_not_run_again(autojump_clock) -> None:
    runs = []

    async def task() -> None:
        runs.append(1)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)

    with trio.move_on_after(60):
        await again_and_again(task)
    assert runs == [1]


async def test_a_background_task_waits_for_what_it_is_to_come_after(autojump_clock) -> None:
    runs: list[float] = []
    level = trio.Event()

    async def task() -> None:
        runs.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(again_and_again, task, level)
        await trio.sleep(7)
        level.set()
    assert runs == [7]
