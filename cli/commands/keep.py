"""`swarm keep …`: have content kept by others, for a price."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from cli import connection, output
from cli.money import format_tokens, parse_tokens
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from swarm.client import Client

    Json = dict[str, Any]

DEFAULT_REPLICAS = 3
MAX_REPLICAS = 16


AUTO = "auto"


class CodingType(click.ParamType[tuple[int, int] | tuple[()]]):
    """`K+M`, or nothing for what the keepers allow."""

    name = "coding"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int] | tuple[()]:
        """(K, M), or () where the node chooses."""
        if value == AUTO:
            return ()
        needed, plus, spare = str(value).partition("+")
        if not (plus and needed.isdecimal() and spare.isdecimal()):
            self.fail(f"{value!r} is not like 10+4; what is kept comes before it", param, ctx)
        return int(needed), int(spare)


class DealGroup(click.Group):
    """A group whose first argument may be what is to be kept instead of a command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Read `swarm keep CID …` as `swarm keep post CID …`."""
        if args and args[0] not in self.commands:
            args = ["post", *args]
        return super().resolve_command(ctx, args)


@click.group("keep", cls=DealGroup)
def command() -> None:
    """Have content kept by others, for a price; list such deals and end them.

    \b
    swarm keep CID --replicas 3       three keepers hold it and show it in each audit
    swarm keep CID --erasure          pieces, any most of which give it back
    swarm keep CID --erasure 10+4     14 pieces, any 10 of which are enough
    swarm keep list
    swarm keep end DEAL
    """  # noqa: D301 - \b is click's


def terms(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--audits`, `--price` and `--yes`: what a deal says beside its replicas."""
    for option in (
        click.option("--yes", is_flag=True, help="Do not ask before tokens are put aside."),
        click.option(
            "--price",
            metavar="TOKENS",
            help="A GiB begun and audit, for each replica.  [default: what others pay]",
        ),
        click.option(
            "--audits", type=click.IntRange(min=1), help="For how many audits.  [default: 30 days]"
        ),
    ):
        function = option(function)
    return function


