"""Work that is run again: one submission in `replay_one_in`, one of its segments, and what comes of it.

    draw      in the block that settles a round: of each accepted submission, and its reward is held
    CHECK     one validator, drawn by weight, runs the segment again and seals what it found; who is silent is replaced, twice
    SECOND    of one check in `SECOND_IN`, drawn when that is sealed: another does too
    OPENING   they open it
    REFEREES  only if one of them found fault, or the proofs that they ran it differ: three others seal
    JUDGING   and open; two of them decide (`verdicts`)

Each but the last has `replay_blocks` blocks to seal, and a quarter of that to open.
Sealing first, nobody can say what another said, and the proof keeps anybody from saying what they did not compute.

A match, of the verifiers or of two referees, clears the worker, and the reward is paid. So does silence: nobody is accused
by what was not said, nor by one voice. Two mismatches convict: the reward and the worker's bond are gone, and so is the role.
Two faults of which at most one is a mismatch cost the reward and a strike (the states were not to be had); at `strike_limit`
strikes the role is lost too, not the bond.
Of what a convict loses a tenth goes to the verifier that found it, as with any slash, wages to all that did (`wages`), and the
rest is burned. A validator's place is not touched: three draws of a validator are too few to change who decides
(`docs/protocols/replay.md`, "Attacks").

    seed    = SHA-256("swarm/replay/1" || 0 || beacon || task || u32 round || worker)     drawn if seed mod replay_one_in = 0
    segment = SHA-256("swarm/replay-segment/1" || 0 || seed) mod segments
    second  = SHA-256("swarm/replay-second/1" || 0 || seed of the block that ends CHECK) mod SECOND_IN = 0
"""

# ruff: noqa: EM101 - a refusal's reason is what its receipt keeps
from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from swarm.ledger import validators, verdicts, wages
from swarm.ledger.errors import Refused
from swarm.ledger.replaying import (
    KINDS,
    OPEN,
    OPENING,
    SEALING,
    Finding,
    Found,
    Replay,
    Stage,
    seal_of,
)
from swarm.ledger.slashing import REPORTER_PERCENT
from swarm.ledger.verdicts import NEEDED, Verdict

if TYPE_CHECKING:
    from swarm.ledger.draft import Draft
    from swarm.ledger.genesis import Params
    from swarm.ledger.holdings import EpochSet
    from swarm.ledger.payloads import ReplayFinding, ReplaySeal
    from swarm.ledger.state import RoundState, TaskState

__all__ = [
    "KINDS",
    "MAX_OPEN",
    "begin",
    "drawn",
    "end_block",
    "find",
    "is_drawn",
    "is_recorded",
    "is_second",
    "seal",
    "seed_of",
    "segment_of",
]

MAX_OPEN: Final = 256
"""Submissions that are run again at once; no more are drawn meanwhile."""
REFEREES: Final = 3
SECOND_IN: Final = 20
"""Of so many checks one is done twice: 5 % of the checks' work."""
MAX_PASSED: Final = 2
"""Verifiers that are replaced because they were silent."""
OPENING_PART: Final = 4
"""Opening has the blocks of sealing, divided by this; `MIN_OPENING` at least."""
MIN_OPENING: Final = 4
WORKER: Final = "worker"
_TAG: Final = b"swarm/replay/1\x00"
_SEGMENT_TAG: Final = b"swarm/replay-segment/1\x00"
_SEAT_TAG: Final = b"swarm/replay-seat/1\x00"
_SECOND_TAG: Final = b"swarm/replay-second/1\x00"


def is_recorded(params: Params, kind: str) -> bool:
    """Whether workers of a network record rounds of a kind of task."""
    return params.replay_one_in > 0 and kind in KINDS


def seed_of(beacon: bytes, task: bytes, number: int, worker: bytes) -> bytes:
    """What says whether a submission is drawn, and which segment."""
    return hashlib.sha256(_TAG + beacon + task + number.to_bytes(4, "big") + worker).digest()


