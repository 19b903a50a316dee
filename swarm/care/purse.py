"""What an account has earned, what of its work is not judged yet, and what of its tokens is locked; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swarm.ledger.holdings import Account
    from swarm.ledger.state import RoundState

    Json = dict[str, Any]

UPDATE, SCORES = "update", "scores"


def purse(
    account: Account,
    collateral: int,
    rounds: Iterable[tuple[str, RoundState]],
    height: int,
    block_seconds: float,
) -> Json:
    """Earned, pending and held.

    Args:
        account: Whose.
        collateral: Locked for space that it lends, in units of 10^-9 token.
        rounds: Names of open tasks with their running rounds.
        height: Of the newest final block.
        block_seconds: Between two blocks.

    Returns:
        `earned` and `free` (units), `pending`: contributions that are handed in and not judged, `task`, `round`, `kind`
        (`update` or `scores`), `phase`, `seconds` (until that phase ends at the latest) each; and `held`: `what` (`stake`,
        `worker bond`, `collateral` or `unbonding`), `amount`, and of what unbonds `height` and `seconds` until it is free.
    """
    pending = [
        {
            "task": name,
            "round": one.number,
            "kind": kind,
            "phase": one.phase.name.lower(),
            "seconds": max(0, one.phase_deadline - height) * block_seconds,
        }
        for name, one in rounds
        for kind, by in ((UPDATE, one.commits), (SCORES, one.score_commits))
        if account.public_key in by
    ]
    locked = (
        ("stake", account.stake),
        ("worker bond", account.bond),
        ("collateral", collateral),
    )
    held: list[Json] = [
        {"what": what, "amount": amount, "height": None, "seconds": None}
        for what, amount in locked
        if amount
    ]
    held += [
        {
            "what": "unbonding",
            "amount": one.amount,
            "height": one.height,
            "seconds": max(0, one.height - height) * block_seconds,
        }
        for one in account.unbonding
    ]
    return {"earned": account.earned, "free": account.balance, "pending": pending, "held": held}
