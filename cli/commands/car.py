"""`swarm car export` and `swarm car import`: CAR files, as IPFS's tools read and write them."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from cli import connection, output
from cli.roots import parse_root
from swarm.errors import RefusedError, UsageError
from swarm.sizes import counted, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable


@click.group("car", epilog="Example: swarm car export bafybei… -o plays.car")
def command() -> None:
    """Content as CAR files, which IPFS's tools read and write."""


@command.command(
    "export",
    epilog="Example: swarm car export bafybei… -o plays.car",
    short_help="Write what is below a CID to a CAR file.",
)
@click.argument("cid")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    help="The file to write, or - for standard output; CID.car in this folder if not given.",
)
@connection.options
def export(*, cid: str, path: Path | None, home: Path, as_json: bool) -> None:
    """Write everything below a CID to a CAR file; what is not held is fetched first."""
    root = parse_root(cid)
    target = path or Path(f"{root}.car")
    is_streamed = str(target) == "-"
    if is_streamed and as_json:
        message = "--json and the file itself cannot both be on standard output"
        raise UsageError(message, "name a file with -o")
    with connection.connect(home) as client, output.progress_bar() as progress:
        if is_streamed:
            client.hold(root, progress)
            _copy(client.export_car(root), sys.stdout.buffer)
            return
        _check_free(target)
        client.hold(root, progress)
        _write(client.export_car(root), target)
    if as_json:
        output.print_json({"cid": root, "path": str(target), "bytes": target.stat().st_size})
    else:
        click.echo(target)


@command.command(
    "import",
    epilog="Example: swarm car import plays.car",
    short_help="Read a CAR file and pin its roots.",
)
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
    size, new = format_size(imported["bytes"]), format_size(imported["new_bytes"])
    output.say(f"{size} in {counted(imported['chunks'], 'chunk')}, {new} of it new here")


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
