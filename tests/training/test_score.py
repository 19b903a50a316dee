from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import swarm.training
from swarm.training import codec, copies, margins, merge, models, objectives, population, score
from swarm.training.checkpoint import Checkpoint, Config
from swarm.training.codec import Layout, Sparse
from swarm.training.errors import DUPLICATE, REFUSED
from swarm.training.sequential import Evidence
from swarm.training.spec import parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CPU = torch.device("cpu")
TASK = parse_spec((Path(swarm.training.__file__).parent / "tasks" / "gpt.toml").read_bytes())
LAYOUT = Layout({"a": (64, 64), "b": (48, 64), "c": (96,)}, 74)


def update(seed: int) -> list[Sparse]:
    chance = np.random.default_rng(seed)
    groups = [
        chance.standard_normal(group.size).astype(np.float32) * 0.01 for group in LAYOUT.groups
    ]
    return codec.compress(groups, LAYOUT)


def noisy(made: Sequence[Sparse], share: float, seed: int = 99) -> list[Sparse]:
    chance = np.random.default_rng(seed)
    return [
        Sparse(
            item.positions,
            item.negative ^ (chance.random(len(item.negative)) < share),
            item.level * 3,
        )
        for item in made
    ]


def spliced(one: Sequence[Sparse], two: Sequence[Sparse]) -> list[Sparse]:
    return [one[0], *two[1:]]


def test_of_a_cluster_of_copies_the_earliest_commit_counts() -> None:
    made = [update(1), noisy(update(0), 0.02), update(0), update(2), update(3)]
    assert copies.copies(made, [0, 1, 2, 3, 4]) == {2}
    assert copies.copies(made, [4, 3, 2, 1, 0]) == {1}
    copied = [update(0), *[noisy(update(0), 0.02)] * 3, update(1), update(2), update(3), update(4)]
    assert copies.copies(copied, list(range(8))) == {1, 2, 3}


def test_what_is_like_a_refused_copy_alone_is_no_copy_itself() -> None:
    first = update(0)
    second = noisy(first, 0.18)
    third = noisy(second, 0.18, 98)
    made = [first, second, third, update(1), update(2), update(3)]
    assert copies.copies(made, list(range(6))) == {1}
    assert copies.copies(made[1:], list(range(5))) == {1}


def test_a_copy_is_one_whatever_levels_it_gives_its_groups() -> None:
    scaled = [
        dataclasses.replace(item, level=item.level * 10**at) for at, item in enumerate(update(0))
    ]
    made = [update(0), scaled, update(1), update(2)]
    assert copies.copies(made, [0, 1, 2, 3]) == {1}


def test_what_is_put_together_out_of_others_is_a_copy_though_it_is_like_none_of_them() -> None:
    # A third of it is that of each of three.
    layout = Layout(dict.fromkeys("abc", (64, 64)), 74)
    drawn = np.random.default_rng(5).standard_normal((5, 3, 4096)).astype(np.float32)
    one, two, three, four, own = (codec.compress(list(each), layout) for each in drawn)
    made = [one, two, three, four, [one[0], two[1], three[2]], [own[0], two[1], own[2]]]
    assert copies.copies(made, list(range(6))) == {4, 5}
    # One that shares a group of which everybody says the same has taken nothing.
    alike = [spliced(one, update(at)) for at in range(1, 6)]
    assert copies.copies(alike, list(range(5))) == set()


def test_honest_updates_of_a_parts_first_turn_are_no_copies_beside_what_is_like_nothing() -> None:
    first = update(0)
    honest = [first, noisy(first, 0.2, 1), noisy(first, 0.2, 2)]  # 0.6 alike
    made = [*honest, update(1), update(2), update(3)]
    order = list(range(6))
    assert copies.copies(made, order) == {1, 2}
    assert copies.copies(made, order, is_first=True) == set()
    shared = [spliced(first, noisy(first, 0.35, at)) for at in range(3)]  # one group is the same
    assert copies.copies([*shared, *made[3:]], order) == {1, 2}
    assert copies.copies([*shared, *made[3:]], order, is_first=True) == set()
    assert copies.copies([first, noisy(first, 0.02), *made[3:]], order[:5], is_first=True) == {1}


def test_of_a_few_weights_honest_updates_are_no_copies_though_they_say_the_same() -> None:
    tiny = Layout({"a": (16, 16), "b": (16,)}, 74)  # 6 weights are named
    flat = [np.ones(group.size, np.float32) for group in tiny.groups]
    assert copies.copies([codec.compress(flat, tiny)] * 3, [0, 1, 2]) == set()


