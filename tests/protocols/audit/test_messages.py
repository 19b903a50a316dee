from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.audit import messages
from protocols.audit.errors import AuditMessageError
from protocols.audit.messages import AskHeld, AskLeaves, AskSlot, LeafAnswer, SlotAnswer
from storage import canonical
from storage.sealing import LEAF_BYTES, SLOT_BYTES

HASH, LABEL = b"h" * 32, b"l" * 72
DECODERS = (
    messages.decode_request,
    messages.decode_leaf_count,
    messages.decode_block_count,
    messages.decode_block,
    LeafAnswer.decode,
    SlotAnswer.decode,
)


def test_requests_come_back_and_their_bytes_are_pinned():
    asked = {
        AskLeaves(7): "820107",
        AskSlot(7, 1000): "8302071903e8",
        AskHeld(7, b"d" * 32, 3): "8403075820" + "64" * 32 + "03",
    }
    for request, pinned in asked.items():
        assert request.encode().hex() == pinned
        assert messages.decode_request(request.encode()) == request


def test_answers_come_back():
    leaf = LeafAnswer(b"x" * LEAF_BYTES, LABEL, [HASH] * 8, [HASH] * 33)
    assert LeafAnswer.decode(leaf.encode()) == leaf
    slot = SlotAnswer(b"x" * SLOT_BYTES, LABEL, [HASH] * 33)
    assert SlotAnswer.decode(slot.encode()) == slot
    assert SlotAnswer.decode(messages.encode_nothing()) is None
    assert messages.decode_leaf_count(messages.encode_nothing()) == 0
    assert messages.decode_leaf_count(messages.encode_count(4096)) == 4096
    assert messages.decode_block(messages.encode_block(b"x" * 2**21)) == b"x" * 2**21


@pytest.mark.parametrize(
    "value",
    [
        [],
        [1],
        [1, -1],
        [1, 2**63],
        [1, True],
        [4, 1],
        [2, 1, 2**32],
        [2, 1, -1],
        [3, 1, b"short", 0],
        [3, 1, b"d" * 32, 1024],
        [1, 1, 1],
        "text",
        7,
    ],
)
def test_requests_that_are_not_allowed_are_refused(value):
    with pytest.raises(AuditMessageError):
        messages.decode_request(canonical.encode(value))


@pytest.mark.parametrize(
    "value",
    [
        [b"x" * 4095, LABEL, [HASH] * 8, []],
        [b"x" * 4096, LABEL[1:], [HASH] * 8, []],
        [b"x" * 4096, LABEL, [HASH] * 7, []],
        [b"x" * 4096, LABEL, [HASH] * 8, [HASH] * 34],
        [b"x" * 4096, LABEL, [HASH] * 8, [HASH[1:]]],
        [b"x" * 4096, LABEL, [HASH] * 7 + [3], []],
        [b"x" * 4096, LABEL, [HASH] * 8],
    ],
)
def test_leaves_that_are_not_whole_are_refused(value):
    with pytest.raises(AuditMessageError):
        LeafAnswer.decode(canonical.encode(value))


def test_counts_over_the_limits_are_refused():
    for wrong in (messages.MAX_LEAVES + 1, 0, -1):
        with pytest.raises(AuditMessageError):
            messages.decode_leaf_count(messages.encode_count(wrong))
    with pytest.raises(AuditMessageError):
        messages.decode_block_count(messages.encode_count(97))


@given(st.binary(max_size=200))
def test_whatever_the_bytes_there_is_one_error(data):
    for decode in DECODERS:
        try:
            decode(data)
        except AuditMessageError:
            continue
