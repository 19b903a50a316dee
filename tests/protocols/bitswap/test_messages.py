from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.bitswap import messages
from protocols.bitswap.messages import (
    MAX_FRAME_BYTES,
    Entry,
    Frames,
    Message,
    Payload,
    block_frame,
    decode,
    encode,
    name,
)
from protocols.transport import RemoteProtocolError
from storage import cid as cids
from storage.dag_pb import bytes_field, varint_field

RAW = cids.of_raw(b"chunk")
NODE = cids.of_dag_pb(b"node")

entries = st.builds(
    Entry,
    st.binary(min_size=1, max_size=168),
    st.integers(0, 2**31 - 1),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


def body(frame: bytes) -> bytes:
    (found,) = Frames().feed(frame, MAX_FRAME_BYTES)
    return found


@given(
    st.lists(entries, max_size=5),
    st.booleans(),
    st.lists(st.tuples(st.binary(min_size=1, max_size=168), st.booleans()), max_size=5),
    st.integers(0, 2**31 - 1),
    st.integers(1, 50),
)
def test_what_was_encoded_is_decoded_wherever_the_bytes_are_cut(
    wants, full, presences, pending, cut
):
    message = Message(tuple(wants), full, (), tuple(presences), pending)
    frame = encode(message)
    frames = Frames()
    found = [
        one
        for at in range(0, len(frame), cut)
        for one in frames.feed(frame[at : at + cut], MAX_FRAME_BYTES)
    ]
    assert [decode(one) for one in found] == [message]
    assert frames.held == 0


@given(st.binary(max_size=200))
def test_garbage_is_a_message_or_the_peers_fault_and_nothing_else(data):
    try:
        for frame in Frames().feed(data, 100):
            decode(frame)
    except RemoteProtocolError:
        pass


@given(st.binary(max_size=100))
def test_garbage_in_a_message_is_the_peers_fault_and_nothing_else(data):
    for field in (1, 2, 3, 4):
        with suppress(RemoteProtocolError):
            decode(bytes_field(field, data))


def test_a_message_of_kubos_is_read():
    # go-bitswap, want-block and want-have of one CIDv1 and one CIDv0, with a negative priority
    wants = bytes_field(
        1, bytes_field(1, RAW) + varint_field(2, 2**31 - 1) + varint_field(5, 1)
    ) + bytes_field(1, bytes_field(1, NODE[2:]) + varint_field(2, 2**64 - 1) + varint_field(4, 1))
    message = decode(bytes_field(1, wants + varint_field(2, 0)))
    assert message.entries[0] == Entry(bytes(RAW), 2**31 - 1, dont_have=True)
    assert message.entries[1].wire == NODE[2:]
    assert message.entries[1].have
    assert not message.full


def test_fields_of_a_later_version_are_skipped():
    later = varint_field(9, 1) + b"\x55\0\0\0\0" + b"\x59" + bytes(8) + bytes_field(12, b"?")
    assert decode(later + varint_field(5, 7)) == Message(pending=7)


def test_both_forms_of_a_cid_are_one_chunk_and_keep_their_prefix():
    assert messages.cid_of(NODE[2:]) == NODE == messages.cid_of(bytes(NODE))
    assert messages.prefix_of(NODE[2:]) == b"\x00\x70\x12\x20"
    assert messages.prefix_of(bytes(NODE)) == b"\x01\x70\x12\x20"


@pytest.mark.parametrize("wire", [bytes(RAW), bytes(NODE), NODE[2:]])
def test_a_block_is_named_by_its_own_hash(wire):
    data = b"chunk" if wire == RAW else b"node"
    message = decode(body(block_frame(wire, data) + data))
    assert [name(one) for one in message.blocks] == [messages.cid_of(wire)]
    other = Payload(message.blocks[0].prefix, b"other")
    assert name(other) != messages.cid_of(wire)


def test_a_block_of_the_oldest_version_has_no_prefix_and_is_a_node():
    frame = block_frame(NODE[2:], b"node", protocol=messages.OLDEST) + b"node"
    assert body(frame) == bytes_field(2, b"node")
    assert [name(one) for one in decode(body(frame)).blocks] == [NODE]


def test_chunks_of_other_hashes_and_too_large_ones_have_no_name():
    assert name(Payload(b"\x01\x55\xa0\xe4\x02\x20", b"blake2b")) is None
    assert name(Payload(b"", b"data")) is None
    assert name(Payload(b"\x01\x55\x12\x20", bytes(2**21 + 1))) is None


def test_a_frame_is_refused_by_its_length_before_it_has_come():
    with pytest.raises(RemoteProtocolError, match="a frame of 101 bytes where 100 are allowed"):
        list(Frames().feed(b"\x65", 100))
    with pytest.raises(RemoteProtocolError, match="does not end"):
        list(Frames().feed(b"\xff" * 6, 100))


def test_more_entries_than_allowed_are_refused():
    one = bytes_field(1, bytes_field(1, RAW))
    with pytest.raises(RemoteProtocolError, match="more than 8,192 entries"):
        decode(bytes_field(1, one * 8_193))
    with pytest.raises(RemoteProtocolError, match="more than 8,192 entries"):
        decode(bytes_field(4, bytes_field(1, RAW)) * 8_193)
    with pytest.raises(RemoteProtocolError, match="not of 0 to 168 bytes"):
        decode(bytes_field(1, bytes_field(1, bytes_field(1, bytes(169)))))


@pytest.mark.parametrize(
    "around",
    [lambda body: body, lambda body: bytes_field(1, body), lambda body: bytes_field(3, body)],
)
def test_more_fields_than_a_full_message_has_are_refused_wherever_they_stand(around):
    """Each costs a microsecond of the one thread that everything waits for."""
    full = Message(tuple(Entry(RAW, dont_have=True, have=True, cancel=True) for _ in range(8_192)))
    assert len(decode(body(encode(full))).entries) == 8_192
    with pytest.raises(RemoteProtocolError, match="more than 65,536 fields"):
        decode(around(varint_field(6, 0) * 65_537))
