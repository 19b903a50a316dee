"""`swarm new FILE`: a network of one's own, from a file that describes it."""

from __future__ import annotations

import time
from pathlib import Path

import click

from cli import output
from cli.money import format_tokens
from swarm.errors import RefusedError, UsageError


@click.command(
    "new",
    epilog="Example: swarm new --example > network.toml, and after editing it: swarm new network.toml",
)
@click.argument(
    "file", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False
)
@click.option(
    "-o",
    "--output",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("genesis.cbor"),
    show_default=True,
    help="The genesis file to write.",
)
@click.option("--example", is_flag=True, help="Print a file that explains every setting.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(*, file: Path | None, target: Path, example: bool, as_json: bool) -> None:
    """Make the genesis of a network from the TOML FILE that describes it; prints its chain id.

    Each validator starts its node with `swarm join --network genesis.cbor`; others need the chain id and an address.
    """
    from swarm.chain import network_file

    if example:
        click.echo(network_file.example(), nl=False)
        return
    if file is None:
        message = "FILE: missing"
        raise UsageError(message, "`swarm new --example` prints one")
    try:
        with file.open("rb") as source:
            text = source.read(network_file.MAX_FILE_BYTES + 1)
        genesis = network_file.read(text, time.time_ns() // 10**6)
    except UsageError as error:
        message = f"{file}: {error.message}"
        raise UsageError(message, error.hint) from error
    if target.exists():
        message = f"{target} is there already"
        raise RefusedError(message, "give another file with -o, or remove it")
    genesis.save(target)
    made = network_file.summary(genesis)
    if as_json:
        output.print_json(made | {"path": str(target)})
        return
    click.echo(made["chain_id"])
    output.say(
        f"network {genesis.network!r}: {len(genesis.validators):,} validators with"
        f" {format_tokens(sum(one.stake for one in genesis.validators))} tokens staked, genesis in {target}"
    )
    output.say(f"the same as a CID: {made['cid']}")
