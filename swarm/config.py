"""Settings of a node: flag, then `SWARM_*`, then `swarm.toml`, then default; read once, then frozen.

This module reads no environment by itself: the command line hands it a mapping.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swarm import values
from swarm.errors import UsageError
from swarm.limits.line import AUTO
from swarm.store.retention import KEEP_ROUNDS, KEEP_VERSIONS
from swarm.values import PAGE_PORT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swarm.ledger.checkpoint import Checkpoint
    from swarm.limits.schedule import Schedule

LOCAL_NETWORK = "local"
"""The network of this machine's own: the folder of a node that is told nothing else."""

DEFAULT_LISTEN = ("/ip4/0.0.0.0/tcp/0",)
DEFAULT_STORAGE = 10 * 10**9
"""Bytes lent when nothing is said."""

LIMITS = (
    *("upload", "download", "monthly_cap", "schedule", "idle", "idle_gpu", "on_battery"),
    *("cpu", "gpu_power", "gpu_heat"),
)
"""Settings that can be changed while the node runs."""
MAX_SETTINGS_BYTES = 2**20


def default_home(network: str = LOCAL_NETWORK) -> Path:
    """The data folder of a network: one folder a network in the user's XDG data folder."""
    import platformdirs

    return Path(platformdirs.user_data_path("swarm")) / network


