"""`swarm storage`: what this node lends, has sealed, keeps for others, and earned with it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output, view
from cli.money import format_tokens
from swarm.sizes import counted, format_size
from swarm.values import parse_size

if TYPE_CHECKING:
    from pathlib import Path

    Json = dict[str, Any]


@click.command("storage", epilog="Example: swarm storage --lend 200GB")
@click.option("--lend", metavar="SIZE", help="Lend this much from now on: 500GB, 2TiB, 0.")
@connection.options
def command(*, lend: str | None, home: Path, as_json: bool) -> None:
    """Show what this node lends, has sealed, keeps for others, and earned with it.

    --lend changes what is lent while the node runs, and stays until the node is started with another --storage.
    What no longer fits is given back at once, and what an audit still asks for as soon as that audit is over.
    """
    size = None if lend is None else parse_size(lend)
    with connection.connect(home, of_home=True) as client:
        told = client.storage() if size is None else client.lend(size)
    if as_json:
        output.print_json(told)
        return
    output.print_fields(fields(told))
    if size is not None:
        output.say("this stays until the node is started with another --storage than the last time")
    if told.get("waits"):
        output.say(
            f"an audit is near or runs: slots that the ledger counts are given back from height"
            f" {told['opens']:,} on, in {_blocks(told, told['opens'])}"
        )


def fields(told: Json) -> list[tuple[str, str]]:
    """Names and values, the most asked for first."""
    slots, duties = told["slots"], told["duties"]
    kept = f"{format_size(duties['bytes'])} in {counted(duties['here'], 'piece')}"
    if duties["here"] < duties["pieces"]:
        kept += f", {duties['pieces'] - duties['here']:,} more on their way"
    rows = [
        ("lent", format_size(told["lent"])),
        ("sealed", view.sealed(told) or "nothing: this node seals nothing"),
        (
            "counted",
            f"{slots['counted']:,} slots on the ledger, {slots['proven']:,} proven"
            if slots["sealed"] or slots["counted"]
            else "",
        ),
        ("held for others", kept),
        ("own", f"{format_size(told['own'])} pinned"),
        ("unpacked", format_size(told["shelf"]) if told["shelf"] else ""),
        ("encodings", format_size(told["encodings"]) if told["encodings"] else ""),
        ("in place", format_size(told["in_place"]) if told["in_place"] else ""),
        ("reclaimable", format_size(told["reclaimable"])),
        ("free", format_size(told["free"])),
        ("last audit", _audit(told)),
        ("next audit", f"at height {told['next_audit']:,}, in {_blocks(told, told['next_audit'])}"),
        ("collateral", f"{format_tokens(told['collateral'])} tokens"),
        ("strikes", _strikes(told)),
        ("earned", f"{format_tokens(told['earned'])} tokens by lending"),
        *(("problem", problem) for problem in told["problems"]),
    ]
    return [(name, value) for name, value in rows if value]


def _audit(told: Json) -> str:
    return f"{told['verdict']} (audit {told['audit']:,})" if told["audit"] else str(told["verdict"])


def _strikes(told: Json) -> str:
    suspended = "; suspended: neither duties nor pay" if told["suspended"] else ""
    return f"{told['strikes']:,}{suspended}"


def _blocks(told: Json, height: int) -> str:
    """How long until a height."""
    return view.duration(max(0, height - told["height"]) * told["block_seconds"])
