"""The one encoding of values that peers agree on: restricted, canonical CBOR (RFC 8949).

Values are int, bytes, str, bool, None, and lists of these.
There are no maps, floats or tags, so a value has one order and one spelling.
`decode` accepts only bytes that encode back to themselves: cbor2 alone also takes non-minimal
integers, indefinite lengths and trailing bytes.
Before that it makes sure that the value is no larger than its bytes: tags of CBOR let a few bytes name the same text
or list again and again, so that a kilobyte would unfold to gigabytes.
"""

from __future__ import annotations

import io
from typing import Any, NoReturn, TypeAlias

import cbor2

from storage.errors import CanonicalError

Value: TypeAlias = Any

MAX_DEPTH = 16
MAX_INT = 2**128 - 1
"""Integers stand between `-MAX_INT` and `MAX_INT`."""
_BUILT_IN_TAGS = (
    0,
    1,
    4,
    5,
    25,
    28,
    29,
    30,
    35,
    36,
    37,
    52,
    54,
    100,
    256,
    258,
    260,
    261,
    1004,
    43000,
    55799,
)
"""What cbor2 reads dates, patterns, mails and shared values by; only large integers (2 and 3) are ours."""
_NO_LIMIT = 2**63


def encode(value: Value) -> bytes:
    """Encode a value.

    Args:
        value: int, bytes, str, bool, None, or a list or tuple of these.

    Returns:
        Its canonical bytes.

    Raises:
        CanonicalError: The value is of another type, too deep, or an integer out of bounds.
    """
    _check(value, MAX_DEPTH, _NO_LIMIT)
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
        value = cbor2.CBORDecoder(
            io.BytesIO(data),
            semantic_decoders=_NO_TAGS,
            max_depth=MAX_DEPTH + 1,
            allow_indefinite=False,
            strict_hashable_types=True,
        ).decode()
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        message = f"not CBOR: {error}"
        raise CanonicalError(message) from error
    _check(value, MAX_DEPTH, len(data))
    if cbor2.dumps(value) != data:
        message = "not the canonical encoding of its value"
        raise CanonicalError(message)
    return value


def _check(value: Value, depth: int, room: int) -> int:
    """Whether a value has an encoding, and what is left of `room` bytes at most after it."""
    kind = type(value)
    room -= 1
    if kind is int:
        if not -MAX_INT <= value <= MAX_INT:
            message = "an integer is out of bounds"
            raise CanonicalError(message)
    elif kind is list or kind is tuple:
        if depth == 0:
            message = f"nested deeper than {MAX_DEPTH}"
            raise CanonicalError(message)
        for item in value:
            room = _check(item, depth - 1, room)
    elif kind is bytes or kind is str:
        room -= len(value)
    elif kind is not bool and value is not None:
        message = f"a value of type {kind.__name__} has no canonical encoding"
        raise CanonicalError(message)
    if room < 0:
        message = "a value that is larger than its bytes"
        raise CanonicalError(message)
    return room


def _refuse_tag(_decoder: cbor2.CBORDecoder) -> NoReturn:
    message = "a tag"
    raise ValueError(message)


_NO_TAGS: dict[int, Any] = dict.fromkeys(_BUILT_IN_TAGS, _refuse_tag)
