"""What the end of a Parquet file says of it: row groups, and where in the file each column of each of them stands.

So that row groups can be fetched alone. Pure, and without a library, since a node reads here what strangers wrote
before it gives it to a worker. Of the footer what `WANTED` names is read, and the rest passed over; what says more than
the file holds is refused.

What a footer claims of samples, how many rows have values and how many bytes of text they are, counts only if whoever
reads the row group finds the same: `swarm.training.rowgroups` holds it against what is read, of a whole file too.

Source: apache/parquet-format, `parquet.thrift` 2.11.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NoReturn

from swarm.training.errors import DataError
from swarm.training.thrift import BINARY, I32, I64, LIST, STRUCT, Fields, MalformedError, Reader

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

TAIL_BYTES: Final = 2**16
"""Of a file's end, in which most footers fit."""
MAX_FOOTER_BYTES: Final = 2**24
MAX_LEAVES: Final = 8
"""Columns of the file that one column of the table is made of."""
MAX_DEPTH: Final = 32
"""Of columns in columns."""
END_BYTES: Final = 8
"""The footer's length and the mark."""
MARK: Final = b"PAR1"
MOST: Final = 2**40
"""Rows and bytes beyond this are no counts."""

_REQUIRED, _REPEATED = 0, 2
"""Repetition of a column's values."""

_STATISTICS: Final[Fields] = {3: ("null_count", I64, None)}
_SIZES: Final[Fields] = {1: ("unencoded_byte_array_data_bytes", I64, None)}
_META: Final[Fields] = {
    3: ("path_in_schema", LIST, BINARY),
    5: ("num_values", I64, None),
    7: ("total_compressed_size", I64, None),
    9: ("data_page_offset", I64, None),
    11: ("dictionary_page_offset", I64, None),
    12: ("statistics", STRUCT, _STATISTICS),
    16: ("size_statistics", STRUCT, _SIZES),
}
_COLUMN: Final[Fields] = {1: ("file_path", BINARY, None), 3: ("meta_data", STRUCT, _META)}
_GROUP: Final[Fields] = {1: ("columns", LIST, _COLUMN), 3: ("num_rows", I64, None)}
_ELEMENT: Final[Fields] = {
    3: ("repetition_type", I32, None),
    4: ("name", BINARY, None),
    5: ("num_children", I32, None),
}
WANTED: Final[Fields] = {
    2: ("schema", LIST, _ELEMENT),
    3: ("num_rows", I64, None),
    4: ("row_groups", LIST, _GROUP),
    6: ("created_by", BINARY, None),
}
"""By number, the fields of a footer that are read: name, type, and of what."""


@dataclass(frozen=True, slots=True)
class Part:
    """One column of a row group.

    Attributes:
        root: The column of the table that it belongs to.
        start: Its first byte in the file.
        end: The byte after its last.
        nulls: Values that are missing; None where the footer does not say.
        text_bytes: Of its values, as text; None where the footer does not say.
        is_flat: Whether it is a column of the table itself, of one value a row.
    """

    root: str
    start: int
    end: int
    nulls: int | None
    text_bytes: int | None
    is_flat: bool


@dataclass(frozen=True, slots=True)
class Group:
    """One row group, and those of its columns that were asked for."""

    rows: int
    parts: tuple[Part, ...]

    @property
    def samples(self) -> int | None:
        """Rows, where each has a value in every column; None where the footer does not say so.

        A part without a missing value is enough of a column: what holds it is not missing either.
        """
        full = {one.root for one in self.parts if one.nulls == 0}
        return self.rows if all(one.root in full for one in self.parts) else None

    @property
    def text_bytes(self) -> int | None:
        """Of one column of text with a line end after each value; None where the footer does not say."""
        (one,) = self.parts if len(self.parts) == 1 else (None,)
        if one is None or not one.is_flat or one.nulls is None or one.text_bytes is None:
            return None
        return one.text_bytes + self.rows - one.nulls


