"""`swarm train watch TASK`: a task while it is trained."""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import connection, output, plot, screen
from cli.output import loss as loss_text
from swarm.sizes import counted

if TYPE_CHECKING:
    from swarm.asking import Json

ASK_SECONDS = 1.0
SHOWN_ROUNDS = 3
"""Rounds whose submissions are listed."""
NAME_CHARACTERS = 14


@click.group("train", epilog="Example: swarm train watch tiny-gpt")
def command() -> None:
    """Watch a task while it is trained."""


@command.command("watch", short_help="The loss of a task by version, and who made it.")
@click.argument("task")
@click.option("--once", is_flag=True, help="Show it as it is now, and end.")
@click.option(
    "--svg",
    "drawing",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the curve to this file too.",
)
@connection.options
def watch(*, task: str, once: bool, drawing: Path | None, home: Path, as_json: bool) -> None:
    """Show the loss of TASK (a name or an id) by version, who handed in what, and why what was refused was.

    It goes on until the task is over, or Ctrl-C; with --json, one object a line whenever something changed.

    Example: swarm train watch tiny-gpt --svg loss.svg
    """
    with contextlib.ExitStack() as stack:
        if not once:
            stack.enter_context(screen.until_interrupted())
        client = stack.enter_context(connection.connect(home))
        draw = stack.enter_context(screen.drawn()) if not (once or as_json) else screen.write
        shown: Json | None = None
        while True:
            found = client.watch(task)
            if drawing is not None:
                first, last = _ends(found)
                drawing.write_text(plot.svg(points(found), first, last, f"Loss of {found['name']}"))
            if as_json:
                told = {key: value for key, value in found.items() if key not in _RESTLESS}
                if shown is None or told != shown:
                    output.print_json(found)
                shown = told
            else:
                draw([output.printable(line) for line in lines(found)])
            if once or not found["open"]:
                return
            time.sleep(ASK_SECONDS)  # noqa: TID251 - a command of its own, where nothing else waits


_RESTLESS = frozenset({"height", "blocks_left", "activity", "training_loss", "speed", "gpus"})
"""What changes without anything having been agreed on."""


def points(found: Json) -> list[plot.Point]:
    """(version, loss) of each version whose loss is known."""
    by_version: dict[int, float] = {}
    for one in found["rounds"]:
        if one["base_loss"] is not None:
            before = one["version"] - (one["outcome"] == "merged")
            by_version.setdefault(before, one["base_loss"])
        if one["loss"] is not None:
            by_version[one["version"]] = one["loss"]
    return [(float(at), y) for at, y in sorted(by_version.items()) if math.isfinite(y)]


def lines(found: Json) -> list[str]:
    """What is shown of a task."""
    head = f"{found['name']}: round {found['round']} of {found['all_rounds']}, {found['phase']}"
    if found["open"]:
        head += f", {counted(found['blocks_left'], 'block')} left"
    told = [head, ""]
    told += plot.curve(points(found), *_ends(found))
    told.append("")
    newest = found["rounds"][-SHOWN_ROUNDS:]
    for one in newest:
        told.append(_round(one))
        told += [f"  {line}" for line in _submissions(one)]
    accepted = Counter(
        entry["worker"]
        for one in found["rounds"]
        for entry in one["submissions"]
        if entry["accepted"]
    )
    if accepted:
        counts = ", ".join(f"{_short(who)} {count}" for who, count in accepted.most_common(8))
        told.append(f"accepted so far: {counts}")
    if found["activity"]:
        speed = found["speed"]
        rate = "" if speed is None else f", {speed:,.0f} {_unit(found)}/s"
        told.append(f"this node: {found['activity']}{rate}")
    told += [f"  {_gpu(one)}" for one in found.get("gpus", ())]
    if found["problem"]:
        told.append(f"problem: {found['problem']}")
    return told


def _round(one: Json) -> str:
    change = f"{loss_text(one['base_loss'])} -> {loss_text(one['loss'])}"
    told = f"round {one['round']}: {one['outcome'].replace('_', ' ')}, version {one['version']}, {change}"
    share = output.share(one.get("accuracy"))
    return f"{told}, accuracy {share}" if share else told


def _gpu(one: Json) -> str:
    from swarm.sizes import format_size

    parts = [one["name"] or "GPU"]
    if one["busy"] is not None:
        parts.append(f"{one['busy']:.0%} busy")
    if one["total"]:
        parts.append(f"{format_size(one['used'])} of {format_size(one['total'])}")
    if one["watts"] is not None:
        parts.append(f"{one['watts']:.0f} W")
    return ", ".join(parts)


def _submissions(one: Json) -> list[str]:
    if not one["submissions"]:
        return ["nobody has handed anything in"]
    return [
        f"{_short(entry['worker']):<{NAME_CHARACTERS}}  {_score(entry):>9}  {_verdict(entry)}"
        for entry in one["submissions"]
    ]


def _score(entry: Json) -> str:
    return "" if entry["score"] is None else f"{entry['score']:+.5f}"


def _verdict(entry: Json) -> str:
    if entry["accepted"] is None:
        return "not scored yet"
    if entry["accepted"]:
        return "accepted"
    return f"refused: {entry['reason']}" if entry["reason"] else "refused"


def _ends(found: Json) -> tuple[str, str]:
    known = points(found)
    if not known:
        return "", ""
    return f"version {known[0][0]:.0f}", f"version {known[-1][0]:.0f}"


def _unit(found: Json) -> str:
    return {"lm": "tokens", "finetune": "tokens", "gan": "images", "gan-mean": "images"}.get(
        found["kind"], "samples"
    )


def _short(peer: str) -> str:
    return f"…{peer[-(NAME_CHARACTERS - 1) :]}"
