"""When an account registers as a worker or keeper, bonds itself as a validator, and asks to be let out of jail: pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swarm.ledger.transactions import Register, Stake, Unjail

if TYPE_CHECKING:
    from swarm.ledger.genesis import Params
    from swarm.ledger.state import Account

DOUBLED = (
    "votes of this node's key were seen that this node did not cast: the key is used elsewhere too, which costs its stake; "
    "stop the other one, then start this node again: until then it casts no vote"
)
"""What is told while the key signs elsewhere; until this node starts again, it does not vote, stakes nothing and stays in jail."""
RESERVE_PARTS = 10
"""A tenth of the bond is kept for fees before the rest is staked."""


def next_step(
    account: Account,
    params: Params,
    vrf_key: bytes,
    hardware: str,
    *,
    trains: bool,
    validates: bool,
    keeps: bool = False,
    jailed_for: int | None = None,
    doubled: bool = False,
) -> Register | Stake | Unjail | None:
    """What the account should ask of the ledger next, or None when it stands where it wants to be.

    A newcomer registers first: where the network asks no worker's bond it can do so with an empty
    account, train, and stake what it earned once that covers the bond of a validator.
    Who was slashed stakes what is missing, and asks to be let out when its time is over. While votes of the key are seen
    that this node did not cast, what it was slashed for goes on: then it risks nothing more.

    Args:
        account: As the newest finalized state has it.
        params: The network's.
        vrf_key: This node's, 32 bytes.
        hardware: Its class, in words.
        trains: It wants to be a worker.
        validates: It wants to be a validator.
        keeps: It lends slots, or some still stand: the ledger refuses to take that role away before.
        jailed_for: Blocks until it may ask to be let out, 0 or less when it may now; None for one that is not jailed.
        doubled: The key signs elsewhere too.
    """
    roles = (("keeper", keeps), ("validator", validates), ("worker", trains))
    wanted = tuple(role for role, wants in roles if wants)
    registered = account.vrf_key == vrf_key and account.roles == wanted
    affordable = account.balance + account.bond >= (params.worker_bond if trains else 0)
    if wanted and not registered:
        return Register(vrf_key, hardware, wanted) if affordable else None
    if not validates or doubled:
        return None
    if account.stake >= params.min_bond:
        return Unjail() if jailed_for is not None and jailed_for <= 0 else None
    missing = params.min_bond - account.stake
    return Stake(missing) if account.balance >= missing + missing // RESERVE_PARTS else None
