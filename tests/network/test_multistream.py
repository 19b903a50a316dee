from __future__ import annotations

from contextlib import suppress

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from protocols.transport import RemoteProtocolError
from swarm.network import multistream


class Pipe:
    """Answers with given bytes and keeps what is sent."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.sent = b""

    async def receive_some(self, max_bytes: int) -> bytes:
        part, self.data = self.data[:max_bytes], self.data[max_bytes:]
        return part

    async def send_all(self, data: bytes) -> None:
        self.sent += data


LINES = b"\x13/multistream/1.0.0\n"


async def test_the_opener_sends_header_and_choice_together():
    pipe = Pipe(LINES + b"\x03/a\n")
    assert await multistream.propose(pipe, ["/a"]) == "/a"
    assert pipe.sent == LINES + b"\x03/a\n"


async def test_the_second_choice_is_proposed_when_the_first_is_not_spoken():
    pipe = Pipe(LINES + b"\x03na\n" + b"\x03/b\n")
    assert await multistream.propose(pipe, ["/a", "/b"]) == "/b"
    with pytest.raises(multistream.NotSpokenError):
        await multistream.propose(Pipe(LINES + b"\x03na\n"), ["/a"])


async def test_the_answerer_lists_refuses_and_accepts():
    pipe = Pipe(LINES + b"\x03ls\n" + b"\x03/x\n" + b"\x03/b\n")
    assert await multistream.accept(pipe, ["/b", "/a"]) == "/b"
    assert pipe.sent == LINES + b"\x09\x03/a\n\x03/b\n\n" + b"\x03na\n" + b"\x03/b\n"


async def test_a_protocol_that_is_not_admitted_is_answered_as_not_spoken():
    async def nobody(protocol: str) -> bool:
        return False

    pipe = Pipe(LINES + b"\x03/a\n")
    with pytest.raises(RemoteProtocolError):
        await multistream.accept(pipe, ["/a"], nobody)
    assert pipe.sent == LINES + b"\x03na\n"


async def test_proposals_have_an_end():
    with pytest.raises(RemoteProtocolError, match="too many"):
        await multistream.accept(Pipe(LINES + b"\x03/x\n" * 100), ["/a"])


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_choose_a_protocol_or_break_the_rules(data, with_header):
    async def main() -> None:
        for act in (multistream.accept, multistream.propose):
            with suppress(RemoteProtocolError):
                assert await act(Pipe((LINES if with_header else b"") + data), ["/a"]) == "/a"

    trio.run(main)
