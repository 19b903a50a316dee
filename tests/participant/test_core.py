"""Which step of a round a node owes next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from storage import canonical, cid
from swarm.ledger.state import (
    Accepted,
    Attestation,
    Phase,
    RoundState,
    ScoreReveal,
    Submission,
)
from swarm.participant import core
from swarm.participant.memory import MemoryFile, Merged, RoundMemory, Scores

ME, OTHER = b"m" * 32, b"o" * 32
TASK = b"t" * 32
SALT = b"s" * 32
UPDATE, THEIRS, MERGED, BASE = (
    cid.of_raw(name) for name in (b"mine", b"theirs", b"merged", b"base")
)
BOTH = core.Me(ME, trains=True, validates=True)


def round_in(phase: Phase, **fields: object) -> RoundState:
    start = RoundState(
        task=TASK,
        number=3,
        attempt=1,
        phase=phase,
        phase_deadline=20,
        started=10,
        base=BASE,
        version=2,
        start_beacon=b"b" * 32,
    )
    return replace(start, **fields)


MEMORY = RoundMemory(TASK, 3, 1)
TRAINED = replace(MEMORY, salt=SALT, update=UPDATE)
SCORED = replace(TRAINED, scores=Scores(5, (7,), SALT))
DONE = replace(SCORED, merged=Merged(MERGED, 4))
BOTH_REVEALED = (Submission(OTHER, THEIRS), Submission(ME, UPDATE))


@pytest.mark.parametrize(
    ("round_", "memory", "step"),
    [
        (round_in(Phase.TRAIN), MEMORY, core.Train()),
        (round_in(Phase.TRAIN), TRAINED, core.Commit(UPDATE, SALT)),
        (round_in(Phase.TRAIN, commits={ME: b"h"}), TRAINED, None),
        (round_in(Phase.REVEAL, commits={ME: b"h"}), TRAINED, core.Reveal(UPDATE, SALT)),
        (round_in(Phase.REVEAL), TRAINED, None),
        (
            round_in(Phase.REVEAL, commits={ME: b"h"}, reveals={ME: UPDATE, OTHER: THEIRS}),
            replace(TRAINED, fetched=frozenset({UPDATE})),
            core.Prefetch((THEIRS,)),
        ),
        (round_in(Phase.SCORE_COMMIT, submissions=BOTH_REVEALED), TRAINED, None),
        (
            round_in(Phase.SCORE_COMMIT, submissions=BOTH_REVEALED, score_beacon=b"d" * 32),
            TRAINED,
            core.Score(),
        ),
        (round_in(Phase.SCORE_COMMIT), SCORED, core.CommitScores(5, (7,), SALT)),
        (round_in(Phase.SCORE_COMMIT, score_commits={ME: b"h"}), SCORED, None),
        (
            round_in(Phase.SCORE_REVEAL, score_commits={ME: b"h"}),
            SCORED,
            core.RevealScores(5, (7,), SALT),
        ),
        (round_in(Phase.SCORE_REVEAL), SCORED, None),
        (
            round_in(
                Phase.SCORE_REVEAL,
                score_commits={ME: b"h"},
                score_reveals={ME: ScoreReveal(5, (7,))},
            ),
            SCORED,
            None,
        ),
        (round_in(Phase.ATTEST, accepted=(Accepted(0, 7),)), SCORED, core.Merge()),
        (round_in(Phase.ATTEST), DONE, core.Attest(MERGED, 4)),
        (round_in(Phase.ATTEST, attestations={ME: Attestation(MERGED, 4)}), DONE, None),
    ],
)
def test_each_phase_asks_for_its_step(
    round_: RoundState, memory: RoundMemory, step: object
) -> None:
    assert core.decide(round_, BOTH, memory) == step


def test_who_only_trains_never_scores_and_who_only_validates_never_trains() -> None:
    worker, validator = replace(BOTH, validates=False), replace(BOTH, trains=False)
    assert core.decide(round_in(Phase.SCORE_COMMIT), worker, TRAINED) is None
    assert core.decide(round_in(Phase.ATTEST), worker, TRAINED) is None
    assert core.decide(round_in(Phase.TRAIN), validator, MEMORY) is None
    drawn = round_in(Phase.SCORE_COMMIT, score_beacon=b"d" * 32)
    assert core.decide(drawn, validator, MEMORY) == core.Score()


def test_scores_of_one_attempt_are_in_no_block_of_the_next() -> None:
    scoring = round_in(Phase.SCORE_COMMIT)
    assert core.last_height(core.CommitScores(5, (7,), SALT), scoring) == scoring.phase_deadline
    assert core.last_height(core.Commit(UPDATE, SALT), round_in(Phase.TRAIN)) is None


def test_who_registered_after_the_round_began_works_from_the_next_on() -> None:
    running = round_in(Phase.TRAIN, started=10)
    assert [core.may_train(running, at) for at in (None, 9, 10, 11)] == [False, True, True, False]


def test_a_commitment_without_its_update_is_not_opened() -> None:
    assert core.decide(round_in(Phase.REVEAL, commits={ME: b"h"}), BOTH, MEMORY) is None


@pytest.mark.parametrize("memory", [MEMORY, TRAINED, SCORED, DONE])
def test_a_memory_is_read_back_as_it_was_saved(tmp_path, memory: RoundMemory) -> None:
    file = MemoryFile(tmp_path / "task.round")
    file.save(memory)
    assert file.load(TASK, 3, 1) == memory


def test_a_memory_of_another_round_is_not_taken_for_this_one(tmp_path) -> None:
    file = MemoryFile(tmp_path / "task.round")
    file.save(replace(DONE, attempt=2))
    assert file.load(TASK, 4, 1) == RoundMemory(TASK, 4, 1)
    assert file.load(TASK, 3, 1) == RoundMemory(TASK, 3, 1)
    assert file.load(b"x" * 32, 3, 2) == RoundMemory(b"x" * 32, 3, 2)


def test_the_update_of_an_attempt_that_ended_is_committed_and_opened_in_the_next(tmp_path) -> None:
    """Its commitment may have been sent too late for the one and stand in the other."""
    file = MemoryFile(tmp_path / "task.round")
    file.save(DONE)
    memory = file.load(TASK, 3, 2)
    assert memory == RoundMemory(TASK, 3, 2, SALT, UPDATE)
    again = round_in(Phase.TRAIN, attempt=2)
    assert core.decide(again, BOTH, memory) == core.Commit(UPDATE, SALT)
    late = round_in(Phase.REVEAL, attempt=2, commits={ME: b"h"})
    assert core.decide(late, BOTH, memory) == core.Reveal(UPDATE, SALT)


def test_a_memory_of_another_shape_counts_as_none(tmp_path) -> None:
    path = tmp_path / "task.round"
    for scores in ([], [1], 7, [1, [2]]):
        path.write_bytes(canonical.encode([1, TASK, 3, 1, SALT, None, scores, None]))
        assert MemoryFile(path).load(TASK, 3, 1) == MEMORY
    path.unlink()
    path.mkdir()
    assert MemoryFile(path).load(TASK, 3, 1) == MEMORY


def test_a_damaged_memory_counts_as_none(tmp_path) -> None:
    path = tmp_path / "task.round"
    MemoryFile(path).save(DONE)
    data = path.read_bytes()
    for cut in range(len(data)):
        path.write_bytes(data[:cut])
        assert MemoryFile(path).load(TASK, 3, 1) == MEMORY
