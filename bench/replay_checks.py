"""What checks of recorded work find, and what they would cost otherwise: figures of `docs/protocols/replay.md`.

    python -m bench.replay_checks [--seeds 1000] [--steps 20] [--every 10]

Three tables: in how many rounds a skipper of a third of the steps is caught, beside the formula; how far proofs of having run
a segment are apart, between machines and for who did not run it; and a segment run again whole beside a bisection over blocks.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bench import replay as rounds
from swarm.ledger import replays
from swarm.ledger.genesis import Params
from swarm.training import checkpoint, demo_data, models, spec, tensors, trace
from swarm.training.recorder import WEIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ONE_IN, SEGMENTS, WITHIN = 10, 3, 60
KEY = b"k" * 32
LINK_BYTES = 10 * 10**6
"""A second, for a state on its way."""
MAX_ROUNDS = 10_000


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--again", help="a room to run, in a process of its own")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    torch.use_deterministic_algorithms(True)
    if options.again:
        print(json.dumps(_proofs(json.loads(Path(options.again).read_text()))))
        return
    _skippers(options.seeds)
    with tempfile.TemporaryDirectory() as name:
        dataset, _ = demo_data.write_text_dataset(Path(name) / "data")
        for kind in ("adamw", "muon"):
            room = _room(kind, Path(name), dataset, options)
            _lazy(kind, room)
            _bisection(kind, room)


def caught(seed: int, skips: Callable[[int, int], bool]) -> int:
    """The round in which a skipper is convicted.

    Args:
        seed: Of the beacons.
        skips: Whether it skips in a round's segment.
    """
    worker = hashlib.sha256(b"skipper %d" % seed).digest()
    for number in range(1, MAX_ROUNDS):
        beacon = hashlib.sha256(b"beacon %d %d" % (seed, number)).digest()
        drawn = replays.seed_of(beacon, b"t" * 32, number, worker)
        if replays.is_drawn(drawn, ONE_IN) and skips(number, replays.segment_of(drawn, SEGMENTS)):
            return number
    return MAX_ROUNDS


def _skippers(seeds: int) -> None:
    print(f"a skipper of a third of the steps, one submission in {ONE_IN} drawn, {seeds} seeds")
    kinds: dict[str, tuple[Callable[[int, int], bool], float]] = {
        "one segment of three": (lambda number, at: at == number % SEGMENTS, 1 / SEGMENTS),
        "a third of each segment": (lambda _number, _at: True, 1.0),
    }
    for name, (skips, touched) in kinds.items():
        found = sorted(caught(seed, skips) for seed in range(seeds))
        chance = touched / ONE_IN
        share = sum(one <= WITHIN for one in found) / seeds
        print(
            f"  {name:26}mean {statistics.mean(found):5.1f} rounds (formula {1 / chance:4.1f})  median "
            f"{statistics.median(found):4.1f} ({math.log(0.5) / math.log(1 - chance):4.1f})  within {WITHIN}: "
            f"{share:.1%} ({1 - (1 - chance) ** WITHIN:.1%})  nine in ten within {found[seeds * 9 // 10]}"
        )


def _room(kind: str, folder: Path, dataset: Path, options: argparse.Namespace) -> dict[str, Any]:
    raw = spec.write_spec(rounds._task(kind, options))
    room: dict[str, Any] = {
        "name": kind,
        "spec": raw.decode(),
        "dataset": str(dataset),
        "folder": str(folder / kind),
        "every": options.every,
        "rounds": [1, 4],
    }
    base = str(Path(room["folder"]) / "v0")
    rounds._run(job="initial", spec=raw, dataset=str(dataset), out=base)
    rounds._record(room, max(room["rounds"]))
    return room


def _segments(room: dict[str, Any]) -> Iterator[tuple[int, int]]:
    for round_ in room["rounds"]:
        for segment in range(rounds._segments(room)):
            yield round_, segment


def _proofs(room: dict[str, Any]) -> list[list[int]]:
    return [
        rounds._again(room, round_, segment, proof_key=KEY)["proof"]
        for round_, segment in _segments(room)
    ]


def _lazy(kind: str, room: dict[str, Any]) -> None:
    print(
        f"{kind}: proofs apart, in parts of their length; {5 * Params().replay_tolerance / 1e6} is near"
    )
    ours = _proofs(room)
    file = Path(room["folder"]) / "room.json"
    file.write_text(json.dumps(room))
    for name, environment in rounds.MACHINES.items():
        command = [sys.executable, "-m", "bench.replay_checks", "--again", str(file)]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        gaps = [_apart(*pair) for pair in zip(ours, json.loads(done.stdout), strict=True)]
        print(f"  {name:32}at most {max(gaps):.1e}", flush=True)
    for name, share in (("the straight way to the end", 0.5), ("the end itself", 1.0)):
        gaps = [
            _apart(mine, _guess(room, *place, share))
            for mine, place in zip(ours, _segments(room), strict=True)
        ]
        print(f"  {name:32}at least {min(gaps):.1e}", flush=True)


def _apart(ours: list[int], theirs: list[int]) -> float:
    left, right = np.asarray(ours, float), np.asarray(theirs, float)
    return float(np.linalg.norm(left - right) / np.linalg.norm(left))


def _guess(room: dict[str, Any], round_: int, segment: int, share: float) -> list[int]:
    """The proof of who fetched both states and took no step."""
    folder = Path(room["folder"])
    base = checkpoint.load(folder / "v0")
    model = models.fill(models.build(base.config.model), base.tensors, torch.device("cpu"))
    record = folder / f"record-{round_}"
    before, after = (
        tensors.read(record / f"state-{segment + at:04d}.safetensors", max_bytes=2**30).tensors
        for at in (0, 1)
    )
    prover: trace.Prover | None = None
    for part in (0.0, share):
        values = {
            name.removeprefix(WEIGHT): torch.from_numpy((1 - part) * item + part * after[name])
            for name, item in before.items()
            if name.startswith(WEIGHT)
        }
        model.load_state_dict(values)
        prover = prover or trace.Prover(model, KEY)
    assert prover is not None  # noqa: S101 - made in the first lap
    return prover()


def _bisection(kind: str, room: dict[str, Any]) -> None:
    """Whole: once. Bisected: a state fetched and at least two blocks for each halving, and the last step."""
    seconds = [
        rounds._again(room, round_, segment)["seconds"] for round_, segment in _segments(room)
    ]
    state = Path(room["folder"]) / "record-1" / "state-0000.safetensors"
    size, every = state.stat().st_size, room["every"]
    whole = statistics.median(seconds)
    halvings = math.ceil(math.log2(every))
    blocks = 2 * Params().block_interval_ms / 1000
    bisected = halvings * (blocks + size / LINK_BYTES) + whole / every
    print(
        f"{kind}: a segment of {every} steps again {whole:.2f} s; bisected over the chain {halvings} x ({blocks:.0f} s of "
        f"blocks + {size / LINK_BYTES:.2f} s for {size / 1e6:.1f} MB) + a step = {bisected:.1f} s; even at segments of "
        f"{bisected / (whole / every):.0f} steps"
    )


if __name__ == "__main__":
    main()
