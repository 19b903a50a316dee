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
HIDE_CURSOR: Final = "\x1b[?25l"
SHOW_CURSOR: Final = "\x1b[?25h"
ENTER: Final = f"\x1b[?1049h{HIDE_CURSOR}"
"""A page of its own, without a cursor."""
LEAVE: Final = f"{SHOW_CURSOR}\x1b[?1049l"
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
    page = _Page()
    try:
        with while_stopped(page.leave, page.show):
            yield page.draw
    finally:
        page.leave()
        write(page.lines)


class _Page:
    """A terminal's page of its own, while this process is the one that the terminal is with."""

    def __init__(self) -> None:
        self.lines: Sequence[str] = ()
        self._is_entered = False

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines from now on."""
        self.lines = lines
        self.show()

    def show(self) -> None:
        """Enter the page, and draw; not from the background, where the page is a shell's."""
        if not in_foreground(sys.stdout.fileno()):
            return
        width, height = shutil.get_terminal_size()
        enter, self._is_entered = "" if self._is_entered else ENTER, True
        _put(sys.stdout.fileno(), enter + frame(self.lines, width, height))

    def leave(self) -> None:
        """Give the terminal back."""
        if self._is_entered:
            self._is_entered = False
            _put(sys.stdout.fileno(), LEAVE)


@contextlib.contextmanager
def cursor_shown_while_stopped() -> Iterator[None]:
    """Give the cursor back on Ctrl-Z, where something on stderr is drawn without one."""

    def put(text: str) -> None:
        if sys.__stderr__ is not None and in_foreground(sys.__stderr__.fileno()):
            _put(sys.__stderr__.fileno(), text)

    with while_stopped(lambda: put(SHOW_CURSOR), lambda: put(HIDE_CURSOR)):
        yield


@contextlib.contextmanager
def while_stopped(leave: Callable[[], None], enter: Callable[[], None]) -> Iterator[None]:
    """Say what is done with the terminal when Ctrl-Z stops this process, and when it goes on.

    Args:
        leave: Called before it is stopped; in the middle of anything, so past the buffers of streams.
        enter: Called, in the same way, once it goes on.
    """

    def stop(_signal: int, _frame: object) -> None:
        # A terminal that is gone must not raise from here, in the middle of anything.
        with contextlib.suppress(OSError):
            leave()
        signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # returns when it goes on
        signal.signal(signal.SIGTSTP, stop)
        with contextlib.suppress(OSError):
            enter()

    before = signal.getsignal(signal.SIGTSTP)
    if before is not signal.SIG_DFL:  # who started this lets nobody stop it
        yield
        return
    signal.signal(signal.SIGTSTP, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTSTP, before)


def in_foreground(terminal: int) -> bool:
    """Whether a terminal is with this process, and not with another job of its shell."""
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # of no session of this process: nobody takes it away either
        return True


def _put(descriptor: int, text: str) -> None:
    os.write(descriptor, text.encode(errors="replace"))


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
