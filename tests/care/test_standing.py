"""Why a node does not work, what costs tokens soon, and where the disk goes (pure)."""

from dataclasses import replace

import pytest

from cli.standing import rows
from cli.view import _votes
from swarm.care.controls import Reason
from swarm.care.standing import Facts, space, state, votes, warnings
from swarm.ledger.genesis import Params
from swarm.ledger.keeping import Duty, Keeper

WORKING = Facts(None, None, True, True, None, True, "training, step 3 of 9")
KEEPER = Keeper(b"k" * 32, bytes(32), 10, 5, 1)


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({}, "working"),
        ({"behind": 9}, "catching_up"),
        ({"leaving": 40}, "leaving"),
        ({"leaving": 100}, "left"),
        ({"held": Reason("idle", "not idle")}, "idle"),
        ({"trains": False, "held": Reason("idle", "not idle")}, "reader"),
        ({"has_task": False}, "no_task"),
        ({"is_worker": False}, "not_registered"),
        ({"activity": "waiting for the others"}, "waiting"),
        ({"activity": "no time: it takes about 9 min"}, "schedule"),
        ({"activity": ""}, "waiting"),
    ],
)
def test_every_state_that_is_not_work_has_its_reason(changed, code):
    told = state(replace(WORKING, **changed))
    assert told["code"] == code
    assert told["why"]


def voting(**changed):
    return votes(
        **({"is_voting": True, "is_silent": False, "waits_for": None, "epoch_length": 60} | changed)
    )


def test_a_validator_that_does_not_train_is_no_reader():
    told = state(replace(WORKING, trains=False, votes=voting()))
    assert told["code"] == "validator"
    assert told["why"] == "it votes; it was started without training"


def test_a_validator_that_waits_says_why_and_from_when_it_votes():
    lost = voting(is_voting=False, waits_for=3)
    assert (lost["code"], lost["epoch"], lost["height"]) == ("log_lost", 3, 181)
    assert "from epoch 3 (height 181) on" in lost["why"]
    silent = voting(is_voting=False, is_silent=True, waits_for=3)
    assert silent["code"] == "silent"
    assert "sign elsewhere" in silent["why"]
    assert "started again" in silent["why"]
    assert voting(is_voting=False)["code"] == "not_yet"
    assert _votes(lost) == lost["why"]
    assert _votes(voting()) == _votes(None) == ""


def test_draining_says_how_far_it_is():
    assert state(replace(WORKING, leaving=40))["why"] == "draining at 40 %"


def test_a_strike_is_warned_of_with_what_the_next_one_costs_and_the_time_left():
    params = Params()
    told = warnings(params, 1000, replace(KEEPER, strikes=2), [], None, 0)
    assert told[0]["code"] == "strikes"
    assert "2 of 3 strikes: the next one slashes 10% of the collateral" in told[0]["why"]
    assert told[0]["height"] > params.audit_blocks
    assert told[0]["seconds"] == (told[0]["height"] - 1000) * params.block_interval_ms / 1000
    assert warnings(params, 1000, KEEPER, [], None, 0) == []
    assert warnings(params, 1000, None, [], None, 0) == []


def test_a_piece_that_is_not_here_is_warned_of_before_the_audit_that_asks_for_it():
    duty = Duty(b"d" * 32, 0, b"r", 9, 1, shown=True)
    assert "which is a strike" in warnings(Params(), 10, KEEPER, [duty], None, 0)[0]["why"]
    later = replace(duty, due=5)
    assert warnings(Params(), 10, KEEPER, [later], None, 0) == []


def test_jail_suspension_and_missed_views_are_told():
    told = warnings(Params(), 10, replace(KEEPER, suspended=True), [], 4, 10**6)
    assert [one["code"] for one in told] == ["suspended", "jailed", "missed_views"]
    assert told[1]["height"] == 14


def test_space_that_the_disk_does_not_have_is_said():
    told = space(lent=100, chunks=10, shelf=5, sealed=15, reclaimable=3, disk=(200, 60, 10))
    assert (told["used"], told["left"], told["others"], told["short"]) == (15, 70, 110, 20)
    roomy = space(lent=100, chunks=10, shelf=5, sealed=15, reclaimable=3, disk=(200, 90, 10))
    assert roomy["short"] == 0


def test_a_status_shows_the_reasons_and_the_time_left():
    told = {
        "state": {"code": "no_task", "why": "no training task is open", "until": None},
        "held": [{"part": "serve", "code": "cap", "why": "the cap", "until": 0.0}],
        "warnings": [{"code": "strikes", "why": "2 of 3", "height": 9, "seconds": 90.0}],
        "space": space(lent=100, chunks=0, shelf=0, sealed=0, reclaimable=0, disk=(9, 5, 5)),
    }
    shown = dict(rows(told))
    assert shown["state"] == "no task: no training task is open"
    assert shown["serve"].startswith("the cap, until 1970-01-01")
    assert shown["warning"] == "2 of 3 (in 00:01:30)"
    assert shown["space"].endswith("100 B too few")
