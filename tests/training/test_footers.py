"""A Parquet footer tells where row groups are, and lies are refused with their field before anything is allocated."""

from __future__ import annotations

import io
import tracemalloc
from itertools import product

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from swarm.training import columns, footers, rowgroups, text, thrift
from swarm.training.errors import DataError
from swarm.training.footers import END_BYTES, MARK, MAX_FOOTER_BYTES, TAIL_BYTES

CHOSEN = (("image", "data.column"), ("label", "data.label"))
ROWS = 7


def written(table, **options):
    file = io.BytesIO()
    parquet.write_table(pa.table(table), file, **options)
    return file.getvalue()


def labelled(**options):
    pictures = [{"bytes": b"x" * at, "path": None} for at in range(ROWS)]
    table = {"other": list(range(ROWS)), "image": pictures, "label": list(range(ROWS))}
    return written(table, **{"row_group_size": 3, **options})


def groups(data, chosen=CHOSEN):
    length = footers.length(data[-TAIL_BYTES:], len(data), "a.parquet")
    return footers.groups(data[-length:], len(data), "a.parquet", chosen)


def changed(data, chosen, is_lie):
    """The file with one byte of its footer changed, so that what is read of it is the wanted lie."""
    begin = len(data) - footers.length(data[-TAIL_BYTES:], len(data), "a.parquet")
    for at, change in product(range(begin, len(data) - END_BYTES), (1, 2, 4, 64)):
        other = bytearray(data)
        other[at] ^= change
        try:
            if is_lie(groups(bytes(other), chosen)):
                return bytes(other)
        except DataError:
            continue
    message = "no byte says this"
    raise AssertionError(message)


# A writer of the protocol, for what no library writes.


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def struct(*fields):
    """Fields as (number, type, bytes), in the long form."""
    return b"".join(bytes([kind]) + varint(2 * at) + value for at, kind, value in fields) + b"\0"


def i64(number):
    return varint(2 * number if number >= 0 else -2 * number - 1)


def binary(content):
    return varint(len(content)) + content


def listed(kind, *items, count=None):
    return bytes([0xF0 | kind]) + varint(len(items) if count is None else count) + b"".join(items)


def element(name, *, children=0, repetition=1):
    fields = [
        (3, thrift.I32, i64(repetition)),
        (4, thrift.BINARY, binary(name)),
        (5, thrift.I32, i64(children)),
    ]
    return struct(*fields)


def column(path=(b"text",), **changes):
    values = {5: 4, 7: 100, 9: 4} | changes.get("values", {})
    fields = [(at, thrift.I64, i64(value)) for at, value in values.items()]
    about = listed(thrift.BINARY, *map(binary, path))
    meta = struct((3, thrift.LIST, about), *fields, *changes.get("more", ()))
    return struct((3, thrift.STRUCT, meta), *changes.get("outside", ()))


SCHEMA = (element(b"schema", children=1), element(b"text"))


def group(*found, rows=4):
    return struct((1, thrift.LIST, listed(thrift.STRUCT, *found)), (3, thrift.I64, i64(rows)))


def footer(*row_groups, schema=SCHEMA, rows=4, more=()):
    return struct(
        (2, thrift.LIST, listed(thrift.STRUCT, *schema)),
        (3, thrift.I64, i64(rows)),
        (4, thrift.LIST, listed(thrift.STRUCT, *row_groups)),
        *more,
    )


def file_of(content, body=200):
    return b"x" * body + content + len(content).to_bytes(4, "little") + MARK


def read(content, **about):
    return groups(file_of(content, **about), (("text", "data.column"),))


def statistics(nulls):
    return (12, thrift.STRUCT, struct((3, thrift.I64, i64(nulls))))


def sizes(text_bytes):
    return (16, thrift.STRUCT, struct((1, thrift.I64, i64(text_bytes))))


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"use_dictionary": False}])
def test_what_is_read_of_a_footer_is_what_the_library_reads(options) -> None:
    data = labelled(**options)
    metadata = parquet.ParquetFile(io.BytesIO(data)).metadata
    found = groups(data)
    assert [one.rows for one in found] == [3, 3, 1]
    for at, one in enumerate(found):
        for part, place in zip(one.parts, (1, 2, 3), strict=True):
            chunk = metadata.row_group(at).column(place)
            start = chunk.dictionary_page_offset or chunk.data_page_offset
            assert (part.start, part.end) == (start, start + chunk.total_compressed_size)
            if chunk.statistics is not None:  # of a column without any value the library tells none
                assert part.nulls == chunk.statistics.null_count
        assert one.samples == one.rows


@pytest.mark.parametrize("missing", ["image", "label"])
def test_rows_without_a_value_are_not_counted(missing) -> None:
    table = {"image": [[1.0, 2.0]] * 3, "label": [1, 2, 3]}
    table[missing] = [table[missing][0], None, table[missing][2]]
    assert [one.samples for one in groups(written(table))] == [None]
    assert [one.samples for one in groups(labelled(write_statistics=False))] == [None] * 3


