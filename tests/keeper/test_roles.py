from __future__ import annotations

from swarm.ledger.genesis import Params
from swarm.ledger.holdings import Account
from swarm.ledger.transactions import Register
from swarm.participant.membership import next_step

VRF = b"v" * 32


def step(roles, *, keeps, trains=False):
    account = Account(b"k" * 32, vrf_key=VRF, roles=roles)
    return next_step(account, Params(), VRF, "cpu", trains=trains, validates=False, keeps=keeps)


def test_who_lends_registers_as_a_keeper_beside_its_other_roles():
    assert step((), keeps=True) == Register(VRF, "cpu", ("keeper",))
    assert step(("worker",), keeps=True, trains=True).roles == ("keeper", "worker")


def test_a_keeper_that_stands_as_it_should_asks_nothing():
    assert step(("keeper",), keeps=True) is None
