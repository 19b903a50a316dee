"""What the worker does for each job: from a message's fields to a result's fields."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from swarm.training import (
    admission,
    assignment,
    checkpoint,
    codec,
    data,
    difference,
    gan,
    local,
    merge,
    models,
    sample,
    score,
    sizes,
    text,
    tokens,
)
from swarm.training.errors import REFUSED, CheckpointError, SpecError, TrainingError, UpdateError
from swarm.training.sizes import GanModel, LmModel
from swarm.training.spec import BYTES, TaskSpec, parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.training.checkpoint import Checkpoint
    from swarm.training.tensors import Array

FIXED_POOL_SAMPLES = 2000
"""Generated images by which `evaluate` judges a gan, unless the task's score asks for more."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a job works with."""

    device: torch.device
    report: Callable[[int, int, float], None]
    alive: Callable[[], None] = lambda: None  # called where a job has nothing to report for a while
    cache: tokens.Cache = field(default_factory=tokens.Cache)  # kept from job to job
    texts: text.Texts = field(default_factory=text.Texts)


def run(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    """Do one job.

    Args:
        job: A message of the node; `job` names the kind.
        bench: The device, and where progress goes.

    Returns:
        The result's fields.

    Raises:
        TrainingError: The job's task, data, checkpoint or update is not as it must be.
    """
    bench.texts.trim()
    return _JOBS[job["job"]](job, bench)


def _describe(_job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    name = "CPU"
    if bench.device.type == "cuda":
        name = torch.cuda.get_device_name(bench.device)
    return {
        "device": f"{bench.device.type}: {name}, {torch.backends.cpu.get_cpu_capability()}",
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _check(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    """All that can be known of a task before it is paid for."""
    spec = parse_spec(job["spec"])
    doubts = admission.check_sizes(spec)
    ratio = None
    if spec.kind == "gan":
        with admission.named("data.dataset"):
            shown = _images(spec, job["dataset"], bench)
        with admission.named("data.pool"):
            pictures = _images(spec, job["pool"], bench)
        totals = shown.total, pictures.total
        doubts += admission.image_overlap(shown.pixels, pictures.pixels)
    else:
        content = _published(spec, job)
        with admission.named("data.dataset"):
            seen = _text(spec, content, job["dataset"], bench)
        with admission.named("data.pool"):
            held = _text(spec, content, job["pool"], bench)
        totals, ratio = (seen.total, held.total), seen.bytes_per_token
        doubts += admission.text_overlap(seen.paths, held.paths, bench.alive)
    doubts += admission.check_counts(spec, *totals)
    return {
        "samples": totals[0],
        "pool_samples": totals[1],
        "parameters": sizes.parameters(spec.model),
        "memory_bytes": admission.training_bytes(spec),
        "bytes_per_token": ratio,
        "doubts": doubts,
    }


def _published(spec: TaskSpec, job: dict[str, Any]) -> bytes | None:
    """The content of a task's tokenizer; None where bytes are the tokens."""
    if spec.data.tokenizer == BYTES:
        return None
    return checkpoint.read_tokenizer(Path(job["tokenizer"]), spec.data.tokenizer)


def _initial(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec, out = parse_spec(job["spec"]), Path(job["out"])
    content, result = None, {}
    if spec.kind == "lm":  # data that cannot be trained on is refused before anybody pays for it
        content = _published(spec, job)
        seen = _text(spec, content, job["dataset"], bench)
        result = {"bytes_per_token": seen.bytes_per_token}
    values = models.initial(models.build(spec.model), spec.train.seed)
    out.mkdir(parents=True, exist_ok=True)
    evaluator = None
    if spec.kind == "gan":
        images = _images(spec, job["dataset"], bench)
        evaluator = out / checkpoint.EVALUATOR
        trained = gan.Evaluator.train(spec.gan, spec.train.seed, images, bench.device, bench.report)
        trained.save(evaluator)
    _write(spec, 0, values, out, evaluator, content, base=None, round_=None, peers=[])
    return result


def _vocabulary(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    content = checkpoint.read_tokenizer(Path(job["tokenizer"]))
    return {"vocabulary": bench.cache.tokenizer(content).vocabulary}


def _train(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec = parse_spec(job["spec"])
    if bench.device.type == "cpu":
        admission.check_round(spec)
    base = _base(spec, job)
    place = local.Place(
        task=job["task"],
        round=job["round"],
        peer=job["peer"],
        beacon=job["beacon"],
        base_root=job["base_root"],
        dataset_root=job["dataset_root"],
    )
    out = Path(job["out"])
    if spec.kind == "gan":
        evaluator = Path(job["base"]) / checkpoint.EVALUATOR
        images = _images(spec, job["dataset"], bench)
        outcome = gan.train(spec, place, base, evaluator, images, out, bench.device, bench.report)
    else:
        seen = _text(spec, base.tokenizer, job["dataset"], bench)
        outcome = local.train(
            spec, place, base, seen, Path(job["state"]), out, bench.device, bench.report
        )
    return asdict(outcome)


def _score(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec = parse_spec(job["spec"])
    base = _base(spec, job)
    paths = [None if path is None else Path(path) for path in job["updates"]]
    peers = job["peers"] or [None] * len(paths)
    expected = [_expected(spec, job, base, peer) for peer in peers]
    if spec.kind == "gan":
        loss, scores = _score_pairs(spec, job, base, paths, expected, bench)
    else:
        held, seen = (_text(spec, base.tokenizer, job[name], bench) for name in ("pool", "dataset"))
        sequences = score.batches(spec, job["task"], job["round"], job["beacon"], held, seen)
        loss, scores = score.score(
            spec,
            base,
            sequences,
            paths,
            expected,
            bench.device,
            bench.report,
            order=job.get("order", []),
            own=_own(spec, job, seen),
        )
    return {"base_loss": loss, "scores": scores}


def _own(spec: TaskSpec, job: dict[str, Any], seen: data.TextData) -> list[Array]:
    """For each update, some of the samples that its peer had to train on; empty where nobody asks."""
    if not job.get("start_beacon"):
        return []
    drawn = [
        assignment.own_ids(
            job["task"],
            job["dataset_root"],
            job["round"],
            peer,
            (job["start_beacon"], job["beacon"]),
            drawn=spec.train.steps * spec.train.batch,
            count=spec.score.sequences,
            total=seen.total,
        )
        for peer in job["peers"]
    ]
    return [seen.samples(ids) for ids in drawn if ids]


def _score_pairs(
    spec: TaskSpec,
    job: dict[str, Any],
    base: Checkpoint,
    paths: list[Path | None],
    expected: list[codec.Expected],
    bench: Bench,
) -> tuple[int, list[int]]:
    judge, reference = _judge(spec, job["base"], job["pool"], bench)
    seed = assignment.torch_seed("score-latents", job["task"], job["round"], job["beacon"])
    count = spec.score.sequences
    before = judge.distance(base.tensors, reference, count, seed)
    scores = []
    for done, (path, wanted) in enumerate(zip(paths, expected, strict=True), 1):
        try:
            update = codec.read(path, wanted)
        except UpdateError as error:
            scores.append(REFUSED - error.code)
            continue
        after = judge.distance(update.tensors, reference, count, seed)
        scores.append(score.units((before - after) / max(before, 1e-9)))
        bench.report(done, len(paths), after)
    return score.units(before), scores


def _merge(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec = parse_spec(job["spec"])
    base = _base(spec, job)
    expected = _expected(spec, job, base, None)
    paths = [Path(path) for path in job["updates"]]
    if spec.kind == "gan" and len(paths) > 1:
        paths = [_winner(spec, job, base, paths, bench)]
    updates = [codec.read(path, expected) for path in paths]
    if spec.kind == "gan":
        values = updates[0].tensors if updates else base.tensors
    else:
        groups = [update.groups for update in updates]
        values = merge.merge(base.tensors, groups, expected.layout, spec.amplify_milli)
    out = Path(job["out"])
    peers = [update.about.peer for update in updates]
    evaluator = Path(job["base"]) / checkpoint.EVALUATOR if spec.kind == "gan" else None
    _write(
        spec,
        job["version"],
        values,
        out,
        evaluator,
        base.tokenizer,
        base=job["base_root"],
        round_=job["round"],
        peers=peers,
    )
    return {"loss": _merged_loss(spec, job, base, values, bench)}


def _winner(
    spec: TaskSpec, job: dict[str, Any], base: Checkpoint, paths: list[Path], bench: Bench
) -> Path:
    """The update of the highest agreed score; without agreed scores, of the highest that this node gives."""
    scores = job["scores"]
    if len(scores) != len(paths):
        expected = [_expected(spec, job, base, None)] * len(paths)
        known: list[Path | None] = list(paths)
        _, scores = _score_pairs(spec, job, base, known, expected, bench)
    return paths[max(range(len(paths)), key=lambda at: (scores[at], -at))]


def _merged_loss(
    spec: TaskSpec, job: dict[str, Any], base: Checkpoint, values: dict[str, Array], bench: Bench
) -> int:
    if spec.kind == "gan":
        judge, reference = _judge(spec, job["base"], job["pool"], bench)
        seed = assignment.torch_seed("score-latents", job["task"], job["round"], job["beacon"])
        return score.units(judge.distance(values, reference, spec.score.sequences, seed))
    held = _text(spec, base.tokenizer, job["pool"], bench)
    draw = assignment.Generator("merge-pool", job["task"], job["round"], job["beacon"])
    sequences = held.samples(draw.distinct(spec.score.sequences, held.total))
    return score.units(float(score.model_losses(base, values, sequences, bench.device).mean()))


def _evaluate(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec = parse_spec(job["spec"])
    base = _base(spec, {"base": job["checkpoint"]})
    limit = job["limit"]
    if spec.kind == "gan":
        judge, reference = _judge(spec, job["checkpoint"], job["pool"], bench)
        count = limit or max(FIXED_POOL_SAMPLES, spec.score.sequences)
        seed = assignment.torch_seed("evaluate", spec.train.seed)
        return {"loss": score.units(judge.distance(base.tensors, reference, count, seed))}
    held = _text(spec, base.tokenizer, job["pool"], bench)
    total = held.total if limit is None else min(limit, held.total)
    model = models.fill(models.build(base.config.model), base.tensors, bench.device)
    found = []
    for at in range(0, total, score.BATCH):
        sequences = held.samples(range(at, min(at + score.BATCH, total)))
        found.append(score.losses(model, sequences, bench.device))
        bench.report(min(at + score.BATCH, total), total, float(found[-1].mean()))
    return {"loss": score.units(float(np.concatenate(found).mean()))}


def _sample(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    base = checkpoint.load(Path(job["checkpoint"]))
    model = base.config.model
    if isinstance(model, GanModel):
        if job["out"] is None:
            message = "a sample of images needs a file to write"
            raise TrainingError(message)
        sample.grid(base, Path(job["out"]), bench.device, seed=job["seed"])
        return {"out": job["out"]}
    found = sample.text(
        base,
        _tokenizer(base.tokenizer, model, bench),
        job["prompt"][-sample.MAX_PROMPT :],
        bench.device,
        bench.report,
        length=job["length"],
        temperature=job["temperature"],
        seed=job["seed"],
    )
    return {"text": found}


def _diff(job: dict[str, Any], _bench: Bench) -> dict[str, Any]:
    old, new = (checkpoint.load(Path(job[name])) for name in ("old", "new"))
    return difference.difference(old.tensors, new.tensors)


def _judge(
    spec: TaskSpec, folder: str, pool: str, bench: Bench
) -> tuple[gan.Evaluator, gan.Moments]:
    sizes = spec.gan
    judge = gan.Evaluator.load(Path(folder) / checkpoint.EVALUATOR, sizes, bench.device)
    return judge, judge.moments(_images(spec, pool, bench).pixels)


def _images(spec: TaskSpec, folder: str, bench: Bench) -> data.ImageData:
    sizes = spec.gan
    return data.ImageData(Path(folder), sizes.size, sizes.channels, spec.data.resize, bench.alive)


def _text(spec: TaskSpec, content: bytes | None, folder: str, bench: Bench) -> data.TextData:
    """A dataset as the task's tokens; without a tokenizer's content, as bytes."""
    tokenizer = _tokenizer(content, spec.lm, bench)
    encode = None
    if tokenizer is not None:
        encode = partial(bench.cache.ids, tokenizer, alive=bench.alive)
    plain = partial(bench.texts.plain, column=spec.data.column, alive=bench.alive)
    return data.TextData(Path(folder), spec.lm.context, encode, plain)


def _tokenizer(content: bytes | None, sizes: LmModel, bench: Bench) -> tokens.Tokenizer | None:
    """The tokenizer of a model of those sizes; None where bytes are the tokens."""
    if content is None:
        return None
    tokenizer = bench.cache.tokenizer(content)
    if tokenizer.vocabulary != sizes.vocabulary:
        raise SpecError(
            field="model.vocabulary",
            why=f"is {sizes.vocabulary:,}, and the tokenizer has {tokenizer.vocabulary:,} tokens",
        )
    return tokenizer


def _base(spec: TaskSpec, job: dict[str, Any]) -> Checkpoint:
    base = checkpoint.load(Path(job["base"]))
    if base.config.model != spec.model:
        message = "the checkpoint is of another model than the task's"
        raise CheckpointError(message)
    if base.config.tokenizer != spec.data.tokenizer:
        message = "the checkpoint is of another tokenizer than the task's"
        raise CheckpointError(message)
    return base


def _expected(
    spec: TaskSpec, job: dict[str, Any], base: Checkpoint, peer: str | None
) -> codec.Expected:
    return codec.Expected(
        kind=spec.kind,
        layout=codec.Layout(base.shapes, spec.update.top_k),
        base=job["base_root"],
        task=job["task"],
        round=job["round"],
        peer=peer,
    )


def _write(
    spec: TaskSpec,
    version: int,
    values: dict[str, Array],
    out: Path,
    evaluator: Path | None,
    tokenizer: bytes | None,
    *,
    base: str | None,
    round_: int | None,
    peers: list[str],
) -> None:
    config = checkpoint.Config(spec.kind, spec.name, version, spec.data.tokenizer, spec.model)
    count = sum(item.size for item in values.values())
    card = checkpoint.card(
        spec, version=version, parameters=count, base=base, round_=round_, peers=peers
    )
    checkpoint.write(out, config, values, card, evaluator=evaluator, tokenizer=tokenizer)


_JOBS: dict[str, Callable[[dict[str, Any], Bench], dict[str, Any]]] = {
    "describe": _describe,
    "vocabulary": _vocabulary,
    "check": _check,
    "initial": _initial,
    "train": _train,
    "score": _score,
    "merge": _merge,
    "evaluate": _evaluate,
    "sample": _sample,
    "diff": _diff,
}
