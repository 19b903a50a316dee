"""What half of the workers can do to the demo's GPT when they are hostile: one line a kind of adversary.

    python -m bench.adversaries [--honest 3] [--hostile 3] [--rounds 6] [--seeds 1] [--only "sign flip"] [--full]
                              [--sequences 32] [--z 0] [--unguarded] [--small] [--parts 4]

Honest workers train, attackers do what `attackers` says, and both go through the shipped codec, score, verdict of the
ledger, pay and merge; only network and chain are left out. One thread; the first rounds of the task's 32. `--full` is 4 and 4, 16 rounds,
three seeds; `--small` a model of a tenth of the size, so that twelve rounds of three seeds are minutes; `--unguarded` leaves out what compares the updates of a round with each other; `--parts` has each round speak of a part of the weights, as in a long task.
`pay` is what an attacker earns for each unit of an honest worker of the same run; `loss` is over 512 sequences of the
pool, and `against` the difference to the same run without attackers.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import torch

import swarm.training
from bench.adversaries.arena import Arena, Run
from bench.adversaries.attackers import ATTACKS
from bench.machine import describe
from swarm.training import demo_data, spec

PARTED_TOP_K = 320
"""Of each 4,096 values of a part."""


def main() -> None:
    """Print the table."""
    options = _options()
    usual = (4, 4, 16, 3) if options.full else (3, 3, 6, 1)
    asked = (options.honest, options.hostile, options.rounds, options.seeds)
    honest, hostile, rounds, seeds = (
        normal if one is None else one for one, normal in zip(asked, usual, strict=True)
    )
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    file = Path(swarm.training.__file__).parent / "tasks" / "gpt.toml"
    task = spec.parse_spec(file.read_bytes())
    if options.sequences is not None:
        task = dataclasses.replace(
            task, score=dataclasses.replace(task.score, sequences=options.sequences)
        )
    if options.small:
        sizes = dataclasses.replace(task.lm, layers=2, width=32, hidden=128, heads=2, kv_heads=2)
        task = dataclasses.replace(task, model=sizes)
    if options.parts > 1:
        parted = {"parts": options.parts, "top_k": PARTED_TOP_K, "feedback_end": 0.9}
        task = dataclasses.replace(task, update=dataclasses.replace(task.update, **parted))
    if options.z is not None:
        task = dataclasses.replace(task, score=dataclasses.replace(task.score, z=options.z))
    print(describe())
    print(
        f"{honest} honest and {hostile} hostile workers, {rounds} rounds, "
        f"{task.score.sequences} sequences a score, z {task.score.z:g}"
    )
    started = time.monotonic()
    runs: dict[str, list[tuple[Run, Run]]] = {}
    with tempfile.TemporaryDirectory() as name:
        dataset, pool = demo_data.write_text_dataset(Path(name) / "data")
        for seed in range(1, seeds + 1):
            seeded = dataclasses.replace(task, train=dataclasses.replace(task.train, seed=seed))
            arena = Arena(
                seeded, Path(name) / str(seed), dataset, pool, guarded=not options.unguarded
            )
            friends = [f"peer{at + 1}" for at in range(honest)]
            foes = [f"peer{at + 1}" for at in range(honest, honest + hostile)]
            alone = arena.run(rounds, friends, [], ATTACKS["malformed"])
            print(
                f"\nseed {seed}: {alone.loss:.4f} without attackers, "
                f"{alone.honest.accepted} of {alone.honest.submitted} accepted"
            )
            print(
                f"{'':16}{'accepted':>10}{'pay':>7}{'loss':>9}{'against':>9}{'honest refused':>16}"
            )
            for kind in options.only or ATTACKS:
                run = arena.run(rounds, friends, foes, ATTACKS[kind])
                line(kind, run, alone)
                runs.setdefault(kind, []).append((run, alone))
    if seeds > 1:
        summary(runs)
    print(f"\n{time.monotonic() - started:.0f} s")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.adversaries")
    parser.add_argument("--honest", type=int)
    parser.add_argument("--hostile", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--only", action="append", choices=tuple(ATTACKS))
    parser.add_argument("--sequences", type=int)
    parser.add_argument("--z", type=float)
    parser.add_argument("--parts", type=int, default=1)
    parser.add_argument("--unguarded", action="store_true")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--small", action="store_true")
    return parser.parse_args()


def summary(runs: dict[str, list[tuple[Run, Run]]]) -> None:
    """All seeds in one line a kind."""
    print(f"\nall seeds{'':7}{'accepted':>10}{'pay':>7}{'against':>18}{'honest refused':>20}")
    for kind, pairs in runs.items():
        good, bad = [run.honest for run, _ in pairs], [run.hostile for run, _ in pairs]
        worse = [run.loss - alone.loss for run, alone in pairs]
        submitted = sum(one.submitted for one in good)
        each = sum(one.paid for one in good) / submitted or 1
        hostile = sum(one.submitted for one in bad)
        print(
            f"{kind:16}{sum(one.accepted for one in bad):>4} of {hostile:<4}"
            f"{sum(one.paid for one in bad) / hostile / each:>5.2f}"
            f"{sum(worse) / len(worse):>+9.4f} ({max(worse):+.4f})"
            f"{submitted - sum(one.accepted for one in good):>6} of {submitted:<4}"
        )


def line(kind: str, run: Run, alone: Run) -> None:
    """One run in one line."""
    good, bad = run.honest, run.hostile
    each = (good.paid / good.submitted) or 1
    refused = good.submitted - good.accepted
    reasons = ", ".join(f"{count} {why}" for why, count in bad.reasons.most_common())
    if good.reasons:
        told = ", ".join(f"{count} {why}" for why, count in good.reasons.most_common())
        reasons += f"; honest: {told}"
    print(
        f"{kind:16}{bad.accepted:>4} of {bad.submitted:<3}{bad.paid / bad.submitted / each:>6.2f}"
        f"{run.loss:>9.4f}{run.loss - alone.loss:>+9.4f}{refused:>9} of {good.submitted:<4}  {reasons}",
        flush=True,
    )


if __name__ == "__main__":
    main()
