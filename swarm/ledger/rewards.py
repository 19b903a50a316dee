"""Who gets what, in whole units: splits that lose nothing, and the emission of a block.

Each block sets `pool * emission_per_day / (10,000 * blocks_per_day)` units in motion, in shares of a hundred:
training 40 (half of it for small tasks alone), storage 20, validation 20 (half to the leader at once, half to the
scorers of the next settled round), data 10, serving 5, treasury 5. Data and serving have no earner yet: their shares
never leave the pool. What waits for a settled round or audit is set aside, at most a day of it.
Since a block takes a part of what is left, the pool is never empty and the cap is never passed.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.ledger.genesis import Params
    from swarm.ledger.state import Money

TRAINING_PERCENT: Final = 20
"""For any task; a small one draws from its own first."""
SMALL_PERCENT: Final = 20
STORAGE_PERCENT: Final = 20
SCORING_PERCENT: Final = 10
LEADER_PERCENT: Final = 10
TREASURY_PERCENT: Final = 5
FIRST_PLACE_PERCENT: Final = 40
"""Of a round's money, the most that one submission earns."""


def split(total: int, weights: Sequence[int]) -> list[int]:
    """Divide by weight to the last unit: the largest remainders get one more, ties by place.

    Args:
        total: Units, not negative.
        weights: Not negative and not all zero.
    """
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    left = total - sum(parts)
    order = sorted(range(len(weights)), key=lambda at: (-(total * weights[at] % whole), at))
    for at in order[:left]:
        parts[at] += 1
    return parts


def capped(total: int, weights: Sequence[int], percent: int = FIRST_PLACE_PERCENT) -> list[int]:
    """Divide by weight, nobody above a share of the total; what the first lose the others divide.

    Args:
        total: Units.
        weights: Positive.
        percent: The most that one gets.

    Returns:
        One part a weight; less than the total together if all stand at the cap.
    """
    limit = total * percent // 100
    parts = [0] * len(weights)
    left, open_ = total, list(range(len(weights)))
    while open_:
        shares = split(left, [weights[at] for at in open_])
        over = [at for at, share in zip(open_, shares, strict=True) if share > limit]
        if not over:
            for at, share in zip(open_, shares, strict=True):
                parts[at] = share
            break
        for at in over:
            parts[at] = limit
            left -= limit
        open_ = [at for at in open_ if at not in over]
    return parts


def lower_median(values: Sequence[tuple[int, int]]) -> int:
    """The least value at which half of the weight is reached.

    Args:
        values: `(value, weight)`, at least one, weights positive.
    """
    whole = sum(weight for _, weight in values)
    reached = 0
    for value, weight in sorted(values):
        reached += weight
        if 2 * reached >= whole:
            return value
    message = "a median of nothing"
    raise ValueError(message)


def emit(money: Money, params: Params) -> tuple[Money, int]:
    """The emission of one block.

    Returns:
        The money after it, and what its leader earns.
    """
    rate = Fraction(params.emission_per_day, 10_000 * params.blocks_per_day)
    amount = int(money.pool * rate)
    training = _set_aside(money.training, amount, TRAINING_PERCENT, params)
    small = _set_aside(money.small, amount, SMALL_PERCENT, params)
    scoring = _set_aside(money.scoring, amount, SCORING_PERCENT, params)
    storage = _set_aside(money.storage, amount, STORAGE_PERCENT, params)
    leader = amount * LEADER_PERCENT // 100
    treasury = amount * TREASURY_PERCENT // 100
    after = replace(
        money,
        pool=money.pool - training - small - scoring - storage - leader - treasury,
        training=money.training + training,
        small=money.small + small,
        scoring=money.scoring + scoring,
        treasury=money.treasury + treasury,
        storage=money.storage + storage,
        emitted=money.emitted + leader + treasury,
    )
    return after, leader


def next_base_fee(base_fee: int, gas_used: int, params: Params) -> int:
    """EIP-1559 in integers: an eighth at most a block, towards blocks that are half full.

    A unit at least, up as in the EIP, and down as well: it would never come back from below 8 otherwise, and where its
    floor is 0 who has nothing could send nothing after the first busy block.
    """
    target = params.max_block_gas // 2
    step = max(1, base_fee * abs(gas_used - target) // target // 8)
    if gas_used > target:
        return base_fee + step
    if gas_used < target:
        return max(params.base_fee_floor, base_fee - step)
    return base_fee


def _set_aside(held: int, amount: int, percent: int, params: Params) -> int:
    share = amount * percent // 100
    return max(0, min(share, share * params.blocks_per_day - held))
