"""Whatever a node of IPFS sends, cut wherever the network cuts it, is messages or a protocol error."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from protocols.bitswap import messages
from protocols.bitswap.messages import Entry, Frames, Message
from protocols.transport import RemoteProtocolError
from storage import cid
from storage.dag_pb import bytes_field, varint
from tests.fuzz.fuzzing import FUZZ, Target, changed, check

WIRE = bytes(cid.of_raw(b"one"))
OLD = bytes(cid.of_dag_pb(b"two"))[2:]
WANTS = Message(
    (Entry(WIRE, 3, False, True, True), Entry(OLD, 1, True, False, False)),
    full=True,
    presences=((WIRE, True), (OLD, False)),
    pending=99,
)


def body(frame: bytes) -> bytes:
    (only,) = Frames().feed(frame, 2**20)
    return only


BLOCK = messages.block_frame(WIRE, b"one") + b"one"
OLDEST = messages.block_frame(WIRE, b"one", protocol=messages.OLDEST) + b"one"
VALID = (body(messages.encode(WANTS)), body(BLOCK), body(OLDEST))


def read(frame: bytes) -> Message:
    """A message, and all that this node does with its parts before it believes them."""
    found = messages.decode(frame)
    for one in found.blocks:
        messages.name(one)
    for wire in [entry.wire for entry in found.entries] + [wire for wire, _ in found.presences]:
        known = messages.cid_of(wire)
        if known is not None:
            assert messages.forms_of(known)
    return found


def test_any_bytes_are_a_message_or_refused_by_name():
    check(Target("message", read, RemoteProtocolError, VALID))


def test_a_field_of_another_kind_than_it_should_be_is_refused_or_passed_over():
    for number in range(7):
        for inner in (b"", varint(7), bytes_field(1, b"x"), b"\x08\x01", b"\x0d" + bytes(4)):
            for outer in (bytes_field(number, inner), varint(number << 3) + varint(1)):
                try:
                    read(outer)
                except RemoteProtocolError:
                    continue


@FUZZ
@given(
    st.binary(max_size=60) | changed((messages.encode(WANTS) + BLOCK, BLOCK + OLDEST)),
    st.lists(st.integers(0, 2**16), max_size=5),
)
def test_frames_are_the_same_wherever_the_bytes_are_cut(data, cuts):
    def fed(at):
        frames, found = Frames(), []
        edges = [0, *sorted(cut % (len(data) + 1) for cut in at), len(data)]
        try:
            for start, end in itertools.pairwise(edges):
                found += frames.feed(data[start:end], 2**12)
        except RemoteProtocolError:
            return found, "refused"
        return found, frames.held

    whole, parts = fed(()), fed(cuts)
    assert whole[1] == parts[1]
    if whole[1] != "refused":
        assert whole[0] == parts[0]
