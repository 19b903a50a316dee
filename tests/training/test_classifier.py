"""Classifiers: labels found where each kind of file has them, a round that learns, and tasks that are refused."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from PIL import Image

from swarm.training import checkpoint, jobs, labelling, models
from swarm.training.errors import DataError, SpecError, TrainingError
from swarm.training.labelled import LabelledData
from swarm.training.sizes import parameters
from swarm.training.spec import check_model, parse_spec, write_spec
from tests.training.conftest import Room
from tests.training.test_hf import write_checkpoint
from tests.training.test_images import bomb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swarm.training.tensors import Array

BENCH = jobs.Bench(torch.device("cpu"), lambda *_: None)
SPEC = b"""
[task]
name = "digits"
kind = "classifier"
rounds = 4
budget = "1"
[data]
dataset = "train"
pool = "pool"
[model]
classes = 3
size = 8
width = 8
[train]
steps = 12
batch = 16
learning_rate = 0.01
[score]
sequences = 32
"""
NAMED = SPEC.replace(b"classes = 3", b'labels = "cat, dog, fox"')
ROWS = SPEC.replace(b"size = 8", b'shape = "mlp"\nfeatures = 5')


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(threads)


def shapes(seed: int, count: int) -> tuple[Array, Array]:
    """Images of 8 x 8 whose brightest third is their label, with noise."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, 3, count)
    images = draw.integers(0, 120, (count, 8, 8))
    for at, label in enumerate(labels):
        images[at, :, 3 * label : 3 * label + 2] += 100
    return images.astype(np.uint8), labels


