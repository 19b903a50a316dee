"""A name's proof is enough by itself, and nothing less than all of it is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from protocols.consensus.messages import Certificate, Header, Kind, Vote
from swarm.chain import light
from swarm.chain.gathering import complete, is_complete
from swarm.chain.light import NameProof, ProofError, verify
from swarm.errors import NotFoundError, UsageError
from swarm.ledger.checkpoint import Checkpoint
from swarm.ledger.handoff import Handoff
from swarm.ledger.names import NameEntry
from swarm.ledger.transactions import NameRegister, NameUpdate
from tests.chain.world import ALICE, EPOCH, Asked, door, open_chain, silent
from tests.ledger.world import BASE, MERGED, make_genesis, signer


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    with open_chain(tmp_path_factory.mktemp("chain")) as made:
        assert made.run(ALICE, NameRegister("gpt", BASE)) == ""
        assert made.run(ALICE, NameUpdate("gpt", MERGED, 1, BASE)) == ""
        yield made


async def proof_at(alone, height, version=None) -> NameProof:
    alone.grow(height - alone.ledger.finalized_height())
    return NameProof.from_json(await door(alone).prove("gpt", version, silent))


@pytest.fixture(scope="module")
def proofs(alone):
    """Proofs by height, in epochs 0, 1, 2, and 4; the chain goes on to the end of epoch 5."""
    import trio

    async def make():
        return {height: await proof_at(alone, height) for height in (2, 7, 8, 9, 18)}

    made = trio.run(make)
    alone.grow(6 * EPOCH - alone.ledger.finalized_height())
    return made


def checkpoint(alone, height) -> Checkpoint:
    return Checkpoint(height, alone.ledger.block(height).id)


def test_the_genesis_alone_shows_names_of_the_first_two_epochs(alone, proofs):
    for height in (2, 7, 8):
        shown = verify(proofs[height], alone.genesis)
        assert (shown.name, shown.version, shown.root, shown.height) == ("gpt", 1, MERGED, height)
        assert shown.newest
        assert shown.by_signatures


def test_later_epochs_need_their_hand_offs_from_genesis(alone, proofs):
    source = Asked(alone)
    for height in (9, 18):
        with pytest.raises(ProofError, match="who decided in epoch"):
            verify(proofs[height], alone.genesis)
        assert not is_complete(proofs[height], alone.genesis)
        whole = complete(proofs[height], alone.genesis, source)
        assert is_complete(whole, alone.genesis)
        shown = verify(whole, alone.genesis)
        assert (shown.height, shown.since_ms) == (height, alone.genesis.timestamp_ms)


def test_a_checkpoint_of_the_proofs_own_block_needs_nothing_else(alone, proofs):
    for height, proof in proofs.items():
        shown = verify(proof, checkpoint(alone, height))
        assert shown.root == MERGED
        assert not shown.by_signatures


def test_a_later_checkpoint_needs_the_headers_between(alone, proofs):
    root = checkpoint(alone, 20)
    with pytest.raises(ProofError, match="no headers from there to the checkpoint"):
        verify(proofs[9], root)
    whole = complete(proofs[9], root, Asked(alone))
    assert len(whole.headers) == 11
    assert verify(whole, root).height == 9
    for at in (0, 5, 10):
        lacking = replace(whole, headers=whole.headers[:at] + whole.headers[at + 1 :])
        with pytest.raises(ProofError):
            verify(lacking, root)


def test_a_forged_block_before_the_checkpoints_own_chain_is_not_believed(alone, proofs):
    root = checkpoint(alone, 20)
    whole = complete(proofs[9], root, Asked(alone))
    forged = replace(Header.decode(whole.header), state_root=b"f" * 32)
    with pytest.raises(ProofError, match="does not follow it"):
        verify(replace(whole, header=forged.encode()), root)


def test_a_hand_off_that_its_epochs_validators_did_not_sign_hands_nothing_on(alone, proofs):
    whole = complete(proofs[18], alone.genesis, Asked(alone))
    for at in range(len(whole.handoffs)):
        true = Handoff.decode(whole.handoffs[at])
        vote = Vote.sign(
            signer("forger"), true.header.chain_id, Kind.FINALIZE, at, 0, true.header.id
        )
        signed = replace(true.finalization, signatures=((0, vote.signature),))
        handoffs = list(whole.handoffs)
        handoffs[at] = replace(true, finalization=signed).encode()
        with pytest.raises(ProofError, match="finalization of block"):
            verify(replace(whole, handoffs=tuple(handoffs)), alone.genesis)


def test_hand_offs_out_of_order_or_with_a_gap_hand_nothing_on(alone, proofs):
    whole = complete(proofs[18], alone.genesis, Asked(alone))
    for handoffs in (whole.handoffs[1:], whole.handoffs[::-1], whole.handoffs[:-1]):
        with pytest.raises(ProofError):
            verify(replace(whole, handoffs=handoffs), alone.genesis)


def test_an_earlier_checkpoint_needs_to_end_an_epoch_and_hands_on_from_there(alone, proofs):
    for height, shown_at in ((4, 9), (4, 18), (8, 9), (8, 18), (16, 18)):
        root = checkpoint(alone, height)
        whole = complete(proofs[shown_at], root, Asked(alone))
        shown = verify(whole, root)
        assert shown.by_signatures
        assert shown.since_ms == alone.ledger.block(height).timestamp_ms
    with pytest.raises(UsageError, match="does not end an epoch"):
        complete(proofs[18], checkpoint(alone, 5), Asked(alone))


def test_another_chains_checkpoint_or_genesis_shows_nothing(alone, proofs):
    for height in (9, 12, 20):
        wrong = Checkpoint(height, b"x" * 32)
        whole = complete(proofs[9], wrong, Asked(alone))
        with pytest.raises(ProofError, match=r"not the checkpoint's"):
            verify(whole, wrong)
    below = Checkpoint(8, b"x" * 32)
    with pytest.raises(ProofError, match="does not go back to the checkpoint"):
        verify(complete(proofs[9], below, Asked(alone)), below)
    with pytest.raises(ProofError, match="is of network"):
        verify(proofs[2], make_genesis([signer("validator")], [], epoch_length=EPOCH))


def test_a_chain_signed_by_somebody_else_is_not_taken(alone, proofs):
    """A forger can make everything but the signatures of the epoch's validators."""
    forger, proof = signer("forger"), proofs[2]
    header = Header.decode(proof.header)
    vote = Vote.sign(forger, header.chain_id, Kind.FINALIZE, header.epoch, header.view, header.id)
    forged = Certificate(
        Kind.FINALIZE, header.epoch, header.view, header.id, ((0, vote.signature),)
    )
    with pytest.raises(ProofError, match="finalization of block 2 does not hold"):
        verify(replace(proof, finalization=forged.encode()), alone.genesis)


