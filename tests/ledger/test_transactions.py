from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols import signing
from storage import canonical
from storage.state_store import StateStore
from swarm.ledger import payloads, transactions
from swarm.ledger.application import LedgerApplication
from swarm.ledger.errors import GenesisError, LedgerError, TransactionError
from swarm.ledger.genesis import CAP, RANGES, Genesis, GenesisValidator, Params
from swarm.ledger.state import Phases, Refusal, refusal
from swarm.ledger.transactions import (
    AuditReport,
    CapacityAnswer,
    CapacityCommit,
    CheckpointCommit,
    CheckpointReveal,
    DatasetPublish,
    Evidence,
    KeepEnd,
    KeepPost,
    MergeAttest,
    NameRegister,
    NameUpdate,
    Register,
    ReplayFinding,
    ReplaySeal,
    ScoreCommit,
    ScoreReveal,
    Stake,
    TaskPost,
    Transfer,
    Unjail,
    Unstake,
    Withdraw,
)
from swarm.ledger.vrf import VrfKey
from tests.ledger.world import BASE, MERGED, SALT, make_genesis, root, signer

ALICE = signer("alice")
CHAIN = b"c" * 32
TASK = b"t" * 32
PROOF = (0,) * 16
VECTORS = Path(__file__).parent.parent / "vectors" / "ledger.json"
PAYLOADS = [
    Transfer(b"b" * 32, 7),
    Stake(1),
    Unstake(2),
    Withdraw(),
    Register(VrfKey.of(b"v" * 32).public_key, "cpu", ("keeper", "worker")),
    DatasetPublish(root("data"), 10, 1, "CC0-1.0"),
    NameRegister("tiny-gpt", BASE),
    NameUpdate("tiny-gpt", MERGED, 1, BASE),
    TaskPost(
        "tiny-gpt", "lm", b"spec", BASE, root("d"), root("p"), 3, 9, Phases(1, 2, 3, 4, 5), 10
    ),
    CheckpointCommit(TASK, 1, b"h" * 32),
    CheckpointReveal(TASK, 1, BASE, SALT),
    ScoreCommit(TASK, 1, b"h" * 32),
    ScoreReveal(TASK, 1, 250_000, (5, -5, Refusal.NOT_FOUND.score), SALT),
    MergeAttest(TASK, 1, MERGED, 249_000),
    Evidence(b"two votes"),
    CapacityCommit(b"r" * 32, 2**32),
    CapacityAnswer(7, b"r" * 32),
    AuditReport(7, ((b"a" * 32, 1), (b"b" * 32, 4)), ((b"a" * 32, TASK, 0), (b"a" * 32, TASK, 31))),
    KeepPost(((BASE, 1), (MERGED, 2**60)), 3, 24, 10**9, root("recipe")),
    KeepEnd(b"d" * 32),
    Unjail(),
    ReplayFinding(TASK, 1, b"w" * 32, 2, 40_000, (-(2**53), *range(14), 2**53), SALT),
    ReplaySeal(TASK, 1, b"w" * 32, b"h" * 32),
]


def make(payload, **fields):
    return transactions.sign(
        ALICE, CHAIN, fields.pop("nonce", 3), payload, valid_until=9, max_fee=4, tip=1, **fields
    )


@pytest.mark.parametrize("payload", PAYLOADS, ids=lambda one: type(one).__name__)
def test_every_payload_comes_back_from_its_bytes(payload):
    data = make(payload)
    one = transactions.decode(data)
    assert one.payload == payload
    assert (one.sender, one.nonce, one.valid_until, one.max_fee, one.tip) == (
        ALICE.public_key,
        3,
        9,
        4,
        1,
    )
    assert one.gas_used <= one.gas
    assert one.id == transactions.transaction_id(data)


def test_bytes_of_transactions_and_the_root_of_a_genesis_are_pinned(tmp_path):
    genesis = make_genesis([signer("validator 0")], [ALICE])
    store = StateStore(tmp_path / "state")
    application = LedgerApplication(store, genesis)
    found = {
        "transactions": {type(one).__name__: make(one).hex() for one in PAYLOADS},
        "genesis": genesis.encode().hex(),
        "chain_id": genesis.chain_id.hex(),
        "genesis_state_root": application.finalized().state_root.hex(),
        "genesis_block_id": application.finalized().id.hex(),
    }
    store.close()
    assert found == json.loads(VECTORS.read_text())


