"""The ways to be hostile: each gives the file that one attacker submits in one round."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

import numpy as np

from bench.adversaries.arena import CPU
from swarm.training import assignment, data, local, score, tensors
from swarm.training.codec import Sparse

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bench.adversaries.arena import Arena, Scene
    from swarm.training.tensors import Array

    Attack = Callable[[Arena, Scene, str, Sequence[Path]], Path]
    """From the arena, the scene, the attacker and the honest files of the round to the file that it submits."""

SKIPPED_TO: Final = 5
"""Steps of fifteen that a skipper takes."""
LOUDER: Final = 2.0
"""By what a loud worker multiplies what it says."""
FLIPPED_OF_COPY: Final = 0.02
"""The share of signs that a copier changes."""
HIDDEN: Final = (0.45, 0.4, 0.35, 0.3, 0.25, 0.2, 0.15, 0.1, 0.05)
"""Shares of poison that a hidden poisoner tries, from the greatest on."""


def flipped_signs(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """An honest update, all signs turned."""
    honest = arena.read(scene, arena.trained(scene, peer))
    turned = [dataclasses.replace(item, negative=~item.negative) for item in honest]
    return arena.submit(scene, peer, turned, _out(arena, scene, "signs", peer))


class _Relabelled(data.TextData):
    """Text in which each byte stands for another: every target is wrong."""

    def __init__(self, plain: data.TextData) -> None:
        self._plain = plain
        self.total = plain.total
        self._table = np.arange(256, dtype=np.uint8)
        self._table[:128] = assignment.Generator("labels").distinct(128, 128)

    def samples(self, ids: Sequence[int]) -> Array:
        """As of the plain text."""
        found: Array = self._table[self._plain.samples(ids)]
        return found


def flipped_labels(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """Honest work on wrong targets."""
    return arena.trained(scene, peer, habit="labels", text=_Relabelled(arena.seen))


def noise(arena: Arena, scene: Scene, peer: str, files: Sequence[Path]) -> Path:
    """Random places and signs, as long as an honest update; every second attacker a twentieth of it."""
    chance = _chance(scene, peer)
    share = 0.05 if int(peer[-1]) % 2 else 1.0
    sparse = []
    layout = arena.layout(scene)
    for item, picks, sizes in zip(
        arena.read(scene, files[0]), layout.picks, layout.chunk_sizes, strict=True
    ):
        places = [
            np.sort(chance.choice(size, count, replace=False)) + at * 4096
            for at, (count, size) in enumerate(zip(picks, sizes, strict=True))
        ]
        signs = chance.random(len(item.positions)) < 0.5
        level = float(np.float32(item.level * share))
        sparse.append(Sparse(np.concatenate(places).astype(np.int64), signs, level))
    return arena.submit(scene, peer, sparse, _out(arena, scene, "noise", peer))


def other_data(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """Honest work on samples that are not its own."""
    return arena.trained(scene, peer, habit="other-data", place=f"{peer}x")


def skipped_steps(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """A third of the steps."""
    return arena.trained(scene, peer, habit="steps", steps=SKIPPED_TO)


def loud(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """Honest work, said louder than it is."""
    honest = arena.read(scene, arena.trained(scene, peer))
    raised = [dataclasses.replace(item, level=item.level * LOUDER) for item in honest]
    return arena.submit(scene, peer, raised, _out(arena, scene, "loud", peer))


def copies(arena: Arena, scene: Scene, peer: str, files: Sequence[Path]) -> Path:
    """The first honest update in one's own name."""
    copied = arena.read(scene, files[0])
    return arena.submit(scene, peer, copied, _out(arena, scene, "copies", peer))


def noisy_copies(arena: Arena, scene: Scene, peer: str, files: Sequence[Path]) -> Path:
    """A copy with some signs turned and other levels."""
    chance = _chance(scene, peer)
    copied = [
        Sparse(
            item.positions,
            item.negative ^ (chance.random(len(item.negative)) < FLIPPED_OF_COPY),
            float(np.float32(item.level * chance.uniform(0.9, 1.1))),
        )
        for item in arena.read(scene, files[int(peer[-1]) % len(files)])
    ]
    return arena.submit(scene, peer, copied, _out(arena, scene, "noisy", peer))


