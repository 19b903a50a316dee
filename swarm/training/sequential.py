"""Evidence over rounds that a worker trains on the samples that it was given: a sequential test in integers.

One round rarely tells. `t`, by how many of its standard errors an update gains more on its worker's own samples than on
others (`margins`), is about 0 of who rides on other samples, and about as large as everybody's of who does not; who turns
signs unlearns its own samples, and has less than 0. So each round adds to a worker's evidence the log of how much
likelier its `t` is from honest work than from none,

    usual = the mean, over the last rounds before, of the upper median of t of those that improved the model
    theta = three quarters of what is usual, 0 where that is under a half
    E <- min(0, max(-FLOOR, E + theta * t - theta^2 / 2))        refused while E <= -LIMIT

Wald's bound: work that shows three quarters of what is usual is refused less than once in 1 / ALPHA rounds, whatever
`theta` the rounds have; work that shows what is usual about once in 1 / ALPHA^(5/3). It holds since `theta` is
known before the round. Where nothing is to be told, nothing is added. Evidence never rises above zero, so nobody saves up honest rounds to ride later; and it ends a little below
the limit, so that who begins to work is accepted again.

`t` and `theta` are in thousandths and evidence in millionths, floored: who saw the same rounds holds the same integers.

Source: Wald, "Sequential Tests of Statistical Hypotheses" (1945); Page, "Continuous inspection schemes" (1954).
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

PARTS: Final = 1000
"""`t` is told in parts of this."""
ALPHA: Final = 1e-2
LIMIT: Final = math.floor(-math.log(ALPHA) * PARTS**2)
"""Evidence against a worker that is enough."""
FLOOR: Final = LIMIT * 3 // 2
TELLS: Final = PARTS // 2
"""A usual `t` of less than this is noise, and adds nothing."""
USUAL_ROUNDS: Final = 4
"""Rounds that say what is usual."""
MOST: Final = 6 * PARTS
"""`t` counts as no more than this either way: one odd round decides nothing."""
KEPT_ROUNDS: Final = 2
"""Of a worker: a round that is scored again begins where the one before it ended."""
MAX_WORKERS: Final = 4_096
MAX_BYTES: Final = 2**20


def parts(value: float) -> int:
    """A `t` in thousandths."""
    return max(-MOST, min(MOST, math.floor(value * PARTS))) if math.isfinite(value) else 0


def upper_median(values: Sequence[int]) -> int:
    """The middle one, of an even count the greater of the two: with half hostile it is still an honest one's."""
    return sorted(values)[len(values) // 2]


def added(before: int, found: int, usual: int) -> int:
    """A worker's evidence after one more round.

    Args:
        before: Its evidence so far, 0 or less.
        found: Its `t` in this round, in thousandths.
        usual: In the rounds before.
    """
    theta = usual * 3 // 4 if usual >= TELLS else 0
    return min(0, max(-FLOOR, before + theta * found - theta * theta // 2))


class Evidence:
    """What one scorer knows of the workers of a task; a file beside its round's memory.

    Args:
        known: By worker, (round, evidence after it), oldest first.
        usual: (round, upper median of its `t`), oldest first; one more than say what is usual, so that a round that is
            judged again finds those that it was judged by.
    """

    def __init__(
        self,
        known: Mapping[str, Sequence[tuple[int, int]]] | None = None,
        usual: Sequence[tuple[int, int]] = (),
    ) -> None:
        self._known = {worker: list(entries) for worker, entries in (known or {}).items()}
        self._usual = list(usual)

    def judge(self, round_: int, shown: Mapping[str, int], gaining: Sequence[int]) -> set[str]:
        """Take in a round, and give who is refused in it.

        Args:
            round_: Its number; the last round may be judged again, and counts once.
            shown: By worker, its `t` in thousandths; of nobody, and the round tells nothing.
            gaining: The `t` of those that improved the model, which say what is usual.
        """
        if not shown:
            return set()
        kept = [one for one in self._usual if one[0] < round_]
        before = kept[-USUAL_ROUNDS:]
        usual = sum(value for _, value in before) // len(before) if before else 0
        newest = [(round_, upper_median(gaining))] if gaining else []
        self._usual = [*kept, *newest][-USUAL_ROUNDS - 1 :]
        refused = set()
        for worker, found in shown.items():
            earlier = [one for one in self._known.get(worker, []) if one[0] < round_]
            now = added(earlier[-1][1] if earlier else 0, found, usual)
            self._known[worker] = [*earlier, (round_, now)][-KEPT_ROUNDS:]
            if now <= -LIMIT:
                refused.add(worker)
        order = sorted(self._known, key=lambda worker: (-self._known[worker][-1][0], worker))
        self._known = {worker: self._known[worker] for worker in order[:MAX_WORKERS]}
        return refused

    @classmethod
    def read(cls, path: Path, task: bytes) -> Evidence:
        """What a file holds; nothing, where it holds nothing of this task."""
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(MAX_BYTES))
            if found["task"] != task.hex():
                return cls()
            known = {
                str(worker): [(int(round_), int(value)) for round_, value in entries]
                for worker, entries in found["workers"].items()
                if entries
            }
            usual = [(int(round_), int(value)) for round_, value in found["usual"]]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return cls()
        return cls(known, usual)

    def write(self, path: Path, task: bytes) -> None:
        """Replace the file whole."""
        held = {"task": task.hex(), "usual": self._usual, "workers": self._known}
        content = json.dumps(held, sort_keys=True)
        temporary = path.with_name(path.name + ".part")
        temporary.write_text(content)
        temporary.replace(path)
