"""What replay costs, and how far honest and dishonest work lie apart: the tables of `docs/protocols/replay.md`.

    python -m bench.replay [--rounds 1,4] [--steps 20] [--every 10] [--batch 16] [--costs]

One worker of the demo's GPT, recorded on one thread and run again on other threads, instruction sets and kernels (each in a
process of its own, since torch reads them at its start), for AdamW and for Muon, whose Newton-Schulz steps run in float32 here and
in bfloat16 in torch's own. Then the same for who skips, repeats or hurries a step.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import swarm.training
from swarm.training import (
    demo_data,
    jobs,
    local,
    optimizers,
    replay,
    spec,
    transcript,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor, nn

    from swarm.training.tensors import Array

TASK, BEACON = b"T" * 32, b"B" * 32
KINDS = ("weight.", "muon.", "adamw.first.", "adamw.second.")
MACHINES: dict[str, dict[str, str]] = {
    "two threads": {"THREADS": "2"},
    "no AVX in torch": {"ATEN_CPU_CAPABILITY": "default"},
    "SSE4.2 in MKL": {"MKL_CBWR": "SSE4_2"},
    "all three": {"THREADS": "2", "ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "SSE4_2"},
}
CHEATS = (
    "skips a step of the segment",
    "repeats a batch",
    "rate 5 % higher",
    "another seed's batch",
)
REPEATS = 15


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", default="1,4")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--costs", action="store_true", help="seconds alone")
    parser.add_argument("--again", help="a room to replay, in a process of its own")
    options = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("THREADS", "1")))
    torch.use_deterministic_algorithms(True)
    if options.again:
        room = json.loads(Path(options.again).read_text())
        _choose(room["name"])
        print(json.dumps(_distances(room)))
        return
    rounds = [int(one) for one in options.rounds.split(",")]
    with tempfile.TemporaryDirectory() as name:
        dataset, _ = demo_data.write_text_dataset(Path(name) / "data")
        kinds = ("adamw", "muon", "muon bfloat16")
        for kind in kinds[:2] if options.costs else kinds:
            _measure(kind, Path(name), dataset, rounds, options)


def _choose(kind: str) -> None:
    if kind == "muon bfloat16":
        optimizers.orthogonal = _rough


def _rough(matrices: Tensor, exact: Any = optimizers.orthogonal) -> Tensor:  # noqa: ANN401 - the function itself
    """Newton-Schulz in bfloat16, as `torch.optim.Muon` runs it."""
    found: Tensor = exact(matrices.bfloat16()).float()
    return found


def _task(kind: str, options: argparse.Namespace) -> spec.TaskSpec:
    file = Path(swarm.training.__file__).parent / "tasks" / "gpt.toml"
    task = spec.parse_spec(file.read_bytes())
    train = dataclasses.replace(
        task.train, optimizer=kind.split()[0], steps=options.steps, batch=options.batch
    )
    return dataclasses.replace(task, train=train)


def _measure(
    kind: str, folder: Path, dataset: Path, rounds: list[int], options: argparse.Namespace
) -> None:
    _choose(kind)
    raw = spec.write_spec(_task(kind, options))
    room: dict[str, Any] = {
        "name": kind,
        "spec": raw.decode(),
        "dataset": str(dataset),
        "folder": str(folder / kind.replace(" ", "-")),
        "every": options.every,
        "rounds": rounds,
    }
    base = Path(room["folder"]) / "v0"
    _run(job="initial", spec=raw, dataset=str(dataset), out=str(base))
    _record(room, max(rounds))
    if options.costs:
        print(kind)
        _costs(room, raw)
        return
    print(f"\n{kind}: greatest distance of {len(rounds)} rounds, and of each kind of tensor")
    print(f"  {'the same process':32}{_line(_distances(room))}")
    file = Path(room["folder"]) / "room.json"
    file.write_text(json.dumps(room))
    for name, environment in MACHINES.items():
        command = [sys.executable, "-m", "bench.replay", "--again", str(file)]
        done = subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        print(f"  {name:32}{_line(json.loads(done.stdout))}", flush=True)
    for cheat in CHEATS:
        _record(room, max(rounds), cheat)
        print(f"  {cheat:32}{_line(_distances(room), least=True)}", flush=True)
    if kind != "muon bfloat16":
        _costs(room, raw)


def _line(found: list[dict[str, float]], *, least: bool = False) -> str:
    """Distances of honest work: the greatest; of dishonest: the least of those segments that differ at all."""
    told = []
    for kind in KINDS:
        known = [one[kind] for one in found if max(one.values()) > 0 or not least]
        told.append(f"{kind.rstrip('.')} {(min if least else max)(known, default=0):.1e}")
    return "  ".join(told)


def _fields(room: dict[str, Any], round_: int) -> dict[str, Any]:
    folder = Path(room["folder"])
    return {
        "spec": room["spec"].encode(),
        "task": TASK,
        "round": round_,
        "beacon": BEACON,
        "base_root": "bafyv0",
        "base": str(folder / "v0"),
        "dataset": room["dataset"],
        "dataset_root": "bafyd",
        "peer": "peer1",
    }


def _record(
    room: dict[str, Any], rounds: int, cheat: str = "", *, is_recorded: bool = True
) -> None:
    """Rounds from one base: what is learnt goes on by the feedback, as far as an update does not say it."""
    folder, honest = Path(room["folder"]), local.steps
    if cheat:
        local.steps = lambda *rest: _cheating(cheat, honest, *rest)
    try:
        for round_ in range(1, rounds + 1):
            place = {"state": str(folder / f"state-{cheat}"), "out": str(folder / f"u{round_}")}
            if is_recorded:
                place |= {"record": str(folder / f"record-{round_}"), "every": room["every"]}
            _run(job="train", **_fields(room, round_), **place)
    finally:
        local.steps = honest


def _cheating(
    cheat: str,
    honest: Any,  # noqa: ANN401 - `local.steps`
    task: spec.TaskSpec,
    round_: int,
    model: nn.Module,
    moving: local.Optimizers,
    samples: Array,
    *rest: Any,  # noqa: ANN401
) -> Iterator[float]:
    batch, samples = task.train.batch, samples.copy()
    if cheat == "repeats a batch":
        samples[batch : 2 * batch] = samples[:batch]
    if cheat == "another seed's batch":
        samples[batch : 2 * batch] = samples[-batch:]
    if cheat == "rate 5 % higher":
        train = task.train
        moving._settings = dataclasses.replace(
            train,
            learning_rate=1.05 * train.learning_rate,
            muon_learning_rate=1.05 * train.muon_learning_rate,
        )
    before = None
    for at, loss in enumerate(honest(task, round_, model, moving, samples, *rest)):
        if cheat.startswith("skips") and at == 1 and before is not None:
            weights, moments = before
            model.load_state_dict(weights)
            moving.restore(moments)
        before = (
            {name: item.clone() for name, item in model.state_dict().items()},
            {name: item.clone() for name, item in moving.state().items()},
        )
        yield loss


def _distances(room: dict[str, Any]) -> list[dict[str, float]]:
    """Of each segment, by kind of tensor."""
    found: list[dict[str, float]] = []

    def told(
        ours: Mapping[str, Array], theirs: Mapping[str, Array], start: Mapping[str, Array]
    ) -> float:
        found.append({kind: replay._distance(ours, theirs, start, kind) for kind in KINDS})
        return 0.0

    exact, replay.distance = replay.distance, told
    try:
        for round_ in room["rounds"]:
            for segment in range(_segments(room)):
                _again(room, round_, segment)
    finally:
        replay.distance = exact
    return found


def _segments(room: dict[str, Any]) -> int:
    return transcript.count(spec.parse_spec(room["spec"].encode()).train.steps, room["every"])


def _again(
    room: dict[str, Any],
    round_: int,
    segment: int,
    **more: Any,  # noqa: ANN401 - a job's fields
) -> dict[str, Any]:
    record = Path(room["folder"]) / f"record-{round_}"
    return _run(
        job="replay",
        **_fields(room, round_),
        update=str(Path(room["folder"]) / f"u{round_}"),
        record=str(record / transcript.NAME),
        segment=segment,
        start=str(record / f"state-{segment:04d}.safetensors"),
        end=str(record / f"state-{segment + 1:04d}.safetensors"),
        every=room["every"],
        tolerance=10_000,
        **more,
    )


def _costs(room: dict[str, Any], raw: bytes) -> None:
    """Rounds with and without a record in turn, and the check of each segment: seconds, and those of the processor."""
    plain, recorded = [], []
    for _ in range(REPEATS):
        plain.append(_timed(lambda: _record(room, 1, is_recorded=False)))
        recorded.append(_timed(lambda: _record(room, 1)))
    checks = [_timed(partial(_again, room, 1, at)) for at in range(_segments(room))]
    state = Path(room["folder"]) / "record-1" / "state-0000.safetensors"
    steps = spec.parse_spec(raw).train.steps
    for at, name in enumerate(("seconds", "of the processor")):
        without, beside = (statistics.median(one[at] for one in row) for row in (plain, recorded))
        check = statistics.mean(one[at] for one in checks)
        print(
            f"  {name}: a round of {steps} steps {without:.3f}, with {len(checks) + 1} states of "
            f"{state.stat().st_size / 1e6:.2f} MB and the trace {beside:.3f} ({beside / without - 1:+.1%}); "
            f"a segment again {check:.3f}, of one submission in ten {check / 10 / without:.1%}"
        )


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds that it takes, and those of the processor in all threads."""
    began, spent = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - began, time.process_time() - spent


def _run(**job: Any) -> dict[str, Any]:  # noqa: ANN401 - a job's fields
    return jobs.run(job, jobs.Bench(torch.device("cpu"), lambda *_: None))


if __name__ == "__main__":
    main()
