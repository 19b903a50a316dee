"""What is earned, pending and held, and which contribution was the last."""

from types import SimpleNamespace

from cli.money import short_tokens
from cli.standing import last, pledge, rows
from swarm.care.purse import purse
from swarm.ledger.genesis import UNIT
from swarm.ledger.holdings import Account, Unbonding
from swarm.ledger.tasks import Phase
from swarm.receipts.service import newest

ME, OTHER = b"m" * 32, b"o" * 32


def running(**acted):
    known = {"commits": {}, "score_commits": {}} | acted
    return SimpleNamespace(number=3, phase=Phase.SCORE_COMMIT, phase_deadline=30, **known)


def test_what_is_handed_in_and_not_judged_is_pending_for_as_long_as_its_phase_may_take():
    rounds = [("gpt", running(commits={ME: b"", OTHER: b""})), ("gan", running())]
    told = purse(Account(ME, earned=7), 0, rounds, 20, 2.0)["pending"]
    assert told == [
        {"task": "gpt", "round": 3, "kind": "update", "phase": "score_commit", "seconds": 20.0}
    ]
    told = purse(Account(ME), 0, [("gan", running(score_commits={ME: b""}))], 99, 2.0)["pending"]
    assert [(one["kind"], one["seconds"]) for one in told] == [("scores", 0)]


def test_what_is_locked_is_told_by_what_it_is_locked_for_and_until_when():
    account = Account(ME, balance=5, stake=4, bond=3, unbonding=(Unbonding(2, 50),))
    held = purse(account, 1, [], 40, 2.5)["held"]
    assert [(one["what"], one["amount"]) for one in held] == [
        ("stake", 4),
        ("worker bond", 3),
        ("collateral", 1),
        ("unbonding", 2),
    ]
    assert held[-1]["seconds"] == 25.0


def receipt(height, kind="update", code="accepted", reason=""):
    told = {"round": 2, "name": "gpt", "score": 187, "reward": 33 * UNIT, "reason": reason}
    return told | {"height": height, "kind": kind, "code": code}


def test_the_newest_receipt_is_that_of_the_update_where_a_round_has_two():
    told = [receipt(8), receipt(9), receipt(9, "scores", "scored")]
    assert newest(told) == receipt(9)
    assert newest([]) is None


def test_the_fate_of_the_last_contribution_has_its_reason():
    shown = last({"last": receipt(9)})
    assert shown == "update of round 2 of gpt: accepted, score +0.00187, 33 tokens (height 9)"
    refused = receipt(9, code="not_finite", reason="holds values that are no numbers")
    assert "holds values that are no numbers" in last({"last": refused})
    assert last({"last": None}) == last({}) == ""


def test_a_status_shows_pending_and_held():
    account = Account(ME, stake=1000 * UNIT, unbonding=(Unbonding(UNIT, 60),))
    told = purse(account, 0, [("gpt", running(commits={ME: b""}))], 0, 1.0)
    shown = dict(rows({"purse": told}))
    assert shown["pending"] == "update of round 3 of gpt: score commit for at most 00:00:30 more"
    assert shown["held"] == "1,000 stake, 1 unbonding (free in 00:01:00)"


def test_a_pledge_names_what_is_given_and_the_limits_that_are_set():
    limits = {"month": {"cap": 10**12}, "asked": {"upload": "auto", "cpu": "50%", "idle": "off"}}
    status = {"storage": {"lent": 10**9}, "limits": limits}
    assert pledge(status, trains=True, gpu=False) == (
        "1.0 GB of disk; the processor; upload at most four fifths of the line;"
        " at most 1.0 TB a month; 50% of the processors"
    )
    assert "processor" not in pledge(status | {"limits": None}, trains=False, gpu=False)
    limits |= {"upload": {"limit": 2_000_000}}
    limits["asked"]["upload"] = "2000000B/s"
    assert "upload at most 2.0 MB/s;" in pledge(status, trains=True, gpu=False)
    limits["asked"]["upload"] = "off"
    assert "upload without a limit;" in pledge(status, trains=True, gpu=False)


def test_short_amounts_have_three_decimals_or_all_of_them():
    assert short_tokens(12_345_678_901) == "12.346"
    assert short_tokens(1_000_000_000) == "1"
    assert short_tokens(305) == "0.000000305"
    assert short_tokens(-12_345_678_901) == "-12.346"
