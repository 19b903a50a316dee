"""Bars of a terminal: how much, how fast, how long still, and under them from whom it comes or why nothing does."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
from rich.text import Text

from cli.output import one_line
from swarm.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from rich.console import Console, RenderableType
    from rich.progress import Task, TaskID

BYTE_STAGES: Final = frozenset(
    {
        "hash",
        "publish",
        "fetch",
        "write",
        "store",
        "dataset",
        "pool",
        "tokenizer",
        "download",
        "import",
        "verify",
    }
)
"""Stages that count bytes; the others count steps."""
STILL_SECONDS: Final = 5.0
"""Without a change, after which a bar says so: is it hung, or does it work?"""
NARROW: Final = 72
"""Columns of a terminal below which a bar is short."""
TINY: Final = 40
"""Columns below which there is none, and a share in place of an amount."""


@contextmanager
def bars(console: Console) -> Iterator[Bars]:
    """Show a bar for each stage while the block runs; they are gone afterwards.

    Args:
        console: The terminal.
    """
    is_tiny = console.width < TINY
    bar = [] if is_tiny else [BarColumn(bar_width=6 if console.width < NARROW else 24)]
    amount = TextColumn("{task.fields[amount]}")
    columns = (TextColumn("{task.description}"), *bar, amount, Pace())
    with _Noted(*columns, console=console, transient=True) as progress:
        yield Bars(progress, _share if is_tiny else _amount)


class Bars:
    """One bar a stage; a `swarm.client.Noting`.

    Args:
        progress: What draws them.
        amount: How much is told as done, from stage, done and total.
    """

    def __init__(self, progress: _Noted, amount: Callable[[str, int, int], str]) -> None:
        self._progress = progress
        self._amount = amount
        self._tasks: dict[str, TaskID] = {}
        self._newest = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        """Show it on the bar of the stage."""
        progress, tasks = self._progress, self._tasks
        if stage not in tasks:
            tasks[stage] = progress.add_task(stage, total=total or None, amount="", moved=None)
        task = tasks[stage]
        is_new = self._newest != stage or done != progress.tasks[task].completed
        if is_new and self._newest not in {"", stage}:
            progress.update(tasks[self._newest], moved=None)
        self._newest = stage
        fields: dict[str, Any] = {"amount": self._amount(stage, done, total)}
        if is_new:
            fields["moved"] = time.monotonic()
        progress.update(task, completed=done, total=total or None, **fields)

    def note(self, _stage: str, text: str) -> None:
        """Show it under the bars, in place of what stood there."""
        self._progress.text = one_line(text)


class _Noted(Progress):
    """Bars with a line of text under them, cut where the terminal ends."""

    text = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.text:
            yield Text(self.text, style="dim", no_wrap=True, overflow="ellipsis")


def _amount(stage: str, done: int, total: int) -> str:
    show = format_size if stage in BYTE_STAGES else "{:,}".format
    if not total:
        return show(done) if done else ""
    return f"{show(done)} of {show(total)}"


def _share(stage: str, done: int, total: int) -> str:
    return f"{100 * done // total} %" if total else _amount(stage, done, total)


class Pace(ProgressColumn):
    """The rate of bytes and the time left, the time it took, or for how long nothing has come."""

    max_refresh: float | None = 0.5

    def render(self, task: Task) -> Text:
        """One bar's; what gives way where there is no room, in its one line."""
        text = self._text(task)
        text.no_wrap, text.overflow = True, "ellipsis"
        return text

    def _text(self, task: Task) -> Text:
        if task.finished:
            return Text(span(task.finished_time or 0.0))
        moved = task.fields["moved"]  # None: another bar is the one that moves
        if moved is not None and (still := time.monotonic() - moved) > STILL_SECONDS:
            return Text(f"nothing new for {span(still)}", style="yellow")
        parts = []
        if task.description in BYTE_STAGES and task.speed:
            parts.append(f"{format_size(int(task.speed))}/s")
        if task.time_remaining is not None and task.completed:
            parts.append(f"{span(task.time_remaining)} left")
        return Text(", ".join(parts))


def span(seconds: float) -> str:
    """`0:07`, `12:30` or `3:04:05`."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:,}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"