def default_settings_file() -> Path:
    """`swarm.toml` in the user's XDG configuration folder."""
    import platformdirs

    return Path(platformdirs.user_config_path("swarm")) / "swarm.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """What a node is told when it starts.

    Attributes:
        home: Its data folder; one network, one key, one process.
        listen: Multiaddrs to listen on; port 0 is any free port, 0.0.0.0 every interface.
        bootstrap: First addresses, tried together with the last known peers from disk.
        storage: Bytes lent to the swarm.
        gpu: Use an accelerator where there is one.
        network: The genesis file of the network to start or join, or its chain id (32 bytes), of which
            the genesis is fetched; None: from disk, from a peer, or a network of this machine's own.
        train: Take part in rounds as a worker.
        validate: Vote and score where this node's account is a validator.
        keep: Hold replicas for others and answer storage challenges.
        seal_share: Of one core, for sealing what is lent in the background, 0 to 1; 0 seals nothing.
        keep_rounds: Rounds after its own for which an update of this node's is kept.
        keep_versions: Newest versions of each name it trains or validates that are kept; at least 1.
        checkpoint: The last block of an epoch that the person was given, from which trust begins.
        archive: Blocks are never removed.
        gateway: The port of 127.0.0.1 on which the HTTP gateway answers; None: nowhere.
        upnp: Ask the router to forward the port that this node listens on.
        mdns: Look for nodes of the same network on the local one.
        metrics: The port of 127.0.0.1 on which the measures are told; None: nowhere.
        page: The port of 127.0.0.1 on which the page is; None: nowhere.
        upload: Bytes a second to other machines; 0: no limit; `AUTO`: four fifths of the line.
        download: Bytes a second from other machines; 0: no limit.
        monthly_cap: Bytes to and from other machines in a calendar month; 0: none; `AUTO`: a quarter
            of what the line can carry, and never less than 1 TB.
        schedule: Hours of the week in which it trains and seals; None: always.
        idle: Seconds without input before it trains on the processor or seals; 0: at once.
        idle_gpu: The same of training on an accelerator; None: as `idle`.
        on_battery: Train and seal on battery too.
        cpu: Share of this machine's processors for training, 0 to 1; 0: one thread of low priority.
        gpu_power: Watts of the accelerator above which training waits; 0: not looked at.
        gpu_heat: Degrees Celsius of the accelerator, likewise.
        temporary: Started for one command; announces no storage of its own and leaves with it.
        log_level: One of `values.LOG_LEVELS`.
    """

    home: Path
    listen: tuple[str, ...] = DEFAULT_LISTEN
    bootstrap: tuple[str, ...] = ()
    storage: int = DEFAULT_STORAGE
    gpu: bool = False
    network: Path | bytes | None = None
    train: bool = True
    validate: bool = True
    keep: bool = True
    seal_share: float = 0.25
    keep_rounds: int = KEEP_ROUNDS
    keep_versions: int = KEEP_VERSIONS
    checkpoint: Checkpoint | None = None
    archive: bool = False
    gateway: int | None = None
    upnp: bool = True
    mdns: bool = True
    metrics: int | None = None
    page: int | None = PAGE_PORT
    upload: int = AUTO
    download: int = 0
    monthly_cap: int = AUTO
    schedule: Schedule | None = None
    idle: int = 0
    idle_gpu: int | None = None
    on_battery: bool = False
    cpu: float = 0.0
    gpu_power: int = 0
    gpu_heat: int = 0
    temporary: bool = False
    log_level: str = "info"

    @classmethod
    def build(
        cls,
        flags: Mapping[str, Any],
        environ: Mapping[str, str],
        settings_file: Path | None = None,
    ) -> Settings:
        """Put the sources together.

        Args:
            flags: Field name to value as typed; None where the flag was not given.
            environ: The environment; `SWARM_<FIELD>` counts, lists are separated by commas.
            settings_file: A TOML file whose keys are the fields; None or absent: none.

        Raises:
            UsageError: A value cannot be read; the message names its source.
        """
        given = dict(_from_file(settings_file))
        given |= {
            name: (f"SWARM_{name.upper()}", environ[f"SWARM_{name.upper()}"])
            for name in cls.__dataclass_fields__
            if environ.get(f"SWARM_{name.upper()}")
        }
        given |= {
            name: (f"--{name.replace('_', '-')}", value)
            for name, value in flags.items()
            if value is not None and value != ()
        }
        read = {name: _read(name, source, value) for name, (source, value) in given.items()}
        home: Path = read.pop("home", None) or default_home()
        return cls(home=home, **read)


def _from_file(path: Path | None) -> Mapping[str, tuple[str, Any]]:
    if path is None or not path.is_file():
        return {}
    with path.open("rb") as file:
        data = file.read(MAX_SETTINGS_BYTES + 1)
    if len(data) > MAX_SETTINGS_BYTES:
        message = f"{path}: more than {MAX_SETTINGS_BYTES:,} bytes are no settings"
        raise UsageError(message)
    try:
        table = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # of a number of 5,000 digits too
        message = f"{path}: not TOML: {error}"
        raise UsageError(message) from error
    for name in table:
        if name not in Settings.__dataclass_fields__ or name == "temporary":
            message = f"{path}: there is no setting {name!r}"
            hint = "take the line out; where a later version of swarm wrote it, install that again"
            raise UsageError(message, hint)
    return {name: (f"{name} in {path}", value) for name, value in table.items()}


def _read(name: str, source: str, value: Any) -> Any:  # noqa: ANN401 - a value of any field
    try:
        return _READERS[name](value)
    except (UsageError, TypeError, ValueError) as error:
        message = f"{source}: {error}"
        raise UsageError(message, getattr(error, "hint", None)) from error


def read_setting(name: str, value: object) -> Any:  # noqa: ANN401 - a value of any field
    """Read one setting, as a person types it.

    Raises:
        UsageError: It cannot be read.
    """
    return _read(name, name.replace("_", "-"), value)


def show_setting(name: str, value: object) -> str:
    """A limit as `read_setting` reads it."""
    if value is None or (value == 0 and not isinstance(value, bool)):
        return "off" if name != "idle_gpu" or value == 0 else "as idle"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == AUTO and name in {"upload", "monthly_cap"}:
        return "auto"
    units = {"upload": "B/s", "download": "B/s", "monthly_cap": "B", "idle": "s", "idle_gpu": "s"}
    units |= {"gpu_power": "W", "gpu_heat": "C"}
    return f"{100 * value:g}%" if isinstance(value, float) else f"{value}{units.get(name, '')}"


_READERS = {
    "home": values.parse_path,
    "listen": values.parse_listen,
    "bootstrap": values.parse_bootstrap,
    "storage": values.parse_size,
    "gpu": values.parse_flag,
    "network": values.parse_network,
    "train": values.parse_flag,
    "validate": values.parse_flag,
    "keep": values.parse_flag,
    "seal_share": values.parse_share,
    "keep_rounds": values.parse_count,
    "keep_versions": values.parse_some,
    "checkpoint": values.parse_checkpoint,
    "archive": values.parse_flag,
    "gateway": values.parse_port,
    "upnp": values.parse_flag,
    "mdns": values.parse_flag,
    "metrics": values.parse_port,
    "page": values.parse_page,
    "upload": values.parse_rate,
    "download": values.parse_download,
    "monthly_cap": values.parse_cap,
    "schedule": values.parse_schedule,
    "idle": values.parse_seconds,
    "idle_gpu": values.parse_idle_gpu,
    "on_battery": values.parse_flag,
    "cpu": values.parse_percent,
    "gpu_power": values.parse_watts,
    "gpu_heat": values.parse_celsius,
    "temporary": values.parse_flag,
    "log_level": values.parse_log_level,
}
