"""A task's rounds in one process: honest workers, hostile ones, the score, the ledger's verdict and the merge.

What a worker does depends only on the checkpoints that it has seen, so work is kept by their history: runs in which
nothing hostile is accepted go through the same checkpoints, and their honest work is done once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from storage import cid
from swarm.ledger import rewards, scoring
from swarm.ledger.holdings import EpochSet, EpochValidator
from swarm.ledger.tasks import (
    Phase,
    Phases,
    RoundState,
    ScoreReveal,
    Submission,
    TaskState,
    refusal,
)
from swarm.training import assignment, checkpoint, codec, data, local, merge, models, score
from swarm.training.sequential import Evidence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from bench.adversaries.attackers import Attack
    from swarm.training.spec import TaskSpec

TASK = b"T" * 32
DATASET = "bafyd"
ROUND_MONEY = 10**9
CPU = torch.device("cpu")
HELD_SEQUENCES = 512
"""Sequences of the pool that give a run's loss."""


@dataclass(frozen=True)
class Scene:
    """Where a round stands when its workers begin."""

    round: int
    base: checkpoint.Checkpoint
    history: str  # of all checkpoints so far
    before: Scene | None  # the round before
    beacon: bytes

    @property
    def root(self) -> str:
        """What stands for the base's CID."""
        return "bafy" + self.history


@dataclass
class Tally:
    """What became of one side's updates in a run."""

    submitted: int = 0
    accepted: int = 0
    paid: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class Run:
    """A run's end."""

    honest: Tally
    hostile: Tally
    loss: float


