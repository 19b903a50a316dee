"""The demo from its first file to its summary."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from cli.demo import data, show
from cli.demo.network import DemoNetwork, pause
from cli.output import say
from swarm.errors import NetworkError, NotFoundError, UsageError
from swarm.identity import LOCK_FILE, NodeLock

if TYPE_CHECKING:
    from pathlib import Path

    from cli.demo.network import DemoNode

    Json = dict[str, Any]

MARKER = ".swarm-demo"
"""Says that a folder was made by a demo, so that the next one may clear it."""

WATCH_SECONDS = 0.5
ROUND_SECONDS = 120
"""A round that takes longer than this has stalled."""

SAMPLE_TOKENS = 400
PROMPT = "The "


def run(kind: str, own_data: Path | None, folder: Path, *, keep: bool) -> Json:
    """Run the demo; returns its summary.

    Raises:
        SwarmError: A node ended, or the training stalled.
    """
    started = time.monotonic()
    with _make(folder):
        summary = _run(kind, own_data, folder, keep=keep)
    summary["seconds"] = time.monotonic() - started
    return summary


def _run(kind: str, own_data: Path | None, folder: Path, *, keep: bool) -> Json:
    work = folder / "work"
    work.mkdir()
    say(f"writing the data and the genesis of four validators to {folder}")
    (work / "data").mkdir()
    task_file, name = data.prepare(kind, work / "data", own_data)
    network = DemoNetwork(work)
    with network.running():
        say("starting four nodes")
        network.start_validators()
        first = network.nodes[0]
        say("publishing the data and posting the task from node 1")
        posted = first.client.post_task(task_file.read_text(), task_file.parent)
        _watch(network, posted["task"])
        say("starting a fifth node, which is told one address and nothing else")
        late = network.start_late()
        target = folder / name
        fetched = late.client.fetch(name, None, target)
        picture = folder / f"{name}.png"
        sample = late.client.sample(
            name,
            None,
            PROMPT if kind == "gpt" else None,
            picture,
            SAMPLE_TOKENS,
        )
        say("scoring the first and the last version")
        task = _task(first, posted["task"])
        summary: Json = {
            "name": name,
            "kind": kind,
            "version": fetched["version"],
            "cid": fetched["cid"],
            "rounds": task["round"],
            "first_loss": _first_loss(first, name, task),
            "last_loss": first.client.evaluate(name)["loss"],
            **_totals(network),
            "checkpoint": fetched["path"],
            "sample": sample,
        }
    if not keep:
        _remove_homes(work)
    return summary


def _make(folder: Path) -> NodeLock:
    """Make the folder this demo's own, and empty but for the marker."""
    if folder.exists() and any(folder.iterdir()) and not (folder / MARKER).exists():
        message = f"--dir: {folder} is not empty, and no demo made it"
        raise UsageError(message)
    lock = NodeLock(folder)
    (folder / MARKER).touch()
    for path in folder.iterdir():
        if path.name in {MARKER, LOCK_FILE}:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return lock


def _remove_homes(work: Path) -> None:
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path)


def _task(node: DemoNode, task: str) -> Json:
    return next(one for one in node.client.tasks() if one["task"] == task)


def _watch(network: DemoNetwork, task: str) -> None:
    """Show the nodes until the task's rounds are done."""
    first = network.nodes[0]
    reached, since = -1, time.monotonic()
    with show.watching() as shown:
        while True:
            shown([node.status() for node in network.nodes])
            now = _task(first, task)
            if not now["open"]:
                return
            if now["round"] != reached:
                reached, since = now["round"], time.monotonic()
            if time.monotonic() - since > ROUND_SECONDS:
                message = f"round {reached} has not ended within {ROUND_SECONDS} s"
                raise NetworkError(message, f"the logs are beside {first.log}")
            pause(first.child, WATCH_SECONDS)


def _first_loss(node: DemoNode, name: str, task: Json) -> float | None:
    """The first version's loss as this node scores it, or as the validators did."""
    try:
        loss: float | None = node.client.evaluate(name, 0)["loss"]
    except NotFoundError:
        loss = task.get("first_loss")
    return loss


def _totals(network: DemoNetwork) -> Json:
    statuses = [node.status() for node in network.nodes]
    return {
        "blocks": statuses[0]["height"],
        "finality_ms": statuses[0]["finality_ms"]["p50"],
        "bytes_moved": sum(status["bytes_out"] for status in statuses),
        "nodes": [
            {"account": status["account"], "earned": status["earned"], "balance": status["balance"]}
            for status in statuses
        ],
    }
