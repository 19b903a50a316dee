"""What follows from what was found in work that was run again: a verdict, and who is paid or fined for it.

A referee's word counts if the proof that it ran the segment is near that of another referee; a guess is near nobody's. Two
that count decide. Then everybody's word is held against theirs, that of the verifiers too: who said the same, with a proof
near theirs, earns a wage; who said something else, or guessed, or sealed and did not open when it was compared, pays `FINE` wages.
A fine is small on purpose: referees are three draws of a validator, and stake must not hang on so few.

A wage is paid from what the guilty lose, then from what the task put aside; what is left of that returns to the task.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from swarm.ledger.replaying import Finding, Stage, near
from swarm.ledger.wages import WAGES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from swarm.ledger.draft import Draft
    from swarm.ledger.replaying import Found, Replay

NEEDED: Final = 2
"""Of the referees, to decide."""
FINE: Final = 40
"""Wages; of twenty checks one is compared, so who guesses loses two wages for each that it earns."""

STAKE_PART: Final = 100
"""Of a stake, a fine takes no more than one part in so many: it is no slash."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the referees say together.

    Attributes:
        stage: CLEARED, CONVICTED, LOST or UNANSWERED.
        standing: Referees whose word counts.
    """

    stage: Stage
    standing: tuple[bytes, ...] = ()


def judge(found: Mapping[bytes, Found], tolerance: int) -> Verdict:
    """Decide by two of three.

    Args:
        found: What each referee opened.
        tolerance: Of the network, in parts of a million.
    """
    standing = tuple(
        key
        for key, one in found.items()
        if any(other != key and near(one.proof, found[other].proof, tolerance) for other in found)
    )
    said = [found[key].finding for key in standing]
    withheld = sum(one.finding is Finding.WITHHELD for one in found.values())
    if said.count(Finding.MISMATCH) >= NEEDED:
        return Verdict(Stage.CONVICTED, standing)
    if said.count(Finding.MATCH) >= NEEDED:
        return Verdict(Stage.CLEARED, standing)
    wrong = sum(one.finding is Finding.MISMATCH for one in found.values())
    if withheld and withheld + wrong >= NEEDED:
        return Verdict(Stage.LOST, standing)
    return Verdict(Stage.UNANSWERED)


def agree(found: Iterable[Found], tolerance: int) -> bool:
    """Whether all that checked found a match, with proofs of the same run."""
    first, *others = found
    return first.finding is Finding.MATCH and all(
        one.finding is Finding.MATCH and near(first.proof, one.proof, tolerance) for one in others
    )


def merits(one: Replay, verdict: Verdict, tolerance: int) -> tuple[list[bytes], list[bytes]]:
    """Who is paid and who is fined after the referees decided, of all that sealed something.

    Where the states were withheld nobody can be wrong: another may have had them.
    """
    paid, fined = [], []
    due = {
        Stage.CLEARED: (Finding.MATCH,),
        Stage.CONVICTED: (Finding.MISMATCH,),
        Stage.LOST: (Finding.MISMATCH, Finding.WITHHELD),
    }.get(verdict.stage, ())
    proofs = [one.found[key].proof for key in verdict.standing]
    for key in one.sealed:
        said = one.found.get(key)
        if said is None:
            fined.append(key)
        elif verdict.stage is Stage.LOST:
            paid += [key] * (said.finding in due)
        elif due and said.finding is not Finding.WITHHELD:
            honest = any(near(said.proof, other, tolerance) for other in proofs)
            (paid if honest and said.finding in due else fined).append(key)
    return paid, fined


def settle(
    draft: Draft, one: Replay, paid: Iterable[bytes], fined: Iterable[bytes], guilty: int
) -> Replay:
    """Pay wages, take fines, burn the rest of both, and give back what the task put aside and nobody earned.

    Args:
        draft: The state.
        one: The submission; what was put aside for it is spent.
        paid: Who earns a wage.
        fined: Who pays a fine.
        guilty: Units that the worker lost, and that nobody has yet.
    """
    wage = one.put_aside // WAGES
    taken = guilty + sum(_fine(draft, key, FINE * wage) for key in fined)
    aside = one.put_aside
    for key in paid:
        amount = min(wage, taken + aside)
        from_taken = min(amount, taken)
        taken -= from_taken
        aside -= amount - from_taken
        account = draft.account(key)
        draft.put_account(
            replace(account, balance=account.balance + amount, earned=account.earned + amount)
        )
    money = draft.money
    draft.put_money(replace(money, burned=money.burned + taken))
    _give_back(draft, one.task, aside)
    return replace(one, put_aside=0)


def _fine(draft: Draft, key: bytes, amount: int) -> int:
    """Take units of a balance, then of a hundredth of a stake at most; returns how many there were."""
    account = draft.account(key)
    balance = min(account.balance, amount)
    stake = min(account.stake // STAKE_PART, amount - balance)
    draft.put_account(
        replace(account, balance=account.balance - balance, stake=account.stake - stake)
    )
    return balance + stake


def _give_back(draft: Draft, task: bytes, amount: int) -> None:
    found = draft.task(task)
    if found is None:
        message = "work of a task that is not there was run again"
        raise LookupError(message)
    if found.open:
        draft.put_task(replace(found, escrow=found.escrow + amount))
        return
    poster = draft.account(found.poster)
    draft.put_account(replace(poster, balance=poster.balance + amount))
