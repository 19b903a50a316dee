"""Rounds of the demo's tasks in one process: the loss after each round, and what a round costs.

    python -m bench.training [gpt|gan] [--workers 4] [--rounds 8] [--steps 20] [--seeds 1] [--alone]
                             [--batch 64] [--learning-rate 0.008] [--muon-learning-rate 0.02] [--images FOLDER]
                             [--threads 2]

No network and no ledger: four workers one after the other, then the score and the merge, as a node does them.
`--alone` adds one node that takes as many steps as each worker, with the same optimiser and nothing compressed:
once on its share of the data (every fourth sample, of four workers) and once on all of it.
The share is spread evenly over the dataset, which is the hardest for the swarm to beat: one that is a fourth of the
files in a row knows less of the rest.
`alone` in place of a task's name measures only that; a lone node has other best rates than a swarm.
Of a gan, `--alone` adds one node with all the CPU that the workers have together: as many steps as all of them, fixed
hyper-parameters, and nothing taken off for the score; once in rounds of which only better ones are kept, and once in one
go, never held up. With `--threads N` it takes as many steps as it makes in the workers' time on N cores, where each of
them has one thread and it has all: how much faster N threads are is measured first.
It prints where the distance stands after every five rounds. Images are the demo's (Fashion-MNIST where Debian's package
is installed), or those of a folder with `train` and `pool` in it; larger ones than the model's are scaled down.
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
from swarm.training import (
    assignment,
    checkpoint,
    data,
    demo_data,
    jobs,
    local,
    models,
    objectives,
    spec,
)
from swarm.training.errors import DataError

TASK = b"T" * 32
SEQUENCES = 256
TRIED_STEPS, TRIES = 30, 2
"""By which threads are timed."""


def main() -> None:
    """Print one line a round, and a summary a seed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("task", nargs="?", default="gpt", choices=("gpt", "gan", "alone"))
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--muon-learning-rate", type=float)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    packaged = "gpt" if options.task == "alone" else options.task
    file = Path(swarm.training.__file__).parent / "tasks" / f"{packaged}.toml"
    task = spec.parse_spec(file.read_bytes())
    if options.rounds:
        task = dataclasses.replace(task, rounds=options.rounds)
    keys = ("steps", "batch", "learning_rate", "muon_learning_rate")
    asked = {key: getattr(options, key) for key in keys}
    changed = {key: value for key, value in asked.items() if value is not None}
    task = dataclasses.replace(task, train=dataclasses.replace(task.train, **changed))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task, dataset, pool = taken(task, folder / "data", options.images)
        for seed in range(1, options.seeds + 1):
            train = dataclasses.replace(task.train, seed=seed)
            room = folder / str(seed)
            seeded = dataclasses.replace(task, train=train)
            raw = spec.write_spec(seeded)
            run(job="initial", spec=raw, dataset=str(dataset), out=str(room / "v0"))
            print(f"seed {seed}: {loss(raw, room / 'v0', pool):.4f} before the first round")
            if options.task != "alone":
                together(seeded, room, dataset, pool, options.workers)
            if options.alone and task.kind == "gan":
                lone_pair(seeded, room, dataset, pool, options.workers, options.threads)
            if options.task == "alone" or (options.alone and task.kind == "lm"):
                for every in (options.workers, 1):
                    alone(seeded, room, dataset, pool, every)


def run(**job: Any) -> dict[str, Any]:  # noqa: ANN401 - a job's fields
    """Do a job of the worker in this process."""
    return jobs.run(job, jobs.Bench(torch.device("cpu"), lambda *_: None))


def taken(
    task: spec.TaskSpec, folder: Path, images: Path | None
) -> tuple[spec.TaskSpec, Path, Path]:
    """The task, its dataset and its pool."""
    if task.kind == "lm":
        return task, *demo_data.write_text_dataset(folder)
    found = (
        demo_data.write_image_dataset(folder)
        if images is None
        else (images / "train", images / "pool")
    )
    try:
        data.ImageData(found[0], task.gan.size, task.gan.channels)
    except DataError:  # larger than the model's
        task = dataclasses.replace(task, data=dataclasses.replace(task.data, resize="stretch"))
    return task, *found


