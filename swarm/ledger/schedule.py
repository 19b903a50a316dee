"""When an audit begins, takes answers and reports, and settles: by block heights alone.

Audit a begins at the end of block `a * audit_blocks`, the first is number 1. Answers stand in the blocks up to
`answers_until`, reports in those up to `reports_until`, with which it settles.
From some blocks before an audit begins until it is settled no commitment changes: who knew the seed, or saw the
answers, could otherwise commit to what was drawn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from swarm.ledger.genesis import Params

MAX_CLOSED_BLOCKS = 16
"""Before an audit: one who leads that many blocks in a row could know the seed when it commits."""


def start(params: Params, number: int) -> int:
    """The height whose beacon is the seed."""
    return number * params.audit_blocks


def answers_until(params: Params, begun: int) -> int:
    """The last height that takes answers; its beacon draws the auditors."""
    return begun + params.audit_answer_blocks


def reports_until(params: Params, begun: int) -> int:
    """The last height that takes reports."""
    return answers_until(params, begun) + params.audit_report_blocks


def closed_blocks(params: Params) -> int:
    """So many blocks before an audit begins no commitment is taken: at most half of those that no audit takes up."""
    free = params.audit_blocks - params.audit_answer_blocks - params.audit_report_blocks - 1
    return min(MAX_CLOSED_BLOCKS, free // 2)


def open_blocks(params: Params) -> int:
    """So many blocks in a row take commitments between two audits: one at least."""
    taken = params.audit_answer_blocks + params.audit_report_blocks + 1
    return params.audit_blocks - taken - closed_blocks(params)


def opens(params: Params, height: int) -> int:
    """The height from which commitments are taken: that of the block itself, if they are taken in it."""
    number, place = divmod(height, params.audit_blocks)
    if place >= params.audit_blocks - closed_blocks(params):
        return reports_until(params, start(params, number + 1)) + 1
    if number and place <= params.audit_answer_blocks + params.audit_report_blocks:
        return reports_until(params, start(params, number)) + 1
    return height


def first_due(params: Params, height: int) -> int:
    """The first audit in which a piece has to be shown that was given out at a height: half an interval away at least."""
    return -(-(height + params.audit_blocks // 2) // params.audit_blocks)
