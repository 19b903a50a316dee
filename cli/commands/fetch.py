"""`swarm fetch NAME`: the latest agreed checkpoint, or any other thing with a name."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cli import connection, output
from cli.names import parse_reference
from swarm.errors import UsageError
from swarm.sizes import counted, format_size


@click.command("fetch", epilog="Example: swarm fetch tiny-gpt@3 -o model")
@click.argument("name", metavar="NAME[@VERSION]")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path),
    help="The folder to write; one with the name, in this folder, if not given.",
)
@click.option(
    "--hf",
    "to_hub",
    is_flag=True,
    help="Put it into the cache of transformers and huggingface_hub instead, without a second copy of its bytes.",
)
@click.option(
    "--dataset", "is_dataset", is_flag=True, help="With --hf: it is a dataset and no model."
)
@click.option(
    "--no-card", is_flag=True, help="Write no README.md where the content itself has none."
)
@connection.options
def command(
    *,
    name: str,
    path: Path | None,
    to_hub: bool,
    is_dataset: bool,
    no_card: bool,
    home: Path,
    as_json: bool,
) -> None:
    """Fetch what a name points to: for a model, a folder with model.safetensors and config.json.

    The ledger's entry is proven against a finalized block, and every byte against the entry's CID.
    """
    bare, version = parse_reference(name)
    if to_hub and path is not None:
        message = "--hf has its own place: -o cannot be given with it"
        raise UsageError(message)
    if to_hub:
        _link(bare, version, "datasets" if is_dataset else "models", home, as_json=as_json)
        return
    if is_dataset:
        message = "--dataset is of use with --hf alone"
        raise UsageError(message)
    with (
        connection.resumable(),
        connection.connect(home) as client,
        output.progress_bar() as progress,
    ):
        fetched = client.fetch(bare, version, path or Path(bare), progress, card=not no_card)
    if as_json:
        output.print_json(fetched)
        return
    click.echo(fetched["path"])
    output.say(
        f"{fetched['name']}@{fetched['version']} is {fetched['cid']}, proven at height {fetched['height']:,}"
    )
    if fetched.get("card"):
        output.say("its README.md was made here: the content itself has none")


def _link(name: str, version: int | None, kind: str, home: Path, *, as_json: bool) -> None:
    with (
        connection.resumable(),
        connection.connect(home) as client,
        output.progress_bar() as progress,
    ):
        linked = client.link_to_hub(name, version, hub_cache(), progress, kind=kind)
    if as_json:
        output.print_json(linked)
        return
    click.echo(linked["path"])
    label = linked["repository"]
    label += "" if linked["version"] is None else f"@{linked['version']}"
    output.say(f"{label} is {linked['cid']}, revision {linked['revision']}")
    if copied := linked["ways"].get("copy"):
        size = format_size(linked["copied"])
        output.say(f"{counted(copied, 'file')} copied ({size}) that could not be linked from there")


def hub_cache() -> Path:
    """Where the Hub's clients keep their cache, as they find it."""
    from swarm.values import parse_path

    if found := os.environ.get("HF_HUB_CACHE"):
        return parse_path(found)
    if found := os.environ.get("HF_HOME"):
        return parse_path(found) / "hub"
    return parse_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"