def png(image: Array) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def idx(folder: Path, images: Array, labels: Array, name: str = "train") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    head = struct.pack(">4B3I", 0, 0, 8, 3, *images.shape)
    (folder / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
    head = struct.pack(">4BI", 0, 0, 8, 1, len(labels))
    (folder / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.astype(np.uint8).tobytes())


def npy(folder: Path, images: Array, labels: Array, **_: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", labels)


def folders(folder: Path, images: Array, labels: Array, names: tuple[str, ...] = ()) -> None:
    for at, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / (names[label] if names else str(label))
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{at:04d}.png").write_bytes(png(image))


def archive(folder: Path, images: Array, labels: Array, names: tuple[str, ...] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tarfile.open(folder / "shard.tar", "w") as tar:
        for at, (image, label) in enumerate(zip(images, labels, strict=True)):
            told = names[label] if names else str(label)
            for ending, content in (("cls", told.encode()), ("png", png(image))):
                about = tarfile.TarInfo(f"{at:04d}.{ending}")
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))


def parquet(folder: Path, images: Array, labels: Array, names: tuple[str, ...] = ()) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as library

    folder.mkdir(parents=True, exist_ok=True)
    table = {
        "image": [{"bytes": png(image), "path": None} for image in images],
        "label": [names[label] if names else int(label) for label in labels],
    }
    library.write_table(pyarrow.table(table), folder / "a.parquet")


WRITERS = {"idx": idx, "npy": npy, "folders": folders, "tar": archive, "parquet": parquet}


def make(room: Room, writer: Any = idx, spec: bytes = SPEC) -> None:
    room.spec = spec
    for seed, (folder, count) in enumerate(((room.train, 120), (room.pool, 60))):
        for path in folder.iterdir():
            path.unlink()
        writer(folder, *shapes(seed, count))


def data(folder: Path, spec: bytes = SPEC) -> LabelledData:
    task = parse_spec(spec)
    return LabelledData(folder, task.classifier, task.data)


def run(kind: str, **fields: Any) -> dict[str, Any]:
    return jobs.run({"job": kind, **fields}, BENCH)


def check(room: Room) -> dict[str, Any]:
    fields = {"spec": room.spec, "dataset": str(room.train), "pool": str(room.pool)}
    return run("check", **fields, tokenizer=None, start=None)


@pytest.mark.parametrize("kind", WRITERS)
def test_labels_are_found_where_the_files_have_them(tmp_path: Path, kind: str) -> None:
    images, labels = shapes(1, 20)
    WRITERS[kind](tmp_path / "d", images, labels)
    found = data(tmp_path / "d")
    assert found.total == 20
    order = np.argsort(labels, kind="stable") if kind == "folders" else np.arange(20)
    np.testing.assert_array_equal(found.labels, labels[order])
    np.testing.assert_array_equal(found.content[:, 0], images[order])
    some = found.samples([3, 0])
    assert some["label"].tolist() == labels[order][[3, 0]].tolist()
    np.testing.assert_array_equal(some["pixels"][1, 0], images[order][0])


@pytest.mark.parametrize("kind", ["folders", "tar", "parquet"])
def test_named_labels_have_the_places_that_the_task_gives_them(tmp_path: Path, kind: str) -> None:
    images, labels = shapes(1, 20)
    WRITERS[kind](tmp_path / "d", images, labels, names=("cat", "dog", "fox"))
    found = data(tmp_path / "d", NAMED).labels
    assert np.bincount(found).tolist() == np.bincount(labels).tolist()
    with pytest.raises(SpecError, match="no number") as caught:
        data(tmp_path / "d")
    assert caught.value.field == "model.labels"
    with pytest.raises(SpecError, match="do not name 'fox'") as caught:
        data(tmp_path / "d", NAMED.replace(b"fox", b"wolf"))
    assert caught.value.field == "model.labels"


@pytest.mark.parametrize("shape", ["npy", "parquet"])
def test_rows_are_read_as_they_are(tmp_path: Path, shape: str) -> None:
    rows = np.random.default_rng(1).standard_normal((6, 5)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2])
    if shape == "npy":
        npy(tmp_path, rows, labels)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet as library

        table = pyarrow.table({"image": rows.tolist(), "label": labels})
        library.write_table(table, tmp_path / "a.parquet")
    found = data(tmp_path, ROWS)
    np.testing.assert_array_equal(found.samples([5, 0])["values"], rows[[5, 0]])
    with pytest.raises(DataError, match=r"features"):
        data(tmp_path, ROWS.replace(b"features = 5", b"features = 4"))
    rows[2, 2] = np.nan
    npy(tmp_path, rows, labels)
    with pytest.raises(DataError, match="not finite"):
        data(tmp_path, ROWS)


@pytest.mark.parametrize("spec", [SPEC, SPEC.replace(b"size = 8", b'size = 8\nshape = "mlp"')])
def test_rounds_of_several_workers_learn_the_labels(room: Room, spec: bytes) -> None:
    make(room, spec=spec)
    run("initial", spec=spec, dataset=str(room.train), out=str(room.folder / "v0"))
    held = sum(item.size for item in checkpoint.load(room.folder / "v0").tensors.values())
    assert held == parameters(parse_spec(spec).model)
    merged: dict[str, Any] = {}
    for round_ in range(1, 5):
        fields = room.fields(round_, f"v{round_ - 1}")
        for peer in ("a", "b"):
            more = {"peer": peer, "dataset_root": "d", "state": str(room.folder / f"s{peer}")}
            run("train", **fields, **more, out=str(room.folder / f"u{peer}"))
        files = [str(room.folder / f"u{peer}") for peer in ("a", "b")]
        scored = run("score", **fields, updates=files, peers=["a", "b"])
        if round_ == 1:
            assert min(scored["scores"]) > 0
        more = {"name": "digits", "version": round_, "updates": files, "scores": []}
        merged = run("merge", **fields, **more, out=str(room.folder / f"v{round_}"))
    fields = {"spec": spec, "pool": str(room.pool), "limit": None}
    found = run("evaluate", **fields, checkpoint=str(room.folder / "v4"))
    first = run("evaluate", **fields, checkpoint=str(room.folder / "v0"))
    assert found["loss"] < first["loss"]
    assert found["accuracy"] > 0.7 > first["accuracy"]
    assert merged["accuracy"] > 0.7
    assert "for 3 classes" in (room.folder / "v4" / "README.md").read_text()
    with pytest.raises(TrainingError, match="gives labels"):
        run("sample", checkpoint=str(room.folder / "v4"), prompt="", out=None)


