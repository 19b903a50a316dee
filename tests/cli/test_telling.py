"""Who tells how a node does ends no node."""

from __future__ import annotations

import errno
import io
import os
import sys

import pytest
import trio

from cli import node_process
from cli.node_process import Teller, _say, _tell
from swarm.config import Settings


class Node:
    """One whose status cannot be told at first."""

    def __init__(self, error):
        self.errors = [error, error]
        self.asked = 0

    def status(self):
        self.asked += 1
        if self.errors:
            raise self.errors.pop()
        return {"height": self.asked}


class Gone(io.StringIO):
    """A terminal that is gone."""

    def write(self, text):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize(
    "error", [OSError(errno.EMFILE, "Too many open files"), MemoryError(), KeyError("a bug")]
)
async def test_a_status_that_cannot_be_had_is_told_later(autojump_clock, tmp_path, capsys, error):
    node = Node(error)
    with trio.move_on_after(2.5 * node_process.LINES_SECONDS), trio.CancelScope() as scope:
        await _tell(node, Teller.JSON, Settings(home=tmp_path), scope)
    assert not scope.cancel_called
    assert '"height": 3' in capsys.readouterr().out


async def test_a_reader_that_has_gone_ends_the_node(autojump_clock, tmp_path):
    with trio.CancelScope() as scope:
        await _tell(Node(BrokenPipeError()), Teller.JSON, Settings(home=tmp_path), scope)
    assert scope.cancel_called


def test_a_terminal_that_is_gone_holds_up_no_end(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Gone())
    _say("stopped")
