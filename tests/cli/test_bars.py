"""What a bar says of its pace, on a console that is a terminal in memory."""

import io
import re

import pytest
from rich.console import Console
from rich.progress import Task

from cli import bars


def task(stage, completed, total, moved, **more):
    made = Task(
        0, stage, total, completed, _get_time=lambda: 10.0, fields={"amount": "", "moved": moved}
    )
    for name, value in more.items():
        setattr(made, name, value)
    return made


@pytest.fixture
def clock(monkeypatch):
    monkeypatch.setattr(bars.time, "monotonic", lambda: 100.0)


def said(made):
    return bars.Pace().render(made).plain


def test_a_bar_of_bytes_tells_rate_and_time_left(clock):
    from rich.progress import ProgressSample

    made = task("fetch", 10_000_000, 40_000_000, 99.0, start_time=0.0)
    made._progress.extend([ProgressSample(0.0, 0), ProgressSample(2.0, 10_000_000)])
    assert said(made) == "5.0 MB/s, 0:06 left"
    made.description = "replicate"
    assert said(made) == "0:06 left"


def test_a_bar_on_which_nothing_comes_says_for_how_long(clock):
    assert said(task("fetch", 1, 4, 80.0)) == "nothing new for 0:20"
    assert said(task("fetch", 1, 4, None)) == ""


def test_a_bar_that_is_done_tells_how_long_it_took(clock):
    assert said(task("hash", 4, 4, 10.0, finished_time=75.0)) == "1:15"


def drawn(width, *told):
    """The lines that a terminal was sent for steps, and for notes (text alone)."""
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, legacy_windows=False)
    with bars.bars(console) as tell:
        for one in told:
            if isinstance(one, str):
                tell.note("fetch", one)
            else:
                tell(*one)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.getvalue())
    return [line.rstrip() for line in re.split(r"[\r\n]+", plain)]


@pytest.mark.parametrize("width", [60, 100])
def test_a_bar_takes_one_line_with_its_whole_amount(width):
    lines = drawn(width, ("hash", 1, 987_654_321), ("hash", 987_654_321, 987_654_321))
    assert max(map(len, lines)) <= width
    assert any(re.fullmatch(r"hash +\S+ 987.7 MB of 987.7 MB 0:00", line) for line in lines)


def test_on_twenty_columns_stage_and_share_are_whole():
    lines = drawn(20, ("import", 1, 987_654_321), ("import", 493_827_161, 987_654_321))
    assert max(map(len, lines)) <= 20
    assert any(line.startswith("import 50 %") for line in lines)
    assert {line.split()[0] for line in lines if line} == {"import"}  # nothing is wrapped


def test_each_stage_has_a_bar_of_its_own():
    lines = drawn(100, ("hash", 2, 2), ("announce", 1, 1), ("replicate", 1, 3))
    assert {line.split()[0] for line in lines if line} == {"hash", "announce", "replicate"}


NOTE = "from 2 peers: …mKxq 8.1 MB/s, …9dTr 2.0 MB/s; …Eab7 has sent nothing for 8 s"


def test_under_the_bars_stands_how_it_stands():
    lines = drawn(100, ("fetch", 1, 3), NOTE)
    assert lines[lines.index(NOTE) - 1].split()[0] == "fetch"


@pytest.mark.parametrize("width", [20, 60])
def test_a_note_takes_one_line_however_narrow_the_terminal(width):
    lines = drawn(width, ("fetch", 1, 3), NOTE)
    assert NOTE[: width - 1] + "…" in lines
    assert not any(NOTE[width : width + 8] in line for line in lines)


def test_a_note_that_is_over_is_gone():
    lines = drawn(100, ("fetch", 1, 3), NOTE, ("fetch", 2, 3), "")
    last = max(at for at, line in enumerate(lines) if line.startswith("fetch"))
    assert NOTE not in lines[last:]


def test_nothing_in_a_note_steers_the_terminal():
    (line,) = {
        one
        for one in drawn(60, ("fetch", 1, 3), "a\x1b[2J\nb\x07")
        if "\N{REPLACEMENT CHARACTER}" in one
    }
    assert (
        line == "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}b\N{REPLACEMENT CHARACTER}"
    )


@pytest.mark.parametrize(("seconds", "text"), [(7, "0:07"), (750, "12:30"), (11_045, "3:04:05")])
def test_spans_are_short(seconds, text):
    assert bars.span(seconds) == text
