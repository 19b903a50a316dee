"""Whatever a keeper or an auditor sends is well-formed, or an audit message error."""

from __future__ import annotations

import pytest

from protocols.audit import messages
from protocols.audit.errors import AuditMessageError
from protocols.audit.messages import (
    INNER_HASHES,
    AskHeld,
    AskLeaves,
    AskSlot,
    LeafAnswer,
    SlotAnswer,
)
from storage import canonical
from storage.sealing import LEAF_BYTES, SLOT_BYTES
from storage.slot_tree import LABEL_BYTES
from tests.fuzz.fuzzing import Target, check

HASH = b"h" * 32
LEAF = LeafAnswer(bytes(LEAF_BYTES), bytes(LABEL_BYTES), [HASH] * INNER_HASHES, [HASH] * 3)
SLOT = SlotAnswer(bytes(SLOT_BYTES), bytes(LABEL_BYTES), [HASH])
REQUESTS = (AskLeaves(4), AskSlot(4, 77), AskHeld(4, b"d" * 32, 3))
NOTHING = messages.encode_nothing()


def count(number: int) -> bytes:
    return messages.encode_count(number) if number else NOTHING


TARGETS = [
    Target(
        "request",
        messages.decode_request,
        AuditMessageError,
        tuple(one.encode() for one in REQUESTS),
        lambda request: request.encode(),
    ),
    Target("leaf", LeafAnswer.decode, AuditMessageError, (LEAF.encode(),), LeafAnswer.encode),
    Target(
        "slot",
        SlotAnswer.decode,
        AuditMessageError,
        (SLOT.encode(), NOTHING),
        lambda slot: NOTHING if slot is None else slot.encode(),
    ),
    Target("leaf count", messages.decode_leaf_count, AuditMessageError, (count(9), NOTHING), count),
    Target(
        "block count", messages.decode_block_count, AuditMessageError, (count(9), NOTHING), count
    ),
    Target(
        "block",
        messages.decode_block,
        AuditMessageError,
        (canonical.encode([b"block"]),),
        messages.encode_block,
    ),
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_any_bytes_are_accepted_or_refused_by_name(target):
    check(target)