@command.command(
    "post",
    epilog="Example: swarm keep post bafybei… --replicas 3 --audits 720",
    short_help="Post a deal: `post` may be left out.",
)
@click.argument("content", metavar="CID|NAME")
@click.option(
    "--replicas",
    type=click.IntRange(1, MAX_REPLICAS),
    help="Keepers for each piece.  [default: 3; 1 with --erasure]",
)
@click.option(
    "--erasure",
    type=CodingType(),
    is_flag=False,
    flag_value=AUTO,
    metavar="[K+M]",
    help="Cut it into K+M pieces, any K of which are enough.  [default: by the number of keepers]",
)
@terms
@connection.options
def post(
    *,
    content: str,
    replicas: int | None,
    erasure: tuple[int, int] | tuple[()] | None,
    audits: int | None,
    price: str | None,
    yes: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Have a CID, or what a name points to, kept; says what it costs first."""
    is_coded = erasure is not None
    asked = ask_for(
        replicas or (1 if is_coded else DEFAULT_REPLICAS), audits, price, erasure=is_coded
    )
    if erasure:
        asked |= {"needed": erasure[0], "spare": erasure[1]}
    with connection.connect(home) as client:
        posted = make_deal(client, content, asked, yes=yes)
    if as_json:
        output.print_json(posted)
    else:
        click.echo(posted["deal"])


@command.command(
    "list",
    epilog="Example: swarm keep list --all",
    short_help="List the open deals of this account.",
)
@click.option("--all", "is_all", is_flag=True, help="Of everybody.")
@connection.options
def list_(*, is_all: bool, home: Path, as_json: bool) -> None:
    """List open deals: what is kept, by how many, for how long, and what is left to pay."""
    with connection.connect(home) as client:
        deals = client.keep("list", all=is_all)["deals"]
    if as_json:
        output.print_json(deals)
        return
    titles = ("DEAL", "BYTES", "PIECES", "HELD", "PROVEN", "AUDITS LEFT", "ESCROW", "CONTENT")
    output.print_table(
        titles,
        (
            (
                one["deal"][:16],
                format_size(one["bytes"]),
                f"{one['pieces']:,}",
                f"{one['seats']:,}/{one['pieces'] * one['replicas']:,}",
                f"{one['shown']:,}",
                "ends now" if one["ended"] else f"{one['audits_left']:,}",
                format_tokens(one["escrow"]),
                "coded pieces" if one["coded"] else one["roots"][0],
            )
            for one in deals
        ),
    )


@command.command(
    "end",
    epilog="Example: swarm keep end 5be1",
    short_help="Stop a deal; the rest of its escrow returns.",
)
@click.argument("deal")
@connection.options
def end(*, deal: str, home: Path, as_json: bool) -> None:
    """Stop a deal of this account with the next settlement; DEAL is its id or the beginning of it."""
    with connection.connect(home) as client:
        ended = client.keep("end", deal=deal)
    if as_json:
        output.print_json(ended)
    else:
        click.echo(ended["deal"])
        output.say("it ends with the next audit, and what is left of its escrow returns then")


@command.command(
    "restore",
    epilog="Example: swarm keep restore 5be1",
    short_help="Fetch what a deal keeps, from its pieces.",
)
@click.argument("deal")
@connection.options
def restore(*, deal: str, home: Path, as_json: bool) -> None:
    """Fetch what a deal keeps into this node, from as many of its pieces as it takes where it was cut."""
    with connection.connect(home) as client, output.progress_bar() as progress:
        made = client.keep("restore", progress, deal=deal)
    if as_json:
        output.print_json(made)
    else:
        click.echo(made["cid"])
        output.say(f"made from {counted(made['pieces'], 'piece')}: swarm get {made['cid']}")


def ask_for(replicas: int, audits: int | None, price: str | None, *, erasure: bool = False) -> Json:
    """The fields of a deal as the node takes them."""
    asked: Json = {"replicas": replicas, "erasure": erasure}
    if audits is not None:
        asked["audits"] = audits
    if price is not None:
        asked["price"] = parse_tokens(price)
    return asked


def make_deal(client: Client, content: str, asked: Json, *, yes: bool) -> Json:
    """Say what a deal costs, ask where a person can answer, and post it.

    Raises:
        Abort: The person said no.
    """
    import sys

    quote = client.keep("quote", content=content, **asked)
    for line in cost_lines(quote):
        output.say(line)
    if not yes and sys.stdin.isatty() and sys.stderr.isatty():
        click.confirm("put that aside?", abort=True, err=True)
    with output.progress_bar() as progress:
        # What was shown is what is posted, whatever others post meanwhile.
        fixed = asked | {"audits": quote["audits"], "price": quote["price"]}
        if quote["coded"]:
            needed = quote["needed"]
            fixed |= {"needed": needed, "spare": quote["pieces"] - needed}
        return client.keep("post", progress, content=content, **fixed)


def cost_lines(quote: Json) -> list[str]:
    """What a deal costs, in words."""
    pieces = "whole"
    if quote["coded"]:
        pieces = f"{quote['pieces']} pieces of which any {quote['needed']} are enough"
    lines = [
        f"{format_size(quote['bytes'])}, {pieces}, {counted(quote['replicas'], 'replica')}, {counted(quote['audits'], 'audit')}"
        f" ({quote['days']:,.1f} days) at {format_tokens(quote['price'])} tokens a GiB begun and audit:"
        f" {format_tokens(quote['cost'])} tokens are put aside of {format_tokens(quote['balance'])}",
        f"a fee of {format_tokens(quote['fee'])} tokens comes on top and is not returned",
        "a keeper is paid for each audit in which it shows the content; what is left at the end returns",
    ]
    keepers = f"{counted(quote['keepers'], 'keeper')} in good standing now"
    if quote["keepers"] < (quote["seats"] if quote["coded"] else quote["replicas"]):
        lines.append(f"{keepers}: seats wait until there are more")
    elif quote["keepers"] < quote["seats"]:
        lines.append(f"{keepers}: some keep several pieces, which are lost together with them")
    return lines
