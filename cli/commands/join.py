"""`swarm join`: start a node and run it until it is told to stop."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command("join")
@click.option(
    "--storage",
    metavar="SIZE",
    help="Disk to lend: 500GB, 2TiB, 750M (SWARM_STORAGE).  [default: 10GB]",
)
@click.option("--gpu", is_flag=True, default=None, help="Use the accelerator, where there is one.")
@click.option(
    "--bootstrap",
    multiple=True,
    metavar="ADDRESS",
    help="A peer to start from: /ip4/…/tcp/…/p2p/… or HOST:PORT; may be given again.",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="ADDRESS",
    help="Where to listen; may be given again.  [default: any free port]",
)
@click.option(
    "--home",
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder, one a network (SWARM_HOME).",
)
@click.option(
    "--network",
    metavar="FILE|ID",
    help="The network: its genesis file, or its chain id or CID, and then --bootstrap.",
)
@click.option(
    "--checkpoint",
    metavar="HEIGHT:ID",
    help="The last block of an epoch, from somebody you trust: where this node's trust begins.",
)
@click.option(
    "--archive", is_flag=True, default=None, help="Never remove old blocks (SWARM_ARCHIVE)."
)
@click.option("--no-train", is_flag=True, help="Do not train.")
@click.option("--reader", is_flag=True, help="Only fetch: do not train, validate or keep replicas.")
@click.option(
    "--seal-share",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="How much of one core seals lent space (SWARM_SEAL_SHARE).  [default: 0.25]",
)
@click.option("--no-seal", is_flag=True, help="Seal nothing more; what is sealed stays.")
@click.option(
    "--gateway",
    is_flag=False,
    flag_value="8080",
    metavar="[PORT]",
    help="Answer as an IPFS gateway on http://127.0.0.1:PORT/ipfs/CID, for this machine only.  [port: 8080]",
)
@click.option(
    "--metrics",
    metavar="PORT",
    help="Tell Prometheus on http://127.0.0.1:PORT/metrics, with /livez and /readyz.",
)
@click.option("--no-view", is_flag=True, help="Plain log lines also on a terminal.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="The lowest level that is logged.  [default: info]",
)
@click.option(
    "--temporary", is_flag=True, help="A node for one command; keeps no replicas for others."
)
@click.option(
    "--until-stdin-closes",
    is_flag=True,
    help="Stop when standard input closes; for a program that starts a node.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the status as JSON every two seconds.")
def command(
    *,
    storage: str | None,
    gpu: bool | None,
    bootstrap: tuple[str, ...],
    listen: tuple[str, ...],
    home: Path | None,
    network: str | None,
    checkpoint: str | None,
    archive: bool | None,
    no_train: bool,
    reader: bool,
    seal_share: float | None,
    no_seal: bool,
    gateway: str | None,
    metrics: str | None,
    no_view: bool,
    log_level: str | None,
    temporary: bool,
    until_stdin_closes: bool,
    as_json: bool,
) -> int:
    """Start a node: find peers, sync, lend disk, train, earn.

    First addresses come from --bootstrap, then from the last known peers on disk.
    With neither, the node starts or joins a network of this machine's own.
    Ctrl-C stops it cleanly; a second one ends it at once.
    """
    from cli import logs, node_process
    from swarm.config import Settings, default_settings_file
    from swarm.identity import make_home

    flags = {
        "storage": storage,
        "gpu": gpu,
        "bootstrap": bootstrap,
        "listen": listen,
        "home": home,
        "network": network,
        "checkpoint": checkpoint,
        "archive": archive,
        "train": False if no_train or reader else None,
        "validate": False if reader else None,
        "keep": False if reader or temporary else None,
        "seal_share": 0.0 if no_seal else seal_share,
        "gateway": gateway,
        "metrics": metrics,
        "temporary": temporary or None,
        "log_level": log_level,
    }
    settings = Settings.build(flags, os.environ, default_settings_file())
    live = not no_view and not as_json and sys.stderr.isatty() and sys.stdout.isatty()
    make_home(settings.home)
    file = settings.home / "node.log" if live else None
    logs.configure(settings.log_level, file, settings.home / "logs")
    teller = node_process.Teller.JSON if as_json else node_process.Teller.LINES
    if live:
        teller = node_process.Teller.LIVE
    return node_process.run(settings, teller, until_stdin_closes=until_stdin_closes)
