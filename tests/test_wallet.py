"""An account's transactions reach a block, or whoever sent them is told that they never will."""

from __future__ import annotations

import pytest
import trio

from swarm.errors import NetworkError, RefusedError
from swarm.ledger.transactions import Stake, Transfer, decode
from swarm.wallet import FIRST_BLOCKS, QUICK_RESENDS, RESEND_BLOCKS, VALID_BLOCKS, Wallet, is_due
from tests.ledger.alone import ALICE, BOB, open_alone
from tests.ledger.world import signer

TO = b"t" * 32


@pytest.fixture
def alone(tmp_path):
    with open_alone(tmp_path) as made:
        yield made


@pytest.fixture
def gossiped():
    return []


@pytest.fixture
def wallet(alone, gossiped):
    return Wallet(ALICE, alone.ledger, alone.heights, gossiped.append)


async def test_what_is_submitted_is_gossiped_put_into_a_block_and_confirmed(
    alone, wallet, gossiped
) -> None:
    sent = await wallet.submit(Transfer(TO, 5))
    assert [decode(one).id for one in gossiped] == [sent]
    alone.grow()
    assert (await wallet.confirm(sent)).height == 1
    assert alone.balance(TO) == 5


async def test_a_transaction_that_fails_in_its_block_is_refused_with_the_reason(
    alone, wallet
) -> None:
    sent = await wallet.submit(Stake(1))
    alone.grow()
    with pytest.raises(RefusedError, match="at least"):
        await wallet.confirm(sent)


async def test_what_the_ledger_does_not_take_is_neither_pending_nor_gossiped(
    alone, gossiped
) -> None:
    poor = Wallet(signer("nobody"), alone.ledger, alone.heights, gossiped.append)
    for _ in range(64):
        await poor.submit(Transfer(TO, 0))
    with pytest.raises(RefusedError, match="64 of this account wait"):
        await poor.submit(Transfer(TO, 0))
    assert len(gossiped) == 64


async def test_without_a_block_a_confirmation_gives_up_in_time(wallet, autojump_clock) -> None:
    sent = await wallet.submit(Transfer(TO, 5))
    with pytest.raises(NetworkError, match="in no block after 60 s"):
        await wallet.confirm(sent, 60)
    assert trio.current_time() == pytest.approx(60)


async def test_what_the_mempool_let_go_is_put_back_and_gossiped_again(
    alone, wallet, gossiped, autojump_clock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wallet.run)
        sent = await wallet.submit(Transfer(TO, 5))
        alone.ledger.mempool._remove(alone.ledger.mempool.known(sent))
        for _ in range(FIRST_BLOCKS):
            alone.grow()
            await trio.sleep(1)
        assert len(gossiped) == 2
        assert gossiped[0] == gossiped[1]
        alone.grow()
        assert (await wallet.confirm(sent)).height == FIRST_BLOCKS + 1
        await trio.sleep(1)
        alone.grow(RESEND_BLOCKS)
        await trio.sleep(1)
        assert len(gossiped) == 2
        nursery.cancel_scope.cancel()


async def test_what_the_mempool_let_go_keeps_its_number_while_others_are_submitted(
    alone, wallet, autojump_clock
) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wallet.run)
        sent = await wallet.submit(Transfer(TO, 5))
        alone.ledger.mempool._remove(alone.ledger.mempool.known(sent))
        later = await wallet.submit(Transfer(TO, 7))
        for _ in range(FIRST_BLOCKS + 1):
            alone.grow()
            await trio.sleep(1)
        for one in (sent, later):
            await wallet.confirm(one)
        assert alone.balance(TO) == 12
        nursery.cancel_scope.cancel()


def test_what_no_block_holds_is_sent_with_each_block_for_a_while_and_then_now_and_then():
    """An answer is taken in four blocks: whoever sends it again after four sends it too late."""
    sent = [0]
    for height in range(1, VALID_BLOCKS):
        if is_due(height, height - sent[-1]):
            sent.append(height)
    quick = list(range(FIRST_BLOCKS, FIRST_BLOCKS + QUICK_RESENDS))
    assert sent[1 : 1 + QUICK_RESENDS] == quick
    assert sent[1 + QUICK_RESENDS] - quick[-1] == RESEND_BLOCKS
    assert len(sent) < QUICK_RESENDS + VALID_BLOCKS / RESEND_BLOCKS


async def test_a_transaction_whose_number_another_took_is_told_at_once(
    alone, wallet, autojump_clock
) -> None:
    """As after a restart, when a block holds what was sent before it."""
    earlier = alone.signed(ALICE, Transfer(TO, 7))
    sent = await wallet.submit(Transfer(TO, 5))
    alone.ledger.mempool._remove(alone.ledger.mempool.known(sent))
    alone.ledger.submit(earlier)
    alone.grow()
    with pytest.raises(RefusedError, match="another took its number"):
        await wallet.confirm(sent)
    assert trio.current_time() == 0
    again = await wallet.submit(Transfer(TO, 5))
    alone.grow()
    assert (await wallet.confirm(again)).height == 2
    assert alone.balance(TO) == 12


