"""Whatever a footer says: who has a part of a table reads what who has the whole reads, or the whole is refused."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from swarm.training import columns, footers
from swarm.training.errors import DataError
from tests.fuzz.fuzzing import FUZZ
from tests.training.test_footers import CHOSEN, END_BYTES, groups, written

COUNT = 7
TABLES = [
    written(
        {
            "unread": list(range(COUNT)),
            "image": [bytes([65 + at]) * (at + 1) for at in range(COUNT)],
            "label": list(range(COUNT)),
        },
        row_group_size=3,
        use_dictionary=encoded,
        compression=compression,
    )
    for encoded in (True, False)
    for compression in ("none", "snappy")
]


def samples(path, data, *, is_partial):
    """Of a table in order; None for one that is not here, and in place of all where it is refused."""
    path.write_bytes(data)
    found = []
    try:
        for one in columns.pairs(path, "image", "label", is_partial=is_partial):
            found += [None] * one if isinstance(one, int) else zip(*one, strict=True)
    except DataError:
        return None
    return found


@FUZZ
@given(st.data())
def test_a_part_is_read_as_the_whole_is_or_the_whole_is_refused(tmp_path_factory, data) -> None:
    path = tmp_path_factory.mktemp("footer") / "a.parquet"
    table = bytearray(data.draw(st.sampled_from(TABLES)))
    length = footers.length(bytes(table), len(table), "a.parquet")
    begin = len(table) - length
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(begin, len(table) - END_BYTES - 1))
        flipped = table[at] ^ 1 << data.draw(st.integers(0, 7))
        table[at] = data.draw(st.just(flipped) | st.integers(0, 255))
    try:
        found = groups(bytes(table), CHOSEN)
    except DataError:
        return
    if any(one.samples is None for one in found):
        return
    whole = samples(path, table, is_partial=False)
    before = 0
    for group in found:
        part = bytearray(begin) + table[begin:]
        for one in group.parts:
            part[one.start : one.end] = table[one.start : one.end]
        here = range(before, before + group.samples)
        before = here.stop
        read = samples(path, part, is_partial=True)
        if whole is not None:
            assert read == [one if at in here else None for at, one in enumerate(whole)]
