"""`swarm bug-report`: what helps to find a fault, without what is private; it stays on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from cli import connection, output
from swarm.errors import RefusedError


@click.command("bug-report")
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it to this file, which must not exist.",
)
@click.option("--with-addresses", is_flag=True, help="Leave IP addresses in it.")
@click.option("--yes", is_flag=True, help="Do not ask before it is written.")
@connection.options
def command(
    *, path: Path | None, with_addresses: bool, yes: bool, home: Path, as_json: bool
) -> None:
    """Gather versions, settings, the doctor's lines, problems and the end of the log.

    Keys, tokens, your name, your folders and IP addresses are taken out.
    It is shown, and sent nowhere; read it before you give it to somebody.

    \b
    swarm bug-report -o report.md
    """  # noqa: D301 - \b is click's
    from cli.commands import doctor
    from swarm.care import bug_report
    from swarm.client import Client
    from swarm.config import Settings, default_settings_file

    if path is not None and os.path.lexists(path):  # said before all of it is shown
        raise _taken(path)
    settings = Settings.build({"home": home}, os.environ, default_settings_file())
    status = None
    if connection.answers(home):
        with Client.of_home(home) as client:
            status = client.status()
    found = doctor.lines(doctor.examine(home))
    text = output.harmless(
        bug_report.compose(settings, found, status, keeps_addresses=with_addresses)
    )
    if path is not None:
        if not as_json:
            click.echo(text, err=True, nl=False)
        if sys.stdin.isatty() and not yes:
            click.confirm(f"Write this to {path}?", abort=True, err=True)
        _write(path, text)
    if as_json:
        output.print_json({"report": text, "path": None if path is None else str(path)})
    elif path is None:
        click.echo(text, nl=False)
    else:
        click.echo(path)


def _write(path: Path, text: str) -> None:
    """Write a new file that only its owner can read.

    Raises:
        RefusedError: Something is there, or it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
    except FileExistsError as error:
        raise _taken(path) from error
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise RefusedError(message) from error


def _taken(path: Path) -> RefusedError:
    return RefusedError(f"{path} is there already", "give another path with -o, or remove it")
