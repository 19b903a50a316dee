"""`swarm demo`: a whole network on this machine."""

from __future__ import annotations

from pathlib import Path

import click

from cli import connection, output


@click.command("demo", epilog="Example: swarm demo --task gan")
@click.option(
    "--task",
    "kind",
    type=click.Choice(["gpt", "gan"]),
    default="gpt",
    show_default=True,
    help="What is trained.",
)
@click.option(
    "--data",
    type=click.Path(exists=True, path_type=Path),
    help="Your own data: text files, or a folder with `train` and `pool` in it.",
)
@click.option(
    "--dir",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("swarm-demo"),
    show_default=True,
    help="Where everything goes.",
)
@click.option("--keep", is_flag=True, help="Keep the nodes' data folders afterwards.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(*, kind: str, data: Path | None, folder: Path, keep: bool, as_json: bool) -> None:
    """Run a network of four nodes that train a model on real data; a fifth joins late and fetches it.

    Takes a few minutes on two cores, uses no network but the loopback, and stops what it started.
    """
    from cli.demo import show, story

    with connection.terminable():
        summary = story.run(kind, data, folder.absolute(), keep=keep)
    if as_json:
        output.print_json(summary)
    else:
        show.print_summary(summary)
