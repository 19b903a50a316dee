"""Bytes of a stranger, and the one property of every decoder: it accepts them, or raises its own error, and nothing else.

`make fuzz` looks longer: it sets `FUZZ_EXAMPLES`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import canonical
from storage.errors import CanonicalError

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
SPLICE = 24

scalars = (
    st.integers(-3, 30)
    | st.sampled_from([2**31, 2**32 - 1, 2**53, 2**63 - 1, 2**63, 2**64, 2**128 - 1, -(2**64)])
    | st.sampled_from([b"", b"\x00" * 32, b"\x01\x55\x12\x20" + b"\x07" * 32, b"\xff" * 64])
    | st.binary(max_size=70)
    | st.text(max_size=6)
    | st.booleans()
    | st.none()
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=6), max_leaves=8)

TAGGED = tuple(
    bytes.fromhex(text)
    for text in (
        "d81c81d81d00",  # a list that holds itself
        "d90100824161d81900",  # a text by its number
        "d81c82d81c8100d81d01",  # a list that is named twice
        "c249000000000000000001",  # an integer with zeros before it
        "c482201903e8",  # a decimal
        "d823617b",  # a pattern
        "a1800000",
        "9f00ff",  # without a length
        "5f4100ff",
        "1800",  # not the shortest
        "f97e00",
    )
)


@dataclass(frozen=True)
class Target:
    """A decoder with what it may raise, and messages that it accepts.

    `encode`, where it is given, has to make the bytes again: there is one spelling of each message.
    """

    name: str
    decode: Callable[[bytes], Any]
    errors: type[Exception] | tuple[type[Exception], ...]
    valid: tuple[bytes, ...]
    encode: Callable[[Any], bytes] | None = field(default=None)

    def __str__(self) -> str:
        return self.name


@st.composite
def changed(draw, valid: tuple[bytes, ...]) -> bytes:
    """A valid message with a few changes of its bytes."""
    data = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        match draw(st.integers(0, 5)):
            case 0 if data:
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at:]
            case 2:
                data[at:at] = draw(st.binary(min_size=1, max_size=SPLICE))
            case 3:
                del data[at : at + draw(st.integers(1, SPLICE))]
            case 4:
                other = draw(st.sampled_from(valid))
                data[at:] = other[draw(st.integers(0, len(other))) :]
            case _:
                data[at : at + 1] = draw(st.sampled_from(TAGGED))
    return bytes(data)


@st.composite
def regrown(draw, valid: tuple[bytes, ...]) -> bytes:
    """A canonical message with one of its values put in the place of another."""
    try:
        value = canonical.decode(draw(st.sampled_from(valid)), max_bytes=2**23)
    except CanonicalError:
        value = draw(values)
    place = value
    while isinstance(place, list) and place:
        at = draw(st.integers(0, len(place) - 1))
        if isinstance(place[at], list) and place[at] and draw(st.booleans()):
            place = place[at]
            continue
        match draw(st.integers(0, 3)):
            case 0:
                del place[at]
            case 1:
                place.insert(at, draw(values))
            case _:
                place[at] = draw(values)
        break
    return canonical.encode(value)


def strange(valid: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Bytes of every kind: random, canonical, and nearly right."""
    return st.one_of(
        st.binary(max_size=80),
        values.map(canonical.encode),
        st.sampled_from(TAGGED),
        changed(valid),
        changed(valid),
        regrown(valid),
    )


def check(target: Target) -> None:
    """Look for bytes that make a decoder do anything else; raises what it finds."""
    for data in target.valid:
        found = target.decode(data)
        if target.encode is not None:
            assert target.encode(found) == data

    @FUZZ
    @given(strange(target.valid))
    def look(data: bytes) -> None:
        try:
            found = target.decode(data)
        except target.errors:
            return
        if target.encode is not None:
            assert target.encode(found) == data, "two spellings of one message"

    look()
