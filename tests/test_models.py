"""A name is proven against a block that its validators signed, or it is not told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from protocols.consensus.messages import verify_certificate
from swarm import models
from swarm.errors import NotFoundError, SwarmError
from swarm.ledger.transactions import NameRegister, NameUpdate
from tests.ledger.alone import ALICE, open_alone
from tests.ledger.world import BASE, MERGED


@pytest.fixture
def alone(tmp_path):
    with open_alone(tmp_path) as made:
        yield made


@pytest.fixture
def named(alone):
    assert alone.run(ALICE, NameRegister("gpt", BASE)) == ""
    assert alone.run(ALICE, NameUpdate("gpt", MERGED, 1, BASE)) == ""
    return alone


def test_the_latest_and_every_earlier_version_are_proven(named) -> None:
    latest = models.prove(named.ledger, "gpt")
    assert (latest.entry.version, latest.entry.root) == (1, MERGED)
    assert latest.block.height == 2
    first = models.prove(named.ledger, "gpt", 0)
    assert (first.entry.version, first.entry.root) == (0, BASE)
    assert latest.to_json()["signatures"] == 1
    assert verify_certificate(
        latest.finalization, named.ledger.chain_id, named.ledger.validators(0)
    )


def test_an_unknown_name_or_version_is_not_found_and_the_height_is_told(alone, named) -> None:
    with pytest.raises(NotFoundError, match="at height 2"):
        models.prove(named.ledger, "other")
    for version in (2, -1):
        with pytest.raises(NotFoundError, match="versions 0 to 1"):
            models.prove(named.ledger, "gpt", version)


def test_before_the_first_block_no_name_is_known(alone) -> None:
    with pytest.raises(NotFoundError, match="at height 0"):
        models.prove(alone.ledger, "gpt")


def changed_proof(block, finalization, value, proof):
    return block, finalization, value, proof[:-1] + bytes([proof[-1] ^ 1])


def changed_value(block, finalization, value, proof):
    return block, finalization, value[:-1] + bytes([value[-1] ^ 1]), proof


def changed_signature(block, finalization, value, proof):
    ((at, signature),) = finalization.signatures
    forged = ((at, bytes([signature[0] ^ 1]) + signature[1:]),)
    return block, replace(finalization, signatures=forged), value, proof


def no_value(block, finalization, _value, proof):
    return block, finalization, None, proof


@pytest.mark.parametrize("damage", [changed_proof, changed_value, changed_signature, no_value])
def test_a_proof_that_does_not_hold_is_not_given(named, monkeypatch, damage) -> None:
    prove = named.ledger.prove
    monkeypatch.setattr(named.ledger, "prove", lambda key: damage(*prove(key)))
    with pytest.raises(SwarmError, match="does not hold"):
        models.prove(named.ledger, "gpt")


def test_a_block_that_is_final_by_its_descendant_proves_nothing_yet(named, monkeypatch) -> None:
    prove = named.ledger.prove
    other = named.ledger.blocks(1, 1)[0][1]
    monkeypatch.setattr(named.ledger, "prove", lambda key: (prove(key)[0], other, *prove(key)[2:]))
    assert models.prove(named.ledger, "gpt") is None
