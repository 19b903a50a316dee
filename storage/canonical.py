"""The one encoding of values that peers agree on: restricted, canonical CBOR (RFC 8949).

Values are int, bytes, str, bool, None, and lists of these.
There are no maps, floats or tags, so a value has one order and one spelling.
`decode` accepts only bytes that encode back to themselves: cbor2 alone also takes non-minimal
integers, indefinite lengths and trailing bytes.
"""

from __future__ import annotations

import io
from typing import Any, TypeAlias

import cbor2

from storage.errors import CanonicalError

Value: TypeAlias = Any

MAX_DEPTH = 16
MAX_INT = 2**128 - 1
"""Integers stand between `-MAX_INT` and `MAX_INT`."""


def encode(value: Value) -> bytes:
    """Encode a value.

    Args:
        value: int, bytes, str, bool, None, or a list or tuple of these.

    Returns:
        Its canonical bytes.

    Raises:
        CanonicalError: The value is of another type, too deep, or an integer out of bounds.
    """
    _check(value, MAX_DEPTH)
    return cbor2.dumps(value)


def decode(data: bytes, *, max_bytes: int) -> Value:
    """Decode canonical bytes; arrays come back as lists.

    Args:
        data: The bytes, nothing before or after.
        max_bytes: Longer input is refused before it is looked at.

    Returns:
        The value.

    Raises:
        CanonicalError: Too long, malformed, not canonical, or of a type that is not allowed.
    """
    if len(data) > max_bytes:
        message = f"{len(data):,} bytes where at most {max_bytes:,} are allowed"
        raise CanonicalError(message)
    try:
        value = cbor2.CBORDecoder(io.BytesIO(data)).decode()
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        message = f"not CBOR: {error}"
        raise CanonicalError(message) from error
    if encode(value) != data:
        message = "not the canonical encoding of its value"
        raise CanonicalError(message)
    return value


def _check(value: Value, depth: int) -> None:
    kind = type(value)
    if kind is int:
        if not -MAX_INT <= value <= MAX_INT:
            message = "an integer is out of bounds"
            raise CanonicalError(message)
    elif kind is list or kind is tuple:
        if depth == 0:
            message = f"nested deeper than {MAX_DEPTH}"
            raise CanonicalError(message)
        for item in value:
            _check(item, depth - 1)
    elif kind is not bytes and kind is not str and kind is not bool and value is not None:
        message = f"a value of type {kind.__name__} has no canonical encoding"
        raise CanonicalError(message)