@dataclass(frozen=True, slots=True)
class _Leaf:
    path: tuple[str, ...]
    is_required: bool
    is_repeated: bool


def length(tail: bytes, size: int, name: str) -> int:
    """How many bytes of a file's end are its footer and what follows it.

    Args:
        tail: The end of the file, of `END_BYTES` or more if it has so many.
        size: Of the file.
        name: What errors call the file.

    Raises:
        DataError: It is no Parquet file, or its footer is longer than is read.
    """
    if size < len(MARK) + END_BYTES or tail[-len(MARK) :] != MARK:
        _refuse(name, "footer", f"does not end with {MARK.decode()}")
    told = int.from_bytes(tail[-END_BYTES : -len(MARK)], "little")
    if told > MAX_FOOTER_BYTES:
        _refuse(name, "footer", f"has {told:,} bytes, and at most {MAX_FOOTER_BYTES:,} are read")
    if told + END_BYTES + len(MARK) > size:
        _refuse(name, "footer", f"has {told:,} bytes, and the file {size:,}")
    return told + END_BYTES


def groups(tail: bytes, size: int, name: str, columns: Sequence[tuple[str, str]]) -> list[Group]:
    """The row groups of a file, in order.

    Args:
        tail: As many bytes of the file's end as `length` says.
        size: Of the file.
        name: What errors call the file.
        columns: The columns that are asked for, each with what errors call its choice.

    Raises:
        DataError: The footer is malformed, has no such column, or does not fit the file; its field is named.
    """
    try:
        found = Reader(tail[:-END_BYTES]).struct(WANTED)
    except MalformedError as error:
        _refuse(name, error.field or "footer", error.why)
    data_end = size - len(tail)
    leaves = list(_leaves(found.get("schema", []), name))
    wanted = [at for column in columns for at in _chosen(leaves, column, name)]
    is_exact = _is_exact(found.get("created_by", b""))
    made = [
        _group(one, leaves, wanted, data_end, is_exact, f"row_groups[{at}]", name)
        for at, one in enumerate(found.get("row_groups", []))
    ]
    if sum(one.rows for one in made) != found.get("num_rows"):
        _refuse(name, "num_rows", "is not what the row groups have")
    before = 0
    for part in sorted((one for group in made for one in group.parts), key=lambda one: one.start):
        if part.start < before:
            _refuse(name, "row_groups", f"have two columns at byte {part.start:,}")
        before = part.end
    return made


def _is_exact(writer: bytes) -> bool:
    """Whether a writer counts all bytes of a column: parquet-mr left a header out until 1.2.9 (PARQUET-816)."""
    if not writer.startswith(b"parquet-mr"):
        return True
    found = re.match(rb"parquet-mr version (\d{1,9})\.(\d{1,9})\.(\d{1,9})", writer)
    return found is not None and tuple(int(one) for one in found.groups()) >= (1, 2, 9)


def _chosen(leaves: Sequence[_Leaf], column: tuple[str, str], name: str) -> list[int]:
    root, field = column
    found = [at for at, leaf in enumerate(leaves) if leaf.path[0] == root]
    if not found:
        has = ", ".join(dict.fromkeys(leaf.path[0] for leaf in leaves))[:200]
        message = f"{name} has no column {root!r} ({field}): it has {has}"
        raise DataError(message)
    if len(found) > MAX_LEAVES or found[-1] - found[0] >= len(found):
        _refuse(name, "schema", f"has {len(found):,} columns in {root!r} ({field})")
    return found


