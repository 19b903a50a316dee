"""What the worker does for each job: from a message's fields to a result's fields."""

from __future__ import annotations

import math
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from swarm.training import (
    admission,
    assignment,
    bases,
    checkpoint,
    codec,
    difference,
    encodings,
    finetune,
    gan,
    generation,
    labelling,
    local,
    mean,
    merge,
    models,
    objectives,
    population,
    recorder,
    replay,
    sample,
    score,
    sizes,
    sources,
    team,
)
from swarm.training.completion import CompletionJob, Loaded
from swarm.training.devices import Batches
from swarm.training.errors import CheckpointError, TrainingError
from swarm.training.evaluator import Evaluator
from swarm.training.sequential import Evidence
from swarm.training.sizes import ClassifierModel, FinetuneModel, GanModel
from swarm.training.sources import Bench as Bench  # noqa: TC001 - a door: others take it from here
from swarm.training.spec import PUBLISHED, TaskSpec, parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from swarm.training import data
    from swarm.training.checkpoint import Checkpoint
    from swarm.training.sizes import Decoder
    from swarm.training.tensors import Array

_Counts: TypeAlias = tuple[int, int, float | None, list[str]]
"""Samples of the dataset and of the pool, the dataset's bytes a token, and doubts."""
FIXED_POOL_SAMPLES = 2000
"""Generated images by which `evaluate` judges a gan, unless the task's score asks for more."""


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
    total, pool_total, ratio, more = _CHECKS[spec.kind](spec, job, bench)
    doubts += more
    doubts += admission.check_counts(spec, total, pool_total)
    return {
        "samples": total,
        "pool_samples": pool_total,
        "parameters": sizes.parameters(spec.model),
        "memory_bytes": admission.training_bytes(spec),
        "bytes_per_token": ratio,
        "doubts": doubts,
    }


def _check_images(spec: TaskSpec, job: dict[str, Any], bench: Bench) -> _Counts:
    with admission.named("data.dataset"):
        seen = sources.images(spec, job["dataset"], bench)
    with admission.named("data.pool"):
        held = sources.images(spec, job["pool"], bench)
    doubts = admission.sample_overlap(seen.pixels, held.pixels, "images")
    return seen.total, held.total, None, doubts


def _check_labelled(spec: TaskSpec, job: dict[str, Any], bench: Bench) -> _Counts:
    with admission.named("data.dataset"):
        seen = sources.labelled(spec, job["dataset"], bench)
        admission.check_rows(spec, seen, bench.device)
    with admission.named("data.pool"):
        held = sources.labelled(spec, job["pool"], bench)
        admission.check_rows(spec, held, bench.device)
    doubts = admission.sample_overlap(seen.content, held.content, "samples")
    doubts += admission.check_labels(spec.classifier, seen.labels)
    return seen.total, held.total, None, doubts


def _check_text(spec: TaskSpec, job: dict[str, Any], bench: Bench) -> _Counts:
    content = sources.published_tokenizer(spec, job)
    with admission.named("data.dataset"):
        seen = sources.text_of(spec, content, job["dataset"], bench)
    with admission.named("data.pool"):
        held = sources.text_of(spec, content, job["pool"], bench)
    doubts = admission.text_overlap(seen.paths, held.paths, bench.alive)
    return seen.total, held.total, seen.bytes_per_token, doubts


def _check_lm(spec: TaskSpec, job: dict[str, Any], bench: Bench) -> _Counts:
    if spec.base:
        finetune.whole(Path(job["start"]), spec.lm, models.build(spec.model))
    return _check_text(spec, job, bench)


def _check_finetune(spec: TaskSpec, job: dict[str, Any], bench: Bench) -> _Counts:
    sizes = spec.finetune
    frozen, _ = finetune.split(Path(job["start"]), sizes)
    if spec.data.encodings != PUBLISHED:
        return _check_text(spec, job, bench)
    encoder = finetune.Encoder(sizes, lambda: frozen, bench.device)
    found = []
    for name in ("dataset", "pool"):
        with admission.named(f"data.{name}"):
            one = encodings.PublishedEncodings(Path(job[name]), sizes)
            encodings.check(one, encoder, [job["spec"]], f"data.{name}", bench.alive)
        found.append(one)
    return found[0].total, found[1].total, found[0].bytes_per_token, []


