"""`swarm key`: who this data folder is on a network, and the words that bring its key back."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import click

from cli import advice, connection, output
from cli.money import format_tokens
from swarm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ASKED_BACK = 3
"""Words that are asked for before the backup counts as made."""
TRIES = 3
COLUMNS = 4


@click.group("key", invoke_without_command=True, epilog="Example: swarm key --toml >> network.toml")
@click.option("--toml", is_flag=True, help="Print it as a validator's part of a network file.")
@connection.options
@click.pass_context
def command(context: click.Context, *, toml: bool, home: Path, as_json: bool) -> None:
    """Show the account and the public keys of this data folder; makes the key if there is none.

    The secret key stays in `identity.key` there; `swarm key backup` shows it as 24 words.
    """
    if context.invoked_subcommand is not None:
        return
    from swarm.chain import network_file
    from swarm.identity import KEY_FILE, Identity, is_backed_up
    from swarm.ledger.genesis import Params
    from swarm.ledger.vrf import VrfKey

    known = (home / KEY_FILE).exists()
    signer = Identity.load_or_create(home).signer
    vrf_key = VrfKey.of(signer.seed).public_key
    backed_up = is_backed_up(home, signer.peer_id)
    if not known:
        output.say(f"made a new key in {home}: `swarm key backup` shows its words")
    if as_json:
        output.print_json(
            {
                "account": signer.peer_id,
                "public_key": signer.public_key.hex(),
                "vrf_key": vrf_key.hex(),
                "home": str(home),
                "backed_up": backed_up,
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
                ("backup", "made" if backed_up else advice.typed("none: `swarm key backup`")),
            )
        )


@command.command(
    "backup",
    epilog="Example: swarm key backup",
    short_help="Show the key as 24 words to write down.",
)
@connection.home_option
def backup(*, home: Path) -> None:
    """Show the key as 24 words, ask for three of them, and note that you have them.

    Whoever has the words has the account: write them on paper, and show them to nobody.
    """
    from swarm.identity import KEY_FILE, Identity, note_backup
    from swarm.words import words_of

    if not (home / KEY_FILE).exists():
        message = f"there is no key in {home} yet"
        raise UsageError(message, "`swarm key` makes one, and so does `swarm join`")
    signer = Identity.load_or_create(home).signer
    words = words_of(signer.seed)
    output.say(f"the key of {signer.peer_id}, {len(words)} words in this order:")
    click.echo("\n".join(_numbered(words)))
    places = sorted(secrets.SystemRandom().sample(range(len(words)), ASKED_BACK))
    for place in places:
        _ask_for(place, words[place])
    note_backup(home, signer.peer_id)
    output.say("noted: the words are with you; `swarm key restore` brings the key back")


def _numbered(words: Sequence[str]) -> list[str]:
    cells = [f"{at:>2} {word:<9}" for at, word in enumerate(words, 1)]
    return ["  ".join(cells[at : at + COLUMNS]).rstrip() for at in range(0, len(cells), COLUMNS)]


def _ask_for(place: int, word: str) -> None:
    for _ in range(TRIES):
        typed = click.prompt(f"word {place + 1}", err=True)
        if typed.strip().lower() == word:
            return
        output.say(f"that is not word {place + 1}")
    message = "the words were not written down as they are, so no backup is noted"
    raise RefusedError(message, "`swarm key backup` shows them again")


@command.command("payout", short_help="Send on what the node earns.")
@click.argument("account", metavar="ACCOUNT|off", required=False)
@click.option(
    "--keep",
    metavar="TOKENS",
    help="What stays for fees and bonds, beside what its stake lacks.  [default: 10]",
)
@connection.options
def payout(*, account: str | None, keep: str | None, home: Path, as_json: bool) -> None:
    """Send what the node earns to ACCOUNT, whose key can lie elsewhere; without one, show what is chosen.

    The node looks at its balance every 256 blocks, and sends what is above what it keeps.
    What is staked stays, and `off` ends it.

    Example: swarm key payout 12D3KooW… --keep 50
    """
    from cli.money import parse_tokens
    from protocols import signing
    from swarm import payout as payouts
    from swarm.identity import make_home

    if account == "off":
        payouts.write(home, None)
    elif account is not None:
        try:
            signing.public_key(account)
        except ValueError as error:
            raise UsageError(str(error), "an account is a peer id: 12D3KooW…") from error
        kept = payouts.KEEP if keep is None else parse_tokens(keep)
        make_home(home)
        payouts.write(home, payouts.Payout(account, kept))
    elif keep is not None:
        message = "--keep goes with an account"
        raise click.UsageError(message)
    chosen = payouts.read(home)
    if as_json:
        shown = (None, 0) if chosen is None else (chosen.account, chosen.keep)
        output.print_json(dict(zip(("account", "keep"), shown, strict=True)))
    elif chosen is None:
        output.say("what the node earns stays on its account")
    else:
        click.echo(chosen.account)
        output.say(f"{format_tokens(chosen.keep)} tokens stay on the node's account")


@command.command(
    "restore",
    epilog="Example: swarm key restore --home /new/folder",
    short_help="Bring a key back from its 24 words.",
)
@click.option("--force", is_flag=True, help="Take the place of another key, which is kept beside.")
@connection.options
def restore(*, force: bool, home: Path, as_json: bool) -> None:
    """Bring a key back from its 24 words, which are read from the terminal or from standard input.

    No node may run on the data folder; one key belongs on one machine, since two that vote are slashed.
    """
    from protocols.signing import Signer
    from swarm.identity import Identity, note_backup
    from swarm.words import seed_of

    seed = seed_of(click.prompt("the 24 words", err=True))
    account = Signer(seed).peer_id
    old = Identity.restore(home, seed, force=force)
    note_backup(home, account)
    if old is not None:
        output.say(f"the key that was there is kept as {old}")
    if as_json:
        output.print_json(
            {"account": account, "home": str(home), "old": None if old is None else str(old)}
        )
    else:
        click.echo(account)
