"""`swarm serve NAME`: a language model for programs that speak OpenAI's API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from cli import connection, output, screen
from cli.names import parse_reference

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = ("127.0.0.1", "::1")
TOKEN_BYTES = 24


@click.command("serve", epilog="Example: swarm serve tiny-gpt --port 8000")
@click.argument("name", metavar="NAME[@VERSION]")
@click.option(
    "--port",
    type=click.IntRange(0, 2**16 - 1),
    default=8000,
    show_default=True,
    help="0 takes a free one.",
)
@click.option(
    "--host",
    metavar="ADDRESS",
    default=LOOPBACK[0],
    show_default=True,
    help="An address of this machine; one that other machines reach needs a token.",
)
@click.option(
    "--token",
    metavar="TEXT",
    envvar="SWARM_SERVE_TOKEN",
    help="What clients have to show as their API key; SWARM_SERVE_TOKEN keeps it out of what ps shows.",
)
@connection.options
def command(
    *, name: str, port: int, host: str, token: str | None, home: Path, as_json: bool
) -> None:
    """Serve a language model as OpenAI's API: /v1/models, /v1/completions, /v1/chat/completions.

    Prints the base URL. Newer checkpoints are taken up as they come, unless a version is given. Ctrl-C ends it.
    """
    bare, version = parse_reference(name)
    source = click.get_current_context().get_parameter_source("token")
    if source is ParameterSource.COMMANDLINE:
        output.say(
            "hint: other users of this machine see --token in `ps`; set SWARM_SERVE_TOKEN instead"
        )
    if token is None and host not in LOOPBACK:
        import secrets

        token = secrets.token_urlsafe(TOKEN_BYTES)
        output.say(f"API key: {token}")
    shown = f"[{host}]" if ":" in host else host
    begun: list[str] = []

    def tell(label: str, at: int) -> None:
        url = f"http://{shown}:{at}/v1"
        model, _, cid = label.partition(" ")
        if as_json:
            output.print_json({"url": url, "model": model, "cid": cid})
            return
        if not begun:
            output.say(f"{model} is {cid}; Ctrl-C ends it")
            click.echo(url)
        else:
            output.say(f"{model} is {cid}, and answers from now on")
        begun.append(label)

    with screen.until_interrupted(), connection.connect(home) as client:
        client.serve(bare, version, host=host, port=port, token=token, on_served=tell)
