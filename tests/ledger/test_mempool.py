from __future__ import annotations

import contextlib
from dataclasses import astuple, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import canonical
from swarm.ledger import mempool as rooms
from swarm.ledger.errors import MempoolError, TransactionError
from swarm.ledger.mempool import Mempool
from swarm.ledger.state import HEAD_KEY
from swarm.ledger.transactions import CheckpointCommit, Transfer
from tests.ledger.world import World, signer

COMMIT = CheckpointCommit(b"t" * 32, 1, b"h" * 32)
PAY = Transfer(b"b" * 32, 1)
CROWDED = World(people=[f"person {at}" for at in range(6)])


@pytest.fixture
def world():
    return World(people=("alice", "bob", "carol"))


@pytest.fixture
def pool(world):
    return Mempool(world.genesis.chain_id, lambda: world.view)


def send(world, pool, who, payload=PAY, **kwargs):
    return pool.add(world.tx(who, payload, **{"max_fee": 100, "tip": 1, **kwargs}).data)


def chosen(world, pool, max_bytes=10**6, max_count=100):
    return [(one.sender, one.nonce) for one in pool.select(world.view, max_bytes, max_count)]


def test_the_higher_tip_goes_first_and_an_account_in_the_order_of_its_nonces(world, pool):
    alice, bob = world.people["alice"], world.people["bob"]
    send(world, pool, alice, tip=1)
    send(world, pool, alice, tip=90)
    send(world, pool, bob, tip=5)
    assert chosen(world, pool) == [
        (bob.public_key, 0),
        (alice.public_key, 0),
        (alice.public_key, 1),
    ]
    assert pool.next_nonce(alice.public_key) == 2
    assert [one.nonce for one in pool.pending(alice.public_key)] == [0, 1]


def test_a_gap_in_the_nonces_waits_until_it_is_filled(world, pool):
    alice = world.people["alice"]
    send(world, pool, alice, nonce=1)
    assert chosen(world, pool) == []
    assert pool.next_nonce(alice.public_key) == 0
    send(world, pool, alice, nonce=0)
    assert len(chosen(world, pool)) == 2


def test_the_same_nonce_is_replaced_by_an_eighth_more_of_tip_and_fee_alone(world, pool):
    alice = world.people["alice"]
    send(world, pool, alice, nonce=0, tip=16, max_fee=100)
    for tip, fee, word in (
        (16, 100, "waits already"),
        (17, 200, "tip of 18"),
        (30, 112, "fee of 113"),
    ):
        with pytest.raises(MempoolError, match=word):
            send(world, pool, alice, nonce=0, tip=tip, max_fee=fee)
    kept = send(world, pool, alice, nonce=0, tip=18, max_fee=113)
    assert len(pool) == 1
    assert pool.known(kept).tip == 18
    assert pool.size == len(pool.known(kept).data)


def test_what_costs_nothing_is_replaced_by_one_unit_of_each(world, pool):
    alice = world.people["alice"]
    send(world, pool, alice, nonce=0, tip=0, max_fee=0)
    with pytest.raises(MempoolError, match="tip of 1"):
        send(world, pool, alice, nonce=0, tip=0, max_fee=0, valid_until=9)
    send(world, pool, alice, nonce=0, tip=1, max_fee=1)
    assert [one.tip for one in pool.pending(alice.public_key)] == [1]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"nonce": 65}, "too far"),
        ({"valid_until": 0}, "expired"),
        ({"max_fee": 10**14}, "cover the fee"),
    ],
)
def test_what_no_block_could_hold_is_refused_with_a_reason(world, pool, fields, reason):
    with pytest.raises(MempoolError, match=reason):
        send(world, pool, world.people["alice"], **fields)
    assert len(pool) == 0


def test_malformed_bytes_used_nonces_and_other_chains_are_refused(world, pool):
    alice = world.people["alice"]
    with pytest.raises(MempoolError):
        pool.add(b"junk")
    world.run(alice, PAY)
    with pytest.raises(MempoolError, match="used"):
        send(world, pool, alice, nonce=0)
    other = World(epoch_length=9)
    with pytest.raises(MempoolError, match="another network"):
        send(other, pool, alice)


def test_one_account_cannot_fill_the_room(world, pool):
    alice = world.people["alice"]
    for nonce in range(rooms.MAX_PER_SENDER):
        send(world, pool, alice, nonce=nonce)
    with pytest.raises(MempoolError, match="of this account"):
        send(world, pool, alice, nonce=rooms.MAX_PER_SENDER)


