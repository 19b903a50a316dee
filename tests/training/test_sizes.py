"""How much memory a round takes, against what its parts were measured to take."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest

from swarm.training import assignment, philox, sizes
from swarm.training.data import TextData
from swarm.training.sizes import ClassifierModel, GanModel, LmModel, training_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

COUNT = 2_048


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    kept = work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del kept
    return found


def ids(total: int) -> list[int]:
    return assignment.Generator("sizes").distinct(COUNT, total)


def for_each(model: sizes.Model, steps: int = 1000) -> float:
    """Of memory for each sample of a round beside its weights and one batch."""
    more = training_bytes(model, batch=4, steps=steps) - training_bytes(model, batch=4, steps=0)
    return more / (4 * steps)


def test_the_numbers_of_samples_take_as_much_as_is_said() -> None:
    def numbers() -> object:
        drawn = ids(10**9)
        order = assignment.by_step(COUNT // 4, 4, 1)
        return drawn, order, [drawn[at] for at in order], np.zeros(COUNT, np.int64)

    assert 0.7 * sizes.ID_BYTES < peak(numbers) / COUNT < 1.1 * sizes.ID_BYTES


def test_latents_take_as_much_as_is_said_and_a_gan_counts_those_of_every_step() -> None:
    drawn = peak(lambda: philox.normal(1, (COUNT // 4, 2 * 4, 2)))
    assert drawn / (2 * COUNT) == pytest.approx(sizes.LATENT_BYTES, rel=0.1)
    assert for_each(GanModel(latent=512)) >= 512 * sizes.LATENT_BYTES
    assert for_each(GanModel(latent=1, size=32, channels=3)) >= 3 * 32**2


def test_a_row_of_one_number_counts_as_more_than_that_number() -> None:
    row = ClassifierModel(classes=2, shape="mlp", features=1, width=4)
    assert for_each(row) >= sizes.ID_BYTES + 16  # a label and a number, drawn and in order
    image = ClassifierModel(classes=2, size=8)
    assert for_each(image) >= sizes.ID_BYTES + 2 * (4 + 64)


@pytest.mark.parametrize("type_", [None, np.uint16, np.uint32])
def test_short_texts_take_no_more_than_is_said(
    tmp_path: Path, type_: type[np.unsignedinteger] | None
) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(2**16))
    encode = None if type_ is None else lambda _: np.zeros(2**16, type_)
    text = TextData(tmp_path, 8, encode)

    def read() -> object:
        drawn = ids(text.total)
        samples = text.samples(drawn)
        return drawn, samples, samples[assignment.by_step(COUNT // 4, 4, 1)]

    said = for_each(LmModel(context=8))
    assert 0.7 * said < peak(read) / COUNT < 1.1 * said
