"""A network as a person writes it down: TOML to genesis, and an example that explains every setting.

Amounts are in tokens, as whole numbers, decimals or texts; every parameter left out has its default.
The example is generated from the tables of `swarm.ledger.genesis`, so it says what the program does.
"""

from __future__ import annotations

import tomllib
from dataclasses import asdict
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from protocols import signing
from storage import cid
from swarm.errors import UsageError
from swarm.ledger import vrf
from swarm.ledger.errors import GenesisError
from swarm.ledger.genesis import (
    CAP,
    EMISSION_POOL,
    MAX_ALLOCATIONS,
    MEANINGS,
    RANGES,
    UNIT,
    Genesis,
    GenesisValidator,
    Params,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_FILE_BYTES = 4 * 2**20
TOKENS = "tokens"
_TABLES = ("network", "validators", "allocations", "parameters")
_MAX_DIGITS = 32
_DIGEST_BYTES = 32


def read(data: bytes, now_ms: int) -> Genesis:
    """Read a network file.

    Args:
        data: The TOML.
        now_ms: UTC milliseconds; the time of a network that names none.

    Raises:
        UsageError: Not TOML, or a field is missing, unknown or out of its range; the message names it.
    """
    if len(data) > MAX_FILE_BYTES:
        message = f"a network file of more than {MAX_FILE_BYTES:,} bytes"
        raise UsageError(message)
    try:
        tables = tomllib.loads(data.decode(), parse_float=_decimal)
    except (ValueError, RecursionError) as error:
        message = f"not TOML: {error}"
        raise UsageError(message, "`swarm new --example` prints one that is") from error
    _check_known("", tables, _TABLES)
    network = _table(tables, "network")
    _check_known("network", network, ("name", "time", "emission_pool"))
    if not isinstance(name := network.get("name"), str):
        message = "network.name: missing, or no text"
        raise UsageError(message)
    params = _params(_table(tables, "parameters"))
    try:
        return Genesis.create(
            name,
            _time(network["time"]) if "time" in network else now_ms,
            _validators(tables.get("validators"), params),
            allocations=_allocations(_table(tables, "allocations")),
            params=params,
            emission_pool=_tokens(
                "network.emission_pool", network.get("emission_pool", EMISSION_POOL // UNIT), 0, CAP
            ),
        )
    except GenesisError as error:
        raise UsageError(str(error)) from error


def example() -> str:
    """A network file in which every setting is explained, with its default and its range."""
    lines = [
        "# A network of your own: `swarm new FILE` makes a genesis of it.",
        '# Amounts are in tokens: 12, 0.5 or "0.000000001". What has a # before it shows the default.',
        "",
        "[network]",
        'name = "my-network"  # for people; 1 to 64 characters',
        "# time = 2026-01-01T00:00:00Z  # when it begins; now, if left out",
        f"# emission_pool = {EMISSION_POOL // UNIT:_}  # tokens that training and keeping are paid from over the years",
        "",
        "# One for each validator of the first two epochs; `swarm key --toml` on its machine prints it.",
        "[[validators]]",
        'account = "12D3KooW…"  # its peer id, or its public key in hex',
        'vrf_key = "…"  # 64 hex digits',
        "stake = 1_000  # tokens; at least min_bond",
        "",
        "# Tokens that accounts have from the start.",
        "[allocations]",
        '# "12D3KooW…" = 10_000',
        "",
        "[parameters]",
    ]
    defaults = asdict(Params())
    for name, (unit, meaning) in MEANINGS.items():
        low, high = RANGES[name]
        lines += [
            f"# {unit} {meaning}; {_shown(unit, low)} to {_shown(unit, high)}",
            f"# {name} = {_literal(unit, defaults[name])}",
        ]
    return "\n".join(lines) + "\n"


def validator_lines(account: str, vrf_key: bytes, stake: int) -> str:
    """A validator's part of a network file; the stake in units."""
    return (
        f'[[validators]]\naccount = "{account}"\nvrf_key = "{vrf_key.hex()}"\n'
        f"stake = {_literal(TOKENS, stake)}\n"
    )


def summary(genesis: Genesis) -> dict[str, object]:
    """What `swarm new` tells of the network that it made; the CID holds the chain id, and names the genesis too."""
    return {
        "network": genesis.network,
        "chain_id": genesis.chain_id.hex(),
        "cid": cid.text(cid.of_raw(genesis.encode())),
        "validators": len(genesis.validators),
        "allocations": len(genesis.allocations),
        "staked": sum(one.stake for one in genesis.validators),
        "allocated": sum(amount for _, amount in genesis.allocations),
        "emission_pool": genesis.emission_pool,
    }


def _params(table: Mapping[str, Any]) -> Params:
    _check_known("parameters", table, tuple(RANGES))
    values = {}
    for name, value in table.items():
        field, (low, high) = f"parameters.{name}", RANGES[name]
        is_money = MEANINGS[name][0] == TOKENS
        values[name] = (_tokens if is_money else _whole)(field, value, low, high)
    return Params(**values)


def _validators(listed: Any, params: Params) -> list[GenesisValidator]:  # noqa: ANN401 - TOML
    if not isinstance(listed, list) or not listed:
        message = "validators: none; at least one [[validators]] is needed"
        raise UsageError(message, "`swarm key --toml` prints this machine's")
    if len(listed) > params.max_validators:
        message = f"validators: {len(listed)} where max_validators allows {params.max_validators}"
        raise UsageError(message)
    found: dict[bytes, GenesisValidator] = {}
    for at, one in enumerate(listed, start=1):
        field = f"validators[{at}]"
        if not isinstance(one, dict):
            message = f"{field}: not a table"
            raise UsageError(message)
        _check_known(field, one, ("account", "vrf_key", "stake"))
        key = _account(f"{field}.account", one.get("account"))
        if key in found:
            message = f"{field}.account: {one['account']!r} stands twice"
            raise UsageError(message)
        stake = _tokens(f"{field}.stake", one.get("stake"), max(1, params.min_bond), CAP)
        found[key] = GenesisValidator(key, _vrf_key(f"{field}.vrf_key", one.get("vrf_key")), stake)
    return list(found.values())


def _allocations(table: Mapping[str, Any]) -> list[tuple[bytes, int]]:
    if len(table) > MAX_ALLOCATIONS:
        message = f"allocations: {len(table):,} where {MAX_ALLOCATIONS:,} are allowed"
        raise UsageError(message)
    found: dict[bytes, int] = {}
    for account, amount in table.items():
        key = _account("allocations", account)
        if key in found:
            message = f"allocations: {account!r} stands twice"
            raise UsageError(message)
        found[key] = _tokens(f"allocations.{account}", amount, 0, CAP)
    return list(found.items())


def _table(tables: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    table = tables.get(name, {})
    if not isinstance(table, dict):
        message = f"{name}: not a table"
        raise UsageError(message, f"write it as [{name}]")
    return table


def _check_known(where: str, table: Mapping[str, Any], names: tuple[str, ...]) -> None:
    for name in table:
        if name not in names:
            field = f"{where}.{name}" if where else name
            message = f"{field[:120]}: there is no such setting"
            raise UsageError(message, f"there are {', '.join(names)}")


def _whole(field: str, value: object, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        message = f"{field}: {_told(value)} is not a whole number from {low:,} to {high:,}"
        raise UsageError(message)
    return value


def _tokens(field: str, value: object, low: int, high: int) -> int:
    units = _units(value)
    if units is None or not low <= units <= high:
        bounds = f"{tokens(low)} to {tokens(high)}"
        message = f"{field}: {_told(value)} is not an amount of tokens from {bounds}"
        raise UsageError(message, 'with at most nine decimals, like 12, 0.5 or "0.000000001"')
    return units


def _units(value: object) -> int | None:
    """An amount of tokens in units; None for what is none, or has more than nine decimals."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    if isinstance(value, int) and value > CAP:
        return None  # and perhaps more digits than are ever written out
    text = (_plain(value) if isinstance(value, Decimal) else str(value)).replace("_", "")
    whole, _, part = text.partition(".")
    digits = whole + part.ljust(9, "0")
    if not whole or len(part) > 9 or len(digits) > _MAX_DIGITS:
        return None
    return int(digits) if digits.isascii() and digits.isdigit() else None


def _decimal(text: str) -> Decimal:
    """A number with a point or an exponent, as it is written.

    Raises:
        ValueError: Its exponent is beyond what can be told apart.
    """
    try:
        return Decimal(text)
    except InvalidOperation as error:
        message = f"{text[:80]} is not a number that can be read"
        raise ValueError(message) from error


def _plain(value: Decimal) -> str:
    """A number without its exponent, where it may be an amount; `str` writes 0.0000001 as 1E-7."""
    is_small = value.is_finite() and abs(value.adjusted()) < _MAX_DIGITS
    return f"{value:f}" if is_small else str(value)


def _account(field: str, value: object) -> bytes:
    if isinstance(value, str):
        if (key := _hex(value)) is not None:
            return key
        try:
            return signing.public_key(value)
        except ValueError:
            pass
    message = f"{field}: {_told(value)} is neither a peer id nor a public key of 64 hex digits"
    raise UsageError(message, "`swarm key` on its machine prints both")


def _vrf_key(field: str, value: object) -> bytes:
    key = _hex(value) if isinstance(value, str) else None
    if key is None or not vrf.is_key(key):
        message = f"{field}: {_told(value)} is not a VRF key of 64 hex digits"
        raise UsageError(message, "`swarm key` on the validator's machine prints it")
    return key


def _hex(text: str) -> bytes | None:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        return None
    return key if len(key) == _DIGEST_BYTES else None


def _time(value: object) -> int:
    if not isinstance(value, datetime) or value.tzinfo is None or value.year < 1970:
        message = f"network.time: {_told(value)} is not a time with its zone"
        raise UsageError(message, "write it like 2026-01-01T00:00:00Z")
    since = value - datetime(1970, 1, 1, tzinfo=UTC)
    return since.days * 86_400_000 + since.seconds * 1_000 + since.microseconds // 1_000


def tokens(units: int) -> str:
    """An amount for people, in tokens."""
    whole, part = divmod(units, UNIT)
    return f"{whole:,}" + (f".{part:09d}".rstrip("0") if part else "")


def _shown(unit: str, value: int) -> str:
    """A bound for people."""
    return tokens(value) if unit == TOKENS else f"{value:,}"


def _literal(unit: str, value: int) -> str:
    """A value as TOML."""
    return _shown(unit, value).replace(",", "_")


def _told(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)[:80] if abs(value) >> 128 else str(value)
    if isinstance(value, Decimal):
        return _plain(value)[:80]
    text = str(value) if isinstance(value, datetime) else repr(value)
    return "nothing" if value is None else text[:80]
