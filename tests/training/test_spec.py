from __future__ import annotations

from bisect import bisect
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import swarm.training
from storage import cid
from swarm.ledger.errors import TransactionError
from swarm.ledger.transactions import Phases, TaskPost
from swarm.training.errors import SpecError
from swarm.training.spec import (
    MAX_FILE_BYTES,
    TOKEN,
    _parsed_once,
    check_posted,
    parse_spec,
    with_data,
    write_spec,
)

TASKS = Path(swarm.training.__file__).parent / "tasks"
SMALL = b"""
[task]
name = "t"
kind = "lm"
rounds = 8
budget = "0.5"
[data]
dataset = "d"
pool = "p"
"""


def test_a_short_task_gets_the_defaults() -> None:
    spec = parse_spec(SMALL)
    assert (spec.train.steps, spec.update.top_k, spec.score.sequences) == (15, 74, 32)
    assert spec.budget == TOKEN // 2


@pytest.mark.parametrize("name", ["gpt.toml", "gan.toml"])
def test_the_packaged_tasks_are_read_and_written_back(name: str) -> None:
    spec = parse_spec((TASKS / name).read_bytes())
    assert parse_spec(write_spec(spec)) == spec
    posted = with_data(spec, "bafyA", "bafyB")
    assert (posted.data.dataset, posted.data.pool, posted.model) == ("bafyA", "bafyB", spec.model)


def test_a_task_without_parts_is_posted_as_before_there_were_any() -> None:
    assert b"parts" not in write_spec(parse_spec(SMALL))
    parted = parse_spec(SMALL + b"[update]\nparts = 4")
    assert parted.update.parts == 4
    assert parse_spec(write_spec(parted)) == parted


def test_a_path_with_quotes_and_backslashes_survives_writing() -> None:
    spec = with_data(parse_spec(SMALL), 'a "b" \\ c', "é/ü")
    assert parse_spec(write_spec(spec)) == spec


@pytest.mark.parametrize(
    ("field", "extra", "old", "new"),
    [
        ("task.rounds", "", "rounds = 8", "rounds = 0"),
        ("task.rounds", "", "rounds = 8", "rounds = true"),
        ("task.budget", "", '"0.5"', '"-1"'),
        ("task.budget", "", '"0.5"', '"1e3"'),
        ("task.name", "", '"t"', '"-t"'),
        ("task.kind", "", '"lm"', '"code"'),
        ("data.pool", "", 'pool = "p"', ""),
        ("train.learning_rate", "[train]\nlearning_rate = nan", "", ""),
        ("train.steps", "[train]\nsteps = 1.5", "", ""),
        ("train.speed", "[train]\nspeed = 1", "", ""),
        ("update.bits", "[update]\nbits = 2", "", ""),
        ("update.parts", "[update]\nparts = 0", "", ""),
        ("update.parts", "[update]\nparts = 65", "", ""),
        ("model.width", "[model]\nwidth = 65", "", ""),
        ("model", "[model]\nlayers = 200\nwidth = 16384", "", ""),
        ("extra", "[extra]", "", ""),
        ("task file", "[", "", ""),
        ("task file", "[train]\nsteps = " + "9" * 5000, "", ""),
    ],
)
def test_an_error_names_its_field(field: str, extra: str, old: str, new: str) -> None:
    text = SMALL.decode().replace(old, new) if old else SMALL.decode()
    with pytest.raises(SpecError) as caught:
        parse_spec((text + extra).encode())
    assert caught.value.field == field


def test_a_task_file_that_is_too_long_is_not_parsed() -> None:
    with pytest.raises(SpecError, match="bytes"):
        parse_spec(SMALL + b"#" * MAX_FILE_BYTES)


def classifier(labels: int, dataset: str = "d") -> bytes:
    names = "a," + "b" * (labels - 2)
    text = SMALL.replace(b'"lm"', b'"classifier"').replace(b'"d"', b'"%b"' % dataset.encode())
    return text + b'[model]\nlabels = "%b"\n' % names.encode()


def is_taken_by_the_ledger(data: bytes) -> bool:
    root = cid.of_raw(b"x")
    spec = with_data(parse_spec(data), cid.text(root), cid.text(root))
    encoded = write_spec(spec)
    phases = Phases(10, 3, 6, 3, 6)
    try:
        TaskPost(spec.name, spec.kind, encoded, root, root, root, 8, 10**9, phases, 0).check()
    except TransactionError:
        return False
    return True


@pytest.mark.parametrize("dataset", ["d", "/a/long/path" * 80])
def test_labels_that_the_ledger_has_no_room_for_are_refused_before_the_task_is_posted(
    dataset: str,
) -> None:
    counts = range(7_000, 8_000)
    refused = bisect(counts, x=False, key=lambda one: not is_taken_by_the_ledger(classifier(one)))
    most = counts[refused - 1]
    check_posted(parse_spec(classifier(most, dataset)))
    with pytest.raises(SpecError, match="the ledger takes 8,192") as caught:
        check_posted(parse_spec(classifier(most + 1, dataset)))
    assert caught.value.field == "model.labels"


def test_of_other_tasks_nothing_is_too_long_for_the_ledger() -> None:
    longest = "\N{MICROSCOPE}" * 1024
    text = SMALL.decode().replace('"p"', f'"p"\nlicense = "{longest[:64]}"')
    text = text.replace('"p"', f'"p"\ncolumn = "{longest[:256]}"')
    check_posted(parse_spec(f'{text}[model]\nbase = "{longest}"'.encode()))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_task_or_a_spec_error(data: bytes) -> None:
    for text in (data, SMALL + data):
        try:
            parse_spec(text)
        except SpecError:
            continue


@pytest.mark.parametrize("data", [b".a" * 4000 + b" = 1", b"a" + b".a" * 200 + b" = 1"])
def test_a_task_is_read_once_however_long_a_stranger_makes_that_take(data: bytes) -> None:
    assert parse_spec(bytes(SMALL)) is parse_spec(bytes(bytearray(SMALL)))
    for _ in range(2):
        with pytest.raises(SpecError) as found:
            parse_spec(data)
        assert found.value.field in ("task file", "a")
    before = _parsed_once.cache_info().misses
    for _ in range(50):
        with pytest.raises(SpecError):
            parse_spec(data)
    assert _parsed_once.cache_info().misses == before
