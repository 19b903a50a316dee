"""`swarm service`: the node as a service of systemd."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path

import click

from cli import connection, output
from swarm.errors import RefusedError, UsageError

SYSTEM_FOLDER = Path("/etc/systemd/system")
SYSTEM_HOME = Path("/var/lib/swarm")
MAX_UNIT_BYTES = 2**20


@click.group("service", epilog="Example: swarm service install --user -- --storage 500GB")
def command() -> None:
    """Run the node as a service of systemd."""


@command.command("install", short_help="Write the unit, and say how to start it.")
@click.option("--user", "is_user", is_flag=True, help="For your own services, without root.")
@click.option("--print", "only_print", is_flag=True, help="Only print the unit.")
@click.option("--account", metavar="NAME", help="Who runs it, of a system service.")
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder.  [default: /var/lib/swarm; with --user the usual one]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- OPTIONS]")
def install(
    *,
    is_user: bool,
    only_print: bool,
    account: str | None,
    home: Path | None,
    as_json: bool,
    options: tuple[str, ...],
) -> None:
    """Write a hardened unit for the node; OPTIONS are those of `swarm join`.

    It starts nothing: the commands that do are said afterwards.

    \b
    swarm service install --user -- --storage 500GB --gpu
    """  # noqa: D301 - \b is click's
    from swarm.care import unit
    from swarm.values import parse_path

    if is_user and account is not None:
        message = "--account is of a system service, and --user asks for your own"
        raise UsageError(message)
    if home is None:
        home = connection.settings_home(None) if is_user else SYSTEM_HOME
    made = unit.Unit(
        command=_program(),
        home=parse_path(home),
        flags=_checked(options),
        is_user=is_user,
        account=account or os.environ.get("SUDO_USER") or getpass.getuser(),
        has_gpu="--gpu" in options,
        keeps_state=home == SYSTEM_HOME and not is_user,
    )
    text = made.text()
    if only_print:
        output.print_json({"unit": text, "path": None}) if as_json else click.echo(text, nl=False)
        return
    path = _folder(is_user=is_user) / unit.NAME
    _write(path, text, unit.MARK)
    control = "systemctl --user" if is_user else "systemctl"
    begin = f"{control} daemon-reload && {control} enable --now {unit.NAME}"
    if as_json:
        output.print_json({"unit": text, "path": str(path), "begin": begin})
        return
    click.echo(path)
    output.say(f"start it with: {begin}")
    if is_user:
        output.say("to run it while you are logged out: loginctl enable-linger")


def _program() -> tuple[str, ...]:
    """How this program is started again, whatever the service's PATH."""
    script = Path(sys.executable).with_name("swarm")
    return (str(script),) if script.exists() else (sys.executable, "-P", "-m", "cli")


def _checked(options: tuple[str, ...]) -> tuple[str, ...]:
    """The options, if `swarm join` takes them.

    Raises:
        click.UsageError: It does not.
    """
    from cli.commands import join

    if "--home" in options:
        message = "--home stands before the --"
        raise UsageError(message)
    join.command.make_context("swarm join", list(options), resilient_parsing=False)
    return options


def _folder(*, is_user: bool) -> Path:
    if not is_user:
        return SYSTEM_FOLDER
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "systemd" / "user"


def _write(path: Path, text: str, mark: str) -> None:
    """Put a unit in its place; one that somebody else wrote stays.

    Raises:
        RefusedError: There is another one, or it cannot be written.
    """
    try:
        if path.exists():
            with path.open(errors="replace") as file:
                before = file.read(MAX_UNIT_BYTES)
            if not before.startswith(mark):
                message = f"{path} was not written by `swarm service install`"
                raise RefusedError(message, "remove it, or take what --print prints")
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.new")
        beside.write_text(text)
        beside.replace(path)
    except OSError as error:
        message = f"{path} cannot be written: {error.strerror}"
        raise RefusedError(message, "use sudo, or --user for your own services") from error
