"""The doctor: reads this machine, asks the node if one runs, and judges both."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm.care import checks, machine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swarm.care.check import Check
    from swarm.config import Settings

    Json = dict[str, Any]


def examine(settings: Settings, report: Json | None) -> list[Check]:
    """Everything that can be told about one node, running or not; takes a few seconds at most.

    Args:
        settings: What a node here would be told; a running node's own count where it says them.
        report: What the running node tells; None where none runs.
    """
    home = settings.home if report is None else Path(report["home"])
    trains = settings.train if report is None else report["member"]["trains"]
    scores = settings.validate if report is None else report["member"]["validates"]
    lent = settings.storage if report is None else report["storage"]["lent"]
    taken = machine.taken(home) if report is None else report["storage"]["taken"]
    wants_gpu = settings.gpu if report is None else report["gpu"]
    found = [checks.node(report, home, metadata.version("swarm-node"))]
    gap = None if report is None else report["clock_gap_ms"]
    found.append(checks.clock(gap, is_kept=machine.is_clock_kept()))
    found += checks.disk(machine.disk(home), lent, taken)
    found += checks.folder(machine.folder(home))
    found.append(checks.memory(machine.memory(), trains=trains))
    found += checks.device(
        machine.device(),
        wants_gpu=wants_gpu,
        trains=trains or scores,
        now="" if report is None else str(report["device"]),
    )
    if report is None:
        found += checks.ports(machine.wanted_ports(settings.listen))
        found.append(checks.store(machine.store_problem(home)))
        return found
    found += checks.ports(machine.open_ports(checks.own(report)))
    found += checks.seen(report)
    found += [checks.reachable(report), checks.open_store(report), checks.sync(report)]
    keeper = checks.keeper(report["keeper"])
    found += [keeper] if keeper is not None else []
    found.append(checks.member(report["member"], report["height"]))
    return [*found, *checks.held_back(report), *checks.problems(report["problems"])]


def is_well(found: Sequence[Check]) -> bool:
    """Whether nothing is bad."""
    return all(one.verdict != "bad" for one in found)
