"""A view that is drawn again and again: as much of it as the terminal has room for, until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Draw = Callable[[Sequence[str]], None]

INTERRUPTED = 130
ENTER: Final = "\x1b[?1049h\x1b[?25l"
"""A page of its own, without a cursor."""
LEAVE: Final = "\x1b[?25h\x1b[?1049l"
HOME: Final = "\x1b[H"
REST_OF_LINE: Final = "\x1b[K"
REST: Final = "\x1b[J"


@contextlib.contextmanager
def until_interrupted() -> Iterator[None]:
    """Take Ctrl-C for the end of what goes on until then: exit code 130, and no error is told."""
    try:
        yield
    except KeyboardInterrupt:
        raise click.exceptions.Exit(INTERRUPTED) from None


@contextlib.contextmanager
def drawn() -> Iterator[Draw]:
    """Draw lines in the place of those before; the last ones stay below what stood there.

    Where stdout is no terminal that can be drawn on, they are written one after another.
    """
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        yield write
        return
    last: Sequence[str] = ()

    def draw(lines: Sequence[str]) -> None:
        nonlocal last
        last = lines
        sys.stdout.write(_framed(lines))
        sys.stdout.flush()

    sys.stdout.write(ENTER)
    try:
        with _left_while_stopped(lambda: last):
            yield draw
    finally:
        sys.stdout.write(LEAVE)
        write(last)


@contextlib.contextmanager
def _left_while_stopped(drawn: Callable[[], Sequence[str]]) -> Iterator[None]:
    """Give the terminal back on Ctrl-Z, and draw again once this process goes on.

    Args:
        drawn: Gives the lines that were drawn last.
    """

    def stop(_signal: int, _frame: object) -> None:
        # Past the buffer of stdout, in whose write this may have come.
        os.write(sys.stdout.fileno(), LEAVE.encode())
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns when it goes on
        signal.signal(signal.SIGTSTP, stop)
        os.write(sys.stdout.fileno(), (ENTER + _framed(drawn())).encode(errors="replace"))

    before = signal.getsignal(signal.SIGTSTP)
    if before is not signal.SIG_DFL:  # who started this lets nobody stop it
        yield
        return
    signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def _framed(lines: Sequence[str]) -> str:
    width, height = shutil.get_terminal_size()
    return frame(lines, width, height)


def frame(lines: Sequence[str], width: int, height: int) -> str:
    """What draws lines over those before without a moment in which nothing stands there.

    Args:
        lines: From the top; what does not fit is left out at the end and at the right.
        width: Columns of the terminal.
        height: Its rows.
    """
    shown = list(lines)
    if len(shown) > height:
        left_out = len(shown) - height + 1
        shown[height - 1 :] = [f"… and {left_out:,} more; a taller window shows them"]
    rows = [_cut(one, width) for one in shown]
    # Nothing is written after the last column and below the last row: that would scroll.
    return HOME + "\n".join(rows) + (f"\n{REST}" if len(rows) < height else "")


def _cut(line: str, width: int) -> str:
    from rich.cells import cell_len, set_cell_size

    size = cell_len(line)
    if size > width:
        return set_cell_size(line, width - 1) + "…"
    return line + (REST_OF_LINE if size < width else "")


def write(lines: Sequence[str]) -> None:
    """Print lines one after another."""
    for line in lines:
        click.echo(line)
