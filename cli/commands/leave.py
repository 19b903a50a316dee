"""`swarm leave`: what leaving the network takes, and how to do it without a loss."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import click

from cli import advice, connection, output, view
from cli.money import format_tokens

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.client import Client

POLL_SECONDS = 2.0


@click.command("leave")
@click.option("--drain", is_flag=True, help="Begin: hand duties over, take back space and stake.")
@click.option("--cancel", is_flag=True, help="Stay after all.")
@click.option("--no-wait", is_flag=True, help="Begin and return; the node goes on by itself.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@connection.options
def command(
    *, drain: bool, cancel: bool, no_wait: bool, yes: bool, home: Path, as_json: bool
) -> None:
    """Show what leaving takes and how long; with --drain, do it.

    Nothing new is begun and no new pieces are taken; pieces of others are kept and served until others have shown them.
    Ctrl-C ends the watching, not the leaving; it goes on after a restart, until --cancel.

    \b
    swarm leave
    swarm leave --drain
    """  # noqa: D301 - \b is click's
    from swarm.client import Client

    if drain and cancel:
        message = "either --drain or --cancel"
        raise click.UsageError(message)
    with Client.of_home(home) as client:
        told = client.leave("cancel" if cancel else "look")
        if drain and told["state"] == "staying":
            if not as_json:
                _show(told)
            if not (yes or as_json):
                click.confirm("begin?", abort=True, err=True)
            told = client.leave("drain")
        if drain and not no_wait:
            told = _watch(client, told, as_json=as_json)
    if as_json:
        output.print_json(told)
    else:
        _show(told)


def _watch(client: Client, told: dict[str, Any], *, as_json: bool) -> dict[str, Any]:
    """Tell of each change until it is over, or taken back."""
    before = None
    while told["state"] == "leaving":
        if as_json:
            output.print_json(told)
        elif (line := _line(told)) != before:
            click.echo(line, err=True)
            before = line
        threading.Event().wait(POLL_SECONDS)
        told = client.leave("look")
    return told


def _line(told: dict[str, Any]) -> str:
    open_ = [one["text"] for one in told["stages"] if one["seconds"]]
    left = view.duration(told["seconds_left"])
    return f"draining: {told['percent']} %, about {left} left: {'; '.join(open_)}"


def _show(told: dict[str, Any]) -> None:
    rows = [
        (
            one["name"],
            one["text"] + (f" (about {view.duration(one['seconds'])})" if one["seconds"] else ""),
        )
        for one in told["stages"]
    ]
    locked = told["stake"] + told["collateral"] + sum(one["amount"] for one in told["unbonding"])
    if locked:
        rows.append(("comes back", f"{format_tokens(locked)} tokens"))
    if told["problem"]:
        rows.append(("problem", told["problem"]))
    left = view.duration(told["seconds_left"])
    words = {
        "staying": f"`swarm leave --drain` would take about {left}",
        "leaving": f"draining at {told['percent']} %, about {left} left; `swarm leave --cancel` stays",
        "left": "done: the node may be stopped, and its data folder removed once the tokens are sent elsewhere",
    }
    rows.append(("state", advice.typed(words[told["state"]])))
    output.print_fields(rows)