def refused(room: Room) -> tuple[str, str]:
    with pytest.raises(SpecError) as caught:
        check(room)
    return caught.value.field, caught.value.why


def test_a_task_is_refused_with_the_field_and_the_reason(room: Room) -> None:
    make(room)
    assert check(room)["samples"] == 120
    room.spec = SPEC.replace(b"classes = 3", b"classes = 2")
    assert refused(room) == (
        "model.classes",
        "is 2, and train-labels-idx1-ubyte holds the label 2; labels are 0 to 1",
    )
    room.spec = SPEC
    (room.pool / "train-labels-idx1-ubyte").unlink()
    field, why = refused(room)
    assert field == "data.pool"
    assert "has no label" in why
    np.save(room.pool / "labels.npy", np.zeros(59, np.int64))
    assert "59 labels" in refused(room)[1]
    np.save(room.pool / "labels.npy", np.full(60, -1))
    assert refused(room)[0] == "model.classes"
    np.save(room.pool / "labels.npy", np.zeros(60))
    assert "no row of whole numbers" in refused(room)[1]
    for path in room.pool.iterdir():
        path.unlink()
    (room.pool / "notes.txt").write_text("nothing")
    assert refused(room) == ("data.pool", "pool holds no images with labels")


def test_a_dataset_of_one_class_is_refused_and_one_without_a_class_doubted(room: Room) -> None:
    make(room)
    images, _ = shapes(0, 40)
    idx(room.train, images, np.zeros(40, np.uint8))
    assert refused(room)[0] == "data.dataset"
    idx(room.train, images, np.arange(40) % 2)
    assert any("no sample of 1 of 3 classes: 2" in one for one in check(room)["doubts"])


def huge_rows(folder: Path) -> None:
    """Float32, all of them finite."""
    draw = np.random.default_rng(0)
    rows = (draw.standard_normal((120, 5)).clip(-1, 1) * 3.4e38).astype(np.float32)
    npy(folder, rows, draw.integers(0, 3, 120))


@pytest.mark.parametrize("part", ["dataset", "pool"])
def test_rows_over_which_there_is_no_loss_are_refused_with_their_field(
    room: Room, part: str
) -> None:
    room.spec = ROWS
    draw = np.random.default_rng(0)
    for folder in (room.train, room.pool):
        for path in folder.iterdir():
            path.unlink()
        npy(folder, draw.standard_normal((120, 5)) * 1e6, draw.integers(0, 3, 120))
    assert check(room)["samples"] == 120
    huge_rows(room.train if part == "dataset" else room.pool)
    field, why = refused(room)
    assert field == f"data.{part}"
    assert why.startswith("holds numbers up to 3.4e+38, ")


def test_a_round_whose_loss_is_no_number_fails_and_leaves_no_update(room: Room) -> None:
    room.spec = ROWS
    for folder in (room.train, room.pool):
        for path in folder.iterdir():
            path.unlink()
        huge_rows(folder)
    v0 = str(room.folder / "v0")
    run("initial", spec=ROWS, dataset=str(room.train), out=v0)
    state, update = room.folder / "state", room.folder / "update"
    with pytest.raises(TrainingError, match="the loss is no number at step 1 of 12"):
        run("train", **room.fields(), peer="a", dataset_root="d", state=str(state), out=str(update))
    assert not state.exists()
    assert not update.exists()
    with pytest.raises(TrainingError, match="the model's loss over the pool is no number"):
        run("evaluate", spec=ROWS, checkpoint=v0, pool=str(room.pool), limit=None)


