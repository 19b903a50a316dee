"""Finding the node that a command speaks to, or starting a temporary one for it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import advice
from cli.output import say
from swarm.errors import NetworkError, NotFoundError, RefusedError, SwarmError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from swarm.client import Client

START_SECONDS = 60
STOP_SECONDS = 6
LEAVE_SECONDS = 20
"""For a temporary node of another command to stop, before a command that begins gives up."""
TELL_SECONDS = 1
"""Of a wait, after which the person is told of it."""
POLL_SECONDS = 0.05
GENESIS_FILE = "genesis.cbor"
USED_FILE = "temporary.lock"
"""Locked by every command that uses the node of the folder, for as long as it does."""
START_HINT = "`swarm join` starts one; `swarm join --bootstrap ADDRESS` joins a network of others"
MAX_LOG_TAIL = 4096

_ERRORS: dict[int, type[SwarmError]] = {
    2: UsageError,
    3: NotFoundError,
    4: RefusedError,
    5: NetworkError,
}


def options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--home` and `--json`, which every command that asks a node has."""
    json_option = click.option(
        "--json", "as_json", is_flag=True, help="Print JSON, one object a line."
    )
    return home_option(json_option(function))


def home_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--home`, read with SWARM_HOME, swarm.toml and the default behind it."""

    @click.option(
        "--home",
        type=click.Path(file_okay=False, path_type=Path),
        help="The node's data folder (SWARM_HOME).",
    )
    @wraps(function)
    def with_home(*, home: Path | None, **rest: Any) -> Any:  # noqa: ANN401
        advice.note(home)
        return function(home=settings_home(home), **rest)

    return with_home


def settings_home(home: Path | None) -> Path:
    """The data folder: the flag, then SWARM_HOME, then swarm.toml, then the default."""
    from swarm.config import Settings, default_settings_file

    return Settings.build({"home": home}, os.environ, default_settings_file()).home


@contextlib.contextmanager
def connect(home: Path, *, of_home: bool = False) -> Iterator[Client]:
    """A client of the node on a data folder; a temporary node where none runs.

    Args:
        home: The data folder.
        of_home: What is asked is what that folder holds or owns: where it knows no network, that is nothing.

    Raises:
        NotFoundError: The folder knows no network, and is not given one.
        NetworkError: The temporary node did not come up.
    """
    with terminable(), contextlib.ExitStack() as stack:
        lock = _lock(home, stack)
        if not answers(home):
            if of_home and not (home / GENESIS_FILE).exists():
                raise _no_network(home)
            _announce(home)
            if lock is None:
                home.mkdir(mode=0o700, parents=True, exist_ok=True)
                lock = _lock(home, stack)
            stack.enter_context(_temporary_node(home, lock))
        from swarm.client import Client

        yield stack.enter_context(Client.of_home(home))


def _lock(home: Path, stack: contextlib.ExitStack) -> int | None:
    """Say that a node on a data folder is used: a temporary one of another command stays until nobody does.

    Returns:
        The lock's file, shared while the stack is open; None where the folder is not there or takes none.

    Raises:
        NetworkError: One has been stopping for `LEAVE_SECONDS`.
    """
    with contextlib.suppress(OSError):
        lock = stack.enter_context((home / USED_FILE).open("ab")).fileno()
        began, is_told = time.monotonic(), False
        while not _shared(lock):
            waited = time.monotonic() - began
            if waited > LEAVE_SECONDS:
                message = f"a command's own node on {home} has not stopped for {LEAVE_SECONDS} s"
                raise NetworkError(message, "that command may be stopped itself: `fg` goes on")
            if waited > TELL_SECONDS and not is_told:
                say(f"waiting until a command's own node on {home} has stopped")
                is_told = True
            time.sleep(POLL_SECONDS)  # noqa: TID251 - of a program that has no event loop
        return lock
    return None


def _shared(lock: int) -> bool:
    """Take a lock with others; not while a node is being stopped."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def answers(home: Path) -> bool:
    """Whether a node listens on the control socket of a data folder."""
    from swarm.asking import connected
    from swarm.sockets import socket_of

    try:
        connected(socket_of(home)).close()
    except OSError as error:
        return isinstance(error, BlockingIOError)  # as many wait for it as may
    return True


def _bootstrap() -> tuple[str, ...]:
    """First addresses of the environment and swarm.toml."""
    from swarm.config import Settings, default_settings_file

    return Settings.build({}, os.environ, default_settings_file()).bootstrap


def _refuse_to_found(home: Path) -> None:
    """A folder that knows no network is not given one by a command that only asks.

    Raises:
        NotFoundError: No node of this machine runs whose network it could be.
    """
    from swarm.machine import Machine, runtime_folder

    if not Machine(runtime_folder()).running():
        raise _no_network(home)
    say("hint: that folder knows no network yet and becomes part of this machine's own")


def _no_network(home: Path) -> NotFoundError:
    where = "knows no network yet" if home.exists() else "is not there yet"
    return NotFoundError(f"no node runs on {home}, which {where}", START_HINT)


def _announce(home: Path) -> None:
    """Say that a node is started, where one may be."""
    if not (home / GENESIS_FILE).exists() and not _bootstrap():
        _refuse_to_found(home)
    say(f"no node runs on {home}: starting a temporary one (`swarm join` starts one that stays)")


@contextlib.contextmanager
def _temporary_node(home: Path, lock: int | None) -> Iterator[None]:
    log = home / "temporary.log"
    child = start_node(home, ["--temporary", "--no-train"], log)
    try:
        wait_for_node(child, home, log)
        yield
    finally:
        if lock is None or is_last(lock):
            stop_child(child)
        elif child.stdin is not None:
            child.stdin.close()  # it ends when the others are done


def is_last(lock: int) -> bool:
    """Whether no other command uses the node; none begins to while the lock is held."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def start_node(
    home: Path,
    flags: Sequence[str],
    log: Path,
    environ: Mapping[str, str] | None = None,
) -> subprocess.Popen[bytes]:
    """Start `swarm join` as a child that ends when this process ends, however that ends.

    Args:
        home: Its data folder.
        flags: More of its flags.
        log: Where what it says goes.
        environ: Its environment; None is this process's.
    """
    import cli

    environment = dict(os.environ if environ is None else environ)
    room = str(Path(cli.__file__).parents[1])  # with -P, no module of the working folder is taken
    environment["PYTHONPATH"] = os.pathsep.join(
        part for part in (room, environment.get("PYTHONPATH")) if part
    )
    command = [sys.executable, "-P", "-m", "cli", "join", "--home", str(home)]
    command += ["--no-view", "--until-stdin-closes", *flags]
    with log.open("wb") as out:
        return subprocess.Popen(  # noqa: S603 - this program itself
            command,
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=out,
            start_new_session=True,  # Ctrl-C in the terminal is this process's to handle
            env=environment,
        )


def wait_for_node(child: subprocess.Popen[bytes], home: Path, log: Path) -> None:
    """Wait until a child answers, or the node that has the folder in its place.

    Raises:
        SwarmError: It ended, with its own error; or it took longer than `START_SECONDS`.
    """
    from swarm.identity import is_held

    deadline = time.monotonic() + START_SECONDS
    is_told = False
    while not answers(home):
        is_late = time.monotonic() > deadline
        if child.poll() is not None and (is_late or not is_held(home)):
            message, hint = last_error(log)
            why = f"the node on {home} did not start: {message}"
            raise _ERRORS.get(child.returncode, NetworkError)(why, hint)
        if is_late:
            message = f"the node on {home} did not come up within {START_SECONDS} s"
            raise NetworkError(message, f"its log is {log}")
        if child.returncode is not None:
            if not is_told:
                say(f"waiting for the node that has {home}, and does not answer yet")
                is_told = True
            time.sleep(POLL_SECONDS)  # noqa: TID251 - of a program that has no event loop
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(POLL_SECONDS)


def last_error(log: Path) -> tuple[str, str | None]:
    """Why a node ended, from what it said last; and a hint."""
    text = log.read_bytes()[-MAX_LOG_TAIL:].decode(errors="replace")
    error = hint = None
    for line in text.splitlines():
        if line.startswith("error: "):
            error = line.removeprefix("error: ")
        if line.startswith("hint: "):
            hint = line.removeprefix("hint: ")
    if error is None:
        return "it ended by itself", f"its log is {log}"
    return error, hint


def stop_child(child: subprocess.Popen[bytes]) -> None:
    """Stop a child node, politely first; whatever interrupts this, it does not stay."""
    try:
        child.terminate()
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
        if child.stdin is not None:
            child.stdin.close()


@contextlib.contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM unwind this process as Ctrl-C does, so that it takes its children with it."""

    def interrupt(_signal: int, _frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what to do next.

    Args:
        hint: That.
    """

    def __init__(self, hint: str) -> None:
        super().__init__(hint)
        self.hint = hint


@contextlib.contextmanager
def resumable() -> Iterator[None]:
    """Say to whoever interrupts a fetch that what has come is kept."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        hint = "what has come is kept for now: the same command goes on from there"
        raise Interrupted(hint) from interrupt
