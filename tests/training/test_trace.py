from __future__ import annotations

import hashlib
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from swarm.training import trace
from swarm.training.errors import TranscriptError
from swarm.training.trace import Prover, Sketcher, Tracer, first_fault


def model_of(seed: int, size: int = 150) -> torch.nn.Module:
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(size, size), torch.nn.Linear(size, 3))


def moved(model: torch.nn.Module, seed: int, length: float = 0.01) -> torch.nn.Module:
    torch.manual_seed(seed)
    with torch.no_grad():
        for item in model.parameters():
            item.add_(torch.randn_like(item) * length)
    return model


def norm(model: torch.nn.Module, other: torch.nn.Module) -> float:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return math.sqrt(sum(float((a - b).detach().double().square().sum()) for a, b in pairs))


def test_a_sketch_is_as_long_as_what_it_stands_for() -> None:
    ratios = []
    for seed in range(40):
        model, other = model_of(1), moved(model_of(1), seed)
        ours, theirs = (Sketcher(one, b"%d" % seed)() for one in (model, other))
        gap = float(np.linalg.norm(ours - theirs))
        ratios.append(gap / norm(model, other))
    assert 0.9 < math.sqrt(float(np.mean(np.square(ratios)))) < 1.1
    assert min(ratios) > 0.4
    assert max(ratios) < 1.8


def test_a_sketch_is_pinned() -> None:
    model = torch.nn.Linear(200, 100, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.arange(20_000).view(100, 200) % 17)
    found = Sketcher(model)()
    assert found.tolist() == Sketcher(model)().tolist()
    assert hashlib.sha256(found.tobytes()).hexdigest()[:16] == "7825e43988f8c397"
    assert Sketcher(model, b"other")().tolist() != found.tolist()


def steps_of(seeds: list[int]) -> tuple[Tracer, bytes]:
    model = model_of(0)
    tracer = Tracer(model)
    for seed in seeds:
        moved(model, seed)
        tracer.after(1.0 / seed)
    return tracer, tracer.link


def test_a_trace_is_read_only_with_the_link_that_the_record_has() -> None:
    tracer, link = steps_of([1, 2, 3])
    assert len(trace.entries(tracer.data, 0, 3, link)) == 3
    changed = bytearray(tracer.data)
    changed[70] ^= 1
    for data in (bytes(changed), tracer.data[:-1], tracer.data[:-68], b""):
        with pytest.raises(TranscriptError):
            trace.entries(data, 0, 3, link)
    with pytest.raises(TranscriptError):
        trace.entries(tracer.data, 0, 2, link)


def test_the_first_step_that_differs_is_found_with_its_distance() -> None:
    ours, link = steps_of([1, 2, 3, 4, 5, 6, 7, 8])
    theirs, other = steps_of([1, 2, 3, 4, 9, 6, 7, 8])
    left = trace.entries(ours.data, 0, 8, link)
    right = trace.entries(theirs.data, 0, 8, other)
    away = [trace.apart(a, b) for a, b in zip(left, right, strict=True)]
    assert away[:4] == [0.0] * 4
    assert first_fault(8, lambda done: away[done - 1] < 0.01) == 5
    assert 0.2 < away[4] < 1.5  # of five equal steps one is another: sqrt(2 / 5)


@given(st.integers(1, 2_000), st.integers(1, 2_000))
def test_bisecting_asks_about_a_logarithm_of_the_steps(steps: int, fault: int) -> None:
    asked: list[int] = []

    def agrees(done: int) -> bool:
        asked.append(done)
        return done < fault

    found = first_fault(steps, agrees)
    assert found == (fault if fault <= steps else None)
    assert len(asked) <= 2 + math.ceil(math.log2(steps)) if steps > 1 else len(asked) <= 1


@given(st.lists(st.booleans(), min_size=1, max_size=60))
def test_whatever_they_agree_on_what_is_found_is_a_step_from_agreeing_to_not(
    places: list[bool],
) -> None:
    found = first_fault(len(places), lambda done: places[done - 1])
    if found is None:
        assert places[-1]
    else:
        assert not places[found - 1]
        assert found == 1 or places[found - 2]


def test_a_proof_is_whole_numbers_that_only_its_key_gives() -> None:
    model = model_of(0)
    mine, other = Prover(model, b"a" * 32), Prover(model, b"b" * 32)
    moved(model, 1)
    assert mine() == mine()
    assert all(type(one) is int for one in mine())
    assert mine() != other()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    assert set(mine()) == {trace.MAX_PROOF}
    assert [trace.proof_step(steps) for steps in (1, 2, 5, 10)] == [1, 1, 2, 5]


def test_what_needs_64_bits_is_taken_off_the_device_first() -> None:
    """Of Apple's devices none has float64."""
    for path in sorted(Path(trace.__file__).parent.glob("*.py")):
        assert not re.search(r"(?<!\.cpu\(\))\.double\(\)", path.read_text()), path.name
