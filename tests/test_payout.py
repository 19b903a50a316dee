import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from cli.main import main
from swarm import payout as payouts
from swarm.errors import UsageError
from swarm.ledger.genesis import UNIT
from swarm.payout import EVERY_BLOCKS, LEAST, Payout, Payouts
from swarm.wallet import Wallet
from tests.ledger.alone import ALICE, BOB, open_alone
from tests.test_wallet import crowd


def test_what_is_kept_what_the_stake_lacks_and_dust_stay():
    chosen = Payout(BOB.peer_id, 10 * UNIT)
    assert chosen.due(100 * UNIT, 0) == 90 * UNIT
    assert chosen.due(100 * UNIT, 80 * UNIT) == 10 * UNIT
    assert chosen.due(10 * UNIT + LEAST, 0) == LEAST
    assert chosen.due(10 * UNIT + LEAST - 1, 0) == 0
    assert chosen.due(0, 100 * UNIT) == 0


async def test_what_was_earned_is_sent_on_and_a_changed_choice_counts_at_the_next_look(tmp_path):
    with open_alone(tmp_path / "ledger") as alone:
        wallet = Wallet(ALICE, alone.ledger, alone.heights, lambda _data: None)

        def balance(who):
            return alone.ledger.view().account(who.public_key).balance

        def look(nursery):
            made = Payouts(
                tmp_path,
                ALICE.public_key,
                alone.ledger.view,
                alone.heights,
                wallet,
                validates=False,
            )
            nursery.start_soon(made.run)

        before, keep = balance(BOB), 50 * UNIT
        payouts.write(tmp_path, Payout(BOB.peer_id, keep))
        async with trio.open_nursery() as nursery:
            look(nursery)
            with trio.fail_after(5):
                while not alone.ledger.mempool.pending(ALICE.public_key):
                    await trio.lowlevel.checkpoint()
            alone.grow()
            assert keep <= balance(ALICE) < keep + LEAST
            assert balance(BOB) > before
            sent = balance(BOB)
            payouts.write(tmp_path, None)
            alone.grow(EVERY_BLOCKS)
            await wait_all_tasks_blocked(0.05)
            assert not alone.ledger.mempool.pending(ALICE.public_key)
            assert balance(BOB) == sent
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize("floor", [0, 1_000])
async def test_who_keeps_nothing_still_pays_for_the_transfer(tmp_path, floor):
    with open_alone(tmp_path / "ledger", base_fee_floor=floor) as alone:
        wallet = Wallet(ALICE, alone.ledger, alone.heights, lambda _data: None)
        view = alone.ledger.view
        made = Payouts(tmp_path, ALICE.public_key, view, alone.heights, wallet, validates=False)
        payouts.write(tmp_path, Payout(BOB.peer_id, 0))
        before = view().account(BOB.public_key).balance
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.run)
            with trio.fail_after(5):
                while not alone.ledger.mempool.pending(ALICE.public_key):
                    await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        alone.grow()
        assert view().account(BOB.public_key).balance > before
        assert view().account(ALICE.public_key).balance < LEAST


async def test_a_payout_that_is_signed_again_is_over_before_the_next_look(
    tmp_path, monkeypatch, autojump_clock
):
    monkeypatch.setattr(payouts, "EVERY_BLOCKS", 150)
    with open_alone(tmp_path / "ledger", base_fee_floor=100, max_block_gas=1_000_000) as alone:
        ledger = alone.ledger
        wallet = Wallet(ALICE, ledger, alone.heights, lambda _data: None)
        made = Payouts(
            tmp_path, ALICE.public_key, ledger.view, alone.heights, wallet, validates=False
        )
        payouts.write(tmp_path, Payout(BOB.peer_id, 50 * UNIT))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(wallet.run)
            nursery.start_soon(made.run)
            with trio.fail_after(5):
                while not (waiting := ledger.mempool.pending(ALICE.public_key)):
                    await trio.lowlevel.checkpoint()
            while ledger.view().base_fee <= waiting[0].max_fee:
                crowd(alone, 1)
            await wait_all_tasks_blocked(0.01)
            (again,) = ledger.mempool.pending(ALICE.public_key)
            assert again.id != waiting[0].id
            assert again.valid_until < 150
            nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        json.dumps({"version": 2, "account": BOB.peer_id, "keep": 0}),
        json.dumps({"version": 1, "account": "12D3KooWnobody", "keep": 0}),
        json.dumps({"version": 1, "account": BOB.peer_id, "keep": -1}),
        json.dumps({"version": 1, "account": [BOB.peer_id], "keep": 0}),
        json.dumps({"version": 1, "account": None, "keep": 0}),
        json.dumps({"version": 1, "account": BOB.peer_id, "keep": float("inf")}),
        "[" * 4000,
    ],
)
def test_a_choice_that_cannot_be_read_sends_nothing_on_a_guess(tmp_path, text):
    (tmp_path / payouts.FILE).write_text(text)
    with pytest.raises(UsageError, match="nothing is sent on"):
        payouts.read(tmp_path)


def test_a_choice_that_cannot_be_written_is_told_with_the_path_and_is_no_bug(tmp_path, capsys):
    (tmp_path / payouts.FILE).mkdir()
    assert main(["key", "payout", BOB.peer_id, "--home", str(tmp_path)]) == UsageError.exit_code
    assert f"error: {tmp_path / payouts.FILE}: Is a directory" in capsys.readouterr().err


def test_the_command_chooses_shows_and_ends(tmp_path, capsys):
    def run(*words):
        return main(["key", "payout", *words, "--home", str(tmp_path), "--json"]), json.loads(
            capsys.readouterr().out or "{}"
        )

    assert run() == (0, {"account": None, "keep": 0})
    assert run(BOB.peer_id, "--keep", "50") == (0, {"account": BOB.peer_id, "keep": 50 * UNIT})
    assert payouts.read(tmp_path) == Payout(BOB.peer_id, 50 * UNIT)
    assert run("nobody")[0] == UsageError.exit_code
    assert run()[1]["account"] == BOB.peer_id
    assert run("off") == (0, {"account": None, "keep": 0})
    assert run("--keep", "5")[0] == 2
