"""Evidence over rounds, in integers: who works on its own samples stays, who does not is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from swarm.training import margins, sequential
from swarm.training.sequential import FLOOR, LIMIT, PARTS, Evidence

T = b"T" * 32


def play(
    rounds: int, honest: float, rider: float, seed: int = 1
) -> tuple[Evidence, list[set[str]]]:
    """Four honest workers and three riders, with `t` of deviation one around their means."""
    chance = np.random.default_rng(seed)
    evidence, refused = Evidence(), []
    for round_ in range(1, rounds + 1):
        means = {f"h{at}": honest for at in range(4)} | {f"r{at}": rider for at in range(3)}
        shown = {name: sequential.parts(chance.normal(mean)) for name, mean in means.items()}
        refused.append(evidence.judge(round_, shown, list(shown.values())))
    return evidence, refused


def test_riders_are_refused_after_some_rounds_and_honest_workers_never() -> None:
    riders = {f"r{at}" for at in range(3)}
    for seed in range(20):
        _, refused = play(40, 3.0, 0.0, seed)
        assert not refused[0]
        assert all(found <= riders for found in refused)
        assert sum(len(found) for found in refused[-20:]) > 0.7 * 20 * len(riders)


def test_who_unlearns_its_own_samples_is_refused_sooner() -> None:
    first = [
        next(at for at, found in enumerate(play(40, 2.2, mean)[1]) if found) for mean in (0, -2)
    ]
    assert first[1] < first[0]


def test_rounds_that_tell_nothing_refuse_nobody() -> None:
    for seed in range(20):
        assert not any(play(60, 0.3, 0.3, seed)[1])


def test_nobody_saves_up_honest_rounds_to_ride_later() -> None:
    evidence = Evidence()
    for round_ in range(1, 60):
        work = 3000 if round_ < 40 else 0
        found = evidence.judge(round_, {"a": 3000, "b": work}, [3000, 3000])
        if found:
            break
    assert found == {"b"}
    assert round_ - 40 < 6


def test_who_begins_to_work_is_accepted_again() -> None:
    evidence = Evidence()
    for round_ in range(1, 40):
        refused = evidence.judge(round_, {"a": 3000, "b": 0}, [3000])
    assert refused == {"b"}
    rounds = [evidence.judge(at, {"a": 3000, "b": 3000}, [3000]) for at in range(40, 46)]
    assert rounds[-1] == set()


def test_a_round_that_is_judged_again_counts_once() -> None:
    evidence, again = Evidence(), Evidence()
    shown = {"a": 2500, "b": -1000}
    for round_ in range(1, 5):
        evidence.judge(round_, shown, [2500])
        for _ in range(3):
            again.judge(round_, shown, [2500])
    assert evidence._known == again._known


def test_a_round_that_is_judged_again_after_many_is_judged_by_what_it_was_judged_by(
    tmp_path: Path,
) -> None:
    evidence = Evidence()
    for round_, usual in enumerate((1000, 6000, 1000, 1000, 1000), 1):
        evidence.judge(round_, {"a": 4000}, [usual])
    evidence.judge(6, {"a": -1500}, [1000])
    evidence.write(tmp_path / "evidence", T)
    again = Evidence.read(tmp_path / "evidence", T)  # the node ended before it kept its round
    again.judge(6, {"a": -1500}, [1000])
    assert again._known == evidence._known
    assert again._usual == evidence._usual


def test_a_score_of_no_updates_forgets_nothing() -> None:
    evidence, idle = play(6, 2.2, 0.0)[0], play(6, 2.2, 0.0)[0]
    assert idle.judge(0, {}, []) == idle.judge(7, {}, []) == set()
    assert (idle._usual, idle._known) == (evidence._usual, evidence._known)
    assert idle._usual


def test_what_is_kept_of_the_most_workers_fits_in_its_file(tmp_path: Path) -> None:
    entries = [(2**40, -FLOOR), (2**40 + 1, -FLOOR)]
    known = {f"{at:064}": entries for at in range(sequential.MAX_WORKERS)}
    Evidence(known, [(2**40, -6000)] * 5).write(tmp_path / "evidence", T)
    assert len(Evidence.read(tmp_path / "evidence", T)._known) == sequential.MAX_WORKERS


def test_what_a_file_keeps_is_taken_up_and_nothing_of_another_task_or_a_broken_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "evidence"
    evidence, refused = play(30, 2.2, -1.0)
    assert refused[-1]
    evidence.write(path, T)
    shown = dict.fromkeys(refused[-1], 0)
    assert Evidence.read(path, T).judge(31, shown, [2000]) == refused[-1]
    assert not Evidence.read(path, b"U" * 32).judge(31, shown, [2000])
    for content in ("", "[]", '{"task": 1}', f'{{"task": "{T.hex()}", "workers": [1]}}'):
        path.write_text(content)
        assert Evidence.read(path, T)._known == {}


@given(st.integers(-FLOOR, 0), st.integers(-6000, 6000), st.integers(-6000, 6000))
def test_evidence_stays_between_its_floor_and_zero(before: int, found: int, usual: int) -> None:
    after = sequential.added(before, found, usual)
    assert -FLOOR <= after <= 0
    if usual < PARTS // 2:
        assert after == before


def test_the_test_is_pinned() -> None:
    assert (LIMIT, PARTS) == (4_605_170, 1000)
    assert sequential.added(0, 0, 2667) == -2_000_000
    assert sequential.parts(1.2345) == 1234
    assert sequential.parts(-0.0001) == -1
    assert sequential.parts(float("nan")) == 0


def test_what_the_others_gain_on_a_sequence_takes_its_share_out_of_the_noise() -> None:
    """The sequences differ a hundred times more than the work shows; a control that has the same makes it visible."""
    chance = np.random.default_rng(3)
    hard = {name: chance.normal(0, 1.0, 64) for name in ("a", "b", "others")}
    keys = {name: np.full(1, at) for at, name in enumerate(hard)}

    def merged(chosen: list[str]) -> str:
        return chosen[0]

    def gains(who: str, asked: np.ndarray) -> np.ndarray:
        name = list(hard)[int(asked[0])]
        return hard[name] + (0.3 if name == who else 0.0) + chance.normal(0, 0.1, 64)

    updates = {0: "a", 1: "b"}
    own = [keys["a"], keys["b"]]
    found = margins.margins(merged, gains, updates, own, keys["others"])
    assert min(found.values()) > 8
    alone = margins.margins(merged, gains, {0: "a"}, own, keys["others"])
    assert abs(alone[0]) < 4


def test_a_control_without_finite_gains_takes_nothing_from_anybody() -> None:
    chance = np.random.default_rng(4)
    gained = {"own": chance.normal(1, 0.1, 64), "others": chance.normal(0, 0.1, 64)}
    own, others = np.zeros(64), np.ones(64)

    def gains(who: list[str], asked: np.ndarray) -> np.ndarray:
        found = gained["others" if asked[0] else "own"]
        return found * np.inf if who == ["hostile"] else found

    updates = {0: "honest", 1: "hostile"}
    with np.errstate(invalid="ignore"):
        found = margins.margins(list, gains, updates, [own, own], others)
    assert found == {0: margins.margin(gained["own"], gained["others"]), 1: 0.0}
    assert found[0] > 8
