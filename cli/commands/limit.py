"""`swarm limit`: what this node may take of the line, the month, the week and the machine."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from cli import connection, output, standing

if TYPE_CHECKING:
    from pathlib import Path


@click.command("limit")
@click.argument("name", required=False)
@click.argument("value", required=False)
@connection.options
def command(*, name: str | None, value: str | None, home: Path, as_json: bool) -> None:
    """Show the limits, or let one be another from now on.

    NAME is upload, download, monthly-cap, schedule, idle, idle-gpu, on-battery, cpu, gpu-power or gpu-heat; the value is
    what `swarm join` takes, and off takes a limit away.
    It holds until the node is started with another one.

    \b
    swarm limit
    swarm limit upload 2MB/s
    swarm limit schedule 'mon-fri 19:00-07:00; sat,sun 0:00-24:00'
    """  # noqa: D301 - \b is click's
    if name is not None and value is None:
        message = f"what should {name} be?"
        raise click.UsageError(message)
    with connection.connect(home, of_home=True) as client:
        if name is None or value is None:
            told = client.status()
        else:
            told = client.limit(name.replace("-", "_"), value)
    if as_json:
        output.print_json(told["limits"])
    else:
        output.print_fields(fields(told["limits"]))


def fields(limits: dict[str, Any]) -> list[tuple[str, str]]:
    """Each limit and how it stands."""
    from swarm.sizes import format_size

    def rate(name: str) -> str:
        one = limits[name]
        text = f"{format_size(one['limit'])}/s" if one["limit"] else "no limit"
        if name == "upload" and one["measured"]:
            line = f"{format_size(one['line'])}/s" if one["line"] else "never full so far"
            text += f" (four fifths of the line: {line})"
        return f"{text}; {format_size(one['now'])}/s now"

    asked, month = limits["asked"], limits["month"]
    used = f"{format_size(month['sent'])} sent, {format_size(month['received'])} received"
    cap = f" of {format_size(month['cap'])}" if month["cap"] else "; no cap"
    if asked["monthly_cap"] == "auto":
        cap += " (a quarter of what the line can carry, and at least 1 TB)"
    schedule = asked["schedule"]
    if limits["schedule"] is not None:
        schedule += f" ({'open' if limits['schedule']['open'] else 'closed'}"
        if (changes := limits["schedule"]["changes"]) is not None:
            when = datetime.fromtimestamp(changes).astimezone().strftime("%Y-%m-%d %H:%M")
            schedule += f" until {when}"
        schedule += ")"
    idle = standing.wait(asked["idle"])
    if limits["idle"] is not None:
        known = limits["idle"]
        seconds = known["seconds"]
        told = (
            f"unknown: {known['why']}"
            if seconds is None
            else f"{standing.duration(seconds)} by {known['by']}"
        )
        idle += f" (idle now: {told})"
    gpu = f" (training on it waits: {limits['gpu']})" if limits["gpu"] else ""
    return [
        ("upload", rate("upload")),
        ("download", rate("download")),
        ("month", f"{month['name']}: {used}{cap}"),
        ("schedule", schedule),
        ("idle", idle),
        ("idle gpu", standing.wait(asked["idle_gpu"])),
        (
            "on battery",
            f"{asked['on_battery']}{' (on battery now)' if limits['on_battery'] else ''}",
        ),
        ("cpu", asked["cpu"]),
        ("gpu power", asked["gpu_power"] + gpu * (asked["gpu_power"] != "off")),
        ("gpu heat", asked["gpu_heat"] + gpu * (asked["gpu_heat"] != "off")),
    ]
