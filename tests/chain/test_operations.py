"""Stakes, validators and transactions as a node tells them."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
import trio

from swarm.chain.staking import (
    check_send,
    check_stake,
    check_unjail,
    check_unstake,
    check_withdraw,
)
from swarm.errors import NotFoundError, RefusedError, UsageError
from swarm.ledger.genesis import UNIT, Params
from swarm.ledger.holdings import Account, Unbonding
from swarm.ledger.transactions import Transfer, decode
from swarm.ledger.validators import MAX_UNBONDING
from swarm.wallet import Wallet
from tests.chain.world import ALICE, EPOCH, VALIDATOR, door, open_chain, silent
from tests.ledger.alone import BOB

PARAMS = Params(min_bond=100 * UNIT)


@pytest.fixture
def alone(tmp_path):
    with open_chain(tmp_path, min_bond=1000, unbonding=2) as made:
        yield made


async def test_who_stakes_is_a_validator_two_epochs_later_and_not_before(alone):
    chain = door(alone)
    sent = await chain.stake(5000, silent)
    assert (sent["stake"], sent["epoch"]) == (5000, 2)
    for epoch in (0, 1):
        assert len((await chain.validators(epoch))["validators"]) == 1
    alone.grow(EPOCH - alone.ledger.finalized_height())
    later = await chain.validators(2)
    me = next(one for one in later["validators"] if one["me"])
    assert (me["account"], me["weight"], me["since"]) == (ALICE.peer_id, 5000, 2)
    other = next(one for one in later["validators"] if not one["me"])
    assert (other["account"], other["since"], other["jailed_until"]) == (VALIDATOR.peer_id, 0, None)
    assert (later["first"], later["last"], later["weight"]) == (9, 12, 6000)
    with pytest.raises(NotFoundError, match="epoch 3 are not known"):
        await chain.validators(3)


async def test_what_is_unstaked_comes_back_once_it_has_unbonded(alone):
    assert alone.run(ALICE, Transfer(VALIDATOR.public_key, 10_000)) == ""
    chain = door(alone, VALIDATOR, validates=True)
    await chain.stake(4000, silent)
    sent = await chain.unstake(4000, silent)
    assert (sent["stake"], sent["stakes_again"]) == (1000, True)
    with pytest.raises(RefusedError, match=f"at block {sent['withdrawable']}"):
        await chain.withdraw(silent)
    alone.grow(sent["withdrawable"] - 1 - alone.ledger.finalized_height())
    back = await chain.withdraw(silent)
    assert (back["amount"], back["height"]) == (4000, sent["withdrawable"])
    assert alone.ledger.view().account(VALIDATOR.public_key).unbonding == ()


async def test_a_stake_registers_the_vrf_key_that_it_counts_by(alone):
    assert alone.ledger.view().account(ALICE.public_key).vrf_key == b""
    await door(alone).stake(5000, silent)
    account = alone.ledger.view().account(ALICE.public_key)
    assert len(account.vrf_key) == 32
    assert account.roles == ("validator",)


def test_a_stake_that_the_ledger_would_refuse_is_refused_in_tokens():
    account = Account(b"k" * 32, balance=250 * UNIT, stake=50 * UNIT)
    check_stake(account, 50 * UNIT, 200 * UNIT, PARAMS)
    with pytest.raises(RefusedError, match="at least 100 tokens") as refused:
        check_stake(account, 10 * UNIT, 0, PARAMS)
    assert refused.value.hint == "stake 50 or more"
    with pytest.raises(RefusedError, match=r"owns 250 tokens, not 250\.000000001"):
        check_stake(account, 250 * UNIT + 1, 0, PARAMS)
    with pytest.raises(RefusedError, match="too little for the fees, 3 at most") as refused:
        check_stake(account, 248 * UNIT, 3 * UNIT, PARAMS)
    assert refused.value.hint == "stake at most 247"


def test_what_is_sent_leaves_enough_for_its_fees():
    account = Account(b"k" * 32, balance=250 * UNIT)
    check_send(account, 247 * UNIT, 3 * UNIT)
    with pytest.raises(RefusedError, match="too little for the fees") as refused:
        check_send(account, 250 * UNIT, 3 * UNIT)
    assert refused.value.hint == "send at most 247"
    with pytest.raises(RefusedError, match="owns 250 tokens, not 251"):
        check_send(account, 251 * UNIT, 0)


async def test_a_whole_balance_that_cannot_be_staked_is_refused_before_a_fee_is_paid(tmp_path):
    with open_chain(tmp_path, min_bond=1000, base_fee_floor=1) as alone:
        chain, before = door(alone), alone.balance(ALICE.public_key)
        with pytest.raises(RefusedError, match="too little for the fees") as refused:
            await chain.stake(before, silent)
        assert alone.balance(ALICE.public_key) == before
        assert alone.ledger.next_nonce(ALICE.public_key) == 0
        most = Decimal(refused.value.hint.removeprefix("stake at most ").replace(",", "")) * UNIT
        assert (await chain.stake(int(most), silent))["stake"] == most


def test_what_stays_staked_is_nothing_or_a_bond():
    account = Account(b"k" * 32, stake=150 * UNIT)
    check_unstake(account, 50 * UNIT, PARAMS)
    check_unstake(account, 150 * UNIT, PARAMS)
    with pytest.raises(RefusedError, match="90 tokens would stay") as refused:
        check_unstake(account, 60 * UNIT, PARAMS)
    assert refused.value.hint == "unstake at most 50, or all of it: 150"
    bonded = replace(account, stake=100 * UNIT)
    with pytest.raises(RefusedError, match="99 tokens would stay") as refused:
        check_unstake(bonded, UNIT, PARAMS)
    assert refused.value.hint == "unstake all of it: 100"
    with pytest.raises(RefusedError, match="has staked 150 tokens"):
        check_unstake(account, 151 * UNIT, PARAMS)


def test_no_more_amounts_are_unstaked_than_the_ledger_lets_unbond():
    waiting = tuple(Unbonding(1, 10 + at) for at in range(MAX_UNBONDING))
    account = Account(b"k" * 32, stake=150 * UNIT, unbonding=waiting[1:])
    check_unstake(account, 50 * UNIT, PARAMS)
    with pytest.raises(RefusedError, match="32 amounts are unbonding") as refused:
        check_unstake(replace(account, unbonding=waiting), 50 * UNIT, PARAMS)
    assert refused.value.hint == "`swarm withdraw` first, from block 10 on"


def test_only_what_has_unbonded_is_withdrawn():
    account = Account(b"k" * 32, unbonding=(Unbonding(7, 10), Unbonding(5, 8)))
    assert check_withdraw(account, 7) == 5  # the next block is the first that lets it go
    assert check_withdraw(account, 9) == 12
    with pytest.raises(RefusedError, match="at block 8") as refused:
        check_withdraw(account, 5)
    assert refused.value.hint == "that is in 3 blocks"
    with pytest.raises(RefusedError, match="nothing is unbonding"):
        check_withdraw(Account(b"k" * 32), 5)


async def test_a_transaction_waits_then_is_done_or_has_failed_with_its_reason(alone):
    chain = door(alone)
    waiting = alone.ledger.submit(alone.signed(ALICE, Transfer(VALIDATOR.public_key, 1)))
    told = await chain.transaction(waiting.hex())
    assert (told["status"], told["type"], told["from"]) == ("waiting", "transfer", ALICE.peer_id)
    assert told["valid_until"] == 10
    alone.grow()
    told = await chain.transaction(waiting.hex())
    assert (told["status"], told["height"], told["error"]) == ("done", 1, None)
    assert told["from"] == ALICE.peer_id
    failing = alone.ledger.submit(alone.signed(ALICE, Transfer(VALIDATOR.public_key, 10**17)))
    alone.grow()
    told = await chain.transaction(failing.hex())
    assert told["status"] == "failed"
    assert told["error"]


async def test_a_transaction_that_nobody_knows_is_not_found_and_no_id_is_named(alone):
    chain = door(alone)
    with pytest.raises(NotFoundError, match="waits here or is in a block up to 0"):
        await chain.transaction("ab" * 32)
    for text in ("", "ab", "zz" * 32, "ab" * 33):
        with pytest.raises(UsageError, match="is not the id of a transaction"):
            await chain.transaction(text)


async def test_an_expired_transaction_is_not_found_any_more(alone):
    chain = door(alone)
    # Nothing has nonce 0, so it stays out of every block.
    sent = alone.ledger.submit(
        alone.signed(ALICE, Transfer(VALIDATOR.public_key, 1), nonce=1, valid_until=2)
    )
    assert (await chain.transaction(sent.hex()))["status"] == "waiting"
    alone.grow(3)
    with pytest.raises(NotFoundError):
        await chain.transaction(sent.hex())


async def test_transactions_signed_elsewhere_are_handed_in_and_passed_on(alone):
    chain = door(alone)
    good = alone.signed(ALICE, Transfer(VALIDATOR.public_key, 1))
    told = await chain.submit([good.hex(), "00", good.hex()])
    assert len(told["taken"]) == 1
    assert [one["at"] for one in told["refused"]] == [1, 2]
    assert alone.gossiped == [good]
    alone.grow()
    assert (await chain.transaction(told["taken"][0]))["status"] == "done"
    with pytest.raises(UsageError, match="transactions: "):
        await chain.submit(["not hex"])


async def test_what_was_signed_again_with_a_higher_fee_is_found_by_its_first_id(
    tmp_path, autojump_clock
):
    with open_chain(tmp_path, base_fee_floor=100, max_block_gas=1_000_000) as alone:
        async with trio.open_nursery() as nursery:
            wallet = Wallet(ALICE, alone.ledger, alone.heights, alone.gossiped.append)
            chain = door(alone, wallet=wallet)
            nursery.start_soon(wallet.run)
            await trio.sleep(1)
            first = await wallet.submit(Transfer(VALIDATOR.public_key, 5))
            fee = alone.ledger.mempool.known(first).max_fee
            while alone.ledger.view().base_fee <= fee:
                while len(alone.ledger.mempool.pending(BOB.public_key)) < 45:
                    dear = alone.signed(BOB, Transfer(BOB.public_key, 0), max_fee=10**6, tip=10**3)
                    alone.ledger.submit(dear)
                alone.grow()
            await trio.sleep(1)
            again = decode(alone.gossiped[-1]).id.hex()
            told = await chain.transaction(first.hex())
            assert (told["tx"], told["status"]) == (again, "waiting")
            alone.grow(3)
            told = await chain.transaction(first.hex())
            assert (told["tx"], told["status"], told["from"]) == (again, "done", ALICE.peer_id)
            nursery.cancel_scope.cancel()


async def test_who_cannot_leave_jail_yet_is_told_so_before_a_fee_is_paid(alone):
    chain, before = door(alone), alone.balance(ALICE.public_key)
    with pytest.raises(RefusedError, match="the account is not jailed") as refused:
        await chain.unjail(silent)
    assert refused.value.hint == "`swarm validators` shows who is"
    assert alone.balance(ALICE.public_key) == before
    assert alone.ledger.next_nonce(ALICE.public_key) == 0
    with pytest.raises(RefusedError, match="jailed until block 12") as refused:
        check_unjail(12, 10)
    assert refused.value.hint == "that is in 2 blocks"
    check_unjail(12, 11)  # the next block lets it out


async def test_of_headers_that_were_pruned_none_are_told(alone):
    chain = door(alone)
    alone.grow(6)
    assert len(await chain.headers(1, 100)) == 6
    alone.store.prune(4, 100, lambda _block: ())
    assert await chain.headers(1, 100) == []
    assert len(await chain.headers(4, 100)) == 3
