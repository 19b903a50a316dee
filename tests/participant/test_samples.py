"""A worker gets the chunks that hold its samples, and reads from them what the whole would have given."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from storage import dag, unixfs
from storage.dag_pb import Link
from storage.unixfs_nodes import folder_node
from swarm.errors import SwarmError
from swarm.participant import samples
from swarm.participant.samples import Samples
from swarm.shelf import Shelf
from swarm.training import layout
from swarm.training.data import TextData
from swarm.training.errors import DataError
from swarm.training.labelled import ABSENT, LabelledData
from swarm.training.layout import Block, Range, Stretch
from swarm.training.spec import parse_spec
from tests.gateway.reading import open_pair
from tests.training.conftest import SPEC
from tests.training.test_classifier import archive, idx, png

MIB = 2**20
CONTEXT = 16
"""As in the task."""


@pytest.fixture
def dataset(tmp_path):
    folder = tmp_path / "data"
    (folder / "b").mkdir(parents=True)
    made = random.Random(3)
    for name, size in (("a.txt", 100), ("b/long.txt", 7 * MIB + 11), ("c.txt", 4 * MIB), ("d", 0)):
        (folder / name).write_bytes(made.randbytes(size))
    (folder / "README.md").write_text("a card")
    (folder / ".hidden").write_text("no data")
    return folder


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(samples, "MIN_BYTES", MIB)


async def take(pair, root, tmp_path, ids, spec=SPEC, *, whole_is_here=False):
    _, taker, ranges = pair
    shelf = Shelf(tmp_path / "shelf", taker.store, taker.exchange)
    totals = []

    def draw(total):
        totals.append(total)
        return ids

    with shelf.lease() as lease:
        if whole_is_here:
            await lease.take(root)
        path = await Samples(ranges).take(root, spec, draw, lease, tmp_path / "part")
    return path, totals


async def test_what_is_read_from_the_parts_is_what_the_whole_gives(
    dataset, tmp_path, small
) -> None:
    whole = TextData(dataset, CONTEXT)
    ids = [0, 6, 7, 5 * MIB // CONTEXT, (7 * MIB + 100) // CONTEXT, whole.total - 1]
    async with open_pair() as pair:
        root = unixfs.add_path(dataset, pair[0].store).root
        path, totals = await take(pair, root, tmp_path, ids)
        assert (path, totals) == (tmp_path / "part" / "data", [whole.total])
        held = sum(len(data) for data in pair[1].store.chunks.values())
        assert held < 6 * MIB < sum(len(data) for data in pair[0].store.chunks.values())
    part = TextData(path, CONTEXT)
    assert part.total == whole.total
    np.testing.assert_array_equal(part.samples(ids), whole.samples(ids))


async def test_the_whole_is_taken_where_a_part_would_save_little_or_nothing(
    dataset, tmp_path, small
) -> None:
    many = list(range(0, 11 * MIB // CONTEXT, 1000))
    tokenized = SPEC.replace(b'pool = "pool"', b'pool = "pool"\ntokenizer = "bafy"')
    for at, (ids, spec, here) in enumerate(
        ((many, SPEC, False), ([0], tokenized, False), ([0], SPEC, True))
    ):
        async with open_pair() as pair:
            root = unixfs.add_path(dataset, pair[0].store).root
            folder = tmp_path / str(at)
            folder.mkdir()
            path, _ = await take(pair, root, folder, ids, spec, whole_is_here=here)
        assert (path / "c.txt").read_bytes() == (dataset / "c.txt").read_bytes()


@pytest.mark.parametrize("name", ["e.tar", "b/E.Tar"])
async def test_an_archive_among_the_files_asks_for_the_whole(
    dataset, tmp_path, small, name
) -> None:
    (dataset / name).write_bytes(b"")
    async with open_pair() as pair:
        root = unixfs.add_path(dataset, pair[0].store).root
        path, totals = await take(pair, root, tmp_path, [0])
    assert totals == []
    assert (path / name).exists()


async def test_what_an_earlier_round_left_there_is_gone(dataset, tmp_path, small) -> None:
    async with open_pair() as pair:
        root = unixfs.add_path(dataset, pair[0].store).root
        await take(pair, root, tmp_path, [0])
        before = (tmp_path / "part" / "data" / "00000000").read_bytes()
        assert any(before)
        shutil.rmtree(tmp_path / "shelf")
        await take(pair, root, tmp_path, [9 * MIB // CONTEXT])
    assert not any((tmp_path / "part" / "data" / "00000000").read_bytes())


async def test_a_claimed_size_that_a_chunk_gives_the_lie_ends_the_work_with_a_plain_error(
    dataset, tmp_path, small, monkeypatch
) -> None:
    async with open_pair() as pair:
        root = unixfs.add_path(dataset, pair[0].store).root
        honest = samples._sources

        async def lying(reading, cid):
            return [samples.Source(one.cid, one.size + 1) for one in await honest(reading, cid)]

        monkeypatch.setattr(samples, "_sources", lying)
        with pytest.raises(SwarmError, match="claims"):
            await take(pair, root, tmp_path, [0])


@pytest.mark.parametrize("width", [2, 40])
async def test_a_few_manifests_that_name_a_folder_without_end_are_not_walked_to_it(width) -> None:
    async with open_pair() as (giver, _, ranges):
        built, block = folder_node([])
        giver.store.put_many([(built.cid, block)])
        for _ in range(40):
            links = [Link(built.cid, f"{at:0{width}}", built.tree) for at in range(2)]
            built, block = folder_node(links)
            giver.store.put_many([(built.cid, block)])
        reading = ranges.of(built.cid)
        looked, listing = [], reading.listing

        async def count(cid):
            looked.append(cid)
            return await listing(cid)

        reading.listing = count
        assert await samples._sources(reading, built.cid) is None
        assert len(looked) <= 41


async def test_names_that_are_long_in_all_ask_for_the_whole(dataset, monkeypatch) -> None:
    async with open_pair() as pair:
        root = unixfs.add_path(dataset, pair[0].store).root
        for bound, value in (("MAX_PATHS", 30), ("MAX_FILES", 6)):
            assert await samples._sources(pair[2].of(root), root) is not None
            with monkeypatch.context() as patch:
                patch.setattr(samples, bound, value)
                assert await samples._sources(pair[2].of(root), root) is None


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=8).filter(lambda sizes: sum(sizes) > 5),
    st.data(),
)
def test_every_byte_of_every_window_of_text_is_needed_once(sizes, data) -> None:
    context = data.draw(st.integers(1, min(9, sum(sizes) - 1)))
    total = (sum(sizes) - 1) // context
    ids = data.draw(st.lists(st.integers(0, total - 1), max_size=10))
    ends = np.cumsum(sizes)
    ranges = layout.needed(layout.text(sizes, {}), layout.windows(ids, context, context + 1))
    found = [
        (ends[one.file] - sizes[one.file] + at)
        for one in ranges
        for at in range(one.start, one.end)
    ]
    wanted = {at for one in ids for at in range(one * context, one * context + context + 1)}
    assert sorted(wanted) == found
    assert all(0 <= one.start < one.end <= sizes[one.file] for one in ranges)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6)), max_size=6), st.data())
def test_of_items_that_can_only_be_read_together_all_bytes_are_needed(files, data) -> None:
    """Five bytes an item, on its own or of a block of two ranges."""
    found = [
        Block(count, (Range(at, 9, 9 + 2 * count), Range(at, 50, 50 + 3 * count)))
        if is_block
        else Stretch(at, count, 9, 5)
        for at, (is_block, count) in enumerate(files)
    ]
    flat = [(at, item) for at, (_, count) in enumerate(files) for item in range(count)]
    ids = data.draw(st.lists(st.integers(0, len(flat) - 1), max_size=8)) if flat else []
    wanted = set()
    for file, item in (flat[one] for one in ids):
        is_block, count = files[file]
        bytes_ = [*range(9, 9 + 2 * count), *range(50, 50 + 3 * count)]
        own = range(9 + item * 5, 14 + item * 5)
        wanted |= {(file, at) for at in (bytes_ if is_block else own)}
    ranges = layout.needed(found, layout.windows(ids, 1, 1))
    assert sorted(wanted) == [(one.file, at) for one in ranges for at in range(one.start, one.end)]


def test_the_chunks_around_ranges_are_counted_once() -> None:
    leaf = samples.LEAF_BYTES
    ranges = [Range(0, 0, 10), Range(0, 20, leaf + 1), Range(1, leaf, leaf + 1)]
    assert samples.chunk_bytes([9 * leaf, leaf + 7], ranges) == 2 * leaf + 7


LABELLED = b"""
[task]
name = "digits"
kind = "classifier"
rounds = 4
budget = "1"
[data]
dataset = "train"
pool = "pool"
[model]
classes = 10
size = 32
"""
COUNT = 9_000
"""Images of 32 x 32: nine chunks of a mebibyte."""


def pictures(seed):
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (COUNT, 32, 32), np.uint8), draw.integers(0, 10, COUNT)


def arrays(folder):
    folder.mkdir()
    images, labels = pictures(1)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def files_of_idx(folder):
    folder.mkdir()
    idx(folder, *pictures(1))


def folders_of_files(folder):
    """A picture a file, too large for a few to share a chunk."""
    draw = np.random.default_rng(2)
    for at in range(60):
        place = folder / str(at % 10)
        place.mkdir(parents=True, exist_ok=True)
        image = draw.integers(0, 256, (200, 200), np.uint8)
        (place / f"{at:03d}.png").write_bytes(png(image))


def chunks(peer):
    return set(peer.store.chunks)


@pytest.mark.parametrize(("write", "most"), [(arrays, 5), (files_of_idx, 5), (folders_of_files, 4)])
async def test_only_the_chunks_of_drawn_samples_are_fetched_of_arrays_and_pictures(
    tmp_path, small, write, most
) -> None:
    """Beside manifests: two of pictures, the first of an array, and its labels."""
    write(tmp_path / "data")
    spec = LABELLED
    if write is folders_of_files:
        spec = spec.replace(b'pool = "pool"', b'pool = "pool"\nresize = "crop"')
    task = parse_spec(spec)
    whole = LabelledData(tmp_path / "data", task.classifier, task.data)
    ids = [whole.total // 2, whole.total - 1]
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        path, totals = await take(pair, root, tmp_path, ids, spec)
        assert (path, totals) == (tmp_path / "part" / "data", [whole.total])
        held = [cid for cid in pair[1].store.chunks if not dag.is_manifest(cid)]
        there = [cid for cid in pair[0].store.chunks if not dag.is_manifest(cid)]
    assert len(ids) <= len(held) <= most
    assert len(there) >= 2 * len(held)
    part = LabelledData(path, task.classifier, task.data)
    assert part.total == whole.total
    assert part.samples(ids).tobytes() == whole.samples(ids).tobytes()
    here = part.labels != ABSENT
    np.testing.assert_array_equal(part.labels[here], whole.labels[here])
    if write is folders_of_files:
        assert not part.content[0].any()
        with pytest.raises(DataError, match="sample 0 is not in this part"):
            part.samples([0])


async def test_of_text_only_the_chunks_of_drawn_samples_are_fetched(
    dataset, tmp_path, small
) -> None:
    async with open_pair() as pair:
        root = unixfs.add_path(dataset, pair[0].store).root
        await take(pair, root, tmp_path, [2 * MIB // CONTEXT, 9 * MIB // CONTEXT])
        held = [cid for cid in pair[1].store.chunks if not dag.is_manifest(cid)]
        there = [cid for cid in pair[0].store.chunks if not dag.is_manifest(cid)]
    assert len(held) <= 4 < len(there)


async def test_what_takes_reading_to_count_is_taken_whole(tmp_path, small) -> None:
    draw = np.random.default_rng(2)
    images = draw.integers(0, 256, (30, 200, 200), np.uint8)
    archive(tmp_path / "data", images, draw.integers(0, 10, 30))
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        path, totals = await take(pair, root, tmp_path, [0], LABELLED)
        assert totals == []
        assert path.parent == tmp_path / "shelf"
        assert chunks(pair[0]) == chunks(pair[1])


@pytest.mark.parametrize("told", [COUNT + 1, COUNT // 2])
async def test_an_array_that_says_another_shape_than_its_size_has_no_layout(
    tmp_path, small, told
) -> None:
    """Then it is taken whole, and refused by who reads it."""
    files_of_idx(tmp_path / "data")
    place = next((tmp_path / "data").glob("*idx3*"))
    with place.open("r+b") as file:
        file.seek(4)
        file.write(told.to_bytes(4, "big"))
    async with open_pair() as pair:
        root = unixfs.add_path(tmp_path / "data", pair[0].store).root
        path, totals = await take(pair, root, tmp_path, [0], LABELLED)
    assert (path.parent, totals) == (tmp_path / "shelf", [])