def is_drawn(seed: bytes, one_in: int) -> bool:
    """Whether a submission is run again; 0: none is."""
    return one_in > 0 and int.from_bytes(seed, "big") % one_in == 0


def segment_of(seed: bytes, segments: int) -> int:
    """Which one, from 0."""
    return int.from_bytes(hashlib.sha256(_SEGMENT_TAG + seed).digest(), "big") % segments


def is_second(seed: bytes) -> bool:
    """Whether a check is done twice, by the seed of the block that ends it."""
    value = hashlib.sha256(_SECOND_TAG + seed).digest()
    return int.from_bytes(value, "big") % SECOND_IN == 0


def drawn(seed: bytes, members: EpochSet, count: int, without: frozenset[bytes]) -> list[bytes]:
    """Different validators, drawn by weight; fewer where there are not so many.

    Args:
        seed: Of the draw.
        members: Of the epoch.
        count: How many.
        without: Who cannot be drawn.
    """
    left = [one for one in members.validators if one.public_key not in without and one.weight]
    found: list[bytes] = []
    while left and len(found) < count:
        body = _SEAT_TAG + seed + len(found).to_bytes(4, "big")
        place = int.from_bytes(hashlib.sha256(body).digest(), "big") % sum(
            one.weight for one in left
        )
        for at, one in enumerate(left):
            place -= one.weight
            if place < 0:
                found.append(left.pop(at).public_key)
                break
    return found


def begin(
    draft: Draft, task: TaskState, current: RoundState, height: int, beacon: bytes
) -> TaskState:
    """Draw among the accepted submissions of a round that was just settled, and hold their rewards.

    Returns:
        The task without what was put aside for those who run them again; the caller puts it.
    """
    params = draft.params
    settled = draft.settled(task.id, current.number)
    if not is_recorded(params, task.kind) or settled is None:
        return task
    members = draft.epoch_set(validators.epoch_of(height + 1, params.epoch_length))
    accepted = sum(line.accepted for line in settled.submissions)
    for line in settled.submissions:
        seed = seed_of(beacon, task.id, current.number, line.worker)
        verifier = drawn(seed, members, 1, frozenset({line.worker}))
        if (
            not line.accepted
            or not is_drawn(seed, params.replay_one_in)
            or not verifier
            or len(draft.open_replays) >= MAX_OPEN
        ):
            continue
        account = draft.account(line.worker)
        held = min(line.payment, account.balance)
        draft.put_account(
            replace(account, balance=account.balance - held, earned=account.earned - held)
        )
        aside = wages.put_aside(task, params, accepted)
        task = replace(task, escrow=task.escrow - aside)
        until = height + params.replay_blocks
        one = Replay(
            task.id,
            current.number,
            line.worker,
            line.root,
            current.base,
            current.start_beacon,
            seed,
            height,
            until,
            Stage.CHECK,
            held,
            aside,
            verifier[0],
        )
        draft.put_replay(one, until)
    return task


def seal(draft: Draft, by: bytes, asked: ReplaySeal, height: int) -> None:
    """Take the seal of a verifier or a referee on what it found.

    Raises:
        Refused: It was not asked, or has sealed.
    """
    one = _open(draft, asked)
    if one.stage not in SEALING:
        raise Refused("what was sealed is opened now")
    if by in one.sealed:
        raise Refused("already sealed")
    if by not in one.asked:
        raise Refused("not the one that was drawn to run it again")
    one = replace(one, sealed={**one.sealed, by: asked.seal})
    draft.put_replay(one, one.until if one.asked else height)


def find(draft: Draft, by: bytes, asked: ReplayFinding, height: int) -> None:
    """Take what a verifier or a referee found, as it sealed it.

    Raises:
        Refused: It was not asked, has said so, or sealed something else.
    """
    one = _open(draft, asked)
    if by in one.found:
        raise Refused("already said")
    if one.stage not in OPENING or by not in one.asked:
        raise Refused("not one that sealed what it found, or not yet")
    found = Found(Finding(asked.finding), asked.distance, asked.proof)
    if one.sealed[by] != seal_of(one.task, one.round, one.worker, by, found, asked.salt):
        raise Refused("it sealed something else")
    one = replace(one, found={**one.found, by: found})
    draft.put_replay(one, one.until if one.asked else height)


