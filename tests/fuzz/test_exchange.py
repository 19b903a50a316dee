"""Whatever a peer sends in the exchange, cut wherever the network cuts it, is messages or a protocol error."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.exchange.messages import (
    ANSWERS,
    REQUESTS,
    Block,
    Cancel,
    Decoder,
    DontHave,
    Have,
    Query,
    Want,
    encode,
)
from protocols.transport import RemoteProtocolError
from storage import cid
from tests.fuzz.fuzzing import FUZZ, changed

ONE, TWO = cid.of_raw(b"one"), cid.of_dag_pb(b"two")
ASKED = (Want((ONE, TWO)), Cancel((ONE,)), Query((TWO, ONE)))
ANSWERED = (Block(ONE, b"one"), DontHave((TWO,)), Have(()), Have((ONE,)))
SIDES = [(REQUESTS, False, ASKED), (ANSWERS, True, ANSWERED)]


def fed(lists, blocks, data, cuts):
    decoder = Decoder(lists, blocks=blocks)
    found = []
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        found += decoder.feed(data[start:end])
    return found, decoder.is_between


@pytest.mark.parametrize(("lists", "blocks", "valid"), SIDES, ids=["requests", "answers"])
def test_any_bytes_are_messages_or_refused_by_name(lists, blocks, valid):
    whole = b"".join(encode(one) for one in valid)

    @FUZZ
    @given(
        st.binary(max_size=80) | changed((whole, *(encode(one) for one in valid))),
        st.lists(st.integers(0, 2**16), max_size=5),
    )
    def look(data, cuts):
        try:
            found, is_between = fed(lists, blocks, data, cuts)
        except RemoteProtocolError:
            with pytest.raises(RemoteProtocolError):
                fed(lists, blocks, data, ())
            return
        assert (found, is_between) == fed(lists, blocks, data, ())
        if is_between:
            assert b"".join(encode(one) for one in found) == data

    look()
    assert fed(lists, blocks, whole, ()) == ([*valid], True)