@pytest.mark.parametrize(
    "wrong",
    [
        Transfer(b"b" * 31, 7),
        Transfer(b"b" * 32, -1),
        Transfer(b"b" * 32, CAP + 1),
        Stake(0),
        Register(b"v" * 32, "x" * 65, ()),
        Register(b"v" * 32, "émoji", ()),
        Register(b"v" * 32, "cpu", ("worker", "keeper")),
        Register(b"v" * 32, "cpu", ("worker", "worker")),
        Register(b"v" * 32, "cpu", ("king",)),
        DatasetPublish(b"no cid", 10, 1, "MIT"),
        DatasetPublish(root("d"), 10, 1, ""),
        NameRegister("-gpt", BASE),
        NameRegister("Gpt", BASE),
        NameRegister("g" * 64, BASE),
        NameRegister("gpt\n", BASE),
        NameRegister("", BASE),
        NameUpdate("gpt", MERGED, 0, BASE),
        TaskPost("gpt", "lm", b"s" * 8193, BASE, BASE, BASE, 3, 9, Phases(1, 1, 1, 1, 1), 1),
        TaskPost("gpt", "rnn", b"", BASE, BASE, BASE, 3, 9, Phases(1, 1, 1, 1, 1), 1),
        TaskPost("gpt", "lm", b"", BASE, BASE, BASE, 0, 9, Phases(1, 1, 1, 1, 1), 1),
        TaskPost("gpt", "lm", b"", BASE, BASE, BASE, 3, 9, Phases(1, 1, 0, 1, 1), 1),
        ScoreReveal(TASK, 1, 0, (1,) * 257, SALT),
        ScoreReveal(TASK, 1, 0, (-(2**40),), SALT),
        ScoreReveal(TASK, 1, 0, (-(2**40) - 8,), SALT),
        ScoreReveal(TASK, 1, 0, (2**40 + 1,), SALT),
        Evidence(b""),
        CapacityCommit(b"r" * 31, 1),
        CapacityCommit(b"r" * 32, 2**32 + 1),
        CapacityCommit(b"r" * 32, -1),
        CapacityAnswer(0, b"r" * 32),
        AuditReport(1, ((b"a" * 32, 0),), ()),
        AuditReport(1, ((b"a" * 32, 5),), ()),
        AuditReport(1, ((b"a" * 32, 1), (b"a" * 32, 2)), ()),
        AuditReport(1, ((b"b" * 32, 1), (b"a" * 32, 1)), ()),
        AuditReport(1, tuple((at.to_bytes(32, "big"), 1) for at in range(513)), ()),
        AuditReport(1, (), ((b"a" * 32, TASK, 32),)),
        AuditReport(1, (), ((b"a" * 32, TASK, 1), (b"a" * 32, TASK, 1))),
        AuditReport(1, (), ((b"a" * 32, TASK),)),
        KeepPost((), 1, 1, 1, b""),
        KeepPost(((BASE, 0),), 1, 1, 1, b""),
        KeepPost(((BASE, 2**60 + 1),), 1, 1, 1, b""),
        KeepPost(((BASE, 1), (BASE, 2)), 1, 1, 1, b""),
        KeepPost(((BASE, 1),), 17, 1, 1, b""),
        KeepPost(((BASE, 1),), 0, 1, 1, b""),
        KeepPost(tuple((root(str(at)), 1) for at in range(17)), 4, 1, 1, b""),
        KeepPost(((BASE, 1),), 1, 0, 1, b""),
        KeepPost(((BASE, 1),), 1, 1, 0, b""),
        KeepPost(((BASE, 1),), 1, 1, 1, b"no cid"),
        KeepEnd(b"d"),
        ReplayFinding(TASK, 1, b"w" * 31, 1, 0, PROOF, SALT),
        ReplayFinding(TASK, 1, b"w" * 32, 0, 0, PROOF, SALT),
        ReplayFinding(TASK, 1, b"w" * 32, 4, 0, PROOF, SALT),
        ReplayFinding(TASK, 1, b"w" * 32, 1, -1, PROOF, SALT),
        ReplayFinding(TASK, 1, b"w" * 32, 1, 10**12 + 1, PROOF, SALT),
        ReplayFinding(TASK, 1, b"w" * 32, 1, 0, (), SALT),
        ReplayFinding(TASK, 1, b"w" * 32, 3, 0, PROOF, SALT),
        ReplayFinding(TASK, 1, b"w" * 32, 1, 0, (2**53 + 1, *PROOF[1:]), SALT),
        ReplayFinding(TASK, 1, b"w" * 32, 1, 0, PROOF, b"short"),
        ReplaySeal(TASK, 1, b"w" * 32, b"h" * 31),
        ReplaySeal(TASK, 0, b"w" * 32, b"h" * 32),
    ],
    ids=str,
)
def test_a_field_out_of_its_bounds_is_refused(wrong):
    with pytest.raises(TransactionError):
        make(wrong)


def test_a_changed_byte_anywhere_is_refused():
    data = make(Transfer(b"b" * 32, 7))
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        with pytest.raises(TransactionError):
            transactions.decode(bytes(changed))


def test_a_signature_for_another_purpose_does_not_count():
    data = make(Transfer(b"b" * 32, 7))
    body = data[signing.SIGNATURE_BYTES :]
    with pytest.raises(TransactionError, match="signature"):
        transactions.decode(ALICE.sign(b"swarm/vote/1", body) + body)


