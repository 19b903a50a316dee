"""Values of settings as people write them: sizes, rates, addresses, ports, shares, hours.

Each takes what was typed, or what stands in the settings file, and raises `UsageError` where that cannot be read.
"""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

from storage import cid
from storage.errors import CidError
from swarm import addresses
from swarm.care.controls import parse_duration
from swarm.errors import UsageError
from swarm.ledger.checkpoint import Checkpoint
from swarm.limits.line import AUTO, MIN_RATE
from swarm.limits.schedule import Schedule
from swarm.sizes import format_size

PAGE_PORT = 4747
"""Of 127.0.0.1, where the page is if nothing is said; a free one where it is taken."""
NO_LIMIT = ("off", "none", "unlimited", "0")
MIN_CAP = 10**9
"""Bytes a month; a node that takes part needs more for votes and blocks alone."""
MIN_CPU = 0.05
MAX_WATTS = 10_000
MAX_CELSIUS = 150

MAX_SIZE = 2**63 - 1
LOG_LEVELS = ("debug", "info", "warning", "error")

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


def parse_download(value: object) -> int:
    """As `parse_rate`, but not `auto`."""
    rate = parse_rate(value)
    if rate == AUTO:
        message = "what comes is not measured"
        raise UsageError(message, "write it like 5MB/s, or off")
    return rate


def parse_cap(value: object) -> int:
    """Bytes a month; 0: no limit; `AUTO`: a share of what the line carries."""
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


def parse_schedule(value: object) -> Schedule | None:
    """Hours of the week; None: always."""
    return None if str(value).strip().lower() in NO_LIMIT else Schedule.parse(str(value))


def parse_seconds(value: object) -> int:
    """A span of time; 0: at once."""
    word = str(value).strip().lower()
    return 0 if word in NO_LIMIT else parse_duration(word)


def parse_idle_gpu(value: object) -> int | None:
    """As `parse_seconds`; None: as the processor."""
    return None if str(value).strip().lower() == "as idle" else parse_seconds(value)


def parse_percent(value: object) -> float:
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


def parse_watts(value: object) -> int:
    """Whole watts; 0: not looked at."""
    return _below(value, "w", MAX_WATTS, "power: 250W")


def parse_celsius(value: object) -> int:
    """Whole degrees; 0: not looked at."""
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


def parse_flag(value: object) -> bool:
    """A truth value, or a word for one."""
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


def parse_bootstrap(value: object) -> tuple[str, ...]:
    """Addresses of peers that can be asked."""
    found = _addresses(value)
    for text in found:
        if addresses.parse(text).port == 0:
            message = f"{text!r} is not the address of a peer: nobody can be asked at port 0"
            raise UsageError(message, "the peer's own `swarm status` tells its address")
    return found


def parse_listen(value: object) -> tuple[str, ...]:
    """Addresses of this machine: as those of peers, and told apart where they are none."""
    try:
        return _addresses(value)
    except UsageError as error:
        message = error.message.replace("the address of a peer", "an address to listen on")
        raise UsageError(message, "write it like /ip4/0.0.0.0/tcp/4001 or 0.0.0.0:4001") from error


def parse_port(value: object) -> int:
    """A port; 0 is a free one."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and int(text) < 2**16):
        message = f"{text[:32]!r} is not a port: 0 to 65535"
        raise UsageError(message)
    return int(text)


def parse_page(value: object) -> int | None:
    """A port, 0 a free one; a word for no is none, and a word for yes the default."""
    if str(value).isdigit():
        return parse_port(value)
    return PAGE_PORT if parse_flag(value) else None


def parse_share(value: object) -> float:
    """A share of a core."""
    try:
        share = -1.0 if isinstance(value, bool) else float(str(value))
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        message = f"{str(value)[:32]!r} is not a share of a core: 0 to 1"
        raise UsageError(message)
    return share


def parse_count(value: object) -> int:
    """A whole number below 10^9."""
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit() and len(text) < 10):
        message = f"{text[:32]!r} is not a number"
        raise UsageError(message)
    return int(text)


def parse_some(value: object) -> int:
    """The same, above zero."""
    count = parse_count(value)
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


def parse_network(value: object) -> Path | bytes:
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


def parse_log_level(value: object) -> str:
    """One of `LOG_LEVELS`."""
    if str(value).lower() not in LOG_LEVELS:
        message = f"{value!r} is none of {', '.join(LOG_LEVELS)}"
        raise UsageError(message)
    return str(value).lower()
