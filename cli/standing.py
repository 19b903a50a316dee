"""What a node does or why it does not, what it gives, and what became of its work: rows for people."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from cli.money import format_tokens, short_tokens
from cli.output import one_line
from swarm.care.controls import span
from swarm.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    Json = dict[str, Any]

UPDATE = "update"
_ASKED = {
    "schedule": "only {}",
    "idle": "only when idle for {}",
    "cpu": "{} of the processors",
    "gpu_power": "the GPU at most at {}",
    "gpu_heat": "the GPU at most at {}",
}
"""Limits that a pledge names where they are set."""


def rows(status: Json) -> list[tuple[str, str]]:
    """What the node does, why parts of it do not, what costs tokens soon, and what became of its work."""
    found: list[tuple[str, str]] = []
    if told := state(status):
        found.append(("state", told))
    held = status.get("held", ())
    found += [(one["part"], one["why"] + until(one["until"], one["why"])) for one in held]
    if status.get("finishing"):
        found.append(("finishing", "the node stops when its round is done"))
    found += [("warning", one) for one in warnings(status)]
    if one := last(status):
        found.append(("last work", one))
    found += _tokens(status.get("purse"))
    if (space := status.get("space")) is not None:
        found.append(("space", _space(space)))
    return found


def state(status: Json) -> str:
    """What it does, in a word and with its reason; empty where it does not say."""
    found = status.get("state")
    if found is None:
        return ""
    word, why = found["code"].replace("_", " "), found["why"]
    text = why if why.startswith(word) else f"{word}: {why}"
    return str(text) + until(found["until"], why)


def warnings(status: Json) -> list[str]:
    """What costs tokens soon, and in how long."""
    return [
        one["why"] + ("" if one["seconds"] is None else f" (in {duration(one['seconds'])})")
        for one in status.get("warnings", ())
    ]


def last(status: Json) -> str:
    """The newest contribution and its fate; empty where there is none."""
    one = status.get("last")
    if one is None:
        return ""
    what = "update" if one["kind"] == UPDATE else "scores"
    text = f"{what} of round {one['round']:,} of {one_line(str(one['name']))}: "
    text += "accepted" if one["code"] == "accepted" else one["reason"] or one["code"]
    if one["score"] is not None:
        text += f", score {one['score'] / 10**5:+.5f}"
    return f"{text}, {short_tokens(one['reward'])} tokens (height {one['height']:,})"


def pledge(status: Json, *, trains: bool, gpu: bool) -> str:
    """What this node gives, in one line.

    Args:
        status: As the node tells it.
        trains: It was started to train.
        gpu: An accelerator was asked for.
    """
    limits = status.get("limits")
    parts = [f"{format_size(status['storage']['lent'])} of disk"]
    if trains:
        parts.append("the GPU, where there is one" if gpu else "the processor")
    if limits is not None:
        parts += _line(limits)
        asked = limits["asked"]
        parts += [
            words.format(wait(asked[name]))
            for name, words in _ASKED.items()
            if asked.get(name, "off") != "off"
        ]
    return "; ".join(parts)


def _line(limits: Json) -> Iterator[str]:
    """What of the line and the month is given."""
    asked = limits["asked"]["upload"]
    if asked == "off":
        yield "upload without a limit"
    elif asked == "auto":
        yield "upload at most four fifths of the line"
    else:
        yield f"upload at most {format_size(limits['upload']['limit'])}/s"
    if limits["month"]["cap"]:
        yield f"at most {format_size(limits['month']['cap'])} a month"


def _tokens(purse: Json | None) -> Iterator[tuple[str, str]]:
    if purse is None:
        return
    for one in purse["pending"]:
        name = one_line(str(one["task"]))
        phase = one["phase"].replace("_", " ")
        left = f"{phase} for at most {duration(one['seconds'])} more"
        yield "pending", f"{one['kind']} of round {one['round']:,} of {name}: {left}"
    parts = [
        f"{short_tokens(one['amount'])} {one['what']}"
        + ("" if one["seconds"] is None else f" (free in {duration(one['seconds'])})")
        for one in purse["held"]
    ]
    yield "held", ", ".join(parts)


def until(seconds: float | None, why: str) -> str:
    """When something ends; empty where that is not known, or said already."""
    if seconds is None or "until" in why:
        return ""
    return f", until {datetime.fromtimestamp(seconds).astimezone().strftime('%Y-%m-%d %H:%M')}"


def duration(seconds: float) -> str:
    """`2 d 03:04:05`, without the days below one."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    return (f"{days:,} d " if days else "") + f"{hour:02}:{minute:02}:{second:02}"


def wait(text: str) -> str:
    """A limit that is a number of seconds, `5400s`, as it is typed: `1h30m`; every other as it is."""
    if not text.removesuffix("s").isdecimal():
        return text
    return span(int(text.removesuffix("s")))


def _space(space: Json) -> str:
    size = {name: format_size(value) for name, value in space.items()}
    text = f"{size['lent']} lent: {size['used']} used, {size['sealed']} sealed, {size['left']} left"
    if space["reclaimable"]:
        text += f"; `swarm gc` gives up to {size['reclaimable']} back"
    text += f"; disk {size['disk_free']} of {size['disk']} free"
    return text + (f", {size['short']} too few" if space["short"] else "")


def money(status: Json) -> str:
    """What the account owns, has earned and staked."""
    return (
        f"{short_tokens(status['balance'])} owned, {short_tokens(status['earned'])} earned,"
        f" {format_tokens(status['stake'])} staked"
    )
