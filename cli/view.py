"""A node's status for people: lines, one line, and the live view of the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cli.money import format_tokens
from cli.output import loss
from swarm.config import format_size

if TYPE_CHECKING:
    from rich.console import RenderableType

    Json = dict[str, Any]

MAX_PROBLEMS = 5
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
        (
            "disk",
            f"{format_size(storage['lent'])} lent, {format_size(storage['used'])} used,"
            f" {format_size(storage['free'])} free{_reclaimable(storage)}",
        ),
        ("sealed", sealed(storage)),
        (
            "tokens",
            f"{format_tokens(status['balance'])} owned, {format_tokens(status['earned'])} earned,"
            f" {format_tokens(status['stake'])} staked",
        ),
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
        f"{status['peers']:,} peers",
        f"{format_size(status['storage']['used'])} of {format_size(status['storage']['lent'])} used",
        *([f"sealed {text}"] if (text := sealed(status["storage"])) else []),
        f"{format_tokens(status['earned'])} tokens earned",
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
        phase += f", {task['blocks_left']:,} blocks left"
    parts.append(phase)
    parts.append(f"loss {loss(task['loss'])}")
    if task.get("activity"):
        parts.append(str(task["activity"]))
    return "; ".join(parts)


def duration(seconds: float) -> str:
    """`2 d 03:04:05`, without the days below one."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days:,} d " if days else "") + f"{hour:02}:{minute:02}:{second:02}"


def device(status: Json, *, gpu: bool) -> str:
    """What the node computes on; that there is no accelerator only where one was asked for."""
    name = str(status["device"] or "")
    return f"no accelerator found; {name}" if gpu and name.startswith("cpu") else name


def panel(status: Json, *, gpu: bool = False) -> RenderableType:
    """The live view of one node.

    Args:
        status: As the node tells it.
        gpu: Whether an accelerator was asked for.
    """
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim")
    grid.add_column(overflow="fold")
    for name, value in fields(status | {"device": device(status, gpu=gpu)}):
        if not value:
            continue
        grid.add_row(name, Text(value, style="yellow" if name == "problem" else ""))
    return Panel(grid, title="swarm", subtitle="Ctrl-C stops the node", expand=False)


def _reclaimable(storage: Json) -> str:
    size = storage.get("reclaimable", 0)
    return f"; `swarm gc` gives up to {format_size(size)} back" if size else ""


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
