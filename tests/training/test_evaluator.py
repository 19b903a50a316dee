"""What judges generated images: it worsens with damage, finds copies, and is itself checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from swarm.ledger.payloads import KINDS
from swarm.training import codec, evaluator, features, models, population, tensors
from swarm.training.data import ImageData
from swarm.training.errors import CheckpointError, DataError, TrainingError
from swarm.training.evaluator import Evaluator
from swarm.training.local import Place
from swarm.training.sizes import GanModel
from swarm.training.spec import AUTOENCODER, parse_spec, write_spec

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.training.spec import TaskSpec
    from swarm.training.tensors import Array

CPU = torch.device("cpu")
SIZES = GanModel(size=16, channels=1, latent=4, base=4)
SPEC = b"""
[task]
name = "t"
kind = "gan"
rounds = 2
budget = "1"
[data]
dataset = "d"
pool = "p"
"""


def shapes(count: int, seed: int) -> Array:
    """Bright bars of many places, lengths and shades on black."""
    chance = np.random.default_rng(seed)
    images = np.zeros((count, 1, 16, 16), np.uint8)
    for image in images:
        top, left = chance.integers(0, 10, 2)
        height, width = chance.integers(2, 7, 2)
        image[0, top : top + height, left : left + width] = chance.integers(100, 256)
    return images


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Evaluator:
    folder = tmp_path_factory.mktemp("shapes")
    np.save(folder / "images.npy", shapes(1200, 1)[:, 0])
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "STEPS", 250)
        seen = ImageData(folder, 16, 1)
        return Evaluator.make(SIZES, AUTOENCODER, 1, seen, CPU, lambda *_: None)


def images(pixels: Array) -> torch.Tensor:
    return evaluator.scaled(pixels, CPU)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["noise", "blur", "shift", "fade", "fewer kinds"])
def test_the_distance_rises_with_every_kind_of_damage(judge: Evaluator, damage: str) -> None:
    reference, fresh = judge.moments(shapes(1000, 2)), images(shapes(1000, 3))
    chance = torch.Generator().manual_seed(1)
    noise = torch.randn(fresh.shape, generator=chance)

    def damaged(much: float) -> torch.Tensor:
        match damage:
            case "noise":
                return (fresh + much * noise).clamp(-1, 1)
            case "blur":
                soft = torch.nn.functional.avg_pool2d(fresh, 5, 1, 2)
                return fresh.lerp(soft, much)
            case "shift":
                return fresh.roll(round(6 * much), 3)
            case "fade":
                return (fresh + 1) * (1 - much) - 1
            case _:
                return fresh[torch.arange(1000) % max(1, round(50 * (1 - much)))]

    found = [judge.distance(damaged(much), reference) for much in (0.0, 0.3, 0.6, 0.9)]
    assert found == sorted(found)
    assert found[-1] > 3 * found[0]


@pytest.mark.slow
def test_who_gives_training_images_back_is_copying_and_who_draws_its_own_is_not(
    judge: Evaluator,
) -> None:
    seen, held = shapes(600, 1), shapes(300, 2)
    known = judge.nearness(seen, held)
    assert not judge.is_copying(images(shapes(300, 4)), known)
    jitter = 0.01 * torch.randn(300, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    assert judge.is_copying(images(seen[:300]) + jitter, known)
    half = torch.cat([images(seen[:150]), images(shapes(150, 5))])
    assert judge.is_copying(half, known)


@pytest.mark.slow
def test_an_evaluator_that_sees_nothing_is_refused(judge: Evaluator, tmp_path: Path) -> None:
    path, seen = tmp_path / "evaluator.safetensors", shapes(500, 1)
    judge.save(path)
    file = tensors.read(path, max_bytes=2**24)

    def loaded(**changed: Array) -> Evaluator:
        other = tmp_path / "other.safetensors"
        tensors.write(other, {**file.tensors, **changed}, file.metadata)
        return Evaluator.load(other, SIZES, AUTOENCODER, CPU)

    loaded().check(seen)
    blind = {name: np.zeros_like(item) for name, item in file.tensors.items() if "encoder" in name}
    for changed in (
        blind,
        {"deviation.0": file.tensors["deviation.0"] * 1000},  # hides every feature
        {"deviation.1": file.tensors["deviation.1"] / np.float32(1000)},
        {"decoder.5.bias": file.tensors["decoder.5.bias"] + 9},  # gives nothing back
    ):
        with pytest.raises(CheckpointError):
            loaded(**changed).check(seen)
    with pytest.raises(CheckpointError):
        Evaluator.load(path, SIZES, "efficientnet-lite0", CPU)


def test_one_held_out_image_is_refused_since_it_has_no_spread() -> None:
    network = models.Autoencoder(SIZES, evaluator.FEATURES)
    made = Evaluator(SIZES, AUTOENCODER, network, (np.ones(1), np.ones(1)), CPU)
    with pytest.raises(DataError, match="at least 2 are needed"):
        made.moments(shapes(1, 1))
    reference = made.moments(shapes(2, 1))
    assert np.isfinite(made.distance(images(shapes(3, 2)), reference))


def test_the_nearest_of_points_is_that_of_all_pairs() -> None:
    chance = np.random.default_rng(1)
    points, others = chance.normal(size=(150, 6)), chance.normal(size=(40, 6))
    pairs = np.square(points[:, None] - others[None]).sum(2)
    np.testing.assert_allclose(evaluator.nearest(points, others), pairs.min(1), atol=1e-9)


def test_efficientnet_pads_and_sums_as_its_package_does_and_reads_grey_images() -> None:
    with torch.device("meta"):
        shell = features.EfficientNetLite0(1)
    network = models.fill(shell, models.initial(shell, 1), CPU).train()
    x = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = network(x)
        assert found.shape == (2, features.WIDTH)
        torch.testing.assert_close(network(x[:1]), found[:1])  # no image depends on its batch


def test_without_the_package_the_task_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(features, "PACKAGE", "no_such_package")
    with pytest.raises(TrainingError, match="no-such-package"):
        features.published()


def task(extra: str = "") -> TaskSpec:
    return parse_spec(SPEC + extra.encode())


def place(peer: str, round_: int = 1) -> Place:
    return Place(b"T" * 32, round_, peer, b"B" * 32, "bafyb", "bafyd")


def test_peers_and_rounds_choose_within_the_ranges_of_the_task() -> None:
    spec = task("[population]\nspread = 3.0\nbeta = 0.9\ncritic_steps = 4\n")
    chosen = [population.choose(spec, place(f"p{at}", at % 7)) for at in range(200)]
    assert len(set(chosen)) == 200
    assert chosen[5] == population.choose(spec, place("p5", 5))
    rate = spec.train.learning_rate
    for kind in ("generator_rate", "discriminator_rate"):
        found = [getattr(one, kind) / rate for one in chosen]
        assert 1 / 3 <= min(found) < 0.4
        assert 2.5 < max(found) <= 3
    assert {one.beta for one in chosen} == {0.0, 0.9}
    assert min(one.penalty for one in chosen) >= population.PENALTY / 3
    assert max(one.penalty for one in chosen) <= population.PENALTY * 3
    assert {one.critic_steps for one in chosen} == {1, 2, 3, 4}
    fixed = task("[population]\nspread = 1\ncritic_steps = 1\n")
    assert {population.choose(fixed, place(f"p{at}")).generator_rate for at in range(9)} == {rate}


def test_a_gan_says_its_ranges_and_evaluator_and_no_other_kind_does() -> None:
    spec = task("[score]\nevaluator = 'efficientnet-lite0'\n[population]\nbeta = 0.25\n")
    assert (spec.score.evaluator, spec.population.beta) == ("efficientnet-lite0", 0.25)
    assert parse_spec(write_spec(spec)) == spec
    assert b"merge" not in write_spec(spec)
    text = parse_spec(SPEC.replace(b'"gan"', b'"lm"'))
    for word in (b"population", b"evaluator", b"units"):
        assert word not in write_spec(text)
    for wrong in (b"[population]\n", b"[score]\nevaluator = 'autoencoder'\n"):
        with pytest.raises(TrainingError):
            parse_spec(SPEC.replace(b'"gan"', b'"lm"') + wrong)


def test_a_gan_that_takes_the_mean_says_so_and_the_ledger_knows_it_by_another_kind() -> None:
    spec = task("[population]\nmerge = 'mean'\n")
    assert parse_spec(write_spec(spec)) == spec
    assert (spec.is_mean, spec.settled_as) == (True, "gan-mean")
    assert (task().is_mean, task().settled_as) == (False, "gan")
    assert parse_spec(SPEC.replace(b'"gan"', b'"lm"')).settled_as == "lm"
    assert {"gan", "gan-mean"} <= set(KINDS)
    with pytest.raises(TrainingError, match=r"population\.merge"):
        task("[population]\nmerge = 'sum'\n")


class Gallery(Evaluator):
    """Judges as its model does, and shows given images in place of those of a generator."""

    def __init__(self, judge: Evaluator, shown: dict[float, Array]) -> None:
        for name, item in vars(judge).items():
            setattr(self, name, item)
        self._shown = shown

    def images(self, values: dict[str, Array], count: int, seed: int) -> torch.Tensor:
        return images(self._shown[float(values["generator.x"][0])][:count])


@pytest.mark.slow
def test_a_pair_that_copies_is_found_where_it_is_scored_on_the_way_to_itself(
    judge: Evaluator, tmp_path: Path
) -> None:
    seen, held = shapes(600, 1), shapes(300, 2)
    path, base = tmp_path / "update", {"generator.x": np.zeros(1, np.float32)}
    about = codec.About("gan", 74, "bafyb", b"T" * 32, 1, "p", b"D" * 32, 1)
    path.write_bytes(codec.pack_full({"generator.x": np.ones(1, np.float32)}, about))
    spec = task("[population]\nmerge = 'mean'\n")
    expected = codec.Expected(
        "gan", codec.layout(spec, {"generator.x": (1,)}, 1), "bafyb", b"T" * 32, 1, "p"
    )

    def scored(itself: Array) -> int:
        shown = {0.0: shapes(600, 3) // 4, population.STEP: shapes(600, 4), 1.0: itself}
        gallery = Gallery(judge, shown)
        asked = (held, seen, [path], [expected], 1, lambda *_: None)
        return population.score(spec, gallery, base, *asked)[1][0]

    assert scored(shapes(600, 5)) > 0
    assert scored(seen) == population.COPYING
