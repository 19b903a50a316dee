"""Which samples a peer trains on and which batches a committee scores with: counter-based draws.

A `Generator` is SHA-256 in counter mode, so every draw is a function of finalized state and the beacon:

    seed  = SHA-256(tag || canonical([parts…]))
    word i = the i-th 8 bytes, little endian, of SHA-256(seed || u64(0)) || SHA-256(seed || u64(1)) || …

Distinct indices are drawn by a Fisher-Yates shuffle that keeps only the entries it touched, so drawing
500 of a billion costs 500 words.
"""

from __future__ import annotations

import hashlib

from storage import canonical

MAX_UNITS = 8
"""Of work that one peer does in a round."""
SHARE_OF_PHASE = 0.5
"""Of the time to train, what a peer plans to use: the rest is for what it did not foresee."""
_WORD = 2**64
_TAG = b"swarm/assignment/1\0"
EPOCH_ROUNDS = 8
"""Of a task, between two parts of the pool."""
LEAST_DRAWS = 4
"""A part of the pool holds at least so many times what one score draws."""
MIN_OWN = 64
"""With fewer sequences in a score, a worker's own samples tell too little, and none are looked at."""


class Generator:
    """An endless stream of numbers that is equal on every machine.

    Args:
        purpose: What the draw is for; separates streams with equal parts.
        parts: Values with a canonical encoding (int, bytes, str).
    """

    def __init__(self, purpose: str, *parts: bytes | str | int) -> None:
        self._seed = hashlib.sha256(_TAG + canonical.encode([purpose, *parts])).digest()
        self._counter = 0
        self._words: list[int] = []

    @property
    def seed(self) -> bytes:
        """The 32 bytes that the stream is drawn from."""
        return self._seed

    def word(self) -> int:
        """The next 64 bits."""
        if not self._words:
            block = hashlib.sha256(self._seed + self._counter.to_bytes(8, "little")).digest()
            self._counter += 1
            self._words = [int.from_bytes(block[i : i + 8], "little") for i in (24, 16, 8, 0)]
        return self._words.pop()

    def below(self, bound: int) -> int:
        """A number from 0 to `bound - 1`, without bias (values of the incomplete last lap are skipped)."""
        limit = _WORD - _WORD % bound
        while True:
            word = self.word()
            if word < limit:
                return word % bound

    def unit(self) -> float:
        """A number in [0, 1) with 53 bits."""
        return (self.word() >> 11) / 2**53

    def distinct(self, count: int, bound: int) -> list[int]:
        """`count` numbers below `bound` in drawn order, all different while there are enough.

        When `count` exceeds `bound`, whole laps are drawn one after the other.
        """
        drawn: list[int] = []
        while len(drawn) < count:
            moved: dict[int, int] = {}
            for at in range(min(count - len(drawn), bound)):
                other = at + self.below(bound - at)
                drawn.append(moved.get(other, other))
                moved[other] = moved.get(at, at)
        return drawn


def sample_ids(
    task: bytes, dataset_root: str, round_: int, peer: str, beacon: bytes, *, count: int, total: int
) -> list[int]:
    """The samples that a peer trains on in a round, in order.

    Args:
        task: The task's 32-byte id.
        dataset_root: The dataset's CID as text.
        round_: The round's number.
        peer: The peer id.
        beacon: The round's 32-byte beacon.
        count: How many to draw (steps times batch).
        total: How many samples the dataset has.
    """
    return Generator("train", task, dataset_root, round_, peer, beacon).distinct(count, total)


def samples_of(steps: int, batch: int, units: int) -> int:
    """How many samples units of work have. The first unit's are those that every peer has, whatever it adds."""
    return steps * batch * units


def by_step(steps: int, batch: int, units: int) -> list[int]:
    """Places of samples in the order of steps: a step takes a batch of each unit."""
    return [
        (unit * steps + step) * batch + at
        for step in range(steps)
        for unit in range(units)
        for at in range(batch)
    ]