def test_a_full_room_drops_the_lowest_tip_and_keeps_a_quarter_for_the_protocol(world):
    pool = Mempool(world.genesis.chain_id, lambda: world.view, max_count=8)
    crowd = [signer(f"free {at}") for at in range(12)]
    for at in range(6):
        send(world, pool, crowd[at], max_fee=0, tip=0)
    with pytest.raises(MempoolError, match="higher tip"):
        send(world, pool, crowd[6], max_fee=0, tip=0)
    send(world, pool, crowd[7], COMMIT, max_fee=0, tip=0)
    send(world, pool, crowd[8], COMMIT, max_fee=0, tip=0)
    assert len(pool) == 8
    send(world, pool, crowd[9], COMMIT, max_fee=0, tip=0)  # an ordinary one makes room
    assert len(pool) == 8
    alice = world.people["alice"]
    send(world, pool, alice, tip=3)
    assert len(pool) == 8
    assert pool.pending(alice.public_key)


def test_the_bytes_are_bounded_too(world):
    pool = Mempool(world.genesis.chain_id, lambda: world.view, max_bytes=2000)
    kept = 0
    for at in range(20):
        try:
            send(world, pool, signer(f"free {at}"), max_fee=0, tip=0)
            kept += 1
        except MempoolError:
            pass
    assert 0 < kept < 20
    assert pool.size <= 1500


def test_a_share_of_a_block_is_kept_for_the_protocol(world, pool):
    alice, bob = world.people["alice"], world.people["bob"]
    for _ in range(20):
        send(world, pool, alice, tip=50)
    send(world, pool, bob, COMMIT, tip=0)
    size = max(len(one.data) for one in pool.pending(alice.public_key)) + 5
    inside = chosen(world, pool, max_bytes=8 * size)
    assert (bob.public_key, 0) in inside
    assert inside.count((alice.public_key, 5)) == 1
    assert len(inside) >= 7
    assert len(chosen(world, pool, max_count=3)) == 3


def test_a_share_of_a_blocks_gas_is_kept_for_the_protocol_and_what_it_leaves_is_filled():
    world = World(max_block_gas=1_000_000, people=("alice", "bob"))
    pool = Mempool(world.genesis.chain_id, lambda: world.view)
    alice, bob = world.people["alice"], world.people["bob"]
    for _ in range(60):
        send(world, pool, alice, tip=50)
    assert len(chosen(world, pool)) == 1_000_000 // pool.pending(alice.public_key)[0].gas_used
    send(world, pool, bob, COMMIT, tip=0)
    inside = pool.select(world.view, 10**6, 100)
    assert bob.public_key in [one.sender for one in inside]
    assert sum(one.gas_used for one in inside) <= 1_000_000
    world.block(*inside)


def test_what_the_protocol_leaves_of_its_share_is_filled_with_payments(world, pool):
    alice = world.people["alice"]
    for _ in range(20):
        send(world, pool, alice)
    size = max(len(one.data) for one in pool.pending(alice.public_key)) + 5
    assert len(chosen(world, pool, max_bytes=8 * size)) == 8


def test_included_and_expired_transactions_are_forgotten(world, pool):
    alice, bob = world.people["alice"], world.people["bob"]
    first = send(world, pool, alice)
    send(world, pool, bob, valid_until=2)
    send(world, pool, bob, valid_until=50)
    world.block(pool.known(first))
    pool.forget(world.view, [alice.public_key])
    assert pool.pending(alice.public_key) == []
    assert len(pool) == 2
    world.block()
    pool.forget(world.view)
    assert [one.nonce for one in pool.pending(bob.public_key)] == [1]
    assert chosen(world, pool) == []


def test_the_fees_of_all_that_waits_have_to_be_covered_together(world, pool):
    poor = signer("poor")
    world.run(world.people["alice"], Transfer(poor.public_key, 45_000))
    send(world, pool, poor, nonce=0, max_fee=1)
    with pytest.raises(MempoolError, match="of what waits already"):
        send(world, pool, poor, nonce=1, max_fee=1)
    send(world, pool, poor, nonce=1, max_fee=0, tip=0)


