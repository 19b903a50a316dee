"""Settings of a node: flag, then `SWARM_*`, then `swarm.toml`, then default; read once, then frozen.

This module reads no environment by itself: the command line hands it a mapping.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from storage import cid
from storage.errors import CidError
from swarm import addresses
from swarm.care.controls import parse_duration
from swarm.errors import UsageError
from swarm.ledger.checkpoint import Checkpoint
from swarm.limits.line import AUTO, MIN_RATE
from swarm.limits.schedule import Schedule
from swarm.sizes import format_size as format_size
from swarm.store.retention import KEEP_ROUNDS, KEEP_VERSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

LOCAL_NETWORK = "local"
"""The network of this machine's own: the folder of a node that is told nothing else."""

DEFAULT_LISTEN = ("/ip4/0.0.0.0/tcp/0",)
PAGE_PORT = 4747
"""Of 127.0.0.1, where the page is if nothing is said; a free one where it is taken."""
DEFAULT_STORAGE = 10 * 10**9
"""Bytes lent when nothing is said."""

LIMITS = (
    *("upload", "download", "monthly_cap", "schedule", "idle", "idle_gpu", "on_battery"),
    *("cpu", "gpu_power", "gpu_heat"),
)
"""Settings that can be changed while the node runs."""
NO_LIMIT = ("off", "none", "unlimited", "0")
MIN_CAP = 10**9
"""Bytes a month; a node that takes part needs more for votes and blocks alone."""
MIN_CPU = 0.05
MAX_WATTS = 10_000
MAX_CELSIUS = 150

MAX_SIZE = 2**63 - 1
MAX_SETTINGS_BYTES = 2**20
LOG_LEVELS = ("debug", "info", "warning", "error")
ROLES = ("train", "validate", "keep")

_UNITS = {
    "": 1,
    **{letter: 1000**power for power, letter in enumerate("kmgtpe", start=1)},
    **{f"{letter}i": 1024**power for power, letter in enumerate("kmgtpe", start=1)},
}
_SIZE = re.compile(r"([0-9]{1,30}(?:\.[0-9]{1,30})?)\s*([kmgtpe]i?)?(?:b|bytes?)?", re.IGNORECASE)
_BITS = re.compile(r"(?i:bits?(?:/s|ps)?)$|(?:[0-9]\s*|[A-Za-z])bps$|[KMGTPE]i?b/s$")
"""A rate in bits: spelled out, or by the small `b` that a line is sold with."""
_HOST_PORT = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\s:/\[\]]+)):([0-9]{1,5})")
_DIGITS = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_CHECKPOINT = re.compile(r"([0-9][0-9,]{0,24}):([0-9a-fA-F]{64})")
_CHAIN_ID = re.compile(r"[0-9a-fA-F]{64}")
_FORM = "/ip4/ADDRESS/tcp/PORT/p2p/PEER"


