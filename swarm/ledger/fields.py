"""Checks of single fields: what a stranger sent has the right type and stands in its bounds.

Each raises `TransactionError`.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from storage import cid
from storage.errors import CidError
from swarm.ledger.errors import TransactionError

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")


def tuples(value: object) -> object:
    """Lists as tuples, at every depth."""
    return tuple(map(tuples, value)) if type(value) is list else value


def rows(value: object, width: int, most: int) -> tuple[tuple[Any, ...], ...]:
    """A tuple of at most `most` tuples of `width` fields each."""
    if type(value) is not tuple or len(value) > most:
        message = f"a list of at most {most} entries"
        raise TransactionError(message)
    if any(type(row) is not tuple or len(row) != width for row in value):
        message = f"an entry has {width} fields"
        raise TransactionError(message)
    return value


def check_rising(rows: Sequence[tuple[Any, ...]]) -> None:
    """Sorted, and each once."""
    if any(left >= right for left, right in pairwise(rows)):
        message = "entries are sorted and each stands once"
        raise TransactionError(message)


def check_int(value: object, low: int, high: int) -> None:
    """An integer, bounds included."""
    if type(value) is not int or not low <= value <= high:
        message = f"{value!r:.40} is not an integer from {low} to {high}"
        raise TransactionError(message)


def check_bytes(value: object, low: int, high: int) -> None:
    """So many bytes."""
    if type(value) is not bytes or not low <= len(value) <= high:
        message = f"a field is not {low} to {high} bytes"
        raise TransactionError(message)


def check_key(value: object) -> None:
    """32 bytes."""
    if type(value) is not bytes or len(value) != 32:
        message = "a key, hash, salt or id is not 32 bytes"
        raise TransactionError(message)


def check_text(value: object, low: int, high: int) -> None:
    """So many printable ASCII characters."""
    if type(value) is not str or not low <= len(value) <= high or not _plain(value):
        message = f"a text is not {low} to {high} printable ASCII characters"
        raise TransactionError(message)


def _plain(value: str) -> bool:
    # ASCII only: what else is printable depends on the Unicode tables of a Python version.
    return value.isascii() and value.isprintable()


def check_cid(value: object) -> None:
    """A CID as `storage.cid` reads it."""
    if type(value) is not bytes:
        message = "a CID is bytes"
        raise TransactionError(message)
    try:
        cid.from_bytes(value)
    except CidError as error:
        raise TransactionError(str(error)) from error


def check_name(value: object) -> None:
    """The name of a model or dataset."""
    if type(value) is not str or NAME.fullmatch(value) is None:
        message = "a name is 1 to 63 of a-z, 0-9 and -, and does not begin with -"
        raise TransactionError(message)
