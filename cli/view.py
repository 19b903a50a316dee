"""A node's status for people: lines, one line, and the live view of the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli import advice, standing
from cli.money import short_tokens
from cli.output import loss, one_line, share
from cli.standing import duration
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    Json = dict[str, Any]

__all__ = ["duration", "fields", "line", "panel", "sealed", "task_line"]

MAX_PROBLEMS = 5
ALARMING = frozenset({"problem", "warning"})
FIRST = frozenset({"state", "task", *ALARMING})
"""Rows of the live view that a short terminal shows too."""
SHOWN_LIVE = frozenset(
    {"network", "peers", "height", "task", "sealed", "tokens", "votes", "device", "page"}
    | {"address", "key", "problem", "disk", "data folder"}
)
NOT_BACKED_UP = "not backed up: `swarm key backup` shows its words"


def fields(status: Json) -> list[tuple[str, str]]:
    """Names and values, the most asked for first."""
    storage, finality = status["storage"], status["finality_ms"]
    rows = [
        ("network", status["network"]),
        ("chain id", status["chain_id"]),
        ("peer", status["peer"]),
        ("peers", f"{status['peers']:,}"),
        ("height", f"{status['height']:,} (epoch {status['epoch']:,}, view {status['view']:,})"),
        ("finality", _finality(finality)),
        ("task", task_line(status["task"])),
        ("disk", "" if status.get("space") else _disk(storage)),
        ("sealed", sealed(storage)),
        ("tokens", standing.money(status)),
        ("roles", ", ".join(status["roles"]) or "reader"),
        ("votes", _votes(status.get("votes"))),
        ("device", str(status["device"] or "")),
        (
            "traffic",
            f"{format_size(status['bytes_in'])} in, {format_size(status['bytes_out'])} out",
        ),
        ("up", duration(status["uptime_s"])),
        ("page", f"{status['page']} (`swarm page` opens it)" if status.get("page") else ""),
        ("data folder", f"{status['home']} (process {status['pid']})"),
    ]
    rows += [("address" if at == 0 else "", one) for at, one in enumerate(status["addresses"])]
    if status.get("backed_up") is False and not status["temporary"]:
        rows.append(("key", NOT_BACKED_UP))
    rows += [("problem", one) for one in status["problems"][:MAX_PROBLEMS]]
    return rows


def sealed(storage: Json) -> str:
    """How far sealing is; empty for a node that lends no slots."""
    if "sealed" not in storage:
        return ""
    done, goal = storage["sealed"], storage["goal"]
    if not goal and not done:
        return "nothing yet"
    if done > goal:
        return f"{format_size(done)}, and no more is sealed"
    text = f"{format_size(done)} of {format_size(goal)}"
    if goal:
        text += f", {min(100, 100 * done // goal)} %"
    if done < goal and storage["seconds_left"] is not None:
        text += f", {duration(storage['seconds_left'])} left"
    return text


def line(status: Json) -> str:
    """The node in one line of a log."""
    parts = [
        f"height {status['height']:,}",
        counted(status["peers"], "peer"),
        f"{format_size(status['storage']['used'])} of {format_size(status['storage']['lent'])} used",
        *([f"sealed {text}"] if (text := sealed(status["storage"])) else []),
        f"{short_tokens(status['earned'])} tokens earned",
    ]
    if status["task"] is not None:
        parts.append(task_line(status["task"]))
    return ", ".join(parts)


def task_line(task: Json | None) -> str:
    """What is trained, and how far it is."""
    if task is None:
        return "none is open"
    parts = [f"{task['name']}@{task['version']}", f"round {task['round']}/{task['rounds']}"]
    phase = str(task["phase"])
    if task.get("blocks_left") is not None:
        phase += f", {counted(task['blocks_left'], 'block')} left"
    parts.append(phase)
    parts.append(f"loss {loss(task['loss'])}")
    if right := share(task.get("accuracy")):
        parts.append(f"accuracy {right}")
    if task.get("activity"):
        parts.append(str(task["activity"]))
    return "; ".join(parts)


def device(status: Json, *, gpu: bool) -> str:
    """What the node computes on; that there is no accelerator only where one was asked for."""
    name = str(status["device"] or "")
    return f"no accelerator found; {name}" if gpu and name.startswith("cpu") else name


def panel(status: Json, *, trains: bool = True, gpu: bool = False) -> RenderableType:
    """The live view of one node, for a terminal of 24 lines: what does not fit `swarm status` tells.

    Args:
        status: As the node tells it.
        trains: It was started to train.
        gpu: Whether an accelerator was asked for.
    """
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    rows = [*standing.rows(status), ("pledged", standing.pledge(status, trains=trains, gpu=gpu))]
    rows += [
        one for one in fields(status | {"device": device(status, gpu=gpu)}) if one[0] in SHOWN_LIVE
    ]
    for name, value in sorted(rows, key=lambda one: one[0] not in FIRST):
        if value:
            grid.add_row(
                name,
                Text(advice.typed(one_line(value)), style="yellow" if name in ALARMING else ""),
            )
    return Panel(grid, title="swarm", subtitle="Ctrl-C stops the node", expand=False)


def _disk(storage: Json) -> str:
    """Of a node that does not tell where its disk goes."""
    size = storage.get("reclaimable", 0)
    text = f"{format_size(storage['lent'])} lent, {format_size(storage['used'])} used,"
    text += f" {format_size(storage['free'])} free"
    return text + (f"; `swarm gc` gives up to {format_size(size)} back" if size else "")


def _votes(votes: Json | None) -> str:
    """Why a validator's node does not vote, and when it does; empty where there is nothing to say."""
    return "" if votes is None or votes["code"] == "voting" else str(votes["why"])


def _finality(milliseconds: Json) -> str:
    if milliseconds.get("p50") is None:
        return ""
    text = f"{_short(milliseconds['p50'])} median"
    if milliseconds.get("p99") is None:
        return text
    return f"{text}, {_short(milliseconds['p99'])} in 99 of 100"


def _short(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.0f} ms"