class Arena:
    """The task, its data, and the work that was done on it.

    Args:
        spec: The task.
        folder: Files go here.
        dataset: Folder of the training set.
        pool: Folder of what is held out.
        guarded: Whether updates of a round are compared with each other; without it, each is scored alone.
    """

    def __init__(
        self, spec: TaskSpec, folder: Path, dataset: Path, pool: Path, *, guarded: bool = True
    ) -> None:
        self.spec = spec
        self.guarded = guarded
        self.folder = folder
        self.seen = data.TextData(dataset, spec.lm.context)
        self.held = data.TextData(pool, spec.lm.context)
        values = models.initial(models.build(spec.model), spec.train.seed)
        config = checkpoint.Config("lm", spec.name, 0, spec.data.tokenizer, spec.model)
        self._first = checkpoint.Checkpoint(config, values)

    def layout(self, scene: Scene) -> codec.Layout:
        """Of the round's updates."""
        return codec.layout(self.spec, self._first.shapes, scene.round)

    def trained(
        self,
        scene: Scene,
        peer: str,
        *,
        habit: str = "honest",
        text: data.TextData | None = None,
        steps: int | None = None,
        place: str | None = None,
    ) -> Path:
        """The update of a worker that really trains.

        Args:
            scene: The round.
            peer: Who submits it.
            habit: Names the way of working; its state is kept apart.
            text: Data other than the task's.
            steps: Other than the task asks for.
            place: Whose samples are drawn, where not its own.
        """
        room = self.folder / habit / peer
        out = room / f"{scene.history}.safetensors"
        if out.exists():
            return out
        state = room / f"state-{scene.history}"
        if scene.before is not None and (old := room / f"state-{scene.before.history}").exists():
            shutil.copytree(old, state)
        drawn = local.Place(TASK, scene.round, place or peer, scene.beacon, scene.root, DATASET)
        train = dataclasses.replace(self.spec.train, steps=steps or self.spec.train.steps)
        spec = dataclasses.replace(self.spec, train=train)
        local.train(spec, drawn, scene.base, text or self.seen, state, out, CPU, lambda *_: None)
        if place is not None:
            self.submit(scene, peer, self.read(scene, out), out)
        return out

    def read(self, scene: Scene, path: Path) -> list[codec.Sparse]:
        """What an update says."""
        return codec.read(path, self._expected(scene, None)).groups

    def submit(self, scene: Scene, peer: str, groups: list[codec.Sparse], out: Path) -> Path:
        """Write an update in a peer's name."""
        count = self.spec.train.steps * self.spec.train.batch
        layout = self.layout(scene)
        about = codec.About(
            "lm",
            layout.k,
            scene.root,
            TASK,
            scene.round,
            peer,
            bytes(32),
            count,
            part=layout.said,
        )
        local.write_file(out, codec.pack(groups, layout, about))
        return out

    def run(
        self, rounds: int, honest: Sequence[str], hostile: Sequence[str], attack: Attack
    ) -> Run:
        """Play a task.

        Args:
            rounds: How many.
            honest: Peers that do as they should.
            hostile: Peers that do not.
            attack: What the hostile submit.
        """
        result = Run(Tally(), Tally(), 0.0)
        evidence = Evidence()
        scene = self._scene(None, self._first, 1)
        for round_ in range(1, rounds + 1):
            files = [self.trained(scene, peer) for peer in honest]
            bad = [attack(self, scene, peer, files) for peer in hostile]
            judged = self._judge(scene, [*honest, *hostile], [*files, *bad], evidence)
            self._note(judged, len(honest), result)
            groups = [
                self.read(scene, [*files, *bad][_place_of(judged, one.index)])
                for one in judged.accepted
            ]
            values = scene.base.tensors
            if groups:
                values = merge.merge(values, groups, self.layout(scene), self.spec.amplify_milli)
            scene = self._scene(scene, dataclasses.replace(scene.base, tensors=values), round_ + 1)
        count = min(HELD_SEQUENCES, self.held.total)
        held = self.held.samples([at * self.held.total // count for at in range(count)])
        result.loss = float(score.model_losses(scene.base, scene.base.tensors, held, CPU).mean())
        return result

    def scores(
        self, scene: Scene, peers: Sequence[str], files: Sequence[Path], evidence: Evidence
    ) -> list[int]:
        """What a validator says of files, with what it knows of earlier rounds."""
        beacon = hashlib.sha256(b"score" + scene.beacon).digest()
        sequences = score.batches(self.spec, TASK, scene.round, beacon, self.held, self.seen)
        expected = [self._expected(scene, peer) for peer in peers]
        train = self.spec.train
        own = [
            assignment.own_ids(
                TASK,
                DATASET,
                scene.round,
                peer,
                (scene.beacon, beacon),
                drawn=train.steps * train.batch,
                count=self.spec.score.sequences,
                total=self.seen.total,
            )
            for peer in peers
        ]
        return score.score(
            self.spec,
            scene.base,
            sequences,
            files,
            expected,
            CPU,
            lambda *_: None,
            order=[int(peer[-1]) for peer in peers] if self.guarded else [],
            own=[self.seen.samples(ids) for ids in own if ids] if self.guarded else [],
            evidence=evidence,
        )[1]

    def _judge(
        self, scene: Scene, peers: Sequence[str], files: Sequence[Path], evidence: Evidence
    ) -> RoundState:
        """The ledger's verdict; a worker's key is its place, so that commits come in that order."""
        keys = [bytes([at]) * 32 for at in range(len(peers))]
        roots = [cid.of_raw(path.read_bytes()) for path in files]
        order = sorted(range(len(peers)), key=lambda at: (roots[at], keys[at]))
        found = self.scores(
            scene, [peers[at] for at in order], [files[at] for at in order], evidence
        )
        current = RoundState(
            TASK,
            scene.round,
            1,
            Phase.SCORE_REVEAL,
            0,
            0,
            cid.of_raw(scene.root.encode()),
            0,
            scene.beacon,
            commits=dict.fromkeys(keys, b""),
            submissions=tuple(Submission(keys[at], roots[at]) for at in order),
            score_reveals={b"v": ScoreReveal(0, tuple(found))},
        )
        members = EpochSet(0, b"", (EpochValidator(b"v", b"", 1),))
        return scoring.judge(self._task(), current, members)

    def _note(self, judged: RoundState, honest: int, result: Run) -> None:
        """Count submissions, acceptances, reasons and pay, the latter as `settlement` divides it."""
        tolerance = self.spec.score.tolerance
        weights = [one.score - tolerance for one in judged.accepted]
        paid = rewards.capped(ROUND_MONEY, weights)
        pay = {one.index: part for one, part in zip(judged.accepted, paid, strict=True)}
        for at, median in enumerate(judged.medians):
            side = result.honest if _place_of(judged, at) < honest else result.hostile
            side.submitted += 1
            if at in pay:
                side.accepted += 1
                side.paid += pay[at]
                continue
            refused = refusal(median)
            weak = "far behind" if median > tolerance else "no improvement"
            side.reasons[refused.reason if refused is not None else weak] += 1

    def _scene(self, before: Scene | None, base: checkpoint.Checkpoint, round_: int) -> Scene:
        digest = hashlib.sha256(before.history.encode() if before is not None else b"")
        for name in sorted(base.tensors):
            digest.update(base.tensors[name].tobytes())
        beacon = hashlib.sha256(f"{self.spec.train.seed} {round_}".encode()).digest()
        return Scene(round_, base, digest.hexdigest()[:16], before, beacon)

    def _expected(self, scene: Scene, peer: str | None) -> codec.Expected:
        return codec.Expected("lm", self.layout(scene), scene.root, TASK, scene.round, peer)

    def _task(self) -> TaskState:
        none = cid.of_raw(b"")
        phases = Phases(1, 1, 1, 1, 1)
        tolerance = self.spec.score.tolerance
        return TaskState(TASK, b"", "", "lm", b"", none, none, none, 1, 0, phases, tolerance, 0, 0)


def _place_of(judged: RoundState, index: int) -> int:
    return judged.submissions[index].worker[0]
