from __future__ import annotations

import pytest

from swarm.ledger import mempool as rooms
from swarm.ledger.errors import MempoolError
from swarm.ledger.mempool import Mempool
from swarm.ledger.transactions import CheckpointCommit, Transfer
from tests.ledger.world import World, signer

COMMIT = CheckpointCommit(b"t" * 32, 1, b"h" * 32)
PAY = Transfer(b"b" * 32, 1)


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


def test_the_same_nonce_is_replaced_by_a_higher_tip_alone(world, pool):
    alice = world.people["alice"]
    send(world, pool, alice, nonce=0, tip=5)
    with pytest.raises(MempoolError, match="tip is no lower"):
        send(world, pool, alice, nonce=0, tip=5, max_fee=99)
    with pytest.raises(MempoolError, match="waits already"):
        send(world, pool, alice, nonce=0, tip=5)
    kept = send(world, pool, alice, nonce=0, tip=6)
    assert len(pool) == 1
    assert pool.known(kept).tip == 6
    assert pool.size == len(pool.known(kept).data)


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
    pool.remove_included([first], world.view)
    assert pool.pending(alice.public_key) == []
    assert len(pool) == 2
    world.block()
    pool.remove_included([], world.view)
    assert [one.nonce for one in pool.pending(bob.public_key)] == [1]
    assert chosen(world, pool) == []