def test_a_column_that_cannot_lack_a_value_needs_no_statistics() -> None:
    kinds = [("image", pa.binary()), ("label", pa.int64())]
    schema = pa.schema([pa.field(*one, nullable=False) for one in kinds])
    table = pa.table({"image": [b"a"] * 3, "label": [1, 2, 3]}, schema=schema)
    assert [one.samples for one in groups(written(table, write_statistics=False))] == [3]


def test_the_text_of_a_row_group_is_counted_with_its_line_ends() -> None:
    rows = ["one", None, "zwei é", "", "x" * 500]
    (found,) = groups(written({"text": rows}), (("text", "data.column"),))
    assert found.text_bytes == sum(len(row.encode()) + 1 for row in rows if row is not None)


@pytest.mark.parametrize(("writer", "samples"), [("1.2.8", None), ("1.2.9", 4), ("1.12.3 (b", 4)])
def test_counts_of_a_writer_that_left_bytes_out_are_not_believed(writer, samples) -> None:
    one = column(more=[statistics(0), sizes(9)])
    made = (6, thrift.BINARY, binary(b"parquet-mr version " + writer.encode()))
    (found,) = read(footer(group(one), more=[made]))
    assert (found.samples, found.text_bytes) == (samples, samples and 13)


LIES = {
    "row_groups says 1,000,000": struct((4, thrift.LIST, listed(thrift.STRUCT, count=10**6))),
    "row_groups says 2,147,483,648": struct((4, thrift.LIST, listed(thrift.STRUCT, count=2**31))),
    "row_groups are 65,537": struct((4, thrift.LIST, listed(thrift.STRUCT, *[b"\0"] * 65_537))),
    r"schema\[0\].name says": struct((2, thrift.LIST, listed(thrift.STRUCT, b"\x48" + varint(2**40)))),
    "footer is deeper": b"\x1c" * 10_000,
    "row_groups is of another type": struct((4, thrift.I64, i64(3))),
    "row_groups are of another type": struct((4, thrift.LIST, listed(thrift.I64, i64(3)))),
    "num_rows is of another type, or stands there twice": struct(
        (3, thrift.I64, i64(3)), (3, thrift.I64, i64(4))
    ),
    "footer holds a number of more than 64 bits": b"\x36" + b"\xff" * 12,
    "footer holds a value of type 13": b"\x9d\0",
    "footer ends too early": struct((3, thrift.I64, i64(3)))[:-1],
    "num_rows is not what": footer(group(column()), rows=5),
    r"row_groups\[0\].num_rows is -1": footer(group(column(), rows=-1)),
    r"row_groups\[0\].num_rows is 1,099,511,627,777": footer(group(column(), rows=2**40 + 1)),
    r"row_groups\[0\].columns are 2": footer(group(column(), column())),
    r"columns\[0\].num_values is 5 of 4": footer(group(column(values={5: 5}))),
    r"columns\[0\].data_page_offset is -9": footer(group(column(values={9: -9}))),
    r"columns\[0\].data_page_offset is 3": footer(group(column(values={11: 3, 9: 50}))),
    r"total_compressed_size is 197 from byte 4": footer(group(column(values={7: 197}))),
    r"total_compressed_size is -1 from byte 4": footer(group(column(values={7: -1}))),
    r"total_compressed_size is 0 from byte 4": footer(group(column(values={7: 0}))),
    r"total_compressed_size is 1 from byte 9,223,": footer(group(column(values={7: 1, 9: 2**63 - 1}))),
    r"path_in_schema is not 'text'": footer(group(column((b"other",)))),
    r"columns\[0\].meta_data is not in this file": footer(
        group(column(outside=[(1, thrift.BINARY, binary(b"elsewhere"))]))
    ),
    r"null_count is 5 of 4": footer(group(column(more=[statistics(5)]))),
    r"null_count is -1 of 4": footer(group(column(more=[statistics(-1)]))),
    r"unencoded_byte_array_data_bytes is -1": footer(group(column(more=[sizes(-1)]))),
    r"two columns at byte 50": footer(
        group(column()), group(column(values={9: 50})), rows=8
    ),
    r"schema\[0\].num_children is 9": footer(schema=(element(b"schema", children=9),)),
    r"schema\[2\] belongs to no column": footer(schema=(*SCHEMA, element(b"more"))),
    r"schema ends before": footer(
        schema=(element(b"s", children=1), element(b"text", children=2), element(b"a"))
    ),
    r"schema has 9 columns in 'text'": footer(
        schema=(element(b"s", children=1), element(b"text", children=9), *[element(b"a")] * 9)
    ),
    r"has no column 'text' \(data.column\): it has other": footer(
        schema=(element(b"s", children=1), element(b"other"))
    ),
}  # fmt: skip


@pytest.mark.parametrize("why", LIES)
def test_a_footer_that_lies_is_refused_with_its_field(why) -> None:
    with pytest.raises(DataError, match=rf"^a\.parquet (cannot be read: )?.*{why}"):
        read(LIES[why])


