"""The curves of a task, from its rounds as `train/watch` tells them; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Json = dict[str, Any]

UNIT: Final = 10**9
"""Of 10^-9 token, in a token."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """One point of a curve.

    Attributes:
        tag: The curve's name.
        step: The version or the round.
        value: What it is.
        round: Whose end gives the point its time.
    """

    tag: str
    step: int
    value: float
    round: int


def scalars(watched: Json) -> Iterator[Scalar]:
    """Every point of a task's rounds that ended, in order.

    `loss/version` is drawn over versions, the others over rounds; peers are told apart by the end of their id.
    """
    first = True
    for one in watched["rounds"]:
        number = one["round"]
        if one["blocks"] is None:  # it runs
            continue
        if first and one["base_loss"] is not None:
            before = one["version"] - (one["outcome"] == "merged")
            yield from _finite("loss/version", before, one["base_loss"], number)
            first = False
        yield from _finite("loss/version", one["version"], one["loss"], number)
        yield from _finite("loss/base", number, one["base_loss"], number)
        entries = one["submissions"]
        yield Scalar("round/submissions", number, float(len(entries)), number)
        accepted = sum(bool(entry["accepted"]) for entry in entries)
        yield Scalar("round/accepted", number, float(accepted), number)
        yield Scalar("round/blocks", number, float(one["blocks"]), number)
        paid = sum(entry["paid"] for entry in entries) / UNIT
        yield Scalar("round/paid_tokens", number, paid, number)
        for entry in entries:
            tail = entry["worker"][-8:]
            yield from _finite(f"score/{tail}", number, entry["score"], number)


def _finite(tag: str, step: int, value: float | None, round_: int) -> Iterator[Scalar]:
    if value is not None and math.isfinite(value):
        yield Scalar(tag, step, value, round_)


def times(watched: Json, seconds: Mapping[int, float]) -> dict[int, float]:
    """When each round ended, in seconds since 1970; of one whose time is not known, that of the one before it."""
    found: dict[int, float] = {}
    last = min(seconds.values(), default=0.0)
    for one in watched["rounds"]:
        last = seconds.get(one["round"], last)
        found[one["round"]] = last
    return found
