"""What a person reads when a node starts, and afterwards: each thing once."""

import io
from pathlib import Path

from rich.console import Console

from cli import view
from cli.node_process import _first_lines, _News
from swarm.config import Settings
from tests.control.fake_node import FakeNode

WHY = "outside of the schedule until 2026-11-23 01:00"
LIMITS = {"month": {"cap": 10**12}, "asked": {"upload": "auto", "schedule": "mon 1:00-2:00"}}


def status(**changed):
    told = FakeNode(Path("/nowhere")).status() | {"page": "http://127.0.0.1:4747/"}
    told |= {"state": {"code": "schedule", "why": WHY, "until": None}, "limits": LIMITS}
    return told | {"problems": [], "warnings": [], "last": None} | changed


def test_the_first_lines_name_the_page_and_what_is_pledged():
    lines = list(_first_lines(status(backed_up=False), Settings(home=Path("/nowhere"))))
    assert "page http://127.0.0.1:4747/: `swarm page` opens it" in lines
    (pledged,) = (one for one in lines if one.startswith("pledged "))
    assert "of disk; the processor; upload at most four fifths of the line" in pledged
    assert pledged.endswith("at most 1.0 TB a month; only mon 1:00-2:00")
    assert any("swarm key backup" in one for one in lines)


def test_the_first_job_or_what_blocks_it_is_told_at_once_and_again_only_when_it_changes():
    news = _News(gpu=False)
    first = list(news.of(status()))
    assert first[0] == f"now schedule: {WHY}"
    assert list(news.of(status())) == []
    working = {"code": "working", "why": "training, step 1 of 9", "until": None}
    assert "now working: training, step 1 of 9" in list(news.of(status(state=working)))


def test_a_problem_and_a_warning_are_told_once_and_again_when_they_come_back():
    news = _News(gpu=False)
    warned = [{"code": "strikes", "why": "2 of 3 strikes", "height": 9, "seconds": 90.0}]
    bad = status(problems=["the disk is full"], warnings=warned)
    lines = list(news.of(bad))
    assert "problem: the disk is full" in lines
    assert "warning: 2 of 3 strikes (in 00:01:30)" in lines
    warned[0]["seconds"] = 80.0
    assert list(news.of(bad)) == []
    assert list(news.of(status())) == []
    assert "problem: the disk is full" in list(news.of(bad))


def test_a_contribution_is_told_with_its_fate():
    news = _News(gpu=False)
    list(news.of(status()))
    judged = {"kind": "update", "round": 2, "name": "gpt", "code": "duplicate", "height": 7}
    judged |= {"reason": "equals another one", "score": None, "reward": 0}
    (line,) = news.of(status(last=judged))
    assert line == "last work: update of round 2 of gpt: equals another one, 0 tokens (height 7)"


def test_the_live_view_begins_with_what_is_done_and_what_is_wrong():
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(view.panel(status(problems=["the disk is full"])))
    lines = console.export_text().splitlines()
    assert WHY in lines[1]
    assert any("the disk is full" in line for line in lines[:5])
    assert any("pledged" in line for line in lines)
    assert len(lines) <= 24