async def test_an_expired_transaction_is_forgotten_and_told(
    alone, wallet, autojump_clock, monkeypatch
) -> None:
    monkeypatch.setattr("swarm.wallet.VALID_BLOCKS", 2)
    assert VALID_BLOCKS == 200
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wallet.run)
        sent = await wallet.submit(Transfer(TO, 5))
        await trio.sleep(1)
        alone.ledger.mempool._remove(alone.ledger.mempool.known(sent))
        for _ in range(3):
            alone.grow()
            await trio.sleep(1)
        with pytest.raises(RefusedError, match="expired"):
            await wallet.confirm(sent)
        nursery.cancel_scope.cancel()
    assert alone.balance(TO) == 0
    assert alone.balance(BOB.public_key) == 10**15


@pytest.fixture
def priced(tmp_path):
    """A chain where gas costs something, and a block is full with a few transfers."""
    with open_alone(tmp_path, base_fee_floor=100, max_block_gas=1_000_000) as made:
        yield made


def crowd(alone, blocks: int) -> None:
    """Blocks filled by somebody who pays any price."""
    for _ in range(blocks):
        while len(alone.ledger.mempool.pending(BOB.public_key)) < 45:
            alone.ledger.submit(alone.signed(BOB, Transfer(TO, 0), max_fee=10**6, tip=10**3))
        alone.grow()


async def test_what_the_base_fee_outgrew_is_signed_again_and_confirmed_by_its_first_id(
    priced, gossiped, autojump_clock
) -> None:
    wallet = Wallet(ALICE, priced.ledger, priced.heights, gossiped.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wallet.run)
        await trio.sleep(1)
        first = await wallet.submit(Transfer(TO, 5))
        second = await wallet.submit(Transfer(TO, 6))
        fee = priced.ledger.mempool.known(first).max_fee
        while priced.ledger.view().base_fee <= fee:
            crowd(priced, 1)
        assert priced.ledger.mempool.known(first) is not None
        await trio.sleep(1)
        assert priced.ledger.mempool.known(first) is None
        waiting = priced.ledger.mempool.pending(ALICE.public_key)
        assert [one.nonce for one in waiting] == [0, 1]
        assert [one.payload.amount for one in waiting] == [5, 6]
        assert min(one.max_fee for one in waiting) >= 2 * priced.ledger.view().base_fee
        assert [decode(one).id for one in gossiped[-2:]] == [one.id for one in waiting]
        priced.grow(3)
        assert (await wallet.confirm(first)).height == (await wallet.confirm(second)).height
        assert priced.balance(TO) == 11
        await trio.sleep(1)
        assert (await wallet.confirm(first)).error == ""  # also when it is no longer pending
        nursery.cancel_scope.cancel()


async def test_one_transaction_is_signed_so_often_and_no_more(
    priced, gossiped, autojump_clock, monkeypatch
) -> None:
    monkeypatch.setattr("swarm.wallet.MAX_SIGNED", 2)
    wallet = Wallet(ALICE, priced.ledger, priced.heights, gossiped.append)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wallet.run)
        await trio.sleep(1)
        await wallet.submit(Transfer(TO, 5))
        for _ in range(3):
            (held,) = priced.ledger.mempool.pending(ALICE.public_key)
            while priced.ledger.view().base_fee <= held.max_fee:
                crowd(priced, 1)
            await trio.sleep(1)
        assert len({decode(one).id for one in gossiped}) == 2
        nursery.cancel_scope.cancel()


async def test_who_has_next_to_nothing_tips_nothing_where_gas_is_free(alone, gossiped) -> None:
    poor = signer("poor")
    alone.run(ALICE, Transfer(poor.public_key, 10))
    wallet = Wallet(poor, alone.ledger, alone.heights, gossiped.append)
    sent = await wallet.submit(Transfer(TO, 10))
    alone.grow()
    assert (await wallet.confirm(sent)).error == ""
    assert alone.balance(TO) == 10


async def test_what_may_be_in_no_later_block_is_never_signed_for_one(
    priced, gossiped, autojump_clock
) -> None:
    wallet = Wallet(ALICE, priced.ledger, priced.heights, gossiped.append)
    last = priced.ledger.view().height + 40
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wallet.run)
        await trio.sleep(1)
        await wallet.submit(Transfer(TO, 5), last)
        (held,) = priced.ledger.mempool.pending(ALICE.public_key)
        while priced.ledger.view().base_fee <= held.max_fee:
            crowd(priced, 1)
        await trio.sleep(1)
        assert len({decode(one).id for one in gossiped}) == 2
        assert {decode(one).valid_until for one in gossiped} == {last}
        nursery.cancel_scope.cancel()
