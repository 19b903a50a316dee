"""Work that is run again: one submission in `replay_one_in`, one of its segments, and what comes of it.

    draw      in the block that settles a round: of each accepted submission, and its reward is held
    CHECK     `replay_blocks` blocks: one validator, drawn by weight, runs the segment again
    REFEREES  as many, only if it found fault: three others do; two of them decide

A match, of the verifier or of two referees, clears the worker, and the reward is paid. So does silence: nobody is accused
by what was not said, nor by one voice. Two mismatches convict: the reward and the worker's bond are gone, and so is the role.
Two faults of which at most one is a mismatch cost the reward and a strike (the states were not to be had); at `strike_limit`
strikes the role is lost too, not the bond.
Of what a convict loses a tenth goes to the verifier, as with any slash, and the rest is burned. Its stake as a validator is
not touched: three draws of a validator are too few to change who decides (`docs/protocols/replay.md`, "Attacks").

    seed    = SHA-256("swarm/replay/1" || 0 || beacon || task || u32 round || worker)     drawn if seed mod replay_one_in = 0
    segment = SHA-256("swarm/replay-segment/1" || 0 || seed) mod segments
"""

# ruff: noqa: EM101 - a refusal's reason is what its receipt keeps
from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from swarm.ledger import validators
from swarm.ledger.errors import Refused
from swarm.ledger.replaying import OPEN, Finding, Found, Replay, Stage
from swarm.ledger.slashing import REPORTER_PERCENT

if TYPE_CHECKING:
    from swarm.ledger.draft import Draft
    from swarm.ledger.holdings import EpochSet
    from swarm.ledger.payloads import ReplayFinding
    from swarm.ledger.state import RoundState, TaskState

KINDS: Final = ("lm",)
"""Kinds of tasks whose rounds are recorded."""
MAX_OPEN: Final = 256
"""Submissions that are run again at once; no more are drawn meanwhile."""
REFEREES: Final = 3
NEEDED: Final = 2
"""Of the referees, to decide."""
WORKER: Final = "worker"
_TAG: Final = b"swarm/replay/1\x00"
_SEGMENT_TAG: Final = b"swarm/replay-segment/1\x00"
_SEAT_TAG: Final = b"swarm/replay-seat/1\x00"


def seed_of(beacon: bytes, task: bytes, number: int, worker: bytes) -> bytes:
    """What says whether a submission is drawn, and which segment."""
    return hashlib.sha256(_TAG + beacon + task + number.to_bytes(4, "big") + worker).digest()


def is_drawn(seed: bytes, one_in: int) -> bool:
    """Whether a submission is run again; 0: none is."""
    return one_in > 0 and int.from_bytes(seed, "big") % one_in == 0


def segment_of(seed: bytes, segments: int) -> int:
    """Which one, from 0."""
    return int.from_bytes(hashlib.sha256(_SEGMENT_TAG + seed).digest(), "big") % segments


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


def begin(draft: Draft, task: TaskState, current: RoundState, height: int, beacon: bytes) -> None:
    """Draw among the accepted submissions of a round that was just settled, and hold their rewards."""
    params = draft.params
    settled = draft.settled(task.id, current.number)
    if not params.replay_one_in or task.kind not in KINDS or settled is None:
        return
    members = draft.epoch_set(validators.epoch_of(height + 1, params.epoch_length))
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
            verifier[0],
        )
        draft.put_replay(one, until)


def find(draft: Draft, by: bytes, asked: ReplayFinding, height: int) -> None:
    """Take what a verifier or a referee found.

    Raises:
        Refused: It was not asked, or has said so.
    """
    one = draft.replay(asked.task, asked.round, asked.worker)
    if one is None:
        raise Refused("that submission was not drawn to be run again")
    if one.stage not in OPEN:
        raise Refused("it is over")
    if by in one.found:
        raise Refused("already said")
    if by not in one.asked:
        raise Refused("not the one that was drawn to run it again")
    found = {**one.found, by: Found(Finding(asked.finding), asked.distance)}
    draft.put_replay(replace(one, found=found), height)


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
        elif _after_referees(draft, one, height):
            lost.append(one.worker)
    return lost


def _after_check(draft: Draft, one: Replay, height: int, beacon: bytes) -> None:
    said = one.found.get(one.verifier)
    if said is None:
        _release(draft, one, Stage.UNANSWERED)
    elif said.finding is Finding.MATCH:
        _release(draft, one, Stage.CLEARED)
    else:
        params = draft.params
        members = draft.epoch_set(validators.epoch_of(height + 1, params.epoch_length))
        seed = seed_of(beacon, one.task, one.round, one.worker)
        others = drawn(seed, members, REFEREES, frozenset({one.worker, one.verifier}))
        if len(others) < NEEDED:
            _release(draft, one, Stage.UNANSWERED)
            return
        until = height + params.replay_blocks
        asked = replace(one, stage=Stage.REFEREES, referees=tuple(others), until=until)
        draft.put_replay(asked, until)


def _after_referees(draft: Draft, one: Replay, height: int) -> bool:
    """Decide by two of three, as soon as nothing can change it; returns whether the role is lost."""
    said = [one.found[key].finding for key in one.referees if key in one.found]
    silent = 0 if height >= one.until else len(one.referees) - len(said)
    wrong, right = said.count(Finding.MISMATCH), said.count(Finding.MATCH)
    if wrong >= NEEDED:
        return _convict(draft, one)
    if right >= NEEDED:
        _release(draft, one, Stage.CLEARED)
    elif len(said) - right >= NEEDED and wrong + silent < NEEDED:
        return _take_reward(draft, one)
    elif not silent:
        _release(draft, one, Stage.UNANSWERED)
    else:
        draft.put_replay(one, one.until)
    return False


def _release(draft: Draft, one: Replay, stage: Stage) -> None:
    """Pay what was held."""
    account = draft.account(one.worker)
    draft.put_account(
        replace(account, balance=account.balance + one.held, earned=account.earned + one.held)
    )
    draft.put_replay(replace(one, held=0, stage=stage), None)


def _take_reward(draft: Draft, one: Replay) -> bool:
    """The states were withheld: the reward is burned, and it is a strike."""
    _burn(draft, one.held)
    draft.put_replay(replace(one, held=0, stage=Stage.LOST), None)
    strikes = draft.strikes(one.worker) + 1
    if strikes < draft.params.strike_limit:
        draft.put_strikes(one.worker, strikes)
        return False
    draft.put_strikes(one.worker, 0)
    return _dismiss(draft, one.worker)


def _convict(draft: Draft, one: Replay) -> bool:
    """Reward and bond are gone: a tenth to the verifier, the rest burned."""
    taken = one.held + _seize(draft, one)
    reward = taken * REPORTER_PERCENT // 100
    verifier = draft.account(one.verifier)
    draft.put_account(replace(verifier, balance=verifier.balance + reward))
    _burn(draft, taken - reward)
    draft.put_replay(replace(one, held=0, stage=Stage.CONVICTED), None)
    if one.worker in draft.scored:
        draft.put_scored({key: at for key, at in draft.scored.items() if key != one.worker})
    return _dismiss(draft, one.worker)


def _seize(draft: Draft, one: Replay) -> int:
    """Take a worker's bond, also where it began to unbond after the work was drawn."""
    account = draft.account(one.worker)
    left = max(0, draft.params.worker_bond - account.bond)
    since = validators.release_height(draft, one.begun)
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


def _burn(draft: Draft, amount: int) -> None:
    money = draft.money
    draft.put_money(replace(money, burned=money.burned + amount))
