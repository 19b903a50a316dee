from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.exchange.messages import (
    ANSWERS,
    MAX_BLOCK_BYTES,
    MAX_CIDS,
    REQUESTS,
    Block,
    Cancel,
    Decoder,
    DontHave,
    Have,
    Query,
    Want,
    encode,
    encode_all,
)
from protocols.transport import RemoteProtocolError
from storage.cid import of_dag_pb, of_raw

CIDS = st.lists(st.binary(max_size=4).map(of_raw), min_size=1, max_size=5).map(tuple)
ANSWER = st.one_of(
    st.binary(max_size=300).map(lambda data: Block(of_raw(data), data)),
    CIDS.map(DontHave),
    CIDS.map(Have),
    st.just(Have(())),
)
REQUEST = st.one_of(CIDS.map(Want), CIDS.map(Cancel), CIDS.map(Query))


def fed(decoder: Decoder, data: bytes, cuts: list[int]) -> list:
    found = []
    start = 0
    for end in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        found += decoder.feed(data[start:end])
        start = end
    return found


@given(st.lists(ANSWER, max_size=6), st.lists(st.integers(0, 2_000), max_size=20))
def test_answers_come_out_as_they_went_in_wherever_the_bytes_are_cut(answers, cuts):
    decoder = Decoder(ANSWERS, blocks=True)
    assert fed(decoder, b"".join(map(encode, answers)), cuts) == answers
    assert decoder.is_between


@given(st.lists(REQUEST, max_size=6), st.lists(st.integers(0, 2_000), max_size=20))
def test_requests_come_out_as_they_went_in_wherever_the_bytes_are_cut(requests, cuts):
    assert fed(Decoder(REQUESTS, blocks=False), b"".join(map(encode, requests)), cuts) == requests


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8), st.booleans())
def test_any_bytes_are_accepted_or_refused_as_the_peers_fault(data, cuts, is_asking):
    decoder = Decoder(ANSWERS, blocks=True) if is_asking else Decoder(REQUESTS, blocks=False)
    with contextlib.suppress(RemoteProtocolError):
        fed(decoder, data, cuts)


@given(st.lists(ANSWER, min_size=1, max_size=3), st.integers(0, 2_000), st.integers(1, 255))
def test_a_changed_byte_is_accepted_or_refused_as_the_peers_fault(answers, place, change):
    data = bytearray(b"".join(map(encode, answers)))
    data[place % len(data)] ^= change
    with contextlib.suppress(RemoteProtocolError):
        Decoder(ANSWERS, blocks=True).feed(bytes(data))


@pytest.mark.parametrize(
    "head",
    [
        (MAX_BLOCK_BYTES + 1).to_bytes(4, "big") + b"\x04",
        (2**32 - 1).to_bytes(4, "big") + b"\x04",
        (0).to_bytes(4, "big") + b"\x04",
        (36).to_bytes(4, "big") + b"\x04",
        (1 + 36 * (MAX_CIDS + 1)).to_bytes(4, "big") + b"\x05",
        (2).to_bytes(4, "big") + b"\x05",
        (1).to_bytes(4, "big") + b"\x05",
        (37).to_bytes(4, "big") + b"\x01",
        (37).to_bytes(4, "big") + b"\x00",
        (37).to_bytes(4, "big") + b"\x07",
    ],
)
def test_a_head_that_is_not_allowed_is_refused_before_its_body_comes(head):
    with pytest.raises(RemoteProtocolError):
        Decoder(ANSWERS, blocks=True).feed(head)


def test_a_block_is_refused_where_only_requests_may_come():
    with pytest.raises(RemoteProtocolError):
        Decoder(REQUESTS, blocks=False).feed(encode(Block(of_raw(b"x"), b"x")))


def test_the_largest_frames_are_accepted():
    decoder = Decoder(ANSWERS, blocks=True)
    data = bytes(2 * 2**20)
    assert decoder.feed(encode(Block(of_raw(data), data))) == [Block(of_raw(data), data)]
    many = tuple(of_raw(b"%d" % n) for n in range(MAX_CIDS))
    assert decoder.feed(encode(DontHave(many))) == [DontHave(many)]


def test_single_bytes_do_not_pile_up_as_pieces():
    decoder = Decoder(ANSWERS, blocks=True)
    data = encode(Block(of_raw(bytes(20_000)), bytes(20_000)))
    for at in range(len(data) - 1):
        decoder.feed(data[at : at + 1])
    assert len(decoder._parts) < 8
    assert decoder.feed(data[-1:]) == [Block(of_raw(bytes(20_000)), bytes(20_000))]


def test_a_long_list_becomes_several_frames():
    many = tuple(of_raw(b"%d" % n) for n in range(MAX_CIDS + 1))
    assert Decoder(REQUESTS, blocks=False).feed(encode_all(Want, many)) == [
        Want(many[:-1]),
        Want(many[-1:]),
    ]
    assert encode_all(Want, ()) == b""


def test_the_bytes_of_each_message_are_pinned():
    chunk, node = of_raw(b"chunk"), of_dag_pb(b"")
    assert encode(Want((chunk, node))) == b"\0\0\0\x49\x01" + chunk + node
    assert encode(Cancel((chunk,))) == b"\0\0\0\x25\x02" + chunk
    assert encode(Query((chunk,))) == b"\0\0\0\x25\x03" + chunk
    assert encode(Block(chunk, b"chunk")) == b"\0\0\0\x2a\x04" + chunk + b"chunk"
    assert encode(DontHave((chunk,))) == b"\0\0\0\x25\x05" + chunk
    assert encode(Have(())) == b"\0\0\0\x01\x06"