def _base_sizes(job: dict[str, Any], _bench: Bench) -> dict[str, Any]:
    """What a base makes of a task: its sizes, and whether bytes are its tokens."""
    spec, folder = parse_spec(job["spec"]), Path(job["start"])
    found = bases.sizes_of(folder, spec.decoder)
    return {"model": asdict(found), "over_bytes": bases.is_over_bytes(folder)}


def _encode(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    """A dataset's encodings as a folder to be published."""
    spec = parse_spec(job["spec"])
    if encodings.is_published(Path(job["dataset"])):
        return {"samples": 0}
    sizes = spec.finetune
    frozen, _ = finetune.split(Path(job["start"]), sizes)
    encoder = finetune.Encoder(sizes, lambda: frozen, bench.device)
    with admission.named(f"data.{job['name']}"):
        plain = sources.text_of(spec, sources.published_tokenizer(spec, job), job["dataset"], bench)
        seen = encodings.EncodedText(plain, sizes, encoder, None, bench.alive)
        return {"samples": encodings.publish(seen, sizes, Path(job["out"]), bench.report)}


def _initial(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec, out = parse_spec(job["spec"]), Path(job["out"])
    content, result = None, {}
    if spec.kind == "lm":  # data that cannot be trained on is refused before anybody pays for it
        content = sources.published_tokenizer(spec, job)
        seen = sources.text_of(spec, content, job["dataset"], bench)
        result = {"bytes_per_token": seen.bytes_per_token}
    out.mkdir(parents=True, exist_ok=True)
    evaluator = None
    kept: list[Path] = []
    if spec.kind == "finetune":
        content = sources.published_tokenizer(spec, job)
        frozen, values = finetune.split(Path(job["start"]), spec.finetune)
        kept = checkpoint.write_frozen(out, frozen, values)
    elif spec.base:
        values = finetune.whole(Path(job["start"]), spec.lm, models.build(spec.model))
    else:
        values = models.initial(models.build(spec.model), spec.train.seed)
    if spec.kind == "gan":
        images = sources.images(spec, job["dataset"], bench)
        evaluator = out / checkpoint.EVALUATOR
        kind, seed = spec.score.evaluator, spec.train.seed
        judge = Evaluator.make(spec.gan, kind, seed, images, bench.device, bench.report)
        judge.check(images.pixels)
        judge.save(evaluator)
    _write(spec, 0, values, out, evaluator, content, kept, base=None, round_=None, peers=[])
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
        images = sources.images(spec, job["dataset"], bench)
        outcome = gan.train(spec, place, base, evaluator, images, out, bench.device, bench.report)
    else:
        drawn = (job["task"], job["round"], job["peer"], job["beacon"])
        seen = sources.of(spec, base, "dataset", job["dataset"], bench, drawn)
        mixed, most = not job.get("record"), spec.train.batch
        with (
            recorder.of(job, place, spec.train, bench.device) as record,
            team.of(Path(job["base"]), bench.device, is_mixed=mixed) as others,
        ):
            batches = Batches(bench.device, most=most, is_mixed=mixed, team=others)
            outcome = local.train(
                spec,
                place,
                base,
                seen,
                Path(job["state"]),
                out,
                bench.device,
                bench.report,
                record,
                batches,
                min(job.get("units", 1), spec.train.units),
            )
    return asdict(outcome)


def _replay(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec = parse_spec(job["spec"])
    base = _base(spec, job)
    seen = sources.of(spec, base, "dataset", job["dataset"], bench)
    expected = _expected(spec, job, base, job["peer"])
    return asdict(replay.run(spec, job, base, seen, expected, bench.device, bench.report))


def _score(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec = parse_spec(job["spec"])
    base = _base(spec, job)
    paths = [None if path is None else Path(path) for path in job["updates"]]
    peers = job["peers"] or [None] * len(paths)
    expected = [_expected(spec, job, base, peer) for peer in peers]
    if spec.kind == "gan":
        loss, scores = _score_pairs(spec, job, base, paths, expected, bench)
    else:
        drawn = (job["task"], job["round"], job["beacon"])
        held, seen = (
            sources.of(spec, base, name, job[name], bench, drawn) for name in ("pool", "dataset")
        )
        sequences = score.batches(spec, job["task"], job["round"], job["beacon"], held, seen)
        known = Path(job["evidence"]) if job.get("evidence") else None
        evidence = Evidence() if known is None else Evidence.read(known, job["task"])
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
            evidence=evidence,
        )
        if known is not None:
            evidence.write(known, job["task"])
    return {"base_loss": loss, "scores": scores}


def _own(spec: TaskSpec, job: dict[str, Any], seen: data.Samples) -> list[Array]:
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
    judge = _judge(spec, job["base"], bench)
    held = sources.images(spec, job["pool"], bench).pixels
    seen = None
    if job.get("dataset"):
        seen = sources.images(spec, job["dataset"], bench).pixels
        judge.check(seen)
    seed = assignment.torch_seed("score-latents", job["task"], job["round"], job["beacon"])
    return population.score(
        spec, judge, base.tensors, held, seen, paths, expected, seed, bench.report
    )


def _merge(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec = parse_spec(job["spec"])
    base = _base(spec, job)
    expected = _expected(spec, job, base, None)
    paths = [Path(path) for path in job["updates"]]
    if spec.kind == "gan" and not spec.is_mean and len(paths) > 1:
        paths = [_winner(spec, job, base, paths, bench)]
    updates = [codec.read(path, expected) for path in paths]
    if spec.kind == "gan":
        values = mean.mean(base.tensors, [update.tensors for update in updates])
    else:
        groups = [update.groups for update in updates]
        values = merge.merge(base.tensors, groups, expected.layout, spec.amplify_milli)
    out = Path(job["out"])
    shutil.rmtree(out, ignore_errors=True)  # what another release left there would be part of it
    peers = [update.about.peer for update in updates]
    evaluator = Path(job["base"]) / checkpoint.EVALUATOR if spec.kind == "gan" else None
    frozen = checkpoint.frozen_files(Path(job["base"])) if spec.kind == "finetune" else []
    _write(
        spec,
        job["version"],
        values,
        out,
        evaluator,
        base.tokenizer,
        frozen,
        base=job["base_root"],
        round_=job["round"],
        peers=peers,
    )
    loss, share = _merged_loss(spec, job, base, values, bench)
    return {"loss": loss, "accuracy": share}


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
) -> tuple[int, float | None]:
    """The loss on samples of the pool, and of a classifier its accuracy there."""
    if spec.kind == "gan":
        seed = assignment.torch_seed("score-latents", job["task"], job["round"], job["beacon"])
        return _distance(
            spec, job["base"], job["pool"], values, spec.score.sequences, seed, bench
        ), None
    held = sources.of(spec, base, "pool", job["pool"], bench)
    draw = assignment.Generator("merge-pool", job["task"], job["round"], job["beacon"])
    sequences = held.samples(draw.distinct(spec.score.sequences, held.total))
    model = models.fill(models.build(base.config.model), values, bench.device)
    loss = score.loss_units(float(score.losses(model, sequences, bench.device).mean()))
    return loss, _accuracy(spec, model, sequences, bench)


def _accuracy(spec: TaskSpec, model: nn.Module, samples: Array, bench: Bench) -> float | None:
    """The share of samples that a classifier gives their own label; None of other kinds."""
    if spec.kind != "classifier":
        return None
    return objectives.hits(model, samples, bench.device) / len(samples)


def _evaluate(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    spec = parse_spec(job["spec"])
    base = _base(spec, {"base": job["checkpoint"]})
    limit = job["limit"]
    if spec.kind == "gan":
        count = limit or max(FIXED_POOL_SAMPLES, spec.score.sequences)
        seed = assignment.torch_seed("evaluate", spec.train.seed)
        loss = _distance(spec, job["checkpoint"], job["pool"], base.tensors, count, seed, bench)
        return {"loss": loss, "accuracy": None}
    held = sources.of(spec, base, "pool", job["pool"], bench)
    total = held.total if limit is None else min(limit, held.total)
    model = models.fill(models.build(base.config.model), base.tensors, bench.device)
    found, hits = [], 0.0
    for at in range(0, total, score.BATCH):
        sequences = held.samples(range(at, min(at + score.BATCH, total)))
        found.append(score.losses(model, sequences, bench.device))
        hits += len(sequences) * (_accuracy(spec, model, sequences, bench) or 0.0)
        bench.report(min(at + score.BATCH, total), total, float(found[-1].mean()))
    whole = float(np.concatenate(found).mean())
    if not math.isfinite(whole):
        message = "the model's loss over the pool is no number"
        raise TrainingError(message)
    return {
        "loss": score.units(whole),
        "accuracy": hits / total if spec.kind == "classifier" else None,
    }


def _sample(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    base = checkpoint.load(Path(job["checkpoint"]))
    model = base.config.model
    if isinstance(model, GanModel):
        if job["out"] is None:
            message = "a sample of images needs a file to write"
            raise TrainingError(message)
        sample.grid(base, Path(job["out"]), bench.device, seed=job["seed"])
        return {"out": job["out"]}
    if isinstance(model, ClassifierModel):
        message = "a classifier gives labels, and has nothing to say by itself: `swarm classify`"
        raise TrainingError(message)
    found = sample.text(
        _speaker(base, model, bench),
        model.positions,
        sources.tokenizer_of(base.tokenizer, model, bench),
        job["prompt"][-sample.MAX_PROMPT :],
        bench.device,
        bench.report,
        length=job["length"],
        temperature=job["temperature"],
        seed=job["seed"],
    )
    return {"text": found}


def _classify(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    base, paths = checkpoint.load(Path(job["checkpoint"])), [Path(one) for one in job["paths"]]
    found = labelling.classify(
        base, paths, bench.device, bench.alive, resize=job["resize"], top=job["top"]
    )
    return {"found": [asdict(one) for one in found]}


def _speaker(base: Checkpoint, sizes: Decoder, bench: Bench) -> nn.Module:
    """The whole decoder of a checkpoint."""
    model = models.fill(models.build(sizes), base.tensors, bench.device)
    if isinstance(sizes, FinetuneModel) and base.folder is not None:
        encoder = bench.encoders.of(base.folder, sizes, bench.device)
        return finetune.Whole(encoder.front, model)
    return model


def _load(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    return asdict(_kept_speaker(job["checkpoint"], bench).about)


def _complete(job: dict[str, Any], bench: Bench) -> dict[str, Any]:
    asked = CompletionJob(**{name: job[name] for name in CompletionJob.__dataclass_fields__})
    speaker = _kept_speaker(job["checkpoint"], bench)
    return asdict(generation.complete(speaker, asked, bench.tell, bench.alive))


def _kept_speaker(folder: str, bench: Bench) -> generation.Model:
    """A language model, loaded if it is not the one of the job before."""

    def make() -> generation.Model:
        base = checkpoint.load(Path(folder))
        model, name, version = base.config.model, base.config.name, base.config.version
        if isinstance(model, GanModel | ClassifierModel):
            message = f"{name} is no language model: it has no text"
            raise TrainingError(message)
        module = _speaker(base, model, bench).requires_grad_(requires_grad=False)
        count = sum(item.numel() for item in module.parameters())
        about = Loaded(name, version, model.shape, model.positions, model.vocabulary, count)
        tokenizer = sources.tokenizer_of(base.tokenizer, model, bench)
        return generation.Model(about, module, model, tokenizer, bench.device)

    return bench.speakers.model(folder, make)


def _diff(job: dict[str, Any], _bench: Bench) -> dict[str, Any]:
    old, new = (checkpoint.load(Path(job[name])) for name in ("old", "new"))
    return difference.difference(old.tensors, new.tensors)


def _judge(spec: TaskSpec, folder: str, bench: Bench) -> Evaluator:
    path = Path(folder) / checkpoint.EVALUATOR
    return Evaluator.load(path, spec.gan, spec.score.evaluator, bench.device)


def _distance(
    spec: TaskSpec,
    folder: str,
    pool: str,
    values: dict[str, Array],
    count: int,
    seed: int,
    bench: Bench,
) -> int:
    """A pair's distance to the pool, in units."""
    judge = _judge(spec, folder, bench)
    reference = judge.moments(sources.images(spec, pool, bench).pixels)
    return score.loss_units(judge.distance(judge.images(values, count, seed), reference))


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
        layout=codec.layout(spec, base.shapes, job["round"]),
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
    frozen: list[Path],
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
    checkpoint.write(
        out, config, values, card, evaluator=evaluator, tokenizer=tokenizer, frozen=frozen
    )


_CHECKS: dict[str, Callable[[TaskSpec, dict[str, Any], Bench], _Counts]] = {
    "lm": _check_lm,
    "finetune": _check_finetune,
    "gan": _check_images,
    "classifier": _check_labelled,
}

_JOBS: dict[str, Callable[[dict[str, Any], Bench], dict[str, Any]]] = {
    "describe": _describe,
    "base": _base_sizes,
    "encode": _encode,
    "vocabulary": _vocabulary,
    "check": _check,
    "initial": _initial,
    "train": _train,
    "replay": _replay,
    "score": _score,
    "merge": _merge,
    "evaluate": _evaluate,
    "sample": _sample,
    "classify": _classify,
    "diff": _diff,
    "load": _load,
    "complete": _complete,
}