def test_a_bomb_beside_labels_is_refused_with_its_field_and_file(room: Room) -> None:
    make(room, folders)
    (room.pool / "1" / "x.png").write_bytes(bomb(2**14, 2**14))
    field, why = refused(room)
    assert field == "data.pool"
    assert "x.png" in why


@pytest.mark.parametrize("which", ["train", "pool"])
def test_a_table_that_lies_is_refused_with_its_field_and_file(room: Room, which: str) -> None:
    """Its footer says that it has sixteen megabytes more than it has."""
    make(room, parquet)
    path = getattr(room, which) / "a.parquet"
    path.write_bytes(path.read_bytes()[:-5] + b"\1PAR1")
    field, why = refused(room)
    assert field == ("data.dataset" if which == "train" else "data.pool")
    assert why.startswith("a.parquet cannot be read: footer has 16,7")


def test_two_arrays_and_one_file_of_labels_are_refused(room: Room) -> None:
    make(room, npy)
    np.save(room.train / "more.npy", np.zeros((3, 8, 8), np.uint8))
    assert "2 arrays and 1 file of labels" in refused(room)[1]


def test_a_label_without_an_end_is_refused(tmp_path: Path) -> None:
    images, labels = shapes(1, 2)
    archive(tmp_path / "d", images, labels, names=("x" * 300,) * 3)
    with pytest.raises(DataError, match="more than 256 bytes"):
        data(tmp_path / "d")


@pytest.mark.parametrize(
    ("old", "new", "field"),
    [
        (b"classes = 3", b"", "model.classes"),
        (b"classes = 3", b'classes = 2\nlabels = "a, b, c"', "model.classes"),
        (b"classes = 3", b'labels = "a, b, a"', "model.labels"),
        (b"size = 8", b"size = 8\nlayers = 4", "model.layers"),
        (b"size = 8", b"size = 8\nfeatures = 3", "model.features"),
        (b"batch = 16", b'optimizer = "muon"', "train.optimizer"),
        (b"size = 8", b"size = 8\nheads = 4", "model.heads"),
    ],
)
def test_a_task_file_that_makes_no_classifier_names_its_field(
    old: bytes, new: bytes, field: str
) -> None:
    with pytest.raises(SpecError) as caught:
        parse_spec(SPEC.replace(old, new))
    assert caught.value.field == field


def test_a_model_of_too_many_parameters_is_refused_by_arithmetic() -> None:
    huge = {"classes": 10_000, "shape": "mlp", "features": 2**16, "width": 2**12, "layers": 8}
    assert check_model("classifier", {**huge, "width": 2**10}, "none")
    wide = {"classes": 10_000, "size": 256, "width": 4096, "layers": 7}
    with pytest.raises(SpecError, match="parameters") as caught:
        check_model("classifier", wide, "none")
    assert caught.value.field == "model"


@pytest.mark.parametrize("spec", [SPEC, NAMED, ROWS])
def test_a_task_is_spelled_in_one_way_and_counted_exactly(spec: bytes) -> None:
    task = parse_spec(spec)
    assert parse_spec(write_spec(task)) == task
    with torch.device("meta"):
        built = models.build(task.model)
    assert parameters(task.model) == sum(item.numel() for item in built.parameters())


def learnt(room: Room, spec: bytes = SPEC, writer: Any = idx) -> str:
    """A checkpoint after one long round."""
    make(room, writer, spec)
    room.spec = spec.replace(b"steps = 12", b"steps = 60")
    fields = {"spec": room.spec, "dataset": str(room.train)}
    run("initial", **fields, out=str(room.folder / "v0"))
    more = {"peer": "a", "dataset_root": "d", "state": str(room.folder / "s")}
    run("train", **room.fields(), **more, out=str(room.folder / "u"))
    made = {"name": "digits", "version": 1, "updates": [str(room.folder / "u")], "scores": []}
    run("merge", **room.fields(), **made, out=str(room.folder / "v1"))
    return str(room.folder / "v1")


