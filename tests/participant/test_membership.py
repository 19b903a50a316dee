"""When an account registers and bonds itself."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import trio
from trio.testing import wait_all_tasks_blocked

from swarm.care.controls import Controls
from swarm.heights import Heights
from swarm.ledger.errors import LedgerError
from swarm.ledger.genesis import Params
from swarm.ledger.state import Account
from swarm.ledger.transactions import Register, Stake, Unjail
from swarm.participant.core import Me
from swarm.participant.membership import LOOK_BLOCKS, Membership, next_step

VRF = b"v" * 32
PARAMS = Params(min_bond=1_000, worker_bond=0)
KEY = b"k" * 32
NEW = Account(KEY)
MEMBER = replace(NEW, roles=("validator", "worker"), vrf_key=VRF)


def step(
    account: Account, params: Params = PARAMS, **wants: int | None
) -> Register | Stake | Unjail | None:
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


SLASHED = replace(MEMBER, balance=2_000, stake=600)


def test_a_slashed_validator_stakes_what_is_missing_and_asks_to_be_let_out_when_its_time_is_over() -> (
    None
):
    assert step(SLASHED, jailed_for=30) == Stake(400)
    bonded = replace(SLASHED, stake=1_000)
    assert step(bonded, jailed_for=1) is None
    assert step(bonded, jailed_for=0) == Unjail()
    assert step(bonded, jailed_for=-500) == Unjail()
    assert step(bonded, jailed_for=None) is None


def test_who_cannot_stake_again_stays_in_jail() -> None:
    assert step(replace(SLASHED, balance=10), jailed_for=0) is None


def test_a_key_that_signs_elsewhere_too_neither_stakes_nor_asks_to_be_let_out() -> None:
    assert step(replace(SLASHED, stake=1_000), jailed_for=0, doubled=True) is None
    assert step(SLASHED, jailed_for=0, doubled=True) is None


def test_who_does_not_want_to_validate_stays_in_jail() -> None:
    worker = replace(MEMBER, roles=("worker",), stake=1_000)
    assert step(worker, validates=False, jailed_for=0) is None


class Sent:
    """A wallet that notes what it is asked to send, and refuses it where told to."""

    def __init__(self) -> None:
        self.steps: list[str] = []
        self.is_refusing = False

    async def submit(self, step) -> None:
        self.steps.append(type(step).__name__)
        if self.is_refusing:
            message = "the fee is not there"
            raise LedgerError(message)


async def test_steps_are_taken_some_blocks_apart_again_after_a_refusal_and_none_while_it_leaves(
    autojump_clock,
) -> None:
    account, sent, heights, controls = replace(NEW), Sent(), Heights(5), Controls()
    jailed_until: int | None = None
    view = SimpleNamespace(
        account=lambda _: account,
        params=PARAMS,
        jailed_until=lambda _: jailed_until,
        keeper=lambda _: SimpleNamespace(slots=1),
    )
    membership = Membership(
        Me(KEY, trains=True, validates=True),
        VRF,
        "cpu",
        view=lambda: view,
        heights=heights,
        wallet=sent,
        controls=controls,
        is_lending=lambda: False,
        is_doubled=lambda: False,
    )

    async def by(height: int) -> list[str]:
        heights.move(height)
        await wait_all_tasks_blocked()
        return sent.steps

    sent.is_refusing = True
    async with trio.open_nursery() as nursery:
        nursery.start_soon(membership.run)
        assert await by(5) == ["Register"]
        assert await by(5 + LOOK_BLOCKS - 1) == ["Register"]
        assert await by(5 + LOOK_BLOCKS) == ["Register", "Register"]
        # Slots that stand keep the role of a keeper, whether or not more are lent.
        account = replace(MEMBER, roles=("keeper", "validator", "worker"), balance=1_100)
        assert (await by(5 + 2 * LOOK_BLOCKS))[2:] == ["Stake"]
        controls.is_leaving = True
        assert (await by(5 + 3 * LOOK_BLOCKS))[3:] == []
        controls.is_leaving = False
        assert (await by(5 + 4 * LOOK_BLOCKS))[3:] == ["Stake"]
        # The next block is the first that may let it out of jail.
        account = replace(account, stake=PARAMS.min_bond)
        jailed_until = 5 + 6 * LOOK_BLOCKS + 1
        assert (await by(5 + 5 * LOOK_BLOCKS))[4:] == []
        assert (await by(5 + 6 * LOOK_BLOCKS))[4:] == ["Unjail"]
        jailed_until = 5 + 7 * LOOK_BLOCKS + 2
        assert (await by(5 + 7 * LOOK_BLOCKS))[5:] == []
        nursery.cancel_scope.cancel()
