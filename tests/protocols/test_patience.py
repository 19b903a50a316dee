"""What a machine lacks for a while is waited for; every other error is raised."""

from __future__ import annotations

import errno
import os

import pytest
import trio

from protocols.patience import Patience, lack
from storage.errors import DiskFullError, LogError, QuotaError


def no_more(code):
    return OSError(code, os.strerror(code))


LACKS = (
    no_more(errno.ENOSPC),
    no_more(errno.EMFILE),
    no_more(errno.EIO),
    MemoryError(),
    DiskFullError(1, 0),
    RuntimeError("can't start new thread"),
)


@pytest.mark.parametrize("error", LACKS, ids=repr)
async def test_it_is_done_again_until_the_machine_has_what_it_takes(autojump_clock, error):
    patience = Patience("nothing is written")
    tries = []

    async def work():
        tries.append(patience.problem)
        await trio.lowlevel.checkpoint()
        if len(tries) < 3:
            raise error
        return "done"

    assert await patience.until_done(work) == "done"
    assert tries[0] is None
    assert tries[1] == tries[2] == f"nothing is written: {lack(error)}"
    assert patience.problem is None


@pytest.mark.parametrize(
    "error", [LogError("damaged"), QuotaError(2, 1), RuntimeError("a bug"), KeyError("a bug")]
)
async def test_any_other_error_is_raised(autojump_clock, error):
    async def work():
        await trio.lowlevel.checkpoint()
        raise error

    with pytest.raises(type(error)) as caught:
        await Patience("nothing is written").until_done(work)
    assert caught.value is error


def test_of_a_group_every_part_has_to_be_a_lack():
    assert lack(ExceptionGroup("two", [MemoryError(), no_more(errno.ENOSPC)])) is not None
    assert lack(ExceptionGroup("two", [MemoryError(), LogError("damaged")])) is None
