"""The process of `swarm join`: the node under Trio, its signals, and who tells how it does."""

from __future__ import annotations

import enum
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import trio

from cli import output, view
from swarm.care.notify import READY, STOPPING, notify
from swarm.control.faults import translate

if TYPE_CHECKING:
    from swarm.config import Settings
    from swarm.control.api import NodeApi

STOP_SECONDS = 4.5
"""A node that has not stopped this long after a signal is ended; its stores survive that."""

LIVE_SECONDS = 0.5
JSON_SECONDS = 2
LINES_SECONDS = 10
INTERRUPTED = 130


class Teller(enum.Enum):
    """Who tells how the node does."""

    LIVE = "live"
    LINES = "lines"
    JSON = "json"


def run(settings: Settings, teller: Teller, *, until_stdin_closes: bool) -> int:
    """Run a node until it stops; returns the exit code.

    Raises:
        SwarmError: It could not start, or it failed.
    """
    from swarm.node import run_node

    async def main() -> None:
        async with trio.open_nursery() as outer:
            with trio.CancelScope() as scope:
                outer.start_soon(_stop_on_signal, scope)
                if until_stdin_closes:
                    outer.start_soon(_stop_on_end_of_stdin, scope)
                async with trio.open_nursery() as nursery:

                    def on_ready(node: NodeApi) -> None:
                        notify(os.environ.get("NOTIFY_SOCKET"), READY)
                        nursery.start_soon(_tell, node, teller, settings, scope)

                    await run_node(settings, on_ready=on_ready, say=output.say)
                    nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()

    try:
        trio.run(main)
    except Exception as error:
        fault = translate(error)
        if fault.exit_code == 1:  # a bug: where it is belongs into the log
            logging.getLogger("swarm").exception("node.failed")
        raise fault from error
    output.say("stopped")
    return 0


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        output.say("stopping; once more ends at once")
        _stop(scope)
        await anext(signals)
        _end("ended at once", INTERRUPTED)


def _stop(scope: trio.CancelScope) -> None:
    """Let the node unwind, but not for longer than promised."""
    notify(os.environ.get("NOTIFY_SOCKET"), STOPPING)
    watchdog = threading.Timer(
        STOP_SECONDS, _end, (f"not stopped after {STOP_SECONDS} s: ended", 1)
    )
    watchdog.daemon = True
    watchdog.start()
    scope.cancel()


def _end(why: str, code: int) -> None:
    """End the process without unwinding; the stores survive that as they survive a power cut."""
    output.say(why)
    os._exit(code)


async def _stop_on_end_of_stdin(scope: trio.CancelScope) -> None:
    descriptor = sys.stdin.fileno()
    try:
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            if not os.read(descriptor, 4096):
                break
    except OSError:  # closed from the start, or not a pipe
        pass
    _stop(scope)


async def _tell(node: NodeApi, teller: Teller, settings: Settings, scope: trio.CancelScope) -> None:
    try:
        if teller is Teller.LIVE:
            await _tell_live(node, gpu=settings.gpu)
        elif teller is Teller.JSON:
            while True:
                output.print_json(node.status())
                await trio.sleep(JSON_SECONDS)
        else:
            await _tell_lines(node, gpu=settings.gpu)
    except BrokenPipeError:  # nobody reads any more
        scope.cancel()


async def _tell_live(node: NodeApi, *, gpu: bool) -> None:
    from rich.live import Live

    console = output.console(stderr=True)
    with Live(view.panel(node.status(), gpu=gpu), console=console, auto_refresh=False) as live:
        while True:
            await trio.sleep(LIVE_SECONDS)
            live.update(view.panel(node.status(), gpu=gpu), refresh=True)


async def _tell_lines(node: NodeApi, *, gpu: bool) -> None:
    status = node.status()
    output.say(f"network {status['network']}, chain id {status['chain_id']}")
    for address in status["addresses"]:
        output.say(f"listening on {address}")
    if status.get("backed_up") is False and not status["temporary"]:
        output.say(f"key {view.NOT_BACKED_UP}")
    device = before = None
    problems: list[str] = []
    while True:
        status = node.status()
        if gpu and status["device"] != device:
            device = status["device"]
            output.say(f"device: {view.device(status, gpu=gpu)}")
        for problem in status["problems"]:
            if problem not in problems:
                output.say(f"problem: {problem}")
        problems = status["problems"]
        line = view.line(status)
        if line != before:
            output.say(line)
        before = line
        await trio.sleep(LINES_SECONDS)
