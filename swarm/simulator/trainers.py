"""Training without a model: how long it takes on which hardware, and what an update turns out to be worth.

An update takes a part of the loss above the floor, give or take its hardware's noise; a checkpoint of several takes
more than their mean, and never twice as much. Losses are nats x 10^5, and every draw hangs on the seed and on
who asks for what, not on when.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from storage import canonical
from storage import cid as cids
from swarm.simulator.chance import MILLION, Chance

if TYPE_CHECKING:
    from storage.cid import Cid
    from swarm.ledger.state import RoundState
    from swarm.simulator.scenario import Hardware, Training

BASE = cids.of_raw(b"swarm/simulation/base")
_MOST_COUNTED = 16
"""Accepted updates beyond so many add nothing."""


class Model:
    """What all machines would find, had they computed it.

    Args:
        training: The task.
        seed: Of the run.
    """

    def __init__(self, training: Training, seed: int) -> None:
        self._training = training
        self._seed = seed
        self._losses: dict[Cid, int] = {BASE: training.loss}
        self._gains: dict[Cid, int] = {}

    def train(self, worker: bytes, hardware: Hardware, round_: RoundState) -> Cid:
        """The update that a worker makes from the round's base; what it is worth is known here alone."""
        label = [worker, round_.number, round_.attempt, round_.base]
        root = cids.of_raw(canonical.encode(label))
        above = max(0, self._losses[round_.base] - self._training.floor)
        gain = above * self._training.gain // MILLION
        draws = Chance("update", self._seed, root.hex())
        self._gains[root] = gain + draws.normal(gain * hardware.noise // MILLION)
        return root

    def train_ms(self, worker: bytes, hardware: Hardware, round_: RoundState) -> int:
        """How long that takes: a tenth more or less, and now and then several times as long."""
        draws = Chance("pace", self._seed, worker.hex(), round_.number, round_.attempt)
        took = self._training.steps * 1000 * draws.between(90, 110) // (100 * hardware.steps_per_s)
        return took * hardware.straggle_times if draws.happens(hardware.straggle) else took

    def measure(self, validator: bytes, round_: RoundState) -> tuple[int, tuple[int, ...]]:
        """The base's loss and each submission's score, as one validator's arithmetic finds them."""
        draws = Chance("score", self._seed, validator.hex(), round_.number)
        noise = self._training.measure_noise
        base_loss = self._losses[round_.base] + draws.normal(noise)
        scores = tuple(
            self._gains.get(one.root, 0) + draws.normal(noise) for one in round_.submissions
        )
        return base_loss, scores

    def merge(self, round_: RoundState) -> tuple[Cid, int]:
        """The next checkpoint and its loss; the same for everybody."""
        roots = [round_.submissions[one.index].root for one in round_.accepted]
        merged = cids.of_raw(canonical.encode([round_.base, *roots]))
        gains = [self._gains.get(root, 0) for root in roots]
        doublings = 2 ** min(len(gains), _MOST_COUNTED)
        gain = sum(gains) * 2 * (doublings - 1) // (len(gains) * doublings)
        self._losses[merged] = self._losses[round_.base] - gain
        return merged, self._losses[merged]
