"""`swarm logs`: the node's log, and how much it says."""

from __future__ import annotations

import contextlib
import json
import time
from typing import TYPE_CHECKING, Any

import click

from cli import connection, output, screen
from swarm.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from swarm.care.redaction import Private

    Json = dict[str, Any]

LINES = 40
MAX_LINES = 100_000
LOOK_SECONDS = 0.25
MAX_TAIL_BYTES = 4 * 2**20
MAX_LINE_BYTES = 2**20
MAX_DEPTH = 16
"""Of what an event holds; what lies deeper is not shown."""
LEVELS = ("debug", "info", "warning", "error", "critical")
_OWN = frozenset({"event", "level", "timestamp"})


@click.command("logs")
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0, MAX_LINES),
    default=LINES,
    show_default=True,
    help="How many.",
)
@click.option(
    "--level",
    "levels",
    multiple=True,
    metavar="[PART=]LEVEL",
    help="Let the running node log from this level up: training=debug; may be given again.",
)
@click.option(
    "--at-least", type=click.Choice(LEVELS), default="debug", help="Show this level and above."
)
@connection.options
def command(
    *, follow: bool, lines: int, levels: tuple[str, ...], at_least: str, home: Path, as_json: bool
) -> None:
    """Show the end of the node's log; keys, tokens and passwords are not in it.

    With --level, the running node logs more or less from now on, until it is restarted.
    Parts: all, training, network, content, keeping, ledger, serving, node, libp2p.

    \b
    swarm logs -f --level training=debug
    """  # noqa: D301 - \b is click's
    from swarm.care.bug_report import LOG, private_of
    from swarm.care.redaction import Private

    if levels:
        from swarm.client import Client

        with Client.of_home(home) as client:
            now = client.set_levels(",".join(levels))
        output.say(", ".join(f"{part}={level}" for part, level in now.items()))
    path = home / LOG
    if not path.exists():
        message = f"no log is kept in {path.parent}"
        raise NotFoundError(message, "`swarm join` keeps one")
    # Names, folders and addresses are the reader's own; what is secret is not for a screen either.
    private = Private(secrets=private_of(home).secrets, keeps_addresses=True)
    wanted = LEVELS[LEVELS.index(at_least) :]
    with screen.until_interrupted() if follow else contextlib.nullcontext():
        for line in _lines(path, lines, wanted, follow=follow):
            event = {name: _redacted(name, value, private) for name, value in _event(line).items()}
            click.echo(output.json_line(event) if as_json else output.harmless(_readable(event)))


def _lines(path: Path, count: int, wanted: tuple[str, ...], *, follow: bool) -> Iterator[bytes]:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - MAX_TAIL_BYTES))
        found = file.read(MAX_TAIL_BYTES)
        whole, _, rest = found.rpartition(b"\n")
        kept = [one for one in whole.split(b"\n")[size > MAX_TAIL_BYTES :] if _is(one, wanted)]
        yield from kept[len(kept) - min(count, len(kept)) :]
        if follow:
            yield from (one for one in _following(path, file, rest) if _is(one, wanted))


def _following(path: Path, file: BinaryIO, rest: bytes) -> Iterator[bytes]:
    """Lines as they are written, also into the file that takes the place of a full one."""
    yield from _growing(path, file, rest)
    while True:
        with path.open("rb") as fresh:
            yield from _growing(path, fresh, b"")


def _growing(path: Path, file: BinaryIO, rest: bytes) -> Iterator[bytes]:
    """Lines as they are written to a file, until another has its place."""
    while True:
        has_gone = _is_another(path, file)  # first: what is written before that is still read
        while data := file.read(MAX_LINE_BYTES):
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
        if has_gone:
            return
        time.sleep(LOOK_SECONDS)  # noqa: TID251 - a command of its own, where nothing else waits


def _is_another(path: Path, opened: BinaryIO) -> bool:
    import os

    try:
        return path.stat().st_ino != os.fstat(opened.fileno()).st_ino
    except FileNotFoundError:  # between a full file and the next
        return False


def _is(line: bytes, wanted: tuple[str, ...]) -> bool:
    return _event(line).get("level") in wanted


def _event(line: bytes) -> Json:
    """What a line says; nothing where it is of another form."""
    try:
        event = json.loads(line.decode(errors="replace"), parse_constant=str)  # NaN is no JSON
    except (ValueError, RecursionError):
        return {}
    return event if isinstance(event, dict) else {}


def _redacted(name: str, value: object, private: Private, depth: int = 0) -> object:
    """A value without what is secret: by its name, and in every text below it."""
    from swarm.care.redaction import SECRET, redact

    is_count = isinstance(value, int | float) and name.lower().endswith("tokens")
    if depth > MAX_DEPTH or (not is_count and SECRET in redact(f"{name}=.", private)):
        return SECRET
    if isinstance(value, str):
        return redact(value, private)
    if isinstance(value, list):
        return [_redacted("", one, private, depth + 1) for one in value]
    if isinstance(value, dict):
        return {
            redact(key, private): _redacted(key, one, private, depth + 1)
            for key, one in value.items()
        }
    return value


def _readable(event: Json) -> str:
    rest = " ".join(f"{name}={value}" for name, value in event.items() if name not in _OWN)
    head = f"{str(event.get('timestamp', ''))[:23]} {event.get('level', ''):<8}"
    return f"{head} {event.get('event', '')} {rest}".rstrip()
