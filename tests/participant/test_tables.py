"""Of Parquet, a worker gets the row groups of its samples, and reads from them what the whole would have given."""

from __future__ import annotations

import random
from functools import partial

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from storage import dag, unixfs
from swarm.errors import SwarmError
from swarm.participant import samples
from swarm.training import rowgroups, text
from swarm.training.data import TextData
from swarm.training.errors import DataError
from swarm.training.labelled import ABSENT, LabelledData
from swarm.training.spec import parse_spec
from tests.gateway.reading import open_pair
from tests.participant.test_samples import CONTEXT, LABELLED, MIB, SPEC, small, take
from tests.training.test_classifier import png

__all__ = ["small"]

SPEC_CROP = LABELLED.replace(b'pool = "pool"', b'pool = "pool"\nresize = "crop"')
SPEC_ROWS = LABELLED.replace(b"size = 32", b'shape = "mlp"\nfeatures = 40000')
SPEC_SHORT = LABELLED.replace(b"size = 32", b'shape = "mlp"\nfeatures = 4')


def pictures(rng, count):
    images = rng.integers(0, 256, (count, 300, 300), np.uint8)
    return [{"bytes": png(image), "path": None} for image in images]


def rows(rng, count):
    return list(rng.random((count, 40_000), np.float32))


def short(rng, count):
    return list(rng.random((count, 4), np.float32))


def tables(folder, values, unread=20_000):
    """Three of them, of twenty-six row groups, beside a column that nobody reads."""
    rng = np.random.default_rng(4)
    for name, count, group in (("b/1.parquet", 40, 5), ("a.Parquet", 30, 3), ("c.parquet", 16, 2)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table = {
            "unread": [rng.bytes(unread) for _ in range(count)],
            "image": values(rng, count),
            "label": rng.integers(0, 10, count),
        }
        parquet.write_table(pa.table(table), path, row_group_size=group, compression="none")


def leaves(peer):
    return {cid: data for cid, data in peer.store.chunks.items() if not dag.is_manifest(cid)}


@pytest.mark.slow
@pytest.mark.parametrize(("values", "spec"), [(pictures, SPEC_CROP), (rows, SPEC_ROWS)])
async def test_only_the_row_groups_of_drawn_samples_are_fetched(
    tmp_path, small, values, spec
) -> None:
    tables(tmp_path / "data", values, unread=250_000)
    task = parse_spec(spec)
    whole = LabelledData(tmp_path / "data", task.classifier, task.data)
    ids = [3, 31, 85, 3]
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        path, totals = await take(pair, root, tmp_path, ids, spec)
        assert (path, totals) == (tmp_path / "part" / "data", [whole.total])
        held, there = leaves(pair[1]), leaves(pair[0])
    assert 2 * sum(map(len, held.values())) < sum(map(len, there.values()))
    part = LabelledData(path, task.classifier, task.data)
    assert (part.total, part.content.dtype) == (whole.total, whole.content.dtype)
    assert part.samples(ids).tobytes() == whole.samples(ids).tobytes()
    here = part.labels != ABSENT
    assert here.sum() == 3 + 2 + 5
    assert part.content[here].tobytes() == whole.content[here].tobytes()
    np.testing.assert_array_equal(part.labels[here], whole.labels[here])
    with pytest.raises(DataError, match="sample 29 is not in this part"):
        part.samples([3, 29])


def test_the_author_of_a_dataset_cannot_say_that_it_is_a_part(tmp_path) -> None:
    tables(tmp_path / "data", short)
    path = tmp_path / "data" / "c.parquet"
    path.write_bytes(bytes(100_000) + path.read_bytes()[100_000:])
    (tmp_path / "data" / ".part").touch()
    task = parse_spec(SPEC_SHORT)
    with pytest.raises(DataError, match=r"c\.parquet cannot be read"):
        LabelledData(tmp_path / "data", task.classifier, task.data)


async def test_a_table_of_which_rows_lack_values_is_taken_whole(tmp_path, small) -> None:
    tables(tmp_path / "data", short)
    table = {"image": [[0.5] * 4, None], "label": [1, 2]}
    parquet.write_table(pa.table(table), tmp_path / "data" / "d.parquet")
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        path, totals = await take(pair, root, tmp_path, [3], SPEC_SHORT)
    assert (path.parent, totals) == (tmp_path / "shelf", [])


@pytest.mark.parametrize(
    ("bound", "most"), [("MAX_TABLES", 2), ("MAX_GROUPS", 25), ("MAX_FOOTERS_BYTES", 5_000)]
)
async def test_tables_of_more_than_is_looked_at_are_taken_whole(
    tmp_path, small, monkeypatch, bound, most
) -> None:
    tables(tmp_path / "data", short)
    monkeypatch.setattr(samples, bound, most)
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        path, totals = await take(pair, root, tmp_path, [3], SPEC_SHORT)
    assert (path.parent, totals) == (tmp_path / "shelf", [])


async def test_a_footer_longer_than_the_end_that_is_looked_at_first_is_fetched(
    tmp_path, small, monkeypatch
) -> None:
    monkeypatch.setattr(samples.footers, "TAIL_BYTES", 100)
    tables(tmp_path / "data", short)
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        _, totals = await take(pair, root, tmp_path, [3], SPEC_SHORT)
    assert totals == [86]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "why"),
    [(-5, "footer has"), (-1, "footer does not end with PAR1"), (-2_000, "a.Parquet cannot be read")],
)  # fmt: skip
async def test_a_table_that_lies_is_refused_before_more_than_its_end_is_fetched(
    tmp_path, small, at, why
) -> None:
    tables(tmp_path / "data", rows)
    path = tmp_path / "data" / "a.Parquet"
    data = bytearray(path.read_bytes())
    data[at : at + 1] = b"\xff"
    path.write_bytes(data)
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        with pytest.raises(SwarmError, match=why):
            await take(pair, root, tmp_path, [3], SPEC_ROWS)
        assert len(leaves(pair[1])) <= 3 * 2