def test_a_finalization_of_another_block_or_kind_shows_nothing(alone, proofs):
    with pytest.raises(ProofError, match="finalization"):
        verify(replace(proofs[2], finalization=proofs[7].finalization), alone.genesis)


def test_a_header_that_lies_about_its_epoch_is_not_checked_by_the_old_validators(alone, proofs):
    """Validators of epoch 1 who have left could sign a block of a later height as one of their epoch."""
    late = Header.decode(proofs[18].header)
    back = replace(late, epoch=1)
    vote = Vote.sign(
        signer("validator"), back.chain_id, Kind.FINALIZE, back.epoch, back.view, back.id
    )
    signed = Certificate(Kind.FINALIZE, 1, back.view, back.id, ((0, vote.signature),))
    with pytest.raises(ProofError, match="is not one of epoch 1"):
        verify(
            replace(proofs[18], header=back.encode(), finalization=signed.encode()), alone.genesis
        )


def test_another_root_version_or_name_is_not_what_the_state_holds(alone, proofs):
    proof = proofs[7]
    entry = NameEntry.decode(proof.value)
    from storage import canonical

    other = canonical.encode(replace(entry, root=BASE).pack())
    for lie in (
        replace(proof, value=other),
        replace(proof, name="gqt"),
        replace(proof, version=1),
        replace(proof, membership=proofs[9].membership),
    ):
        with pytest.raises(ProofError, match="does not hold that record"):
            verify(lie, alone.genesis)


async def test_an_old_version_is_shown_as_what_it_is_and_not_as_the_newest(alone):
    proof = NameProof.from_json(await door(alone).prove("gpt", 0, silent))
    height = proof.block.height
    shown = verify(proof, checkpoint(alone, height))
    assert (shown.version, shown.root, shown.newest) == (0, BASE, False)


async def test_an_unknown_name_or_version_is_not_found(alone):
    with pytest.raises(NotFoundError, match="nothing is called 'other'"):
        await door(alone).prove("other", None, silent)
    with pytest.raises(NotFoundError, match="versions 0 to 1, not 2"):
        await door(alone).prove("gpt", 2, silent)


def test_a_file_comes_back_as_it_was_written(alone, proofs):
    whole = complete(proofs[18], alone.genesis, Asked(alone))
    assert NameProof.read(json.dumps(whole.to_json()).encode()) == whole


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 1}',
        b'{"format": 1, "name": 7}',
        b'{"format": 1, "name": "a", "version": true}',
        b"[" * 10_000,
        b"\xff",
    ],
)
def test_a_file_that_is_no_proof_is_named_as_such(data):
    with pytest.raises(UsageError, match="not a proof of a name"):
        NameProof.read(data)


@given(data=st.data())
@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_a_proof_with_any_byte_changed_shows_the_same_or_nothing(alone, proofs, data):
    whole = complete(proofs[18], alone.genesis, Asked(alone))
    field = data.draw(
        st.sampled_from(["value", "membership", "header", "finalization", "handoffs"])
    )
    if field == "handoffs":
        at = data.draw(st.integers(0, len(whole.handoffs) - 1))
        changed = mutated(data, whole.handoffs[at])
        lie = replace(whole, handoffs=(*whole.handoffs[:at], changed, *whole.handoffs[at + 1 :]))
    else:
        lie = replace(whole, **{field: mutated(data, getattr(whole, field))})
    try:
        shown = verify(lie, alone.genesis)
    except ProofError:
        return
    assert (shown.root, shown.height) == (MERGED, 18)


def mutated(data, original: bytes) -> bytes:
    at = data.draw(st.integers(0, len(original) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "add", "drop"]))
    if change == "flip":
        return (
            original[:at]
            + bytes([original[at] ^ data.draw(st.integers(1, 255))])
            + original[at + 1 :]
        )
    if change == "cut":
        return original[:at]
    if change == "drop":
        return original[:at] + original[at + 1 :]
    return original[:at] + data.draw(st.binary(min_size=1, max_size=4)) + original[at:]


def test_a_checkpoint_far_after_the_proof_is_refused_before_anything_is_asked(alone, proofs):
    source = Asked(alone)
    with pytest.raises(UsageError, match="more than"):
        complete(proofs[2], Checkpoint(3 + light.MAX_HEADERS, b"x" * 32), source)
    assert source.asked == 0
