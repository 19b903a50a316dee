"""`make bench-training`: the loss at equal tokens, and a round's exchange beside hivemind.

    python -m bench.learning curves [--rounds 200] [--workers 8] [--seeds 3] [--batch 8] [--ways swarm,dense]
    python -m bench.learning tune   [--rounds 40] [--workers 8]
    python -m bench.learning exchange [--rounds 5]

`tune` tries rates a factor of two apart for each way, on the pool and with seed 0; `RATES` holds what it chose.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
from pathlib import Path

import torch

import swarm.training
from bench.learning import curves, exchange
from bench.machine import describe
from swarm.training import spec

WAYS = {
    "swarm": (curves.swarm, "muon"),
    "dense": (curves.dense, "muon"),
    "dense-adamw": (curves.dense, "adamw"),
    "central": (curves.central, "muon"),
    "parallel": (curves.parallel, "muon"),
}
RATES = {
    "swarm": (0.012, 0.02),
    "dense": (0.024, 0.04),
    "dense-adamw": (0.006, 0.01),
    "central": (0.012, 0.02),
    "parallel": (0.024, 0.04),
}
"""(AdamW's rate, Muon's rate) of each way, as `tune` chose them of three; the swarm's without parts (`--parts 1 --top-k 56`)."""
FACTORS = (0.5, 1.0, 2.0)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument(
        "what", nargs="?", default="all", choices=("all", "curves", "tune", "exchange")
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--top-k", type=int, default=320)
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--feedback", type=float)
    parser.add_argument("--feedback-end", type=float, default=0.9)
    parser.add_argument("--amplify", type=float, default=8.0)
    parser.add_argument("--ways", default=",".join(WAYS))
    parser.add_argument("--factors", default=",".join(map(str, FACTORS)))
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    print(describe(), flush=True)
    if options.what in {"all", "exchange"}:
        exchange.main(options.rounds or 5)
    if options.what in {"all", "curves", "tune"}:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            texts = curves.prepare(folder / "texts")
            if options.what == "tune":
                _tune(options, texts, folder)
            else:
                _curves(options, texts, folder)


def _curves(options: argparse.Namespace, texts: curves.Data, folder: Path) -> None:
    found: dict[str, list[float]] = {}
    for seed in range(1, options.seeds + 1):
        for way in options.ways.split(","):
            run, optimizer = WAYS[way]
            task = _task(options, optimizer, RATES[way], seed, options.rounds or 200)
            room = folder / f"{way}-{seed}"
            result = run(task, options.workers, texts, room, texts.test)
            found.setdefault(way, []).append(result.loss)
            print(f"seed {seed}, {way}: {_words(result)}", flush=True)
    for way, losses in found.items():
        spread = f", sd {statistics.stdev(losses):.4f}" if len(losses) > 1 else ""
        print(f"{way}: {statistics.mean(losses):.4f} nats on the test text{spread}")


def _tune(options: argparse.Namespace, texts: curves.Data, folder: Path) -> None:
    for way in options.ways.split(","):
        run, optimizer = WAYS[way]
        for factor in map(float, options.factors.split(",")):
            slow, fast = RATES[way]
            rates = (slow * factor, fast * factor)
            task = _task(options, optimizer, rates, 0, options.rounds or 40)
            result = run(task, options.workers, texts, folder / f"{way}-{factor}", texts.pool)
            print(f"{way}, rates {rates[0]:.4f} and {rates[1]:.4f}: {_words(result)}", flush=True)


def _task(
    options: argparse.Namespace, optimizer: str, rates: tuple[float, float], seed: int, rounds: int
) -> spec.TaskSpec:
    """The demo's language task with half of its layers and half of its batch."""
    file = Path(swarm.training.__file__).parent / "tasks" / "gpt.toml"
    task = spec.parse_spec(file.read_bytes())
    train = dataclasses.replace(
        task.train,
        optimizer=optimizer,
        batch=options.batch,
        learning_rate=rates[0],
        muon_learning_rate=rates[1],
        seed=seed,
    )
    names = ("top_k", "parts", "feedback", "feedback_end", "amplify")
    asked = {name: getattr(options, name) for name in names}
    changed = {key: value for key, value in asked.items() if value is not None}
    update = dataclasses.replace(task.update, **changed)
    model = dataclasses.replace(task.lm, layers=2)
    return dataclasses.replace(task, rounds=rounds, train=train, update=update, model=model)


def _words(result: curves.Result) -> str:
    sent = (
        ""
        if result.bytes_a_parameter is None
        else f", {result.bytes_a_parameter:.4f} bytes a parameter"
    )
    return f"{result.loss:.4f}{sent}, {result.accepted:.0%} accepted, {result.seconds:.0f} s"


if __name__ == "__main__":
    main()
