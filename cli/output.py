"""Two printers of the same answers: text for people, one JSON object a line for programs.

Data goes to stdout; talk and progress to stderr, progress to a terminal only.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from cli import advice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console

    Json = dict[str, Any]
    Progress = Callable[[str, int, int], None]


def console(*, stderr: bool = False) -> Console:
    """A rich console without colour where NO_COLOR asks for it or there is no terminal."""
    from rich.console import Console

    return Console(
        stderr=stderr, highlight=False, no_color=bool(os.environ.get("NO_COLOR")) or None
    )


def say(line: str) -> None:
    """Tell the person one line, on stderr; above a live view or a bar where one is shown."""
    # Rich takes the place of sys.stderr while it draws, and click's echo would go round it.
    print(harmless(advice.typed(line)), file=sys.stderr, flush=True)


def print_json(value: Json | Iterable[Json]) -> None:
    """One object a line."""
    for one in [value] if isinstance(value, dict) else value:
        click.echo(json_line(one))
    sys.stdout.flush()


def json_line(value: Json) -> str:
    """An object as one line of JSON, with escapes for what would steer a terminal or is no text."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else json.dumps(one)[1:-1] for one in text)


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Names and values in two columns."""
    for line in field_lines(fields):
        click.echo(line)


def field_lines(fields: Iterable[tuple[str, str]]) -> list[str]:
    """The lines of names and values in two columns; a field without a value is left out."""
    rows = [(one_line(name), one_line(value)) for name, value in fields if value]
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def print_table(titles: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Columns under titles, cut nowhere: a CID that is cut cannot be copied."""
    lines = [titles, *(tuple(map(one_line, row)) for row in rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(titles))]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


@contextlib.contextmanager
def progress_bar() -> Iterator[Progress | None]:
    """A progress bar on stderr while the block runs; None where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from cli.bars import bars
    from cli.screen import cursor_shown_while_stopped

    with cursor_shown_while_stopped(), bars(console(stderr=True)) as tell:
        yield tell


def loss(value: float | None) -> str:
    """A loss in nats, or a dash where none is known yet."""
    return "-" if value is None else f"{value:.4f}"


def share(value: float | None) -> str:
    """A share in percent; nothing where none is known."""
    return "" if value is None else f"{value:.1%}"


def one_line(text: str) -> str:
    """A name that others chose, for a line of its own: nothing in it ends the line or steers the terminal."""
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in text)


def harmless(text: str) -> str:
    """A text of several lines in which others may have a word: nothing in it steers the terminal."""
    return "".join(
        one if one.isprintable() or one in "\n\t" else "\N{REPLACEMENT CHARACTER}" for one in text
    )


def printable(text: str) -> str:
    """A model's text for stdout: on a terminal, without characters that would steer the terminal."""
    return harmless(text) if sys.stdout.isatty() else text
