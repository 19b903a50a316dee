"""`swarm classify NAME FILE...`: labels of pictures or rows."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connection, output
from cli.names import parse_reference

RESIZES = ("pad", "crop", "stretch")


@click.command("classify")
@click.argument("name", metavar="NAME[@VERSION]")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE...",
)
@click.option(
    "-k",
    "--top",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="How many labels of each, the likeliest first.",
)
@click.option(
    "--resize",
    type=click.Choice(RESIZES),
    help="How pictures of another size are made to fit; as in the model's task if not given.",
)
@connection.options
def command(
    *,
    name: str,
    files: tuple[Path, ...],
    top: int,
    resize: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Ask a classifier about FILE: pictures, arrays of them, or rows of numbers (.npy, .csv); of a folder what is in it.

    Each line is a file, a label and its probability.

    Example: swarm classify digits one.png two.png -k 3
    """
    bare, version = parse_reference(name)
    with connection.connect(home) as client:
        found = client.classify(bare, files, version, top=top, resize=resize)
    if as_json:
        about = {"name": found["name"], "version": found["version"], "cid": found["cid"]}
        output.print_json({**about, **one} for one in found["samples"])
        return
    shown = {str(one.absolute()): str(one) for one in files}
    several = {one["path"] for one in found["samples"] if one["index"]}
    for one in found["samples"]:
        path = shown.get(one["path"], one["path"])
        if one["path"] in several:
            path = f"{path}[{one['index']}]"
        labels = "\t".join(
            f"{output.one_line(each['label'])}\t{each['probability']:.4f}" for each in one["labels"]
        )
        click.echo(f"{output.one_line(path)}\t{labels}")
