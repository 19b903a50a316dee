"""`swarm key`: who this data folder is on a network."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from cli import connection, output
from cli.money import format_tokens

if TYPE_CHECKING:
    from pathlib import Path


@click.command("key", epilog="Example: swarm key --toml >> network.toml")
@click.option("--toml", is_flag=True, help="Print it as a validator's part of a network file.")
@connection.options
def command(*, toml: bool, home: Path, as_json: bool) -> None:
    """Show the account and the public keys of this data folder; makes the key if there is none.

    The secret key stays in `identity.key` there.
    """
    from swarm.chain import network_file
    from swarm.identity import KEY_FILE, Identity
    from swarm.ledger.genesis import Params
    from swarm.ledger.vrf import VrfKey

    known = (home / KEY_FILE).exists()
    signer = Identity.load_or_create(home).signer
    vrf_key = VrfKey.of(signer.seed).public_key
    if not known:
        output.say(f"made a new key in {home}: keep a copy of {home / KEY_FILE}")
    if as_json:
        output.print_json(
            {
                "account": signer.peer_id,
                "public_key": signer.public_key.hex(),
                "vrf_key": vrf_key.hex(),
                "home": str(home),
            }
        )
    elif toml:
        stake = Params().min_bond
        click.echo(network_file.validator_lines(signer.peer_id, vrf_key, stake), nl=False)
        output.say(f"with a stake of {format_tokens(stake)} tokens: change it as you like")
    else:
        output.print_fields(
            (
                ("account", signer.peer_id),
                ("public key", signer.public_key.hex()),
                ("VRF key", vrf_key.hex()),
                ("data folder", str(home)),
            )
        )