def of_steps(
    ids: list[int], steps: int, batch: int, units: int, first: int, last: int
) -> list[int]:
    """Of a round's samples as they are drawn, those of the steps from `first` to before `last`, in their order."""
    rows = batch * units
    return [ids[at] for at in by_step(steps, batch, units)[first * rows : last * rows]]


def units_of(samples: int, steps: int, batch: int, most: int) -> int | None:
    """How many units of work so many samples are; None for what is none, or more than the task allows."""
    found, rest = divmod(samples, steps * batch)
    return found if not rest and 1 <= found <= most else None


def units(measured: float | None, seconds: float, most: int) -> int:
    """How many units of work a peer takes in a round.

    Args:
        measured: Seconds that one unit took it last; None: it has not measured any.
        seconds: That the phase of training lasts.
        most: That the task allows.
    """
    if measured is None or measured <= 0:
        return 1
    return max(1, min(most, MAX_UNITS, int(SHARE_OF_PHASE * seconds / measured)))


def retired(rounds: int, round_: int, *, drawn: int, pool_total: int) -> tuple[int, int]:
    """Which part of the pool a round's score draws from: (how many parts, which).

    A task is cut into epochs and the pool into as many parts, and each part serves one epoch and is then retired: what
    updates were chosen by says nothing about those that come after. A part holds at least `LEAST_DRAWS` draws, so a small
    pool is one part.
    """
    parts = max(1, min(-(-rounds // EPOCH_ROUNDS), pool_total // (LEAST_DRAWS * drawn)))
    return parts, min(parts - 1, (round_ - 1) * parts // rounds)


def scoring_ids(
    task: bytes,
    round_: int,
    beacon: bytes,
    *,
    sequences: int,
    pool_total: int,
    data_total: int,
    rounds: int = 1,
) -> tuple[list[int], list[int]]:
    """The batches that every scorer of a round evaluates: (pool ids, dataset ids), half each.

    The beacon is that of the first block finalized after the reveals closed, so nobody could know them.

    Args:
        task: The task's 32-byte id.
        round_: The round's number.
        beacon: The score's 32-byte beacon.
        sequences: Of the score.
        pool_total: Samples of the pool.
        data_total: Samples of the dataset.
        rounds: Of the task, for the part of the pool that is due; see `retired`.
    """
    from_pool = sequences - sequences // 2
    parts, part = retired(rounds, round_, drawn=from_pool, pool_total=pool_total)
    in_part = -(-(pool_total - part) // parts)
    drawn = Generator("score-pool", task, round_, beacon).distinct(from_pool, in_part)
    pool = [at * parts + part for at in drawn]
    data = Generator("score-data", task, round_, beacon).distinct(sequences // 2, data_total)
    return pool, data


def own_ids(
    task: bytes,
    dataset_root: str,
    round_: int,
    peer: str,
    beacons: tuple[bytes, bytes],
    *,
    drawn: int,
    count: int,
    total: int,
) -> list[int]:
    """Some of the samples that a peer had to train on: what scorers look for its work on; none below `MIN_OWN`.

    Args:
        task: The task's 32-byte id.
        dataset_root: The dataset's CID as text.
        round_: The round's number.
        peer: The peer id.
        beacons: Of the round's start, which drew the peer's samples, and of its score, which draws among them.
        drawn: How many samples the peer had.
        count: How many to take at most.
        total: How many samples the dataset has.
    """
    if count < MIN_OWN:
        return []
    start, scored = beacons
    ids = sample_ids(task, dataset_root, round_, peer, start, count=drawn, total=total)
    places = Generator("score-own", task, round_, peer, scored).distinct(min(count, drawn), drawn)
    return [ids[at] for at in places]


def torch_seed(purpose: str, *parts: bytes | str | int) -> int:
    """A 63-bit seed for a generator of another library."""
    return Generator(purpose, *parts).word() >> 1
