"""Rounds of the demo's tasks in one process: the loss after each round, and what a round costs.

    python -m bench.training [gpt|gan] [--workers 4] [--rounds 8] [--seeds 1] [--alone]

No network and no ledger: four workers one after the other, then the score and the merge, as a node does them.
`--alone` adds one node that trains only on its own share, with the same optimiser and as many steps as each of
the others, and without any compression: what joining the swarm is worth to it.
Losses are over the first 256 sequences of the pool (gan: the distance over 2,000 images).
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import swarm.training
from swarm.training import assignment, checkpoint, data, demo_data, jobs, local, models, spec

TASK = b"T" * 32
SEQUENCES = 256


def main() -> None:
    """Print one line a round, and a summary a seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", nargs="?", default="gpt", choices=("gpt", "gan"))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--alone", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    file = Path(swarm.training.__file__).parent / "tasks" / f"{options.task}.toml"
    task = spec.parse_spec(file.read_bytes())
    if options.rounds:
        task = dataclasses.replace(task, rounds=options.rounds)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write = demo_data.write_text_dataset if task.kind == "lm" else demo_data.write_image_dataset
        dataset, pool = write(folder / "data")
        for seed in range(1, options.seeds + 1):
            train = dataclasses.replace(task.train, seed=seed)
            room = folder / str(seed)
            seeded = dataclasses.replace(task, train=train)
            together(seeded, room, dataset, pool, options.workers)
            if options.alone and task.kind == "lm":
                alone(seeded, room, dataset, pool)


def run(**job: Any) -> dict[str, Any]:  # noqa: ANN401 - a job's fields
    """Do a job of the worker in this process."""
    return jobs.run(job, jobs.Bench(torch.device("cpu"), lambda *_: None))


def together(task: spec.TaskSpec, room: Path, dataset: Path, pool: Path, workers: int) -> None:
    """Rounds of a swarm."""
    raw = spec.write_spec(task)
    run(job="initial", spec=raw, dataset=str(dataset), out=str(room / "v0"))
    print(f"seed {task.train.seed}: {loss(raw, room / 'v0', pool):.4f} before the first round")
    spent = dict.fromkeys(("train", "score", "merge"), 0.0)
    for round_ in range(task.rounds):
        beacon = hashlib.sha256(f"{task.train.seed} {round_}".encode()).digest()
        fields = {
            "spec": raw,
            "task": TASK,
            "round": round_ + 1,
            "beacon": beacon,
            "base_root": f"bafy{round_}",
            "base": str(room / f"v{round_}"),
            "dataset": str(dataset),
            "pool": str(pool),
        }
        files = []
        started = time.perf_counter()
        for peer in (f"peer{at + 1}" for at in range(workers)):
            files.append(str(room / f"update-{peer}"))
            place = {"peer": peer, "dataset_root": "bafyd", "state": str(room / peer)}
            result = run(job="train", **fields, **place, out=files[-1])
        trained = time.perf_counter()
        scores = run(job="score", **fields, updates=files, peers=[])["scores"]
        scored = time.perf_counter()
        kept = [at for at, score in enumerate(scores) if score > task.score.tolerance]
        run(
            job="merge",
            **fields,
            name=task.name,
            version=round_ + 1,
            updates=[files[at] for at in kept],
            scores=[scores[at] for at in kept],
            out=str(room / f"v{round_ + 1}"),
        )
        spent["train"] += (trained - started) / workers
        spent["score"] += scored - trained
        spent["merge"] += time.perf_counter() - scored
        print(
            f"round {round_ + 1}: {loss(raw, room / f'v{round_ + 1}', pool):.4f}, "
            f"{len(kept)} of {workers} accepted, scores {scores}",
            flush=True,
        )
    print(
        f"{result['parameters']:,} parameters, update {result['bytes']:,} bytes "
        f"({result['bytes'] / result['parameters']:.4f} a parameter); seconds a round: "
        + ", ".join(f"{name} {seconds / task.rounds:.2f}" for name, seconds in spent.items())
    )


def alone(task: spec.TaskSpec, room: Path, dataset: Path, pool: Path) -> None:
    """One node on its own share: as many steps, its own samples, dense and uncompressed."""
    base = checkpoint.load(room / "v0")
    model = models.fill(models.build(task.model), base.tensors, torch.device("cpu"))
    optimizers = local.Optimizers(model, task.train)
    text = data.TextData(dataset, task.lm.context)
    settings = task.train
    for round_ in range(task.rounds):
        beacon = hashlib.sha256(f"{settings.seed} {round_}".encode()).digest()
        count = settings.steps * settings.batch
        ids = assignment.sample_ids(
            TASK, "bafyd", round_ + 1, "peer1", beacon, count=count, total=text.total
        )
        tokens = torch.from_numpy(text.samples(ids).astype(np.int64))
        for step in range(settings.steps):
            batch = tokens[step * settings.batch : (step + 1) * settings.batch]
            local.sequence_losses(model, batch).mean().backward()
            done = round_ * settings.steps + step
            optimizers.step(local.rate(settings, done, task.rounds * settings.steps))
    config = dataclasses.replace(base.config, version=1)
    checkpoint.write(room / "alone", config, models.values(model), "")
    print(f"alone: {loss(spec.write_spec(task), room / 'alone', pool):.4f}")


def loss(raw: bytes, folder: Path, pool: Path) -> float:
    """The checkpoint's loss on the pool."""
    limit = SEQUENCES if spec.parse_spec(raw).kind == "lm" else None
    found = run(job="evaluate", spec=raw, checkpoint=str(folder), pool=str(pool), limit=limit)
    return float(found["loss"]) / 1e5


if __name__ == "__main__":
    main()
