import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from swarm.limits import throttle
from swarm.limits.throttle import Throttle, duty, threads


def test_a_share_is_threads_first_and_rests_below_one():
    assert [threads(share, 8) for share in (0.0, 0.05, 0.25, 0.5, 1.0)] == [1, 1, 2, 4, 8]
    assert duty(0.0, 8, 1) == 1
    assert duty(0.5, 1, 1) == 0.5
    assert duty(0.25, 8, 2) == 1
    assert duty(0.25, 8, 4) == 0.5


def state_of(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


async def until(condition):
    with trio.fail_after(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await trio.sleep(0.005)


@pytest.fixture
def child():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


async def test_a_worker_rests_and_runs_again_when_the_throttle_ends(child, nursery):
    throttling = Throttle(lambda: child.pid, lambda: 0.05)
    async with trio.open_nursery() as inner:
        inner.start_soon(throttling.run)
        await until(lambda: state_of(child.pid) == "T")
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        inner.cancel_scope.cancel()
    await until(lambda: state_of(child.pid) in "SR")


async def test_a_worker_does_not_stay_stopped_behind_a_node_that_died(child):
    throttling = Throttle(lambda: child.pid, lambda: 0.5)
    throttling._take(child.pid)
    os.kill(child.pid, signal.SIGSTOP)
    await until(lambda: state_of(child.pid) == "T")
    throttling._guard.stdin.close()  # as the end of the node's process does
    await until(lambda: state_of(child.pid) in "SR")
    throttling._guard.wait()
    os.close(throttling._handle)


async def test_a_worker_that_has_gone_is_let_go_of(autojump_clock):
    pids = [2**22 - 3]
    throttling = Throttle(lambda: pids[0], lambda: 0.5)
    with trio.move_on_after(10 * throttle.PERIOD_SECONDS):
        await throttling.run()
    assert throttling._guard is None


async def test_a_machine_that_makes_no_process_now_does_not_end_the_throttle(
    child, nursery, monkeypatch
):
    tried = []
    make = subprocess.Popen

    def refuse_once(*arguments, **options):
        tried.append(None)
        if len(tried) == 1:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
        return make(*arguments, **options)

    monkeypatch.setattr(throttle.subprocess, "Popen", refuse_once)
    monkeypatch.setattr(throttle, "PERIOD_SECONDS", 0.02)
    nursery.start_soon(Throttle(lambda: child.pid, lambda: 0.1).run)
    await until(lambda: state_of(child.pid) == "T")
    assert len(tried) == 2
    nursery.cancel_scope.cancel()
