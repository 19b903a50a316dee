"""Whatever a hand-off or the file of a proof holds, it is read or refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.consensus.errors import MessageError
from protocols.consensus.messages import Certificate, Header, Kind
from swarm.chain.light import NameProof, ProofError, verify
from swarm.errors import UsageError
from swarm.ledger.checkpoint import Checkpoint
from swarm.ledger.handoff import Handoff
from tests.fuzz.fuzzing import FUZZ, Target, changed, check
from tests.ledger.world import make_genesis, signer

ME = signer("me")
GENESIS = make_genesis([ME], [])
HEADER = Header(GENESIS.chain_id, 0, 1, 10, b"p" * 32, 5, ME.public_key, b"s" * 32, b"h" * 32)
SIGNED = Certificate(Kind.FINALIZE, 0, 1, HEADER.id, ((0, b"s" * 64),))
HANDOFF = Handoff(HEADER, SIGNED, (b"one", b"two"), (b"proof", b"proof"))
PROOF = NameProof(
    "gpt", None, b"v", b"m", HEADER.encode(), SIGNED.encode(), (HANDOFF.encode(),), (b"h",)
)
FILE = json.dumps(PROOF.to_json()).encode()


def test_a_hand_off_of_any_bytes_is_read_or_refused_by_name():
    check(Target("hand-off", Handoff.decode, MessageError, (HANDOFF.encode(),), Handoff.encode))


def test_the_file_is_read_as_it_was_written():
    assert NameProof.read(FILE) == PROOF


@pytest.mark.parametrize("root", [GENESIS, Checkpoint(10, HEADER.id), Checkpoint(20, b"x" * 32)])
def test_a_proof_of_any_bytes_shows_nothing_and_is_refused_by_name(root):
    @FUZZ
    @given(changed((FILE,)) | st.binary(max_size=60))
    def look(data):
        with pytest.raises((UsageError, ProofError)):
            verify(NameProof.read(data), root)

    look()