def texts(folder, **options):
    """Tables of text among plain files; what stands in them does not end with a line."""
    made = random.Random(5)
    (folder / "b").mkdir(parents=True)

    def row():
        return made.choice([None, "", "zwei é", made.randbytes(made.randint(1, 9_000)).hex()])

    for name, count, group in (("b/1.parquet", 900, 90), ("c.PARQUET", 700, 50)):
        table = {"unread": [made.randbytes(6_000) for _ in range(count)]}
        table["text"] = [row() for _ in range(count)]
        kept = {"row_group_size": group, "compression": "none", **options}
        parquet.write_table(pa.table(table), folder / name, **kept)
    for name, size in (("a.txt", 3_001), ("b/2.txt", 2 * MIB + 5), ("d.txt", 17)):
        (folder / name).write_bytes(made.randbytes(size))


def read(folder):
    """The dataset, and what keeps the text that was taken out of its tables."""
    kept = text.Texts()
    alive = iter(int, 1).__next__
    plain = partial(kept.plain, column="text", alive=alive, is_partial=rowgroups.is_part(folder))
    return TextData(folder, CONTEXT, None, plain), kept


@pytest.mark.slow
async def test_windows_over_rows_of_text_are_those_of_the_whole(tmp_path, small) -> None:
    texts(tmp_path / "data")
    whole, kept = read(tmp_path / "data")
    made = random.Random(6)
    for ids in (
        [0, 3_001 // CONTEXT, whole.total - 1, whole.total - 2],
        [made.randrange(whole.total) for _ in range(3)],
        [(3_001 + 50_000) // CONTEXT + at for at in range(2_500)],
    ):
        async with open_pair() as pair:
            folder = tmp_path / str(ids[0])
            folder.mkdir()
            root = unixfs.add_path(tmp_path / "data", pair[0].store).root
            path, totals = await take(pair, root, folder, ids)
            assert (path, totals) == (folder / "part" / "data", [whole.total])
            held, there = leaves(pair[1]), leaves(pair[0])
        assert 2 * sum(map(len, held.values())) < sum(map(len, there.values()))
        part, mine = read(path)
        assert part.total == whole.total
        np.testing.assert_array_equal(part.samples(ids), whole.samples(ids))
        mine.close()
    kept.close()


@pytest.mark.slow
async def test_text_of_which_the_footer_gives_no_length_is_taken_whole(tmp_path, small) -> None:
    texts(tmp_path / "data", write_statistics=False)
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        path, totals = await take(pair, root, tmp_path, [0])
    assert (path.parent, totals) == (tmp_path / "shelf", [])


async def test_a_table_without_the_column_of_the_task_is_refused_by_name(tmp_path, small) -> None:
    texts(tmp_path / "data")
    spec = SPEC.replace(b'pool = "pool"', b'pool = "pool"\ncolumn = "body"')
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        with pytest.raises(
            SwarmError, match=r"no column 'body' \(data.column\): it has unread, te"
        ):
            await take(pair, root, tmp_path, [0], spec)
