"""What came of a run: one object for programs, and the same in Markdown for people."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from swarm.ledger.genesis import UNIT
from swarm.simulator import plot, storage_report
from swarm.simulator.measures import quantile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from swarm.simulator.simulation import Simulation
    from swarm.simulator.town import Town

    Json = dict[str, Any]

COLUMNS = 60
"""Points of the series over time."""


def summary(simulation: Simulation) -> Json:
    """Everything that was measured.

    Args:
        simulation: After its run.
    """
    scenario, measures = simulation.scenario, simulation.measures
    names = {node.signer.public_key: node.name for node in simulation.nodes if node.side == 0}
    heights = simulation.heights
    found: Json = {
        "title": scenario.title,
        "seed": simulation.seed,
        "trace": simulation.trace.digest,
        "events": simulation.schedule.happened,
        "seconds": scenario_seconds(simulation),
        "validators": scenario.validators,
        "workers": scenario.workers,
        "keepers": scenario.lenders,
        "liars": [
            {"kind": one.kind, "nodes": list(scenario.places(one))} for one in scenario.liars
        ],
        "height": {"least": min(heights, default=0), "most": max(heights, default=0)},
        "interval_ms": spread(measures.intervals()),
        "finality_ms": spread([took for _, took in measures.finality]),
        "forks": len(measures.forks),
        "accused": sorted(names[key] for key in measures.accused),
        "blamed": dict(sorted(measures.blamed.items())),
        "crashes": measures.crashes,
        "messages": {**dict(sorted(measures.messages.items())), "lost": measures.lost},
        "finality_over_time_ms": over_time(measures.finality, simulation.length_ms),
    }
    if simulation.town is not None:
        found |= _money(simulation, simulation.town)
        if simulation.town.depot is not None:
            view = simulation.town.newest.view()
            found["storage"] = storage_report.summary(simulation.town.depot, scenario, view)
    return found


def scenario_seconds(simulation: Simulation) -> float:
    """Virtual seconds of the whole run."""
    return simulation.length_ms / 1000


def spread(values: Sequence[int]) -> Json | None:
    """Least, median, 90th and 99th percentile, most; None of nothing."""
    if not values:
        return None
    return {
        "least": min(values),
        "p50": quantile(values, 50),
        "p90": quantile(values, 90),
        "p99": quantile(values, 99),
        "most": max(values),
    }


def over_time(points: Sequence[tuple[int, int]], length: int) -> list[int | None]:
    """The median in each of `COLUMNS` equal pieces of the run."""
    pieces: list[list[int]] = [[] for _ in range(COLUMNS)]
    for at, value in points:
        pieces[min(COLUMNS - 1, at * COLUMNS // max(1, length))].append(value)
    return [quantile(piece, 50) for piece in pieces]


def _money(simulation: Simulation, town: Town) -> Json:
    measures, view = simulation.measures, town.newest.view()
    history = [one for task in view.tasks() for one in view.history(task.id)]
    classes: list[Json] = []
    at = 0
    for hardware in simulation.scenario.hardware:
        keys = {one.public_key for one in town.worker_keys[at : at + hardware.workers]}
        at += hardware.workers
        lines = [line for one in history for line in one.submissions if line.worker in keys]
        earned = sum(view.account(key).earned for key in keys)
        classes.append(
            {
                "class": hardware.name,
                "workers": hardware.workers,
                "steps_per_s": hardware.steps_per_s,
                "earned": earned / UNIT,
                "earned_each": earned / UNIT / hardware.workers,
                "submissions": len(lines),
                "accepted": sum(line.accepted for line in lines),
                "refused": dict(sorted(Counter(one.reason for one in lines if one.reason).items())),
            }
        )
    genesis = {one.public_key: one.stake for one in town.genesis.validators}
    return {
        "transactions": {
            "final": len(measures.paid),
            "failed": measures.failed,
            "per_second": round(1000 * len(measures.paid) / max(1, simulation.length_ms), 2),
            "latency_ms": spread(measures.paid),
        },
        "rounds": [
            {
                "round": one.number,
                "outcome": one.outcome.name.lower(),
                "base_loss": None if one.base_loss is None else one.base_loss / 10**5,
                "loss": None if one.merged_loss is None else one.merged_loss / 10**5,
                "accepted": sum(line.accepted for line in one.submissions),
                "blocks": one.settled - one.started,
            }
            for one in history
        ],
        "earnings": classes,
        "stakes": [
            {
                "node": f"n{place}",
                "earned": view.account(one.public_key).earned / UNIT,
                "slashed": (genesis[one.public_key] - view.account(one.public_key).stake) / UNIT,
            }
            for place, one in enumerate(simulation.signers)
        ],
    }


def lines(found: Json) -> list[tuple[str, str]]:
    """The summary in names and values."""
    height, liars = found["height"], found["liars"]
    said = ", ".join(
        f"{one['kind']} ({', '.join(f'{at}' for at in one['nodes'])})" for one in liars
    )
    rows = [
        ("scenario", f"{found['title']}, seed {found['seed']}"),
        ("nodes", f"{found['validators']} validators, {found['workers']} workers, {found['keepers']} keepers"),
        ("liars", said or "none"),
        ("virtual time", f"{found['seconds']:,.1f} s, {found['events']:,} events"),
        ("height", f"{height['most']:,} (the last of them: {height['least']:,})"),
        ("block interval", _spread(found["interval_ms"])),
        ("finality", _spread(found["finality_ms"])),
        ("forks", str(found["forks"])),
        ("accused", ", ".join(found["accused"]) or "nobody"),
        ("crashes", f"{found['crashes']:,}"),
        ("messages", f"{sum(found['messages'].values()) - found['messages']['lost']:,}, of which {found['messages']['lost']:,} were lost"),
    ]  # fmt: skip
    if "transactions" in found:
        sent = found["transactions"]
        rows += [
            ("transactions", f"{sent['final']:,} final, {sent['per_second']} a second, {sent['failed']:,} failed"),
            ("until final", _spread(sent["latency_ms"])),
        ]  # fmt: skip
        slashed = [one for one in found["stakes"] if one["slashed"] > 0]
        told = ", ".join(f"{one['node']} {one['slashed']:.3f}" for one in slashed)
        rows.append(("slashed", f"{told} tokens" if told else "nobody"))
    if "storage" in found:
        rows += storage_report.lines(found["storage"])
    return [*rows, ("trace", found["trace"])]


def _spread(values: Json | None) -> str:
    if values is None:
        return "no block is final"
    return f"{values['p50']:,} ms median, {values['p99']:,} ms in 99 of 100, {values['most']:,} ms at most"


EARNINGS = ("CLASS", "WORKERS", "STEPS/S", "EARNED", "EACH", "ACCEPTED")
ROUNDS = ("ROUND", "OUTCOME", "LOSS", "ACCEPTED", "BLOCKS")


def earnings(found: Json) -> list[tuple[str, ...]]:
    """A row a class of hardware."""
    return [
        (
            one["class"],
            str(one["workers"]),
            f"{one['steps_per_s']:,}",
            f"{one['earned']:,.3f}",
            f"{one['earned_each']:,.3f}",
            f"{one['accepted']} of {one['submissions']}",
        )
        for one in found.get("earnings", ())
    ]


def rounds(found: Json) -> list[tuple[str, ...]]:
    """A row a round."""
    return [
        (
            str(one["round"]),
            one["outcome"],
            f"{_loss(one['base_loss'])} -> {_loss(one['loss'])}",
            str(one["accepted"]),
            str(one["blocks"]),
        )
        for one in found.get("rounds", ())
    ]


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def markdown(found: Json) -> str:
    """The report that is written beside the JSON."""
    parts = [f"# {found['title']}, seed {found['seed']}", ""]
    parts += ["| | |", "| --- | --- |"]
    parts += [f"| {name} | {value} |" for name, value in lines(found)]
    kept = found.get("storage")
    for title, head, rows in (
        ("Earnings by class of hardware", EARNINGS, earnings(found)),
        ("Rounds", ROUNDS, rounds(found)),
        ("Keepers by class", storage_report.LENT, storage_report.lent(kept) if kept else []),
        ("Keepers that were struck", storage_report.STRUCK, storage_report.struck(kept) if kept else []),
    ):  # fmt: skip
        if rows:
            parts += ["", f"## {title}", "", _row(head), _row(("---",) * len(head))]
            parts += [_row(row) for row in rows]
    parts += ["", "## Finality over time", "", "```"]
    parts += [*plot.line(found["finality_over_time_ms"], "ms", found["seconds"]), "```", ""]
    if kept:
        parts += ["## Proven slots, audit by audit", "", "```"]
        parts += [*plot.line(capacity(kept), "slots", found["seconds"]), "```", ""]
    return "\n".join(parts)


def capacity(kept: Json) -> list[int]:
    """Proven slots in each audit."""
    return [one["proven_slots"] for one in kept["audits"]]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write(found: Json, folder: Path) -> list[Path]:
    """Write `report.json`, `report.md`, `finality.svg` and, where space is lent, `capacity.svg` into a folder, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    title = f"{found['title']}, seed {found['seed']}: finality"
    files = {
        "report.json": json.dumps(found, indent=2) + "\n",
        "report.md": markdown(found),
        "finality.svg": plot.svg(found["finality_over_time_ms"], "ms", found["seconds"], title),
    }
    if "storage" in found:
        title = f"{found['title']}, seed {found['seed']}: proven slots"
        values = capacity(found["storage"])
        files["capacity.svg"] = plot.svg(values, "slots", found["seconds"], title)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8")
    return [folder / name for name in files]
