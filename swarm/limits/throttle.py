"""A share of the processors for the worker: threads, the kernel's idle class, and rests where one thread is too much.

The worker is stopped and continued by signals, a part of each second; whatever it does is done later and not otherwise.
A rest is ended by a process of its own that outlives the node, so that no worker stays stopped behind a node that died.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Callable

PERIOD_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 2.0

_log = structlog.get_logger("swarm.limits")


def threads(share: float, processors: int) -> int:
    """The worker's threads.

    Args:
        share: Of all processors, 0 to 1; 0: nobody said, which is one thread.
        processors: Of this machine.
    """
    return max(1, int(share * processors + 1e-9))


def duty(share: float, processors: int, running: int) -> float:
    """The part of each second in which the worker runs.

    Args:
        share: Of all processors; 0: nobody said.
        processors: Of this machine.
        running: The worker's threads.
    """
    return 1.0 if not share else min(1.0, share * processors / running)


class Throttle:
    """Lets the worker rest a part of each second.

    Args:
        pid: The worker's process; None while none runs.
        part: The part of each second in which it runs.
    """

    def __init__(self, pid: Callable[[], int | None], part: Callable[[], float]) -> None:
        self._pid = pid
        self._part = part
        self._handle = -1
        self._of: int | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    async def run(self) -> None:
        """Throttle until cancelled; the worker runs when this ends."""
        try:
            while True:
                part, pid = self._part(), self._pid()
                if pid != self._of or part >= 1:
                    await self._leave()
                if part >= 1 or pid is None:
                    await trio.sleep(LOOK_SECONDS)
                    continue
                if self._of is None:
                    await trio.to_thread.run_sync(self._take, pid)
                await trio.sleep(PERIOD_SECONDS * part)
                self._send(signal.SIGSTOP)
                try:
                    await trio.sleep(PERIOD_SECONDS * (1 - part))
                finally:
                    self._send(signal.SIGCONT)
        finally:
            with trio.CancelScope(shield=True):
                await self._leave()

    def _take(self, pid: int) -> None:
        """Be ready to stop a process, with somebody who lets it go on if this one dies."""
        self._of = pid
        with suppress(OSError):
            self._handle = os.pidfd_open(pid)
            idle = os.sched_param(0)
            os.sched_setscheduler(pid, os.SCHED_IDLE, idle)
        if self._handle >= 0:
            script = 'read -r _; kill -CONT "$0" 2> /dev/null'
            try:
                self._guard = subprocess.Popen(  # noqa: S603 - a fixed script and a number
                    ["/bin/sh", "-c", script, str(pid)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except (
                OSError
            ) as error:  # without it nothing is stopped; tried again in the next second
                os.close(self._handle)
                self._handle, self._of = -1, None
                _log.warning("worker.not_throttled", pid=pid, error=str(error))
                return
        _log.info("worker.throttled", pid=pid)

    async def _leave(self) -> None:
        self._send(signal.SIGCONT)
        if self._handle >= 0:
            os.close(self._handle)
        guard, self._guard, self._handle, self._of = self._guard, None, -1, None
        if guard is not None:
            await trio.to_thread.run_sync(guard.communicate)

    def _send(self, number: signal.Signals) -> None:
        """Tell the process; one that has ended meanwhile needs no telling."""
        if self._handle >= 0:
            with suppress(OSError):
                signal.pidfd_send_signal(self._handle, number)
