"""`swarm join`: start a node and run it until it is told to stop."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click


@click.command(
    "join",
    epilog="Example: swarm join --storage 500GB --bootstrap /ip4/203.0.113.7/tcp/4001/p2p/12D3KooW…",
)
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
    "--upload",
    metavar="RATE",
    help="To other machines: 5MB/s, 16Mbit/s, off; auto is four fifths of the line as measured.  [default: auto]",
)
@click.option("--download", metavar="RATE", help="From other machines.  [default: off]")
@click.option(
    "--monthly-cap",
    metavar="SIZE",
    help="Both ways in a calendar month: 500GB, off; auto is a quarter of what the line can carry, at least 1 TB.  [default: auto]",
)
@click.option(
    "--schedule",
    metavar="HOURS",
    help="When to train and seal, in local time: 'mon-fri 19:00-07:00; sat,sun 0:00-24:00'.",
)
@click.option("--idle", metavar="TIME", help="Train and seal after so long without input: 5m.")
@click.option(
    "--idle-gpu", metavar="TIME", help="The same of training on a GPU.  [default: as --idle]"
)
@click.option("--on-battery", is_flag=True, default=None, help="Train and seal on battery too.")
@click.option("--cpu", metavar="SHARE", help="Of this machine's processors, for training: 50%.")
@click.option("--gpu-power", metavar="WATTS", help="Training waits while the GPU takes more: 250W.")
@click.option("--gpu-heat", metavar="DEGREES", help="Training waits while the GPU is hotter: 80C.")
@click.option(
    "--gateway",
    is_flag=False,
    flag_value="8080",
    metavar="[PORT]",
    help="Answer as an IPFS gateway on http://127.0.0.1:PORT/ipfs/CID and as a Hugging Face Hub (HF_ENDPOINT), for this machine only.  [port: 8080]",
)
@click.option(
    "--no-upnp", is_flag=True, help="Do not ask the router to forward the port (SWARM_UPNP)."
)
@click.option(
    "--no-mdns", is_flag=True, help="Do not look for nodes on the local network (SWARM_MDNS)."
)
@click.option(
    "--metrics",
    metavar="PORT",
    help="Tell Prometheus on http://127.0.0.1:PORT/metrics, with /livez and /readyz.",
)
@click.option(
    "--page",
    metavar="PORT",
    help="Where the page is, on 127.0.0.1; 0 takes a free port (SWARM_PAGE).  [default: 4747]",
)
@click.option("--no-page", is_flag=True, help="No page for the browser.")
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
    upload: str | None,
    download: str | None,
    monthly_cap: str | None,
    schedule: str | None,
    idle: str | None,
    idle_gpu: str | None,
    on_battery: bool | None,
    cpu: str | None,
    gpu_power: str | None,
    gpu_heat: str | None,
    gateway: str | None,
    no_upnp: bool,
    no_mdns: bool,
    metrics: str | None,
    page: str | None,
    no_page: bool,
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
    from cli import advice, logs, node_process
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
        "upload": upload,
        "download": download,
        "monthly_cap": monthly_cap,
        "schedule": schedule,
        "idle": idle,
        "idle_gpu": idle_gpu,
        "on_battery": on_battery,
        "cpu": cpu,
        "gpu_power": gpu_power,
        "gpu_heat": gpu_heat,
        "gateway": gateway,
        "upnp": False if no_upnp else None,
        "mdns": False if no_mdns else None,
        "metrics": metrics,
        "page": "off" if no_page else page,
        "temporary": temporary or None,
        "log_level": log_level,
    }
    advice.note(None if temporary else home)
    settings = Settings.build(flags, os.environ, default_settings_file())
    live = not no_view and not as_json and sys.stderr.isatty() and sys.stdout.isatty()
    make_home(settings.home)
    file = settings.home / "node.log" if live else None
    logs.configure(settings.log_level, file, settings.home / "logs")
    teller = node_process.Teller.JSON if as_json else node_process.Teller.LINES
    if live:
        teller = node_process.Teller.LIVE
    return node_process.run(settings, teller, until_stdin_closes=until_stdin_closes)