def test_the_honest_one_of_these_is_read() -> None:
    (found,) = read(footer(group(column(more=[statistics(1), sizes(10)]))))
    assert [(one.start, one.end) for one in found.parts] == [(4, 104)]
    assert (found.samples, found.text_bytes) == (None, 13)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "does not end with PAR1"),
        (b"PAR1", "does not end with PAR1"),
        (b"x" * 50 + b"PARE", "does not end with PAR1"),
        (b"x" * 50 + (99).to_bytes(4, "little") + MARK, "has 99 bytes, and the file 58"),
        (b"x" * 50 + b"\xff" * 4 + MARK, f"at most {MAX_FOOTER_BYTES:,} are read"),
    ],
)
def test_a_footer_that_the_file_cannot_hold_is_not_looked_for(data, why) -> None:
    with pytest.raises(DataError, match=f"^a.parquet cannot be read: footer .*{why}"):
        footers.length(data, len(data), "a.parquet")


@pytest.mark.slow
def test_a_footer_of_as_many_entries_as_fit_takes_little_memory() -> None:
    """Of a hundred thousand structs in structs that nobody wants, nothing is kept."""
    bomb = struct((9, thrift.LIST, listed(thrift.STRUCT, *[b"\x19\x01\0\0"] * 60_000)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="has no column"):
            read(bomb)
        assert tracemalloc.get_traced_memory()[1] < 2 * len(bomb) + 2**20
    finally:
        tracemalloc.stop()


@settings(max_examples=150)
@given(st.data())
def test_a_footer_of_any_bytes_is_refused_or_fits_its_file(data) -> None:
    real = labelled()
    length = footers.length(real, len(real), "a")
    content = bytearray(real[-length:-END_BYTES])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    made = file_of(bytes(content), body=len(real) - length)
    try:
        found = groups(made)
    except DataError as error:
        assert str(error).startswith("a.parquet ")  # noqa: PT017 - one of two that may be
        return
    for one in (part for group in found for part in group.parts):
        assert len(MARK) <= one.start <= one.end <= len(made) - len(content) - END_BYTES


def pairs(tmp_path, data):
    (tmp_path / "a.parquet").write_bytes(data)
    return list(columns.pairs(tmp_path / "a.parquet", "image", "label", is_partial=False))


def test_a_table_with_more_samples_than_its_rows_have_is_refused_by_who_reads_all(tmp_path) -> None:
    """Else who reads parts of it would count other samples."""
    honest = written({"image": [b"a", b"b", None, b"d"], "label": [1, 2, 3, 4]})
    assert sum(len(one) for one, _ in pairs(tmp_path, honest)) == 3
    lying = changed(honest, CHOSEN, lambda found: found[0].samples == 4)
    with pytest.raises(DataError, match=r"footer claims 4 samples .* which holds 3"):
        pairs(tmp_path, lying)


def test_text_of_another_length_than_the_footer_claims_is_refused_by_who_reads_all(
    tmp_path,
) -> None:
    chosen = (("text", "data.column"),)
    honest = written({"text": ["one", None, "three"]})
    lying = changed(honest, chosen, lambda found: found[0].text_bytes not in {None, 10})
    path = tmp_path / "a.parquet"
    for data, fault in ((honest, None), (lying, "bytes of text .* which holds 10")):
        path.write_bytes(data)
        texts = text.Texts()
        try:
            if fault is None:
                (place,) = texts.plain([path], "text", lambda: None)
                assert place.read_bytes() == b"one\nthree\n"
            else:
                with pytest.raises(DataError, match=fault):
                    texts.plain([path], "text", lambda: None)
        finally:
            texts.close()


def test_a_row_group_that_is_a_hole_is_missing_only_where_parts_are_expected(tmp_path) -> None:
    data = bytearray(labelled())
    for part in groups(bytes(data))[1].parts:
        data[part.start : part.end] = bytes(part.end - part.start)
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    found = list(columns.pairs(path, "image", "label", is_partial=True))
    assert [one if isinstance(one, int) else one[1] for one in found] == [[0, 1, 2], 3, [6]]
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        list(columns.pairs(path, "image", "label", is_partial=False))


def test_a_row_group_of_which_only_a_column_is_a_hole_is_refused(tmp_path) -> None:
    data = bytearray(labelled())
    part = groups(bytes(data))[1].parts[-1]
    data[part.start : part.end] = bytes(part.end - part.start)
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        list(columns.pairs(path, "image", "label", is_partial=True))


def test_two_columns_of_one_name_are_refused(tmp_path) -> None:
    arrays = [pa.array(["a"]), pa.array(["b"])]
    table = pa.Table.from_arrays(arrays, names=["text", "text"])
    parquet.write_table(table, tmp_path / "a.parquet")
    read_all = rowgroups.read(
        tmp_path / "a.parquet", (("text", "data.column"),), 16, is_partial=False
    )
    with pytest.raises(DataError, match="has no column 'text'"):
        list(read_all)


def test_a_real_table_of_many_row_groups_is_read_in_order(tmp_path) -> None:
    rng = np.random.default_rng(1)
    table = {"image": rng.random((50, 3)).tolist(), "label": list(range(50))}
    found = pairs(tmp_path, written(table, row_group_size=7))
    assert [label for _, labels in found for label in labels] == list(range(50))
    assert np.array_equal([row for rows, _ in found for row in rows], table["image"])