def classify(place: str, *paths: Path, top: int = 1, resize: str = "pad") -> list[dict[str, Any]]:
    told = run("classify", checkpoint=place, paths=list(map(str, paths)), top=top, resize=resize)
    return told["found"]


def test_a_classifier_names_the_labels_of_files_with_their_probabilities(room: Room) -> None:
    place = learnt(room, NAMED, npy)
    images, labels = shapes(9, 30)
    fresh = room.folder / "fresh"
    fresh.mkdir()
    np.save(fresh / "many.npy", images)
    (fresh / "one.png").write_bytes(png(images[0]))
    (fresh / "notes.txt").write_text("no picture, and left out of a folder")
    found = classify(place, fresh, top=3)
    assert [one["index"] for one in found] == [*range(30), 0]
    names = ("cat", "dog", "fox")
    hits = sum(one["labels"][0][0] == names[at] for one, at in zip(found, labels, strict=False))
    npy(room.folder / "same", images, labels)
    fields = {"spec": room.spec, "pool": str(room.folder / "same"), "limit": None}
    assert run("evaluate", **fields, checkpoint=place)["accuracy"] == pytest.approx(hits / 30)
    assert hits > 10
    assert found[30]["labels"] == [
        (label, pytest.approx(share, abs=1e-6)) for label, share in found[0]["labels"]
    ]
    for one in found:
        shares = [share for _, share in one["labels"]]
        assert sum(shares) == pytest.approx(1)
        assert shares == sorted(shares, reverse=True)
        assert {label for label, _ in one["labels"]} == set(names)


def test_rows_are_classified_from_arrays_and_from_tables_of_text(room: Room) -> None:
    room.spec = ROWS
    place = room.folder / "v0"
    run("initial", spec=ROWS, dataset="", out=str(place))
    rows = np.array([[0, 1, -2, 3.5, 1e3], [1, 1, 1, 1, 1]], np.float32)
    np.save(room.folder / "rows.npy", rows)
    (room.folder / "rows.csv").write_text("0,1,-2,3.5,1e3\n\n1, 1,1,1,1\n")
    arrays, table = (
        classify(str(place), room.folder / name, top=2) for name in ("rows.npy", "rows.csv")
    )
    assert [one["labels"] for one in arrays] == [one["labels"] for one in table]
    assert len(table) == 2
    for text, why in (("1,2\n", "finite numbers"), ("a,b,c,d,e\n", "no table"), ("", "finite")):
        (room.folder / "rows.csv").write_text(text)
        with pytest.raises(DataError, match=why):
            classify(str(place), room.folder / "rows.csv")


def test_what_cannot_be_classified_is_refused_by_name(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = room.folder / "v0"
    run("initial", spec=SPEC, dataset="", out=str(place))
    path = room.folder / "x.png"
    for content, why in ((bomb(2**13, 2**13), "at most"), (b"\x89PNG", r"x\.png cannot be read")):
        path.write_bytes(content)
        with pytest.raises(DataError, match=why):
            classify(str(place), path)
    (room.folder / "x.txt").write_text("words")
    with pytest.raises(DataError, match=r"x\.txt holds no picture"):
        classify(str(place), room.folder / "x.txt")
    with pytest.raises(DataError, match="there is no"):
        classify(str(place), room.folder / "nothing.png")
    np.save(room.folder / "many.npy", np.zeros((40, 8, 8), np.uint8))
    monkeypatch.setattr(labelling, "MAX_SAMPLES", 30)
    with pytest.raises(DataError, match="more than 30 samples"):
        classify(str(place), room.folder / "many.npy")
    write_checkpoint(room.folder / "text", "gpt")
    with pytest.raises(TrainingError, match="no classifier"):
        classify(str(room.folder / "text"), path)