def lone_pair(
    task: spec.TaskSpec, room: Path, dataset: Path, pool: Path, workers: int, threads: int
) -> None:
    """One node that trains a pair with the CPU of all workers."""
    share = 1.0
    if threads:
        faster = speed_up(task, room, dataset, threads)
        share = min(1.0, faster / threads)
        print(f"{threads} threads are {faster:.2f} times as fast as one")
    steps = round(task.train.steps * workers * share)
    fixed = spec.Population(spread=1.0, beta=task.population.beta, critic_steps=1)
    alone_ = dataclasses.replace(task, population=fixed)
    print(f"one node, {steps} steps a round, better ones kept", flush=True)
    train = dataclasses.replace(task.train, steps=steps)
    together(dataclasses.replace(alone_, train=train), room, dataset, pool, 1)
    whole = dataclasses.replace(task.train, steps=steps * task.rounds)
    print(f"one node, {whole.steps} steps in one go", flush=True)
    together(dataclasses.replace(alone_, train=whole, rounds=1), room, dataset, pool, 1)


def speed_up(task: spec.TaskSpec, room: Path, dataset: Path, threads: int) -> float:
    """How many times as fast steps are with several threads: the best of some tries of each, in turn."""
    raw = spec.write_spec(
        dataclasses.replace(task, train=dataclasses.replace(task.train, steps=TRIED_STEPS))
    )
    best = {1: np.inf, threads: np.inf}
    for _ in range(TRIES):
        for count in best:
            torch.set_num_threads(count)
            fields = {"base": str(room / "v0"), "dataset": str(dataset), "out": str(room / "tried")}
            place = {"task": TASK, "round": 1, "beacon": b"B" * 32, "peer": "peer1"}
            roots = {"base_root": "bafy0", "dataset_root": "bafyd", "state": str(room / "state")}
            times: list[float] = []
            job = {"job": "train", "spec": raw, **place, **roots, **fields}
            bench = jobs.Bench(
                torch.device("cpu"), lambda *_, times=times: times.append(time.perf_counter())
            )
            jobs.run(job, bench)
            best[count] = min(best[count], (times[-1] - times[0]) / (len(times) - 1))
    torch.set_num_threads(1)
    return float(best[1] / best[threads])


def together(task: spec.TaskSpec, room: Path, dataset: Path, pool: Path, workers: int) -> None:
    """Rounds of a swarm."""
    raw = spec.write_spec(task)
    found = []
    spent = dict.fromkeys(("train", "score", "merge"), 0.0)
    sizes = []
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
            sizes.append(result["bytes"] / result["parameters"])
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
        found.append(loss(raw, room / f"v{round_ + 1}", pool))
        print(
            f"round {round_ + 1}: {found[-1]:.4f}, "
            f"{len(kept)} of {workers} accepted, scores {scores}",
            flush=True,
        )
    if task.kind == "gan" and found[4:]:
        print("every five rounds: " + ", ".join(f"{one:.4f}" for one in found[4::5]))
    print(
        f"{result['parameters']:,} parameters, bytes a parameter in an update: "
        f"mean {np.mean(sizes):.4f}, largest {max(sizes):.4f}; seconds a round: "
        + ", ".join(f"{name} {seconds / task.rounds:.2f}" for name, seconds in spent.items())
    )


def alone(task: spec.TaskSpec, room: Path, dataset: Path, pool: Path, every: int) -> None:
    """One node on every n-th sample of the dataset: as many steps as a worker, nothing compressed."""
    base = checkpoint.load(room / "v0")
    device = torch.device("cpu")
    model = models.fill(models.build(task.model), base.tensors, device)
    optimizers = local.Optimizers(model, task.train)
    text = data.TextData(dataset, task.lm.context)
    settings = task.train
    for round_ in range(task.rounds):
        beacon = hashlib.sha256(f"{settings.seed} {round_}".encode()).digest()
        count = settings.steps * settings.batch
        ids = assignment.sample_ids(
            TASK, "bafyd", round_ + 1, "peer1", beacon, count=count, total=text.total // every
        )
        samples = text.samples([at * every for at in ids])
        for step in range(settings.steps):
            batch = samples[step * settings.batch : (step + 1) * settings.batch]
            objectives.losses(model, batch, device).mean().backward()  # type: ignore[no-untyped-call]  # torch
            done = round_ * settings.steps + step
            optimizers.step(local.rate(settings, done, task.rounds * settings.steps))
    config = dataclasses.replace(base.config, version=1)
    checkpoint.write(room / "alone", config, models.values(model), "")
    found = loss(spec.write_spec(task), room / "alone", pool)
    what = f"1/{every} of the data" if every > 1 else "all data"
    print(f"alone, {what}: {found:.4f}", flush=True)


def loss(raw: bytes, folder: Path, pool: Path) -> float:
    """The checkpoint's loss on the pool."""
    limit = SEQUENCES if spec.parse_spec(raw).kind == "lm" else None
    found = run(job="evaluate", spec=raw, checkpoint=str(folder), pool=str(pool), limit=limit)
    return float(found["loss"]) / 1e5


if __name__ == "__main__":
    main()
