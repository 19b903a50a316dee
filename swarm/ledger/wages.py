"""What those who run work again are paid from: a part of the budget of a task whose rounds are recorded.

A part of 50 % / `replay_one_in` of each round's share is kept in escrow: 5 % at one in ten. For each drawn submission the wages
of two are put aside from it, each 40 % of what one submission of the round earned of the budget in the mean: running
one of three segments again costs a third of it. One of the two wages is needed, and both where a second verifier is drawn; the
rest returns. What the task has left when it is closed goes back to its poster, as ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from swarm.ledger.replaying import KINDS

if TYPE_CHECKING:
    from swarm.ledger.genesis import Params
    from swarm.ledger.state import TaskState

KEPT: Final = 5_000
"""Parts in 10,000 of a budget that checks of every submission would take."""
WAGE_PERCENT: Final = 40
"""Of what a submission earns in the mean."""
WAGES: Final = 2
"""That are put aside for each drawn submission."""
_WHOLE: Final = 10_000


def share(task: TaskState, params: Params) -> int:
    """What workers are paid of a task's budget in a round."""
    kept = KEPT // params.replay_one_in if params.replay_one_in and task.kind in KINDS else 0
    return task.budget * (_WHOLE - kept) // _WHOLE // task.rounds


def put_aside(task: TaskState, params: Params, accepted: int) -> int:
    """Units of a task's escrow for one drawn submission, as far as they are not for the rounds to come.

    Args:
        task: With its last round counted and paid.
        params: Of the network.
        accepted: Submissions of that round, at least one.
    """
    free = task.escrow - share(task, params) * (task.rounds - task.done)
    wage = share(task, params) // accepted * WAGE_PERCENT // 100
    return max(0, min(WAGES * wage, free))