def spliced_copies(arena: Arena, scene: Scene, peer: str, files: Sequence[Path]) -> Path:
    """Every second tensor from one honest update, the others from another: like neither as a whole."""
    first = int(peer[-1]) % len(files)
    one, two = (arena.read(scene, files[at % len(files)]) for at in (first, first + 1))
    spliced = [(one, two)[at % 2][at] for at in range(len(one))]
    return arena.submit(scene, peer, spliced, _out(arena, scene, "spliced", peer))


def colluders(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """All push one direction, that of wrong targets, each with a little noise of its own."""
    shared = arena.trained(scene, "peerX", habit="labels", text=_Relabelled(arena.seen))
    return noisy_copies(arena, scene, peer, [shared])


def hidden_poison(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """An honest update with so many signs turned that it hardly gains, at places that all attackers share."""
    return _poisoned(arena, scene, peer, "hidden", 0.05)


def careful_poison(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """The same by one that knows what share of the others' gain is asked for."""
    return _poisoned(arena, scene, peer, "careful", 0.4)


def _poisoned(arena: Arena, scene: Scene, peer: str, kind: str, kept: float) -> Path:
    """The attacker judges by public data, since nobody knows the sequences of the score.

    Args:
        arena: The task.
        scene: The round.
        peer: The attacker.
        kind: Names the files.
        kept: The share of the honest update's gain that is to be left.
    """
    honest = arena.read(scene, arena.trained(scene, peer))
    judged = arena.held.samples(range(0, arena.held.total, arena.held.total // 64))
    before = score.model_losses(scene.base, scene.base.tensors, judged, CPU).mean()
    layout = arena.layout(scene)

    def gain(update: list[Sparse]) -> float:
        moved = score.alone(scene.base, update, layout, arena.spec.amplify_milli)
        return float(before - score.model_losses(scene.base, moved, judged, CPU).mean())

    masks = [
        np.random.default_rng([scene.round, at]).random(group.said)
        for at, group in enumerate(layout.groups)
    ]
    least = kept * gain(honest)
    tried = honest
    for share in HIDDEN:
        tried = [
            dataclasses.replace(item, negative=item.negative ^ (mask[item.positions] < share))
            for item, mask in zip(honest, masks, strict=True)
        ]
        if gain(tried) > least:
            break
    return arena.submit(scene, peer, tried, _out(arena, scene, kind, peer))


def stale_base(arena: Arena, scene: Scene, peer: str, _files: Sequence[Path]) -> Path:
    """Work on the checkpoint before; every second attacker names the base that is due."""
    before = scene.before or scene
    path = arena.trained(before, peer)
    if int(peer[-1]) % 2 and before is not scene:
        return path
    return arena.submit(scene, peer, arena.read(before, path), _out(arena, scene, "stale", peer))


def malformed(arena: Arena, scene: Scene, peer: str, files: Sequence[Path]) -> Path:
    """A cut file, one that is not finite, or no tensors at all."""
    honest = files[0].read_bytes()
    kind = (scene.round + int(peer[-1])) % 3
    out = _out(arena, scene, "malformed", peer)
    if kind == 0:
        local.write_file(out, honest[: len(honest) // 2])
    elif kind == 1:
        file = tensors.decode(honest, max_bytes=len(honest))
        levels = np.full_like(file.tensors["levels"], np.nan)
        about = {**file.metadata, "peer": peer}
        local.write_file(out, tensors.encode({**file.tensors, "levels": levels}, about))
    else:
        local.write_file(out, _chance(scene, peer).bytes(len(honest)))
    return out


ATTACKS: dict[str, Attack] = {
    "sign flip": flipped_signs,
    "label flip": flipped_labels,
    "noise": noise,
    "other data": other_data,
    "skipped steps": skipped_steps,
    "loud": loud,
    "copies": copies,
    "noisy copies": noisy_copies,
    "spliced copies": spliced_copies,
    "colluders": colluders,
    "hidden poison": hidden_poison,
    "careful poison": careful_poison,
    "stale base": stale_base,
    "malformed": malformed,
}


def _out(arena: Arena, scene: Scene, kind: str, peer: str) -> Path:
    return arena.folder / kind / peer / f"{scene.history}.safetensors"


def _chance(scene: Scene, peer: str) -> np.random.Generator:
    return np.random.default_rng(assignment.torch_seed("attack", scene.history, peer))