def test_groups_of_a_few_weights_make_no_splice() -> None:
    # A third of the weights lies in small groups, in which two workers agree by chance.
    small = {f"s{at:02}": (16, 16) for at in range(16)}
    layout = Layout({"m": (64, 128), **small}, 74)
    drawn = [
        [
            np.random.default_rng([seed, at]).standard_normal(group.size)
            for at, group in enumerate(layout.groups)
        ]
        for seed in range(6)
    ]
    made = [codec.compress([np.float32(flat) for flat in each], layout) for each in drawn]
    made[5] = [made[5][0], *made[0][1:]]
    assert 3 * sum(len(item.positions) for item in made[5][1:]) >= sum(
        len(item.positions) for item in made[5]
    )
    assert copies.copies(made, list(range(6))) == set()


def test_while_updates_are_compared_there_are_signs_of_life() -> None:
    asked: list[int] = []
    copies.copies([update(at) for at in range(5)], list(range(5)), alive=lambda: asked.append(1))
    assert len(asked) == 5


def test_the_exact_copy_of_the_only_other_update_is_one() -> None:
    assert copies.copies([update(0), update(0)], [1, 0]) == {0}
    assert copies.copies([update(0), update(1)], [0, 1]) == set()
    assert copies.copies([update(0)], [0]) == copies.copies([None, None], [0, 1]) == set()


def test_what_could_not_be_read_is_no_copy_and_hides_none() -> None:
    assert copies.copies([None, update(0), None, update(0)], [0, 1, 2, 3]) == {3}


def test_an_update_that_turns_every_sign_is_no_copy() -> None:
    assert copies.copies([update(0), noisy(update(0), 1.0), update(1)], [0, 1, 2]) == set()


def test_honest_updates_that_are_all_alike_are_no_copies_of_each_other() -> None:
    # As in a first round: a half of what each says is what everybody says.
    shared = update(0)
    made = [spliced(shared, update(at)) for at in range(1, 6)]
    assert copies.copies(made, list(range(5))) == set()


def test_a_margin_is_in_its_own_errors_and_nothing_without_samples() -> None:
    chance = np.random.default_rng(1)
    own, others = chance.normal(0.2, 0.1, 100), chance.normal(0.1, 0.1, 100)
    error = np.sqrt(own.var(ddof=1) / 100 + others.var(ddof=1) / 100)
    assert margins.margin(own, others) == pytest.approx((own.mean() - others.mean()) / error)
    assert margins.margin(own * 7, others * 7) == pytest.approx(margins.margin(own, others))
    assert margins.margin(own[:1], others) == margins.margin(np.ones(4), np.zeros(4)) == 0.0
    assert margins.margin(np.array([np.inf, 1.0]), others) == 0.0


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def drawn_update(base: Checkpoint, layout: Layout, seed: int) -> list[Sparse]:
    """One step down the gradient on some samples, as a worker would say it."""
    model = models.fill(models.build(base.config.model), base.tensors, CPU)
    loss = objectives.losses(model, sequences(8, seed), CPU).mean()
    names, weights = zip(*model.named_parameters(), strict=True)
    slopes = torch.autograd.grad(loss, weights)
    down = {name: 3 * item.numpy() for name, item in zip(names, slopes, strict=True)}
    return codec.compress(codec.gather(down, layout), layout)


def sequences(count: int, seed: int) -> np.ndarray:
    """Runs of three bytes, so that there is something to learn."""
    first = np.random.default_rng(seed).integers(0, 3, (count, 1))
    return ((first + np.arange(65)) % 3 + 97).astype(np.uint8)


def first_checkpoint(width: int) -> Checkpoint:
    sizes = dataclasses.replace(TASK.lm, layers=1, width=width, hidden=4 * width, heads=2)
    values = models.initial(models.build(dataclasses.replace(sizes, kv_heads=2)), 1)
    return Checkpoint(Config("lm", "x", 0, "bytes", dataclasses.replace(sizes, kv_heads=2)), values)


