"""`swarm car export` and `swarm car import`: CAR files, as IPFS's tools read and write them."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from cli import connection, output
from swarm.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.group("car", epilog="Example: swarm car export bafybei… -o plays.car")
def command() -> None:
    """Content as CAR files, which IPFS's tools read and write."""


@command.command("export", epilog="Example: swarm car export bafybei… -o plays.car")
@click.argument("cid")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="The file to write, or - for standard output; CID.car in this folder if not given.",
)
@connection.home_option
def export(*, cid: str, path: Path | None, home: Path) -> None:
    """Write everything below a CID to a CAR file; what is not held is fetched first."""
    from storage import cid as cids
    from storage.errors import CidError

    try:
        root = cids.text(cids.parse(cid.removeprefix("ipfs://")))
    except CidError as error:
        message = f"CID: {error}"
        raise UsageError(message, "a CID looks like bafybei… or bafkrei…") from error
    target = path or Path(f"{root}.car")
    with connection.connect(home) as client, output.progress_bar() as progress:
        if str(target) == "-":
            client.hold(root, progress)
            _copy(client.export_car(root), sys.stdout.buffer)
            return
        _check_free(target)
        client.hold(root, progress)
        _write(client.export_car(root), target)
    click.echo(target)


@command.command("import", epilog="Example: swarm car import plays.car")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@connection.options
def import_(*, path: Path, home: Path, as_json: bool) -> None:
    """Read a CAR file into the swarm and pin its roots, which it prints; refused where one is not whole."""
    with connection.connect(home) as client, output.progress_bar() as progress:
        imported = client.import_car(path, progress)
    if as_json:
        output.print_json(imported)
        return
    for root in imported["roots"]:
        click.echo(root["cid"])
    from swarm.config import format_size

    size, new = format_size(imported["bytes"]), format_size(imported["new_bytes"])
    output.say(f"{size} in {imported['chunks']:,} chunks, {new} of it new here")


def _check_free(target: Path) -> None:
    if target.exists():
        message = f"{target} is there already"
        raise RefusedError(message, "give another path with -o, or remove it")


def _write(parts: Iterable[bytes], target: Path) -> None:
    """Into a file of its own beside it, then by rename: what appears is whole, and takes nobody's place."""
    beside = target.with_name(f".{secrets.token_hex(8)}.car.part")
    with beside.open("xb") as file:
        try:
            _copy(parts, file)
            _check_free(target)
            beside.rename(target)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise


def _copy(parts: Iterable[bytes], out: BinaryIO) -> None:
    out.writelines(parts)
    out.flush()
