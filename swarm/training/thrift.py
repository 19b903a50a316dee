"""Thrift's compact protocol, as far as a footer of Parquet needs it: wanted fields of structs, the rest passed over.

Nothing is allocated for what is passed over, and a list or text is never longer than the bytes that are left.
What two readers might take for different things, a wanted field twice or of another type, is refused.

Source: Apache Thrift, "Thrift Compact protocol encoding".
"""

from __future__ import annotations

from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ENTRIES: Final = 2**16
"""Of any list."""
MAX_DEPTH: Final = 32
"""Of structs and lists in each other."""

TRUE, FALSE, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
"""Types of the protocol."""
LONG_LIST: Final = 15
"""In place of a list's length: it follows."""

Fields: TypeAlias = dict[int, tuple[str, int, Any]]
"""The wanted fields of a struct, by number: name, type (I32, I64, BINARY, LIST, STRUCT), and of what: the fields of a
struct, or of those in a list; BINARY for a list of texts."""


class MalformedError(Exception):
    """Bytes are not of the protocol, or hold another type than is wanted; `field` names the place, as far as it is known."""

    def __init__(self, why: str, field: str = "") -> None:
        super().__init__(why)
        self.field = field
        self.why = why


class Reader:
    """Reads bytes once, from the front."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, wanted: Fields, where: str = "", depth: int = 0) -> dict[str, Any]:
        """The wanted fields of a struct that are there, by name.

        Args:
            wanted: By number.
            where: What errors call the struct.
            depth: Of structs and lists that it stands in.

        Raises:
            MalformedError: The bytes are no such struct.
        """
        found: dict[str, Any] = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._signed()
            kind = head & 15
            if number not in wanted:
                self._skip(kind, depth)
                continue
            name, due, inner = wanted[number]
            field = f"{where}.{name}" if where else name
            if kind != due or name in found:
                message = "is of another type, or stands there twice"
                raise MalformedError(message, field)
            found[name] = self._value(due, inner, field, depth)
        return found

    def _value(self, kind: int, inner: Any, field: str, depth: int) -> Any:  # noqa: ANN401 - of the type that `kind` says
        if kind == STRUCT:
            return self.struct(inner, field, depth + 1)
        if kind == BINARY:
            return self._take(self._count(field))
        if kind == LIST:
            due = BINARY if inner == BINARY else STRUCT
            of, count = self._list(field)
            if count and of != due:
                message = "are of another type"
                raise MalformedError(message, field)
            return [self._value(due, inner, f"{field}[{at}]", depth + 1) for at in range(count)]
        number = self._signed()
        if kind == I32 and not -(2**31) <= number < 2**31:
            message = f"is {number:,}"
            raise MalformedError(message, field)
        return number

    def _skip(self, kind: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            message = f"is deeper than {MAX_DEPTH}"
            raise MalformedError(message)
        if kind in {I16, I32, I64}:
            self._varint()
        elif kind in {BYTE, DOUBLE, BINARY}:
            size = self._count("") if kind == BINARY else 1 if kind == BYTE else 8
            self._at += size
        elif kind == STRUCT:
            while head := self._byte():
                if not head >> 4:
                    self._signed()
                self._skip(head & 15, depth + 1)
        elif kind in {LIST, SET, MAP}:
            for one in self._map() if kind == MAP else self._list_of():
                # In a list a truth has a byte, in a struct none.
                self._skip(BYTE if one in {TRUE, FALSE} else one, depth + 1)
        elif kind not in {TRUE, FALSE}:
            message = f"holds a value of type {kind}"
            raise MalformedError(message)

    def _list_of(self) -> Iterator[int]:
        """The type of each element."""
        return repeat(*self._list(""))

    def _map(self) -> Iterator[int]:
        """The type of each key and value in turn."""
        count = self._count("")
        of = self._byte() if count else 0
        return chain.from_iterable(repeat((of >> 4, of & 15), count))

    def _list(self, field: str) -> tuple[int, int]:
        """The type of a list's elements, and how many."""
        head = self._byte()
        count = head >> 4
        if count == LONG_LIST:
            count = self._count(field)
        if count > MAX_ENTRIES:
            message = f"are {count:,}, and at most {MAX_ENTRIES:,} are read"
            raise MalformedError(message, field)
        return head & 15, count

    def _count(self, field: str) -> int:
        """A length, of at most as many bytes as are left: each element takes one or more."""
        count = self._varint()
        if count > len(self._data) - self._at:
            message = f"says {count:,} where {len(self._data) - self._at:,} bytes are left"
            raise MalformedError(message, field)
        return count

    def _signed(self) -> int:
        number = self._varint()
        return (number >> 1) ^ -(number & 1)

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            one = self._byte()
            value |= (one & 127) << shift
            if one < 128:
                if value < 2**64:
                    return value
                break
        message = "holds a number of more than 64 bits"
        raise MalformedError(message)

    def _byte(self) -> int:
        if self._at >= len(self._data):
            message = "ends too early"
            raise MalformedError(message)
        self._at += 1
        return self._data[self._at - 1]

    def _take(self, count: int) -> bytes:
        self._at += count
        return self._data[self._at - count : self._at]
