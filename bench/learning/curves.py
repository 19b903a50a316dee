"""The loss at equal tokens: a swarm, dense averaging, and one machine that sees everything.

Four ways to spend the same tokens, with the same model, the same inner optimiser and the same schedule:

    swarm     the shipped jobs: H steps a peer, a sparse one-bit update, the score, the merge
    dense     H steps a peer, then the mean of all weights in float32 (local SGD; what hivemind does, without loss)
    central   one machine, all peers' batches one after the other: as many tokens, `workers` times as many steps
    parallel  one machine, all peers' batches at once: as many tokens, as many steps as one peer

Rates are chosen on the pool with seed 0, which no figure comes from; figures are losses on the test text, files that
are in neither the training set nor the pool, which is all that gate and choice ever see.

Source of local SGD: Stich, "Local SGD Converges Fast and Communicates Little" (2019).
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

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

if TYPE_CHECKING:
    from pathlib import Path

TASK = b"T" * 32
TEST_SHARE = 16
"""One file of the training set in this many becomes test text."""
TEST_SEQUENCES = 1024
POOL_SEQUENCES = 512
CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Data:
    """Folders of texts that share no file."""

    train: Path
    pool: Path
    test: Path


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to.

    Attributes:
        loss: Nats a token on the text that was asked for.
        bytes_a_parameter: What a peer sends a round, over the model's parameters; none where nothing is sent.
        accepted: Share of the updates that passed the gate.
        seconds: Of the whole run.
    """

    loss: float
    bytes_a_parameter: float | None
    accepted: float
    seconds: float


def prepare(folder: Path) -> Data:
    """Write the texts."""
    train, pool = demo_data.write_text_dataset(folder)
    test = folder / "test"
    test.mkdir()
    for path in sorted(train.glob("*")):
        drawn = int.from_bytes(hashlib.sha256(b"test " + path.name.encode()).digest()[:8], "big")
        if path.name != "README.md" and drawn % TEST_SHARE == 0:
            path.rename(test / path.name)
    return Data(train, pool, test)


def swarm(task: spec.TaskSpec, workers: int, texts: Data, room: Path, judge: Path) -> Result:
    """Rounds as a node does them, without network and ledger."""
    started = time.monotonic()
    raw = spec.write_spec(task)
    sizes: list[float] = []
    accepted = 0
    _run(job="initial", spec=raw, dataset=str(texts.train), out=str(room / "v0"))
    for round_ in range(task.rounds):
        fields = {
            "spec": raw,
            "task": TASK,
            "round": round_ + 1,
            "beacon": _beacon(task, round_),
            "base_root": f"bafy{round_}",
            "base": str(room / f"v{round_}"),
            "dataset": str(texts.train),
            "pool": str(texts.pool),
        }
        files = []
        for at in range(workers):
            files.append(str(room / f"update-{at}"))
            place = {
                "peer": f"peer{at + 1}",
                "dataset_root": "bafyd",
                "state": str(room / f"state-{at}"),
            }
            result = _run(job="train", **fields, **place, out=files[-1])
            sizes.append(result["bytes"] / result["parameters"])
        scores = _run(job="score", **fields, updates=files, peers=[])["scores"]
        kept = [at for at, score in enumerate(scores) if score > task.score.tolerance]
        accepted += len(kept)
        _run(
            job="merge",
            **fields,
            name=task.name,
            version=round_ + 1,
            updates=[files[at] for at in kept],
            scores=[scores[at] for at in kept],
            out=str(room / f"v{round_ + 1}"),
        )
        shutil.rmtree(room / f"v{round_}")
    limit = TEST_SEQUENCES if judge == texts.test else POOL_SEQUENCES
    found = _run(
        job="evaluate",
        spec=raw,
        checkpoint=str(room / f"v{task.rounds}"),
        pool=str(judge),
        limit=limit,
    )
    return Result(
        float(found["loss"]) / 1e5,
        float(np.mean(sizes)),
        accepted / (workers * task.rounds),
        time.monotonic() - started,
    )


