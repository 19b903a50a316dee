"""`swarm validators`: who decides in an epoch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.money import format_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command("validators", epilog="Example: swarm validators --epoch 7")
@click.option("--epoch", type=click.IntRange(min=0), help="Which one.  [default: the current one]")
@connection.options
def command(*, epoch: int | None, home: Path, as_json: bool) -> None:
    """List the validators of an epoch: weight then, stake now, since when, and whether jailed.

    The sets of the current and the next epoch are fixed; what is staked now counts after them.
    """
    with connection.connect(home) as client:
        found = client.validators(epoch)
    if as_json:
        output.print_json(one | {"epoch": found["epoch"]} for one in found["validators"])
        return
    output.say(
        f"epoch {found['epoch']:,}, blocks {found['first']:,} to {found['last']:,}:"
        f" {format_tokens(found['quorum'])} of {format_tokens(found['weight'])} make a block final"
    )
    output.print_table(
        ("VALIDATOR", "WEIGHT", "SHARE", "STAKE NOW", "SINCE EPOCH", "JAILED"),
        (
            (
                one["account"] + (" (this node)" if one["me"] else ""),
                format_tokens(one["weight"]),
                f"{one['weight'] / found['weight']:.1%}",
                format_tokens(one["stake"]),
                f"{one['since']:,}",
                "" if one["jailed_until"] is None else f"until block {one['jailed_until']:,}",
            )
            for one in found["validators"]
        ),
    )
