"""What a person sees of the demo: the live view over its nodes, and the summary."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import click

from cli import output, screen, view
from cli.money import format_tokens
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import RenderableType

    Json = dict[str, Any]
    Show = Callable[[list[Json]], None]


UNITS = {"gpt": "nats", "gan": "(Fréchet distance, lower is better)"}
"""What the validation loss of each kind of demo is counted in."""


@contextlib.contextmanager
def watching() -> Iterator[Show]:
    """A function that shows the nodes' statuses: live on a terminal, lines of what changed elsewhere."""
    if not sys.stderr.isatty():
        yield _Lines().show
        return
    from rich.live import Live

    console = output.console(stderr=True)
    with (
        screen.cursor_shown_while_stopped(),
        Live(console=console, auto_refresh=False, transient=True) as live,
    ):
        yield lambda statuses: live.update(_table(statuses), refresh=True)


class _Lines:
    def __init__(self) -> None:
        self._before = ""

    def show(self, statuses: list[Json]) -> None:
        task = next((one["task"] for one in statuses if one["task"] is not None), None)
        if task is None:
            return
        now = f"round {task['round']}/{task['rounds']}, {task['phase']}, loss {output.loss(task['loss'])}"
        if now != self._before:
            output.say(f"height {statuses[0]['height']:,}: {now}")
        self._before = now


def _table(statuses: list[Json]) -> RenderableType:
    from rich.table import Table

    table = Table("node", "height", "peers", "task", "used", "earned", title="swarm demo")
    for at, status in enumerate(statuses, start=1):
        table.add_row(
            str(at),
            f"{status['height']:,}",
            str(status["peers"]),
            view.task_line(status["task"]),
            format_size(status["storage"]["used"]),
            f"{status['earned'] / 10**9:,.1f}",
        )
    return table


def print_summary(summary: Json) -> None:
    """The outcome, for people."""
    first, last = summary["first_loss"], summary["last_loss"]
    finality = summary["finality_ms"]
    rows = [
        ("model", f"{summary['name']}@{summary['version']}, {counted(summary['rounds'], 'round')}"),
        (
            "validation loss",
            f"{output.loss(first)} -> {output.loss(last)} {UNITS[summary['kind']]}",
        ),
        ("blocks", f"{summary['blocks']:,}, median finality {finality or '-'} ms"),
        ("moved", format_size(summary["bytes_moved"])),
    ]
    rows += [
        (f"node {at} earned", f"{format_tokens(one['earned'])} tokens ({one['account']})")
        for at, one in enumerate(summary["nodes"], start=1)
    ]
    rows += [
        ("took", f"{summary['seconds']:.0f} s"),
        ("checkpoint", summary["checkpoint"]),
    ]
    sample = summary["sample"]
    if "path" in sample:
        rows.append(("sample", sample["path"]))
    output.print_fields(rows)
    if "text" in sample:
        click.echo("\nsample:")
        click.echo(output.printable(sample["text"]))
