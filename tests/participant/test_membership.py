"""When an account registers and bonds itself."""

from __future__ import annotations

from dataclasses import replace

from swarm.ledger.genesis import Params
from swarm.ledger.state import Account
from swarm.ledger.transactions import Register, Stake
from swarm.participant.membership import next_step

VRF = b"v" * 32
PARAMS = Params(min_bond=1_000, worker_bond=0)
NEW = Account(b"k" * 32)
MEMBER = replace(NEW, roles=("validator", "worker"), vrf_key=VRF)


def step(account: Account, params: Params = PARAMS, **wants: bool) -> Register | Stake | None:
    return next_step(account, params, VRF, "cpu", **({"trains": True, "validates": True} | wants))


def test_a_newcomer_with_nothing_registers_where_no_bond_is_asked() -> None:
    assert step(NEW) == Register(VRF, "cpu", ("validator", "worker"))


def test_a_newcomer_waits_for_the_bond_of_a_worker() -> None:
    bonded = replace(PARAMS, worker_bond=50)
    assert step(NEW, bonded) is None
    assert step(replace(NEW, balance=50), bonded) is not None


def test_a_member_stakes_once_it_earned_the_bond_and_something_for_fees() -> None:
    assert step(replace(MEMBER, balance=1_099)) is None
    assert step(replace(MEMBER, balance=1_100)) == Stake(1_000)
    assert step(replace(MEMBER, balance=700, stake=400)) == Stake(600)


def test_a_validator_asks_for_nothing() -> None:
    assert step(replace(MEMBER, balance=10_000, stake=1_000)) is None


def test_another_key_or_role_registers_again() -> None:
    assert step(MEMBER, validates=False) == Register(VRF, "cpu", ("worker",))
    assert step(replace(MEMBER, vrf_key=b"w" * 32)) is not None


def test_a_reader_never_registers() -> None:
    assert step(NEW, trains=False, validates=False) is None