def end_block(draft: Draft, height: int, beacon: bytes) -> list[bytes]:
    """Decide what can be decided.

    Returns:
        Workers that lost the role.
    """
    lost = []
    for key, due in tuple(draft.open_replays.items()):
        if due > height:
            continue
        one = draft.replay_at(key)
        if one is None:
            message = "an open replay without a record"
            raise LookupError(message)
        if one.stage is Stage.CHECK:
            _after_check(draft, one, height, beacon)
        elif one.stage is Stage.OPENING:
            _after_opening(draft, one, height, beacon)
        elif one.stage is Stage.JUDGING:
            if _after_judging(draft, one):
                lost.append(one.worker)
        else:
            _open_up(draft, one, height)
    return lost


def _open(draft: Draft, asked: ReplaySeal | ReplayFinding) -> Replay:
    one = draft.replay(asked.task, asked.round, asked.worker)
    if one is None:
        raise Refused("that submission was not drawn to be run again")
    if one.stage not in OPEN:
        raise Refused("it is over")
    return one


def _after_check(draft: Draft, one: Replay, height: int, beacon: bytes) -> None:
    """Sealed: draw whether it is done twice. Silent: draw another."""
    silent = one.verifier not in one.sealed
    passed = (*one.passed, one.verifier) if silent else one.passed
    seed = seed_of(beacon, one.task, one.round, one.worker)
    if not silent and not is_second(seed):
        _open_up(draft, one, height)
        return
    others = _others(draft, replace(one, passed=passed), 1, height, seed)
    if silent and (not others or len(passed) > MAX_PASSED):
        _release(draft, replace(one, passed=passed), Stage.UNANSWERED)
    elif silent:
        _ask(draft, replace(one, passed=passed, verifier=others[0]), Stage.CHECK, height)
    elif others:
        _ask(draft, replace(one, second=others[0]), Stage.SECOND, height)
    else:
        _open_up(draft, one, height)


def _after_opening(draft: Draft, one: Replay, height: int, beacon: bytes) -> None:
    """All found a match: cleared. Else referees are asked, if there are enough."""
    tolerance = draft.params.replay_tolerance
    compared = bool(one.second)  # else there was nothing to hide from
    hidden = [key for key in one.sealed if compared and key not in one.found]
    if not one.found:
        one = verdicts.settle(draft, one, (), hidden, 0)
        _release(draft, one, Stage.UNANSWERED)
    elif verdicts.agree(one.found.values(), tolerance):
        one = verdicts.settle(draft, one, one.found, hidden, 0)
        _release(draft, one, Stage.CLEARED)
    else:
        seed = seed_of(beacon, one.task, one.round, one.worker)
        others = _others(draft, one, REFEREES, height, seed)
        if len(others) < NEEDED:
            _release(draft, verdicts.settle(draft, one, (), hidden, 0), Stage.UNANSWERED)
        else:
            _ask(draft, replace(one, referees=tuple(others)), Stage.REFEREES, height)


def _after_judging(draft: Draft, one: Replay) -> bool:
    """Decide by two of three; returns whether the role is lost."""
    tolerance = draft.params.replay_tolerance
    said = {key: one.found[key] for key in one.referees if key in one.found}
    verdict = verdicts.judge(said, tolerance)
    paid, fined = verdicts.merits(one, verdict, tolerance)
    if verdict.stage is Stage.CONVICTED:
        return _convict(draft, one, verdict, paid, fined)
    if verdict.stage is Stage.LOST:
        return _take_reward(draft, one, paid, fined)
    one = verdicts.settle(draft, one, paid, fined, 0)
    _release(draft, one, verdict.stage)
    return False


def _others(draft: Draft, one: Replay, count: int, height: int, seed: bytes) -> list[bytes]:
    """Validators that had no part in it yet."""
    params = draft.params
    members = draft.epoch_set(validators.epoch_of(height + 1, params.epoch_length))
    known = {one.worker, one.verifier, one.second, *one.passed}
    return drawn(seed, members, count, frozenset(known))


