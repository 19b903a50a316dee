"""Commits as bytes: one encoding, one name, one author."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cbor2
import libipld
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols import signing
from storage import cid as cids
from storage import dag
from swarm.errors import UsageError
from swarm.versions.commit import (
    MAX_COMMIT_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_PARENTS,
    TAG,
    CommitError,
    decode,
    encode,
    make,
)
from tests.versions.world import ALICE, BOB, TREE, Commits

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "commits.json").read_text())


def signed(values: dict[str, object]) -> tuple[cids.Cid, bytes]:
    """A block of any values with a signature that fits them."""
    bare = {key: value for key, value in values.items() if key != "signature"}
    signature = ALICE.sign(TAG, cbor2.dumps(bare, canonical=True))
    block = cbor2.dumps({**bare, "signature": signature}, canonical=True)
    return cids.of_dag_cbor(block), block


def values_of(block: bytes) -> dict[str, object]:
    return cbor2.loads(block)


@pytest.mark.parametrize("vector", VECTORS["commits"], ids=lambda one: one["message"])
def test_the_bytes_of_a_commit_are_pinned(vector):
    block = bytes.fromhex(vector["block"])
    cid = cids.parse(vector["cid"])
    assert cids.matches(cid, block)
    commit = decode(cid, block)
    assert commit.cid == cid
    assert encode(commit) == block
    assert commit.message == vector["message"]
    assert commit.height == vector["height"]
    assert [cids.text(one) for one in commit.parents] == vector["parents"]
    assert signing.peer_id(commit.author) == vector["author"]


def test_a_commit_is_dag_cbor_whose_links_are_its_parents_and_its_tree():
    commits = Commits()
    first, second = commits.add(message="one"), commits.add(message="two")
    merged = commits.add(first, second)
    block = encode(commits.by_cid[merged])
    assert libipld.encode_dag_cbor(libipld.decode_dag_cbor(block)) == block
    assert {link.cid for link in dag.links(merged, block)} == {TREE, first, second}


@given(st.text(min_size=1).filter(str.strip), st.integers(0, 2**40))
def test_every_commit_is_read_as_it_was_made(message, time_s):
    commit = make(ALICE, TREE, [], message, time_s)
    assert decode(commit.cid, encode(commit)) == commit


def test_a_commit_that_somebody_else_signed_is_refused_with_both_names():
    commit = make(ALICE, TREE, [], "mine", 0)
    forged = dataclasses.replace(commit, author=BOB.public_key)
    with pytest.raises(CommitError, match=BOB.peer_id) as raised:
        decode(forged.cid, encode(forged))
    assert cids.text(forged.cid) in raised.value.message


@pytest.mark.parametrize(
    "change",
    [{"message": "hers"}, {"time_s": 1}, {"root": cids.of_dag_pb(b"another")}, {"height": 1 << 8}],
    ids=str,
)
def test_nothing_of_a_commit_can_be_changed_without_its_author(change):
    commits = Commits()
    child = commits.by_cid[commits.add(commits.add())]
    forged = dataclasses.replace(child, **change)
    with pytest.raises(CommitError):
        decode(forged.cid, encode(forged))


def test_a_signature_for_another_purpose_does_not_count():
    commit = make(ALICE, TREE, [], "mine", 0)
    values = values_of(encode(commit))
    bare = {key: value for key, value in values.items() if key != "signature"}
    values["signature"] = ALICE.sign(b"swarm/tx", cbor2.dumps(bare, canonical=True))
    block = cbor2.dumps(values, canonical=True)
    with pytest.raises(CommitError, match="not signed"):
        decode(cids.of_dag_cbor(block), block)


_RAW = cbor2.CBORTag(42, b"\x00" + cids.of_raw(b"a chunk"))
_COMMIT = cbor2.CBORTag(42, b"\x00" + cids.of_dag_cbor(b"a commit"))


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "swarm/commit/2"},
        {"extra": 1},
        {"root": _RAW},
        {"root": bytes(TREE)},
        {"root": _COMMIT},
        {"parents": [_RAW]},
        {"parents": [_COMMIT, _COMMIT], "height": 2},
        {"parents": [bytes(37)]},
        {"height": 0},
        {"height": 7},
        {"height": True},
        {"time": -1},
        {"time": 1.5},
        {"time": 2**41},
        {"author": bytes(31)},
        {"author": _COMMIT},
        {"message": ""},
        {"message": b"bytes"},
        {"message": "m" * (MAX_MESSAGE_BYTES + 1)},
    ],
    ids=lambda change: str(change)[:40],
)
def test_values_of_another_type_or_out_of_bounds_are_refused_though_signed(change):
    values = values_of(encode(make(ALICE, TREE, [], "fine", 5)))
    good_cid, good = signed(values)
    decode(good_cid, good)
    with pytest.raises(CommitError):
        decode(*signed({**values, **change}))


def test_a_second_spelling_of_the_same_values_is_refused():
    values = values_of(encode(make(ALICE, TREE, [], "fine", 5)))
    unsorted = cbor2.dumps(dict(reversed(values.items())), canonical=False)
    longer = encode(make(ALICE, TREE, [], "fine", 5)).replace(b"dtime\x05", b"dtime\x18\x05")
    for block in (unsorted, longer, encode(make(ALICE, TREE, [], "fine", 5)) + b"\x00"):
        with pytest.raises(CommitError):
            decode(cids.of_dag_cbor(block), block)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_commit_or_a_commit_error(block):
    with pytest.raises(CommitError):
        decode(cids.of_dag_cbor(block), block)


@given(st.data())
def test_a_commit_with_one_byte_changed_is_refused(data):
    block = bytearray(encode(make(ALICE, TREE, [], "fine", 5)))
    at = data.draw(st.integers(0, len(block) - 1))
    block[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CommitError):
        decode(cids.of_dag_cbor(block), bytes(block))


def test_the_largest_commit_fits_into_its_bound():
    commits = Commits()
    parents = [commits.add(message=str(number)) for number in range(MAX_PARENTS)]
    largest = commits.by_cid[commits.add(*parents, message="m" * MAX_MESSAGE_BYTES, time_s=2**40)]
    assert len(encode(largest)) <= MAX_COMMIT_BYTES
    assert decode(largest.cid, encode(largest)) == largest


@pytest.mark.parametrize("message", ["", "  \n", "\ud800", "m" * (MAX_MESSAGE_BYTES + 1)])
def test_a_message_that_says_nothing_or_too_much_is_refused(message):
    with pytest.raises(UsageError):
        make(ALICE, TREE, [], message, 0)
