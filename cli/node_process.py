"""The process of `swarm join`: the node under Trio, its signals, and who tells how it does."""

from __future__ import annotations

import contextlib
import enum
import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import structlog
import trio

from cli import aside, output, screen, standing, view
from cli.connection import USED_FILE, is_last
from swarm.care.notify import READY, STOPPING, notify
from swarm.control.faults import translate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

    from swarm.config import Settings
    from swarm.control.api import Json, NodeApi

STOP_SECONDS = 4.5
"""A node that has not stopped this long after a signal is ended; its stores survive that."""

LIVE_SECONDS = 0.5
JSON_SECONDS = 2
LINES_SECONDS = 10
USED_SECONDS = 0.2
"""Between two looks whether a command still uses a temporary node."""
INTERRUPTED = 130

_log = structlog.get_logger("swarm.node")


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
                    outer.start_soon(_stop_on_end_of_stdin, scope, settings)
                async with trio.open_nursery() as nursery:

                    def on_ready(node: NodeApi) -> None:
                        notify(os.environ.get("NOTIFY_SOCKET"), READY)
                        nursery.start_soon(_tell, node, teller, settings, scope)

                    await run_node(settings, on_ready=on_ready, say=output.say)
                    nursery.cancel_scope.cancel()
            outer.cancel_scope.cancel()

    with aside.told_aside():
        try:
            trio.run(main)
        except Exception as error:
            fault = translate(error)
            if fault.exit_code == 1:  # a bug: where it is belongs into the log
                logging.getLogger("swarm").exception("node.failed")
            raise fault from error
        _say("stopped")
    return 0


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        await anext(signals)
        _stop(scope)
        _say("stopping; once more ends at once")
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
    _say(why)
    aside.drain()
    os._exit(code)


def _say(line: str) -> None:
    """Say it where somebody can read it; a terminal that is gone, or a full disk behind it, holds nothing up."""
    with contextlib.suppress(OSError):
        output.say(line)


async def _stop_on_end_of_stdin(scope: trio.CancelScope, settings: Settings) -> None:
    descriptor = sys.stdin.fileno()
    try:
        while True:
            await trio.lowlevel.wait_readable(descriptor)
            if not os.read(descriptor, 4096):
                break
    except OSError:  # closed from the start, or not a pipe
        pass
    with contextlib.ExitStack() as stack:
        if settings.temporary:
            with contextlib.suppress(OSError):  # a disk without room for a lock: nobody has one
                lock = stack.enter_context((settings.home / USED_FILE).open("ab"))
                while not is_last(lock.fileno()):  # noqa: ASYNC110 - other processes hold it
                    await trio.sleep(USED_SECONDS)
        _stop(scope)
        await trio.sleep_forever()  # with the lock: no command begins to use a node that stops


async def _tell(node: NodeApi, teller: Teller, settings: Settings, scope: trio.CancelScope) -> None:
    """Tell how the node does until nobody reads any more; what fails of that is told again, and ends no node."""
    while True:
        try:
            if teller is Teller.LIVE:
                await _tell_live(node, settings)
            elif teller is Teller.JSON:
                await _tell_json(node)
            else:
                await _tell_lines(node, settings)
        except BrokenPipeError:
            scope.cancel()
            return
        except Exception as error:  # noqa: BLE001 - the node goes on, whatever keeps it from saying so
            _log.warning("status.not_told", error=repr(error))
        await trio.sleep(LINES_SECONDS)


async def _tell_json(node: NodeApi) -> None:
    while True:
        output.print_json(node.status())
        await trio.sleep(JSON_SECONDS)


async def _tell_live(node: NodeApi, settings: Settings) -> None:
    from rich.live import Live

    def panel() -> RenderableType:
        return view.panel(node.status(), trains=settings.train, gpu=settings.gpu)

    console = output.console(stderr=True)
    with (
        screen.cursor_shown_while_stopped(),
        Live(panel(), console=console, auto_refresh=False) as live,
    ):
        while True:
            await trio.sleep(LIVE_SECONDS)
            live.update(panel(), refresh=True)


async def _tell_lines(node: NodeApi, settings: Settings) -> None:
    status = node.status()
    if not status["temporary"]:
        for line in _first_lines(status, settings):
            output.say(line)
    news = _News(settings.gpu)
    while True:
        for line in news.of(node.status()):
            output.say(line)
        await trio.sleep(LINES_SECONDS)


def _first_lines(status: Json, settings: Settings) -> Iterator[str]:
    """Where it is, what it gives, and what has to be done once."""
    yield f"network {status['network']}, chain id {status['chain_id']}"
    for address in status["addresses"]:
        yield f"listening on {address}"
    if status.get("page"):
        yield f"page {status['page']}: `swarm page` opens it"
    yield f"pledged {standing.pledge(status, trains=settings.train, gpu=settings.gpu)}"
    if status.get("backed_up") is False:
        yield f"key {view.NOT_BACKED_UP}"


class _News:
    """What was not told yet: each state, problem, warning and contribution once.

    Args:
        gpu: Whether an accelerator was asked for.
    """

    def __init__(self, gpu: bool) -> None:
        self._gpu = gpu
        self._told: dict[str, object] = {}
        self._known: dict[str, set[str]] = {}

    def of(self, status: Json) -> Iterator[str]:
        """Lines for what has changed."""
        if self._gpu and self._is_new("device", status["device"]):
            yield f"device: {view.device(status, gpu=True)}"
        state = status.get("state")
        if state is not None and self._is_new("state", state["code"]):
            yield f"now {standing.state(status)}"
        codes = [one["code"] for one in status.get("warnings", ())]
        warnings = dict(zip(codes, standing.warnings(status), strict=True))
        problems = {one: one for one in status["problems"]}
        for name, found in (("problem", problems), ("warning", warnings)):
            known = self._known.get(name, set())
            yield from (f"{name}: {text}" for key, text in found.items() if key not in known)
            self._known[name] = set(found)
        if self._is_new("last", standing.last(status)):
            yield f"last work: {standing.last(status)}"
        line = view.line(status)
        if self._is_new("line", line):
            yield line

    def _is_new(self, name: str, value: object) -> bool:
        before, self._told[name] = self._told.get(name), value
        return bool(value) and value != before