def _ask(draft: Draft, one: Replay, stage: Stage, height: int) -> None:
    until = height + draft.params.replay_blocks
    draft.put_replay(replace(one, stage=stage, until=until), until)


def _open_up(draft: Draft, one: Replay, height: int) -> None:
    """What was sealed is opened; without a seal there is nothing to judge by."""
    stage = Stage.JUDGING if one.stage is Stage.REFEREES else Stage.OPENING
    until = height + max(MIN_OPENING, draft.params.replay_blocks // OPENING_PART)
    if stage is Stage.JUDGING and not any(key in one.sealed for key in one.referees):
        _release(draft, verdicts.settle(draft, one, (), (), 0), Stage.UNANSWERED)
        return
    draft.put_replay(replace(one, stage=stage, until=until), until)


def _release(draft: Draft, one: Replay, stage: Stage) -> None:
    """Pay what was held; what was put aside and not spent returns."""
    account = draft.account(one.worker)
    draft.put_account(
        replace(account, balance=account.balance + one.held, earned=account.earned + one.held)
    )
    one = verdicts.settle(draft, one, (), (), 0)
    draft.put_replay(replace(one, held=0, stage=stage), None)


def _take_reward(draft: Draft, one: Replay, paid: list[bytes], fined: list[bytes]) -> bool:
    """The states were withheld: the reward is gone, and it is a strike."""
    one = verdicts.settle(draft, one, paid, fined, one.held)
    draft.put_replay(replace(one, held=0, stage=Stage.LOST), None)
    strikes = draft.strikes(one.worker) + 1
    if strikes < draft.params.strike_limit:
        draft.put_strikes(one.worker, strikes)
        return False
    draft.put_strikes(one.worker, 0)
    return _dismiss(draft, one.worker)


def _convict(
    draft: Draft, one: Replay, verdict: Verdict, paid: list[bytes], fined: list[bytes]
) -> bool:
    """Reward and bond are gone: a tenth to the verifier that found it, wages, the rest burned."""
    taken = one.held + _seize(draft, one)
    finder = next((key for key in (one.verifier, one.second) if key in paid), verdict.standing[0])
    bounty = taken * REPORTER_PERCENT // 100
    account = draft.account(finder)
    draft.put_account(replace(account, balance=account.balance + bounty))
    one = verdicts.settle(draft, one, paid, fined, taken - bounty)
    draft.put_replay(replace(one, held=0, stage=Stage.CONVICTED), None)
    if one.worker in draft.scored:
        draft.put_scored({key: at for key, at in draft.scored.items() if key != one.worker})
    return _dismiss(draft, one.worker)


def _seize(draft: Draft, one: Replay) -> int:
    """Take a worker's bond, also where it began to unbond after the round had begun: it committed with it."""
    settled = draft.settled(one.task, one.round)
    started = one.begun if settled is None else settled.started + 1
    account = draft.account(one.worker)
    left = max(0, draft.params.worker_bond - account.bond)
    since = validators.release_height(draft, started)
    outgoing = []
    for item in account.unbonding:
        part = min(left, item.amount) if item.height >= since else 0
        left -= part
        outgoing.append(replace(item, amount=item.amount - part))
    taken = account.held
    account = replace(account, bond=0, unbonding=tuple(item for item in outgoing if item.amount))
    draft.put_account(account)
    return taken - account.held


def _dismiss(draft: Draft, worker: bytes) -> bool:
    """Take the role of a worker away; a bond that is left unbonds. Returns whether it had the role."""
    if worker not in draft.workers:
        return False
    account = draft.account(worker)
    if account.bond:
        release = validators.release_height(draft, draft.head.height + 1)
        account = validators.unbond(account, account.bond, release)
    roles = tuple(role for role in account.roles if role != WORKER)
    draft.put_account(replace(account, bond=0, registered=-1, roles=roles))
    draft.put_workers({key: at for key, at in draft.workers.items() if key != worker})
    return True
