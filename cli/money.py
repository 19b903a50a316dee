"""Tokens as people write them; everywhere else money is an int in units of 10^-9 token."""

from __future__ import annotations

import re

from swarm.errors import UsageError

DECIMALS = 9
UNIT = 10**DECIMALS
MAX_UNITS = 2**63 - 1
_AMOUNT = re.compile(r"([0-9]{1,19}|[1-9][0-9]{0,2}(?:,[0-9]{3}){1,6})(?:\.([0-9]{1,9}))?")
HINT = "write it like 1.5, with at most nine decimals; a comma only parts thousands: 1,500 is fifteen hundred"


def format_tokens(units: int) -> str:
    """`12.5` for 12,500,000,000 units: every digit that counts, and no more."""
    sign = "-" if units < 0 else ""
    whole, part = divmod(abs(units), UNIT)
    digits = f"{part:0{DECIMALS}d}".rstrip("0")
    return f"{sign}{whole:,}{'.' if digits else ''}{digits}"


def short_tokens(units: int) -> str:
    """`12.346` for 12,345,678,900 units: what a person reads at a glance; less than a thousandth has every digit."""
    thousandth = UNIT // 1000
    if abs(units) < thousandth:
        return format_tokens(units)
    return format_tokens(round(units / thousandth) * thousandth)


def parse_tokens(text: str) -> int:
    """Read an amount in tokens, exactly: `12`, `0.5`, and `1,000.5` as it is shown.

    Raises:
        UsageError: Not a number above zero with at most nine decimals, or its comma does not part thousands.
    """
    match = _AMOUNT.fullmatch(text.strip())
    units = 0
    if match is not None:
        units = int(match[1].replace(",", "")) * UNIT + int((match[2] or "").ljust(DECIMALS, "0"))
    if not 0 < units <= MAX_UNITS:
        message = f"AMOUNT: {text[:64]!r} is not an amount of tokens"
        raise UsageError(message, HINT)
    return units


def may_be_decimal(text: str) -> bool:
    """Whether the comma of an amount that was read might be meant as a decimal point: `1,500`."""
    return text.count(",") == 1 and "." not in text