def _leaves(schema: Sequence[dict[str, Any]], name: str) -> Iterator[_Leaf]:
    """The columns of values, in the order in which row groups have them."""
    open_: list[
        list[Any]
    ] = []  # folders that are not full: [children left, path, required, repeated]
    for at, one in enumerate(schema):
        if at and not open_:
            _refuse(name, f"schema[{at}]", "belongs to no column")
        path, is_required, is_repeated = ((), True, False) if not at else tuple(open_[-1][1:])
        if at:
            open_[-1][0] -= 1
            path = (*path, one.get("name", b"").decode(errors="replace"))
            kind = one.get("repetition_type", _REQUIRED)
            is_required, is_repeated = (
                is_required and kind == _REQUIRED,
                is_repeated or kind == _REPEATED,
            )
        children = one.get("num_children", 0)
        if not 0 <= children < len(schema) or len(path) > MAX_DEPTH:
            _refuse(name, f"schema[{at}].num_children", f"is {children:,}, or too deep")
        if children:
            open_.append([children, path, is_required, is_repeated])
        elif at:
            yield _Leaf(path, is_required, is_repeated)
        while open_ and not open_[-1][0]:
            open_.pop()
    if open_:
        _refuse(name, "schema", "ends before its columns do")


def _group(
    found: dict[str, Any],
    leaves: Sequence[_Leaf],
    wanted: Sequence[int],
    data_end: int,
    is_exact: bool,
    where: str,
    name: str,
) -> Group:
    rows, columns = found.get("num_rows", -1), found.get("columns", [])
    if not 0 <= rows <= MOST:
        _refuse(name, f"{where}.num_rows", f"is {rows:,}")
    if len(columns) != len(leaves):
        _refuse(
            name, f"{where}.columns", f"are {len(columns):,}, and the schema has {len(leaves):,}"
        )
    parts = [
        _part(columns[at], leaves[at], rows, data_end, f"{where}.columns[{at}]", name)
        for at in wanted
    ]
    if not is_exact:
        parts = [replace(one, nulls=None, text_bytes=None) for one in parts]
    return Group(rows, tuple(parts))


def _part(
    column: dict[str, Any], leaf: _Leaf, rows: int, data_end: int, where: str, name: str
) -> Part:
    found = column.get("meta_data", {})
    if "file_path" in column or not found:
        _refuse(name, f"{where}.meta_data", "is not in this file")
    if tuple(one.decode(errors="replace") for one in found.get("path_in_schema", [])) != leaf.path:
        _refuse(name, f"{where}.path_in_schema", f"is not {'.'.join(leaf.path)[:80]!r}")
    size, start = found.get("total_compressed_size", -1), found.get("data_page_offset", -1)
    if 0 < found.get("dictionary_page_offset", 0) < start:
        start = found["dictionary_page_offset"]
    if start < len(MARK):
        _refuse(name, f"{where}.data_page_offset", f"is {start:,}")
    if not (size > 0 or size == rows == 0) or start + size > data_end:
        why = f"is {size:,} from byte {start:,} on, and the data end at {data_end:,}"
        _refuse(name, f"{where}.total_compressed_size", why)
    values = found.get("num_values", -1)
    if not 0 <= values <= MOST or (not leaf.is_repeated and values != rows):
        _refuse(name, f"{where}.num_values", f"is {values:,} of {rows:,} rows")
    nulls = found.get("statistics", {}).get("null_count", 0 if leaf.is_required else None)
    if nulls is not None and not 0 <= nulls <= values:
        _refuse(name, f"{where}.statistics.null_count", f"is {nulls:,} of {values:,}")
    text_bytes = found.get("size_statistics", {}).get("unencoded_byte_array_data_bytes")
    if text_bytes is not None and not 0 <= text_bytes <= MOST:
        field = f"{where}.size_statistics.unencoded_byte_array_data_bytes"
        _refuse(name, field, f"is {text_bytes:,}")
    is_flat = len(leaf.path) == 1 and not leaf.is_repeated
    return Part(leaf.path[0], start, start + size, nulls, text_bytes, is_flat)


def _refuse(name: str, field: str, why: str) -> NoReturn:
    message = f"{name} cannot be read: {field} {why}"
    raise DataError(message)
