"""`swarm sample NAME`: text of a language model, a grid of pictures of a GAN."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connection, output
from cli.names import parse_reference


@click.command("sample", epilog='Example: swarm sample tiny-gpt "To be" --length 200')
@click.argument("name", metavar="NAME[@VERSION]")
@click.argument("prompt", required=False)
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    help="Where a GAN's pictures go; NAME.png in this folder if not given.",
)
@click.option(
    "--length",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="How many tokens of text.",
)
@click.option(
    "--seed",
    type=click.IntRange(0, 2**32 - 1),
    default=0,
    show_default=True,
    help="Equal seeds give equal samples.",
)
@connection.options
def command(
    *,
    name: str,
    prompt: str | None,
    path: Path | None,
    length: int,
    seed: int,
    home: Path,
    as_json: bool,
) -> None:
    """Use a checkpoint: print text that a language model goes on with, or write a GAN's pictures."""
    bare, version = parse_reference(name)
    target = path or Path(f"{bare}.png")
    with connection.connect(home) as client:
        made = client.sample(bare, version, prompt or None, target, length, seed)
    if as_json:
        output.print_json(made)
    else:
        click.echo(output.printable(made["text"]) if "text" in made else made["path"])