def test_an_update_is_scored_at_half_of_its_step() -> None:
    base = first_checkpoint(16)
    layout = Layout(base.shapes, 110)
    made = drawn_update(base, layout, 1)
    whole = merge.merge(base.tensors, [made], layout, 4000)
    half = score.alone(base, made, layout, 4000)
    for name, item in base.tensors.items():
        np.testing.assert_allclose(half[name] - item, (whole[name] - item) / 2, rtol=0, atol=1e-7)
    # So one whose whole step is too long by itself, and which leads downhill, counts as an improvement.
    loud = made
    while gain(base, merge.merge(base.tensors, [loud], layout, 4000)) > 0:
        loud = [dataclasses.replace(item, level=item.level * 2) for item in loud]
    assert gain(base, score.alone(base, loud, layout, 4000)) > 0


def gain(base: Checkpoint, values: Mapping[str, np.ndarray]) -> float:
    """Of other weights than the base's, on samples that nobody trained on."""
    asked = sequences(8, 2)
    one, other = (score.model_losses(base, held, asked, CPU) for held in (base.tensors, values))
    return float((one - other).mean())


@pytest.mark.parametrize(("round_", "refused"), [(1, 0), (5, 2)])
def test_only_in_a_parts_first_turn_may_updates_be_much_alike(
    tmp_path: Path, round_: int, refused: int
) -> None:
    base = first_checkpoint(32)
    layout = Layout(base.shapes, 110, parts=4)
    first = drawn_update(base, layout, 1)
    alike = [first, noisy(first, 0.2, 1), noisy(first, 0.2, 2)]
    made = [*alike, *(noisy(first, 0.5, seed) for seed in (3, 4, 5))]
    for at, groups in enumerate(made):
        about = codec.About(
            "lm", 110, "bafy", bytes(32), round_, str(at + 1), bytes(32), 16, part=layout.said
        )
        (tmp_path / str(at)).write_bytes(codec.pack(groups, layout, about))
    reported: list[object] = []
    scores = score.score(
        dataclasses.replace(TASK, score=dataclasses.replace(TASK.score, sequences=4)),
        base,
        sequences(4, 9),
        [tmp_path / str(at) for at in range(6)],
        [codec.Expected("lm", layout, "bafy", bytes(32), round_)] * 6,
        CPU,
        lambda *told: reported.append(told[:2]),
        order=list(range(6)),
    )[1]
    assert scores.count(REFUSED - DUPLICATE) == refused
    assert reported[:7] == [*[(0, 6)] * 6, (1, 6)]  # it is alive while it looks for copies


@pytest.mark.slow
def test_scores_and_evidence_agree_whatever_the_threads(tmp_path: Path) -> None:
    """A model wide enough that torch divides the work, and every part of a score: gains, margins, evidence."""
    base = first_checkpoint(128)
    layout = Layout(base.shapes, 110)
    peers = ["a", "b", "c"]
    for at, peer in enumerate(peers):
        about = codec.About("lm", 110, "bafy", bytes(32), 1, peer, bytes(32), 16)
        packed = codec.pack(drawn_update(base, layout, at), layout, about)
        (tmp_path / peer).write_bytes(packed)
    found = []
    for count in (1, 2):
        torch.set_num_threads(count)
        evidence = Evidence(usual=[(0, 3000)])
        loss, scores = score.score(
            dataclasses.replace(TASK, score=dataclasses.replace(TASK.score, sequences=16)),
            base,
            sequences(16, 9),
            [tmp_path / peer for peer in peers],
            [codec.Expected("lm", layout, "bafy", bytes(32), 1, peer) for peer in peers],
            CPU,
            lambda *_: None,
            own=[sequences(16, at) for at in range(3)],
            evidence=evidence,
        )
        found.append((loss, *scores))
    assert all(abs(one - two) <= 1 for one, two in zip(*found, strict=True))
    assert max(found[0][1:]) > 0


def test_a_loss_that_is_no_number_is_the_worst_and_not_the_best() -> None:
    assert score.loss_units(1.234567) == score.units(1.234567) == 123_456
    for value in (float("nan"), float("inf"), 1e12):
        assert score.loss_units(value) == 10**11
    assert score.units(float("nan")) == -(10**11)


def test_the_distance_of_a_broken_pair_is_the_worst_and_not_the_best() -> None:
    class Judge:
        moments = staticmethod(lambda _held: None)
        images = staticmethod(lambda *_: None)
        distance = staticmethod(lambda *_: float("nan"))

    found = population.score(TASK, Judge(), {}, None, None, [], [], 1, lambda *_: None)
    assert found == (score.LIMIT, [])
