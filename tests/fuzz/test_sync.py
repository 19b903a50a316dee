"""Whatever a peer asks or answers in sync is well-formed, or a sync message error."""

from __future__ import annotations

import pytest

from protocols.sync import messages, snapshot_messages
from protocols.sync.errors import SyncMessageError
from protocols.sync.messages import AskBlocks, AskGenesis, AskProof, AskTip, Proof
from protocols.sync.snapshot_messages import AskHandoffs, AskHoldings, AskRanges, Holdings
from storage import canonical
from tests.fuzz.fuzzing import Target, check

ASKED = (AskGenesis(), AskTip(), AskBlocks(7, 12), AskProof(b"n/gpt"))
ASKED_OF_SNAPSHOTS = (
    AskHoldings(),
    AskHandoffs(3, 9),
    AskRanges(600, b"\x00" * 32, b"\xff" * 32),
)


def encoded(asked) -> tuple[bytes, ...]:
    return tuple(one.encode() for one in asked)


TARGETS = [
    Target("request", messages.decode_request, SyncMessageError, encoded(ASKED)),
    Target(
        "genesis",
        messages.decode_genesis,
        SyncMessageError,
        (messages.encode_genesis(b"g" * 40),),
        messages.encode_genesis,
    ),
    Target(
        "tip", messages.decode_tip, SyncMessageError, (messages.encode_tip(9),), messages.encode_tip
    ),
    Target(
        "pair",
        messages.decode_pair,
        SyncMessageError,
        (messages.encode_pair(b"b" * 9, b"f" * 5),),
        lambda pair: messages.encode_pair(*pair),
    ),
    Target(
        "gossip",
        messages.decode_gossip,
        SyncMessageError,
        (canonical.encode([3, b"block", b"signatures"]),),
        lambda fields: canonical.encode(list(fields)),
    ),
    Target(
        "proof",
        Proof.decode,
        SyncMessageError,
        (Proof(b"h", b"f", b"v", b"p").encode(), Proof(b"h", b"f", None, b"p").encode(), b"\x80"),
        lambda proof: b"\x80" if proof is None else proof.encode(),
    ),
    Target(
        "snapshot request",
        snapshot_messages.decode_request,
        SyncMessageError,
        encoded(ASKED_OF_SNAPSHOTS),
    ),
    Target(
        "holdings",
        Holdings.decode,
        SyncMessageError,
        (Holdings(5, (600, 1200)).encode(),),
        Holdings.encode,
    ),
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_any_bytes_are_accepted_or_refused_by_name(target):
    check(target)