def parse_size(text: str | int) -> int:
    """Read a size as people write it: `500GB`, `2TiB`, `1.5 GiB`, `750M`, or bare bytes.

    Args:
        text: `k`, `M`, `G`, `T`, `P` are powers of 1000, with an `i` of 1024; case does not matter.

    Returns:
        Whole bytes, rounded down.

    Raises:
        UsageError: Not a size, or more than 2^63 - 1.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or isinstance(text, bool):
        message = f"{str(text)[:64]!r} is not a size"
        raise UsageError(message, "write it like 500GB, 2TiB, 750M, or as a number of bytes")
    size = int(Decimal(match[1]) * _UNITS[(match[2] or "").lower()])
    if size > MAX_SIZE:
        message = f"{str(text)[:64]!r} is more than {MAX_SIZE:,} bytes"
        raise UsageError(message)
    return size


def parse_rate(text: object) -> int:
    """Read a rate: `5MB/s`, `16Mbit/s`, `auto`, or `off` for no limit.

    Bytes are meant but where bits are written: `Mbit/s`, `Mbps`, `Mb/s`.

    Returns:
        Bytes a second; 0: no limit; `AUTO`: a share of the line.

    Raises:
        UsageError: Not a rate, or less than a node can work with.
    """
    word = str(text).strip()
    if word.lower() in NO_LIMIT:
        return 0
    if word.lower() == "auto":
        return AUTO
    is_bits = _BITS.search(word) is not None
    word = word.lower().removesuffix("/s").removesuffix("ps")
    try:
        rate = parse_size(word.removesuffix("s").removesuffix("bit") if is_bits else word)
    except UsageError as error:
        message = f"{str(text)[:64]!r} is not a rate"
        raise UsageError(message, "write it like 5MB/s or 16Mbit/s, auto, or off") from error
    rate = rate // 8 if is_bits else rate
    if rate < MIN_RATE:
        message = (
            f"{format_size(rate)}/s is less than a node can work with: {format_size(MIN_RATE)}/s"
        )
        raise UsageError(message, "`swarm pause serve` stops what can be stopped")
    return rate


def parse_address(text: str) -> str:
    """Read the address of a peer, or one to listen on: a multiaddr or `HOST:PORT`.

    Returns:
        The multiaddr.

    Raises:
        UsageError: Of neither form.
    """
    text = text.strip()
    match = _HOST_PORT.fullmatch(text)
    if match is not None:
        kind = "ip6" if match[1] else "ip4" if _DIGITS.fullmatch(match[2]) else "dns"
        text = f"/{kind}/{match[1] or match[2]}/tcp/{match[3]}"
    try:
        address = addresses.parse(text)
        if address.relay is not None:
            message = "it goes through a relay"
            raise addresses.AddressError(message)  # noqa: TRY301 - one message for every fault
    except addresses.AddressError as error:
        message = f"{text[:200]!r} is not the address of a peer: {error}"
        raise UsageError(message, f"write it like {_FORM} or HOST:PORT") from error
    return str(address)


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
        log_level: One of `LOG_LEVELS`.
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
        values = dict(_from_file(settings_file))
        values |= {
            name: (f"SWARM_{name.upper()}", environ[f"SWARM_{name.upper()}"])
            for name in cls.__dataclass_fields__
            if environ.get(f"SWARM_{name.upper()}")
        }
        values |= {
            name: (f"--{name.replace('_', '-')}", value)
            for name, value in flags.items()
            if value is not None and value != ()
        }
        read = {name: _read(name, source, value) for name, (source, value) in values.items()}
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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
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


def _download(value: object) -> int:
    rate = parse_rate(value)
    if rate == AUTO:
        message = "what comes is not measured"
        raise UsageError(message, "write it like 5MB/s, or off")
    return rate


def _cap(value: object) -> int:
    word = str(value).strip().lower()
    if word in NO_LIMIT:
        return 0
    if word == "auto":
        return AUTO
    size = parse_size(str(value))
    if size < MIN_CAP:
        message = f"{format_size(size)} a month is less than a node needs: {format_size(MIN_CAP)}"
        raise UsageError(message)
    return size


def _schedule(value: object) -> Schedule | None:
    return None if str(value).strip().lower() in NO_LIMIT else Schedule.parse(str(value))


def _seconds(value: object) -> int:
    word = str(value).strip().lower()
    return 0 if word in NO_LIMIT else parse_duration(word)


def _idle_gpu(value: object) -> int | None:
    return None if str(value).strip().lower() == "as idle" else _seconds(value)


def _percent(value: object) -> float:
    """A share of the processors: `50%` or `0.5`."""
    word = str(value).strip().lower()
    if word in NO_LIMIT:
        return 0.0
    try:
        share = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not MIN_CPU <= share <= 1:
        message = f"{word[:32]!r} is not a share of the processors: {MIN_CPU:.0%} to 100%"
        raise UsageError(message)
    return share


def _watts(value: object) -> int:
    return _below(value, "w", MAX_WATTS, "power: 250W")


def _celsius(value: object) -> int:
    return _below(value, "c", MAX_CELSIUS, "temperature: 80C")


def _below(value: object, unit: str, most: int, form: str) -> int:
    word = str(value).strip().lower()
    if word in NO_LIMIT:
        return 0
    number = word.removesuffix(unit).removesuffix("°")
    if not (number.isascii() and number.isdigit() and len(number) < 6 and 0 < int(number) <= most):
        message = f"{word[:32]!r} is not a {form}"
        raise UsageError(message)
    return int(number)


def _flag(value: object) -> bool:
    if isinstance(value, bool):
        return value
    words = {"1": True, "true": True, "yes": True, "on": True}
    words |= {"0": False, "false": False, "no": False, "off": False}
    if str(value).lower() not in words:
        message = f"{str(value)[:32]!r} is neither true nor false"
        raise UsageError(message)
    return words[str(value).lower()]


def _addresses(value: object) -> tuple[str, ...]:
    if isinstance(value, str):
        parts = [part for part in value.split(",") if part.strip()]
    elif isinstance(value, list | tuple):
        parts = [str(part) for part in value]
    else:
        message = f"{value!r} is not a list of addresses"
        raise UsageError(message)
    return tuple(parse_address(part) for part in parts)


def _bootstrap(value: object) -> tuple[str, ...]:
    """Addresses of peers that can be asked."""
    found = _addresses(value)
    for text in found:
        if addresses.parse(text).port == 0:
            message = f"{text!r} is not the address of a peer: nobody can be asked at port 0"
            raise UsageError(message, "the peer's own `swarm status` tells its address")
    return found


def _listen(value: object) -> tuple[str, ...]:
    """Addresses of this machine: as those of peers, and told apart where they are none."""
    try:
        return _addresses(value)
    except UsageError as error:
        message = error.message.replace("the address of a peer", "an address to listen on")
        raise UsageError(message, "write it like /ip4/0.0.0.0/tcp/4001 or 0.0.0.0:4001") from error


def _port(value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and int(text) < 2**16):
        message = f"{text[:32]!r} is not a port: 0 to 65535"
        raise UsageError(message)
    return int(text)


def _page(value: object) -> int | None:
    """A port, 0 a free one; a word for no is none, and a word for yes the default."""
    if str(value).isdigit():
        return _port(value)
    return PAGE_PORT if _flag(value) else None


def _share(value: object) -> float:
    try:
        share = -1.0 if isinstance(value, bool) else float(str(value))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        message = f"{str(value)[:32]!r} is not a share of a core: 0 to 1"
        raise UsageError(message)
    return share


def _count(value: object) -> int:
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
        message = f"{text[:32]!r} is not a number"
        raise UsageError(message)
    return int(text)


def _some(value: object) -> int:
    count = _count(value)
    if not count:
        message = "0 is too few: the newest is needed"
        raise UsageError(message)
    return count


def parse_path(value: object) -> Path:
    """Read a path, `~` included, and make it absolute.

    Raises:
        UsageError: Not one.
    """
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        message = f"{value!r} is not a path"
        raise UsageError(message)
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError as error:
        message = (
            f"{str(value)[:200]!r} is not a path here: whose home folder it is in is not known"
        )
        raise UsageError(message, "write it without `~`") from error


def _network(value: object) -> Path | bytes:
    """A chain id in hex or as a CID, or the path of a genesis file."""
    text = str(value)
    if _CHAIN_ID.fullmatch(text):
        return bytes.fromhex(text)
    try:
        return cid.digest(cid.parse(text))
    except CidError:
        return parse_path(value)


def parse_checkpoint(value: object) -> Checkpoint:
    """Read `HEIGHT:ID`, the id in 64 hex digits.

    Raises:
        UsageError: Of another form.
    """
    match = _CHECKPOINT.fullmatch(str(value))
    if match is None:
        message = f"{str(value)[:120]!r} is not a checkpoint"
        raise UsageError(message, "write it HEIGHT:ID, as `swarm blocks HEIGHT` shows them")
    return Checkpoint(int(match[1].replace(",", "")), bytes.fromhex(match[2]))


def _log_level(value: object) -> str:
    if str(value).lower() not in LOG_LEVELS:
        message = f"{value!r} is none of {', '.join(LOG_LEVELS)}"
        raise UsageError(message)
    return str(value).lower()


_READERS = {
    "home": parse_path,
    "listen": _listen,
    "bootstrap": _bootstrap,
    "storage": parse_size,
    "gpu": _flag,
    "network": _network,
    "train": _flag,
    "validate": _flag,
    "keep": _flag,
    "seal_share": _share,
    "keep_rounds": _count,
    "keep_versions": _some,
    "checkpoint": parse_checkpoint,
    "archive": _flag,
    "gateway": _port,
    "upnp": _flag,
    "mdns": _flag,
    "metrics": _port,
    "page": _page,
    "upload": parse_rate,
    "download": _download,
    "monthly_cap": _cap,
    "schedule": _schedule,
    "idle": _seconds,
    "idle_gpu": _idle_gpu,
    "on_battery": _flag,
    "cpu": _percent,
    "gpu_power": _watts,
    "gpu_heat": _celsius,
    "temporary": _flag,
    "log_level": _log_level,
}