def dense(task: spec.TaskSpec, workers: int, texts: Data, room: Path, judge: Path) -> Result:
    """Local steps and the mean of the weights, in float32 and without a gate."""
    started = time.monotonic()
    common, text = _start(task, texts, room)
    peers = [copy.deepcopy(common) for _ in range(workers)]
    optimizers = [local.Optimizers(model, task.train) for model in peers]
    for round_ in range(task.rounds):
        for at, (model, optimizer) in enumerate(zip(peers, optimizers, strict=True)):
            with torch.no_grad():
                model.load_state_dict(common.state_dict())
            for step, batch in enumerate(_tokens(task, round_, at, text).split(task.train.batch)):
                _step(model, optimizer, task, batch, round_ * task.train.steps + step, 1)
        with torch.no_grad():
            for name, value in common.named_parameters():
                value.copy_(torch.stack([model.get_parameter(name) for model in peers]).mean(0))
    return Result(_judge(task, common, texts, judge, room), 4.0, 1.0, time.monotonic() - started)


def central(task: spec.TaskSpec, workers: int, texts: Data, room: Path, judge: Path) -> Result:
    """All peers' batches in one model, one after the other."""
    started = time.monotonic()
    model, text = _start(task, texts, room)
    optimizer = local.Optimizers(model, task.train)
    done = 0
    for round_ in range(task.rounds):
        tokens = [_tokens(task, round_, at, text).split(task.train.batch) for at in range(workers)]
        for batches in zip(*tokens, strict=True):
            for batch in batches:
                _step(model, optimizer, task, batch, done, workers)
                done += 1
    return Result(_judge(task, model, texts, judge, room), None, 1.0, time.monotonic() - started)


def parallel(task: spec.TaskSpec, workers: int, texts: Data, room: Path, judge: Path) -> Result:
    """All peers' batches in one model, at once."""
    started = time.monotonic()
    model, text = _start(task, texts, room)
    optimizer = local.Optimizers(model, task.train)
    done = 0
    for round_ in range(task.rounds):
        tokens = [_tokens(task, round_, at, text).split(task.train.batch) for at in range(workers)]
        for batches in zip(*tokens, strict=True):
            _step(model, optimizer, task, torch.cat(batches), done, 1)
            done += 1
    return Result(_judge(task, model, texts, judge, room), None, 1.0, time.monotonic() - started)


def _run(**job: Any) -> dict[str, Any]:  # noqa: ANN401 - a job's fields
    return jobs.run(job, jobs.Bench(CPU, lambda *_: None))


def _beacon(task: spec.TaskSpec, round_: int) -> bytes:
    return hashlib.sha256(f"{task.train.seed} {round_}".encode()).digest()


def _start(task: spec.TaskSpec, texts: Data, room: Path) -> tuple[torch.nn.Module, data.TextData]:
    """The checkpoint that the swarm starts from, and the text."""
    _run(job="initial", spec=spec.write_spec(task), dataset=str(texts.train), out=str(room / "v0"))
    base = checkpoint.load(room / "v0")
    model = models.fill(models.build(task.model), base.tensors, CPU)
    return model, data.TextData(texts.train, task.lm.context)


def _tokens(task: spec.TaskSpec, round_: int, peer: int, text: data.TextData) -> torch.Tensor:
    """(H x batch, context + 1): the very samples that this peer of the swarm draws."""
    ids = assignment.sample_ids(
        TASK,
        "bafyd",
        round_ + 1,
        f"peer{peer + 1}",
        _beacon(task, round_),
        count=task.train.steps * task.train.batch,
        total=text.total,
    )
    return torch.from_numpy(text.samples(ids).astype(np.int64))


def _step(
    model: torch.nn.Module,
    optimizer: local.Optimizers,
    task: spec.TaskSpec,
    batch: torch.Tensor,
    done: int,
    times: int,
) -> None:
    losses = objectives.token_losses(model(batch[:, :-1]), batch)
    losses.mean().backward()  # type: ignore[no-untyped-call]  # torch
    optimizer.step(local.rate(task.train, done, task.rounds * task.train.steps * times))


def _judge(
    task: spec.TaskSpec, model: torch.nn.Module, texts: Data, judge: Path, room: Path
) -> float:
    base = checkpoint.load(room / "v0")
    config = dataclasses.replace(base.config, version=1)
    checkpoint.write(room / "end", config, models.values(model), "")
    limit = TEST_SEQUENCES if judge == texts.test else POOL_SEQUENCES
    raw = spec.write_spec(task)
    found = _run(
        job="evaluate", spec=raw, checkpoint=str(room / "end"), pool=str(judge), limit=limit
    )
    return float(found["loss"]) / 1e5