def test_gas_below_what_it_uses_is_refused():
    with pytest.raises(TransactionError, match="gas"):
        make(Transfer(b"b" * 32, 7), gas=100)


def test_bytes_that_are_not_canonical_are_refused():
    body = make(Transfer(b"b" * 32, 7))[signing.SIGNATURE_BYTES :]
    assert body[1] == 1  # the version
    longer = body[:1] + b"\x18\x01" + body[2:]
    with pytest.raises(TransactionError):
        transactions.decode(ALICE.sign(transactions.TAG, longer) + longer)


values = st.recursive(
    st.integers(-(2**64), 2**64)
    | st.binary(max_size=40)
    | st.text(max_size=5)
    | st.none()
    | st.booleans(),
    lambda inner: st.lists(inner, max_size=6),
    max_leaves=10,
)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 23), st.lists(values, max_size=10), st.integers(0, 9), values)
def test_any_signed_body_is_a_transaction_or_a_transaction_error(kind, payload, at, odd):
    fields = [1, CHAIN, ALICE.public_key, 0, 9, 4, 1, 10**9, kind, payload]
    for body in (fields, [*fields[:at], odd, *fields[at + 1 :]]):
        data = canonical.encode(body)
        with contextlib.suppress(TransactionError):
            transactions.decode(ALICE.sign(transactions.TAG, data) + data)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PAYLOADS), st.data())
def test_one_odd_field_of_a_payload_is_taken_or_a_transaction_error(payload, data):
    values_of = payloads.pack(payload)
    if values_of:
        values_of[data.draw(st.integers(0, len(values_of) - 1))] = data.draw(values)
    body = canonical.encode(
        [1, CHAIN, ALICE.public_key, 0, 9, 4, 1, 10**9, payload.TYPE, values_of]
    )
    signed = ALICE.sign(transactions.TAG, body) + body
    try:
        one = transactions.decode(signed)
    except TransactionError:
        return
    assert canonical.encode(payloads.pack(one.payload)) == canonical.encode(values_of)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_ledger_error(data):
    for decode in (transactions.decode, Genesis.decode):
        with pytest.raises(LedgerError):
            decode(data)


def test_a_refusal_is_a_score_that_names_its_code():
    assert refusal(0) is None
    for one in Refusal:
        assert refusal(one.score) is one
        assert one.reason


def test_a_genesis_comes_back_from_its_file(tmp_path):
    genesis = make_genesis([signer("b"), signer("a")], [ALICE], worker_bond=5)
    genesis.save(tmp_path / "genesis")
    again = Genesis.load(tmp_path / "genesis")
    assert again == genesis
    assert again.chain_id == genesis.chain_id
    assert again.with_params(worker_bond=6).chain_id != genesis.chain_id


def test_answers_and_reports_have_the_room_that_is_kept_for_protocol_transactions():
    kept = {type(one).__name__ for one in PAYLOADS if one.TYPE in transactions.PROTOCOL_TYPES}
    assert {"CapacityAnswer", "AuditReport"} <= kept
    assert not {"CapacityCommit", "KeepPost", "KeepEnd", "Transfer"} & kept


def test_the_largest_report_fits_into_a_transaction():
    keys = [bytes([255]) * 30 + at.to_bytes(2, "big") for at in range(512)]
    missing = tuple((key, TASK, 31) for key in keys[:128])
    report = AuditReport(2**32, tuple((key, 4) for key in keys), missing)
    assert len(make(report)) < transactions.MAX_TRANSACTION_BYTES


@pytest.mark.parametrize("name", RANGES)
def test_a_parameter_out_of_its_range_is_refused(name):
    genesis = make_genesis([signer("a")])
    low, high = RANGES[name]
    for value in (low - 1, high + 1, True):
        with pytest.raises(GenesisError):
            genesis.with_params(**{name: value})


def test_other_bytes_for_the_same_genesis_are_refused():
    """An empty list is not empty bytes: both iterate alike, and the chain ids would differ."""
    fields = canonical.decode(make_genesis([signer("a")]).encode(), max_bytes=2**16)
    assert fields[4] == []
    for at, other in ((4, b""), (4, ""), (3, bytes(len(fields[3])))):
        changed = [*fields[:at], other, *fields[at + 1 :]]
        with pytest.raises(GenesisError):
            Genesis.decode(canonical.encode(changed))


def test_a_genesis_over_the_cap_or_with_a_key_twice_is_refused():
    one = GenesisValidator(ALICE.public_key, VrfKey.of(ALICE.seed).public_key, 1000)
    params = Params(min_bond=1)
    for allocations, validators in (
        ([(ALICE.public_key, CAP // 2)], [one]),
        ([(ALICE.public_key, 1), (ALICE.public_key, 1)], [one]),
        ([], [one, one]),
        ([], []),
        ([(b"short", 1)], [one]),
        ([(ALICE.public_key, -1)], [one]),
    ):
        with pytest.raises(GenesisError):
            Genesis.create("net", 0, validators, allocations=allocations, params=params)