def test_one_account_cannot_fill_the_room_with_few_large_ones(world, pool, monkeypatch):
    monkeypatch.setattr(rooms, "MAX_SENDER_BYTES", 1000)
    alice = world.people["alice"]
    size = len(world.tx(alice, PAY, nonce=0, max_fee=100, tip=1).data)
    for nonce in range(1000 // size):
        send(world, pool, alice, nonce=nonce)
    with pytest.raises(MempoolError, match="bytes of this account"):
        send(world, pool, alice, nonce=1000 // size)


def test_what_no_block_took_in_time_is_dropped_however_long_it_is_valid(world, pool, monkeypatch):
    monkeypatch.setattr(rooms, "MAX_WAIT_BLOCKS", 2)
    alice = world.people["alice"]
    world.block()
    send(world, pool, alice, nonce=1, valid_until=10**9)
    for left in (1, 1, 0):
        world.block()
        pool.forget(world.view)
        assert len(pool) == left


def test_a_signature_is_looked_at_last_and_a_wrong_one_is_a_lie(world, pool, monkeypatch):
    alice = world.people["alice"]
    good = world.tx(alice, PAY, max_fee=1).data
    forged = bytes([good[0] ^ 1]) + good[1:]
    with pytest.raises(TransactionError, match="signature"):
        pool.take(forged)
    with pytest.raises(MempoolError, match="signature"):
        pool.add(forged)
    assert len(pool) == 0
    late = world.tx(alice, PAY, nonce=70).data
    monkeypatch.setattr("swarm.ledger.transactions.verify", None)  # nobody may ask
    with pytest.raises(MempoolError, match="too far"):
        pool.take(late)


def test_the_last_of_the_cheapest_account_makes_way_and_never_ones_own_predecessor(world):
    pool = Mempool(world.genesis.chain_id, lambda: world.view, max_count=8)
    alice, bob, carol = (world.people[name] for name in ("alice", "bob", "carol"))
    for tip in (2, 90, 90):
        send(world, pool, alice, tip=tip)
    for _ in range(3):
        send(world, pool, bob, tip=5)
    send(world, pool, carol, tip=6)
    assert [one.nonce for one in pool.pending(alice.public_key)] == [0, 1]
    for _ in range(2):
        send(world, pool, carol, tip=6)
    assert pool.pending(alice.public_key) == []
    assert len(pool.pending(bob.public_key)) == 3
    with pytest.raises(MempoolError):
        send(world, pool, bob, tip=80)


def test_a_full_room_takes_nothing_that_waits_for_a_nonce_or_for_a_cheaper_one(world):
    pool = Mempool(world.genesis.chain_id, lambda: world.view, max_count=4)
    alice, bob, carol = (world.people[name] for name in ("alice", "bob", "carol"))
    send(world, pool, alice, tip=2)
    send(world, pool, bob, tip=1)
    send(world, pool, bob, tip=90)
    with pytest.raises(MempoolError, match="could not go before"):
        send(world, pool, carol, nonce=1, tip=90)
    with pytest.raises(MempoolError, match="too many"):
        send(world, pool, bob, nonce=2, tip=90)
    world.nonces.clear()
    send(world, pool, carol, tip=2)  # bob's second offers one unit: its first goes before it
    assert [one.nonce for one in pool.pending(bob.public_key)] == [0]
    with pytest.raises(MempoolError, match="higher tip"):
        send(world, pool, signer("free"), tip=0, max_fee=0)


def test_what_the_base_fee_has_outgrown_is_the_cheapest_whatever_it_tips(world):
    rising = World(base_fee_floor=1, people=("alice", "bob", "carol"))
    pool = Mempool(rising.genesis.chain_id, lambda: rising.view, max_count=4)
    alice, bob, carol = (rising.people[name] for name in ("alice", "bob", "carol"))
    stuck = send(rising, pool, alice, max_fee=50, tip=50)
    for _ in range(2):
        send(rising, pool, bob, max_fee=10**4, tip=3)
    head = astuple(replace(rising.view.head, base_fee=1000))
    rising.memory.apply({HEAD_KEY: canonical.encode(list(head))})
    send(rising, pool, carol, max_fee=10**4, tip=1)
    assert pool.known(stuck) is None


def test_what_waits_for_a_nonce_makes_way_for_what_a_block_could_hold_now(world):
    pool = Mempool(world.genesis.chain_id, lambda: world.view, max_count=8)
    alice, bob, carol = (world.people[name] for name in ("alice", "bob", "carol"))
    for nonce in range(1, 7):  # costs nothing as it stands, whatever it offers
        send(world, pool, alice, nonce=nonce, tip=90)
    for nonce in range(2):
        send(world, pool, bob, COMMIT, nonce=nonce + 1, tip=90)
    free = [signer(f"free {at}") for at in range(8)]
    for who in free[:4]:
        send(world, pool, who, max_fee=0, tip=0)
    assert all(pool.pending(who.public_key) for who in free[:4])
    assert [len(pool.pending(who.public_key)) for who in (alice, bob)] == [2, 2]
    send(world, pool, alice, nonce=0, tip=90)  # now what is left of hers can follow
    with pytest.raises(MempoolError, match="higher tip"):
        send(world, pool, free[5], max_fee=0, tip=0)
    send(world, pool, carol, tip=3)
    assert [one.nonce for one in pool.pending(alice.public_key)] == [0, 1]


def test_what_waits_for_one_that_expired_makes_way_too(world):
    pool = Mempool(world.genesis.chain_id, lambda: world.view, max_count=4)
    alice, bob, carol = (world.people[name] for name in ("alice", "bob", "carol"))
    send(world, pool, bob, nonce=0, tip=5)
    send(world, pool, alice, nonce=0, tip=90, valid_until=1)
    send(world, pool, alice, nonce=1, tip=90)
    with pytest.raises(MempoolError, match="higher tip"):
        send(world, pool, carol, nonce=0, tip=1)
    world.block()
    pool.forget(world.view, [])
    send(world, pool, bob, nonce=1, tip=5)
    send(world, pool, carol, nonce=0, tip=1)
    assert pool.pending(alice.public_key) == []


def test_a_nonce_that_another_transaction_used_is_forgotten(world, pool):
    alice = world.people["alice"]
    send(world, pool, alice, nonce=0, max_fee=10**6)
    world.block(world.tx(alice, COMMIT, nonce=0))
    pool.forget(world.view, [alice.public_key])
    assert len(pool) == 0


def test_what_an_account_can_pay_no_more_is_forgotten_and_what_it_can_pay_stays(world, pool):
    poor = signer("poor")
    world.run(world.people["alice"], Transfer(poor.public_key, 10**6))
    first = send(world, pool, poor, Transfer(b"b" * 32, 900_000), nonce=0, max_fee=1, tip=1)
    for nonce in range(1, 9):
        send(world, pool, poor, nonce=nonce, max_fee=3, tip=1)
    world.block(pool.known(first))
    pool.forget(world.view, [poor.public_key])
    kept = pool.pending(poor.public_key)
    assert [one.nonce for one in kept] == [1, 2, 3]
    assert sum(one.gas_used for one in kept) <= world.account(poor).balance


def test_what_comes_and_goes_leaves_nothing_behind(world, pool):
    alice, bob = world.people["alice"], world.people["bob"]
    small = Mempool(world.genesis.chain_id, lambda: world.view, max_count=4)
    for nonce in range(150):
        for room in (pool, small):
            for who in (alice, bob):
                send(world, room, who, nonce=nonce, tip=1 + nonce % 9)
        world.block(*[pool.pending(who.public_key)[0] for who in (alice, bob)])
        for room in (pool, small):
            room.forget(world.view, [alice.public_key, bob.public_key])
            assert (len(room), room.size, len(room._by_sender)) == (0, 0, 0)
            assert sum(map(len, room._prices)) <= 64


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 5),
            st.integers(0, 5),
            st.integers(0, 9),
            st.integers(0, 9),
            st.booleans(),
        ),
        max_size=60,
    )
)
def test_whatever_arrives_the_room_keeps_its_bounds_and_its_count(arriving):
    pool = Mempool(CROWDED.genesis.chain_id, lambda: CROWDED.view, max_count=12, max_bytes=3000)
    people = list(CROWDED.people.values())
    for who, nonce, tip, more, protocol in arriving:
        payload = COMMIT if protocol else PAY
        with contextlib.suppress(MempoolError):
            send(CROWDED, pool, people[who], payload, nonce=nonce, tip=tip, max_fee=tip + more)
        held = [one for person in people for one in pool.pending(person.public_key)]
        assert len(held) == len(pool) <= 12
        assert sum(len(one.data) for one in held) == pool.size <= 3000
        payments = [one for one in held if one.payload == PAY]
        assert len(payments) <= 9
        picked = chosen(CROWDED, pool)
        for person in people:
            nonces = [nonce for key, nonce in picked if key == person.public_key]
            assert nonces == list(range(len(nonces)))
