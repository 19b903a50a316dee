"""Published tokenizers: a real one trained on real text, and those that a stranger would make."""

from __future__ import annotations

import hashlib
import json
import pydoc_data.topics
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import trio
from tokenizers import Tokenizer as Library
from tokenizers import decoders, models, pre_tokenizers, trainers

from storage import cid as cids
from storage.unixfs import hash_path
from swarm.training import checkpoint, jobs, tokens
from swarm.training.child import WorkerSettings
from swarm.training.errors import CheckpointError, DataError, SpecError, WorkerError
from swarm.training.requests import TrainJob
from swarm.training.spec import (
    MAX_TOKENIZER_BYTES,
    max_update_bytes,
    parse_spec,
    with_tokenizer,
    write_spec,
)
from swarm.training.supervisor import Worker
from tests.training.conftest import BEACON, SPEC, TASK, Room

if TYPE_CHECKING:
    from collections.abc import Iterator

VOCABULARY = 512
GIVES_UP = r"(a*)*b|(a|aa)+$"
SLOW = r"a{0,1500}a{0,1500}[^ab]"
"""About two million steps back for each letter of a text of many a: under the library's limit for one match."""


@cache
def texts() -> tuple[str, ...]:
    return tuple(text for _, text in sorted(pydoc_data.topics.topics.items()))


@cache
def published() -> bytes:
    """A tokenizer.json as anybody makes one with the library."""
    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(texts()[:20], trainer)
    return library.to_str().encode()


def changed(**parts: Any) -> bytes:
    return json.dumps({**json.loads(published()), **parts}).encode()


def model(**parts: Any) -> bytes:
    return changed(model={**json.loads(published())["model"], **parts})


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """A task over the tokens of the published tokenizer, on the language reference."""
    for name, part in (("train", texts()[:12]), ("pool", texts()[12:16])):
        (tmp_path / name).mkdir()
        for at, text in enumerate(part):
            (tmp_path / name / f"{at}.txt").write_text(text)
    place = tmp_path / "tokens.json"
    place.write_bytes(published())
    raw = SPEC.replace(b'pool = "pool"', b'pool = "pool"\ntokenizer = "tokens.json"')
    root = cids.text(hash_path(place).root)
    return Room(tmp_path, write_spec(with_tokenizer(parse_spec(raw), root, VOCABULARY)))


@pytest.fixture
def bench() -> Iterator[jobs.Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield jobs.Bench(torch.device("cpu"), lambda *_: None)
    torch.set_num_threads(threads)


def initial(room: Room, bench: jobs.Bench, tokenizer: bytes | None = None) -> dict[str, Any]:
    place = room.folder / "tokens.json"
    if tokenizer is not None:
        place.write_bytes(tokenizer)
    fields = {"spec": room.spec, "dataset": str(room.train), "out": str(room.folder / "v0")}
    return jobs.run({"job": "initial", **fields, "tokenizer": str(place)}, bench)


def evaluate(room: Room, bench: jobs.Bench, version: str) -> int:
    fields = {"spec": room.spec, "checkpoint": str(room.folder / version), "limit": None}
    loss: int = jobs.run({"job": "evaluate", **fields, "pool": str(room.pool)}, bench)["loss"]
    return loss


@pytest.mark.slow
def test_a_round_over_tokens_makes_a_better_checkpoint_that_carries_the_tokenizer(
    room: Room, bench: jobs.Bench
) -> None:
    assert 1.5 < initial(room, bench)["bytes_per_token"] < 4
    common = {"peer": "a", "dataset_root": "bafyd", "state": str(room.folder / "state")}
    file = str(room.folder / "u1")
    trained = jobs.run({"job": "train", **room.fields(), **common, "out": file}, bench)
    assert (
        trained["loss_last"] < trained["loss_first"] == pytest.approx(np.log(VOCABULARY), rel=0.1)
    )
    assert Path(file).stat().st_size < max_update_bytes(parse_spec(room.spec))
    scored = jobs.run({"job": "score", **room.fields(), "updates": [file], "peers": ["a"]}, bench)
    assert scored["scores"][0] > 0
    fields = {**room.fields(), "name": "tiny", "version": 1, "updates": [file], "scores": []}
    merged = jobs.run({"job": "merge", **fields, "out": str(room.folder / "v1")}, bench)
    assert merged["loss"] > 0
    assert evaluate(room, bench, "v1") < evaluate(room, bench, "v0")
    for version in ("v0", "v1"):
        folder = room.folder / version
        assert (folder / "tokenizer.json").read_bytes() == published()
        assert checkpoint.load(folder).config.tokenizer == parse_spec(room.spec).data.tokenizer
    ask = {"job": "sample", "checkpoint": str(room.folder / "v1"), "out": None, "length": 12}
    words = [
        jobs.run({**ask, "prompt": prompt, "temperature": 1.0, "seed": 3}, bench)["text"]
        for prompt in ("The ", "The ", "", "caf\u00e9 \ud800")
    ]
    assert words[0] == words[1] != ""
    assert len(words[0]) > 12  # of twelve tokens, not of twelve bytes
    ask["length"] = 1
    long = jobs.run({**ask, "prompt": "The swarm " * 9, "temperature": 1.0, "seed": 3}, bench)
    assert len(long["text"]) < 20  # without the prompt


def test_what_a_tokenizer_encodes_it_decodes_wherever_a_file_is_cut(tmp_path: Path) -> None:
    tokenizer = tokens.Tokenizer(published())
    text = "\n".join(texts())[:150_000] + "\u20ac" * 50_000 + "\nlast"
    path = tmp_path / "text"
    path.write_text(text)
    pieces = list(tokens._pieces(path))
    assert len(pieces) > 4
    assert max(len(piece.encode()) for piece in pieces) <= tokens.PIECE_BYTES
    assert "".join(pieces) == text
    ids = tokens.encode_files(tokenizer, [path, path])
    assert ids.dtype == np.uint16
    assert tokenizer.decode(ids.tolist()) == 2 * text


def test_two_processes_give_a_dataset_the_same_ids(room: Room) -> None:
    code = (
        "import sys, hashlib; from pathlib import Path; from swarm.training import tokens\n"
        "tokenizer = tokens.Tokenizer(Path(sys.argv[1]).read_bytes())\n"
        "paths = [Path(one) for one in sys.argv[2:]]\n"
        "ids = tokens.encode_files(tokenizer, paths)\n"
        "print(hashlib.sha256(ids.tobytes()).hexdigest())\n"
    )
    paths = sorted(room.train.iterdir())
    other = subprocess.run(
        [sys.executable, "-c", code, room.folder / "tokens.json", *paths],
        check=True,
        capture_output=True,
        env={"TOKENIZERS_PARALLELISM": "true", "RAYON_NUM_THREADS": "2", "PYTHONHASHSEED": "7"},
    )
    ids = tokens.encode_files(tokens.Tokenizer(published()), paths)
    assert other.stdout.decode().strip() == hashlib.sha256(ids.tobytes()).hexdigest()


def test_a_dataset_is_encoded_once_and_the_one_not_used_for_longest_makes_room(room: Room) -> None:
    tokenizer = tokens.Tokenizer(published())
    train, pool = sorted(room.train.iterdir()), sorted(room.pool.iterdir())
    calls: list[int] = []
    roomy = tokens.Cache()
    first = roomy.ids(tokenizer, train, lambda: calls.append(1))
    assert calls
    calls.clear()
    assert roomy.ids(tokenizer, train, lambda: calls.append(1)) is first
    assert not calls
    train[0].write_text(
        "other"
    )  # a folder of the same name with other content is not mistaken for it
    assert len(roomy.ids(tokenizer, train, lambda: None)) != len(first)

    small = tokens.Cache(limit=first.nbytes)
    small.ids(tokenizer, pool, lambda: None)
    small.ids(tokenizer, train, lambda: None)
    assert small.held <= first.nbytes
    small.ids(tokenizer, pool, lambda: calls.append(1))
    assert calls


class _GivenUpError(Exception):
    """As the worker raises it where the node gives a job up."""


def test_what_a_job_that_was_given_up_has_encoded_is_not_encoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "PIECES", 1)
    path = tmp_path / "text"
    path.write_text("\n".join(texts())[:300_000])
    tokenizer, cache = tokens.Tokenizer(published()), tokens.Cache()
    calls: list[int] = []

    def give_up() -> None:
        calls.append(1)
        raise _GivenUpError

    for _ in range(2):
        with pytest.raises(_GivenUpError):
            cache.ids(tokenizer, [path], give_up)
    found = cache.ids(tokenizer, [path], lambda: calls.append(1))
    assert len(calls) == len(list(tokens._pieces(path)))
    np.testing.assert_array_equal(found, tokens.encode_files(tokenizer, [path]))


def test_more_ids_than_memory_is_given_for_are_refused(
    room: Room, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "MAX_ID_BYTES", 1000)
    with pytest.raises(DataError, match="token ids"):
        tokens.encode_files(tokens.Tokenizer(published()), [*room.train.iterdir()])


def special(**parts: Any) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": VOCABULARY, "content": "<x>", **flags, **parts}


def padded() -> bytes:
    padding: dict[str, Any] = {
        "strategy": {"Fixed": 900},
        "direction": "Right",
        "pad_to_multiple_of": None,
    }
    padding |= {"pad_id": 10**6, "pad_type_id": 0, "pad_token": "x"}
    truncation = {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}
    return changed(padding=padding, truncation=truncation)


def test_padding_truncation_and_special_tokens_of_the_file_do_not_touch_the_data() -> None:
    single = [
        {"SpecialToken": {"id": "<x>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
    ]
    template: dict[str, Any] = {"type": "TemplateProcessing", "single": single, "pair": single}
    template["special_tokens"] = {"<x>": {"id": "<x>", "ids": [10**6], "tokens": ["<x>"]}}
    plain = tokens.Tokenizer(published()).encode(["one two three four"])
    for content in (padded(), changed(post_processor=template)):
        np.testing.assert_array_equal(
            tokens.Tokenizer(content).encode(["one two three four"]), plain
        )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda: b"\x80", "JSON"),
        (lambda: b"[" * 10**5, "JSON"),
        (lambda: b"[]", "no model"),
        (lambda: b"{" + b" " * MAX_TOKENIZER_BYTES + b"}", "bytes"),
        (lambda: changed(model={"type": "BPE"}), "vocabulary"),
        (lambda: model(vocab={str(at): at for at in range(2**17 + 1)}, merges=[]), "vocabulary"),
        (lambda: model(type="Imagined"), "cannot be loaded"),
        (lambda: model(merges=[["nothing", "known"]]), "cannot be loaded"),
        (lambda: model(dropout=0.1), "random"),
        (lambda: model(vocab={"a": 0, "b": 9}, merges=[]), "ids"),
        (lambda: model(vocab={"a": 0, "b": 0}, merges=[]), "ids"),
        (lambda: model(vocab={"a": 0, "b": -1}, merges=[]), "cannot be loaded"),
        (lambda: changed(added_tokens=[special()] * (2**13 + 1)), "adds more"),
        (lambda: changed(added_tokens=[special(content="x" * 2**19)]), "characters"),
        (lambda: changed(pre_tokenizer={"type": "Split"}), "cannot be loaded"),
    ],
)
def test_a_hostile_tokenizer_is_refused_with_its_cause(content: Any, why: str) -> None:
    with pytest.raises(SpecError, match=why) as caught:
        tokens.Tokenizer(content())
    assert caught.value.field == "data.tokenizer"


def splitting(pattern: str) -> bytes:
    split = {
        "type": "Split",
        "pattern": {"Regex": pattern},
        "behavior": "Isolated",
        "invert": False,
    }
    return changed(pre_tokenizer=split)


def test_a_pattern_that_gives_up_is_an_error_of_the_tokenizer() -> None:
    tokenizer = tokens.Tokenizer(splitting(GIVES_UP))
    with pytest.raises(SpecError, match="retry-limit"):
        tokenizer.encode(["a" * 60_000 + "!"])


def test_an_id_beyond_the_vocabulary_never_reaches_a_model() -> None:
    tokenizer = tokens.Tokenizer(published())
    tokenizer.vocabulary = 300
    with pytest.raises(SpecError, match="300 tokens"):
        tokenizer.encode(["what is learnt comes after the bytes"])


def test_another_vocabulary_than_the_tokenizers_names_the_field(
    room: Room, bench: jobs.Bench
) -> None:
    explicit = SPEC.replace(b"context = 16", b"context = 16\nvocabulary = 500").replace(
        b'pool = "pool"', b'pool = "pool"\ntokenizer = "tokens.json"'
    )
    with pytest.raises(SpecError, match=r"model\.vocabulary: is 500, and the tokenizer has 512"):
        with_tokenizer(parse_spec(explicit), "bafy", VOCABULARY)
    room.spec = room.spec.replace(b"vocabulary = 512", b"vocabulary = 511")
    with pytest.raises(SpecError, match=r"model\.vocabulary: is 511, and the tokenizer has 512"):
        initial(room, bench)


def test_the_spelling_of_a_task_over_bytes_is_pinned() -> None:
    spec = parse_spec(SPEC)
    assert (spec.data.tokenizer, spec.lm.vocabulary) == ("bytes", 256)
    digest = hashlib.sha256(write_spec(spec)).hexdigest()
    assert digest == "6e23456708ee7939948c1a99604c7b1652570c9d037985a0d9f3ca6d0e7b589b"
    for text in (b"vocabulary = 512", b"vocabulary = 0"):
        with pytest.raises(SpecError, match=r"model\.vocabulary"):
            parse_spec(SPEC.replace(b"context = 16", b"context = 16\n" + text))


def test_a_checkpoint_with_another_tokenizer_than_its_config_names_is_refused(
    room: Room, bench: jobs.Bench
) -> None:
    initial(room, bench)
    folder = room.folder / "v0"
    place = folder / "tokenizer.json"
    for content, why in ((published() + b" ", "not baf"), (b" " * (2**24 + 1), "longer")):
        place.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"tokenizer\.json is {why}"):
            evaluate(room, bench, "v0")
    place.unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        evaluate(room, bench, "v0")
    # A model of another size than its own tokenizer, for whoever samples from it.
    place.write_bytes(changed(added_tokens=[special(id=VOCABULARY)]))
    config = json.loads((folder / "config.json").read_bytes())
    config["swarm"]["tokenizer"] = cids.text(hash_path(place).root)
    (folder / "config.json").write_text(json.dumps(config))
    fields = {"checkpoint": str(folder), "prompt": "", "out": None, "length": 1}
    with pytest.raises(SpecError, match="the tokenizer has 513"):
        jobs.run({"job": "sample", **fields, "temperature": 0.0, "seed": 0}, bench)
    config["swarm"]["tokenizer"] = "bytes"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="vocabulary"):
        checkpoint.load(folder)


def posted(room: Room, content: bytes) -> bytes:
    """The room's task with another tokenizer in place."""
    place = room.folder / "tokens.json"
    place.write_bytes(content)
    root = cids.text(hash_path(place).root)
    return write_spec(with_tokenizer(parse_spec(room.spec), root, VOCABULARY))


@pytest.mark.slow
async def test_a_worker_outlives_a_tokenizer_that_swallows_memory(room: Room) -> None:
    place, out = room.folder / "tokens.json", room.folder / "v0"
    worker = Worker(WorkerSettings(nice=0))
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        assert await worker.vocabulary(place) == VOCABULARY
        grow = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 2**22}
        with pytest.raises(WorkerError, match="memory allocation") as caught:
            await worker.initial(posted(room, changed(normalizer=grow)), room.train, out, place)
        assert caught.value.cause == "killed"

        # A panic of the library is the job's fault alone, and progress tells of steps only.
        (room.train / "a.txt").write_text("a" * 60_000 + "!")
        with pytest.raises(WorkerError, match="retry-limit") as caught:
            await worker.initial(posted(room, splitting(GIVES_UP)), room.train, out, place)
        assert caught.value.cause == "failed"
        second = worker.pid
        spec = posted(room, published())
        ratio = await worker.initial(spec, room.train, out, place)
        assert ratio is not None
        assert ratio > 1
        seen: list[int] = []
        job = TrainJob(
            spec=spec,
            task=TASK,
            round=1,
            peer="a",
            beacon=BEACON,
            base_root="bafyv0",
            base=out,
            dataset=room.pool,
            dataset_root="bafyd",
            state=room.folder / "state",
            out=room.folder / "u1",
        )
        await worker.train(job, lambda step, _steps, _loss: seen.append(step))
        assert seen == [1, 2, 3, 4, 5, 6]
        assert worker.pid == second
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_a_pattern_without_end_is_stopped_with_the_worker(room: Room) -> None:
    (room.train / "a.txt").write_text("a" * 60_000 + "!")
    worker = Worker(WorkerSettings(nice=0, silence_seconds=1.0))
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        spec = posted(room, splitting(SLOW))
        place = room.folder / "tokens.json"
        with pytest.raises(WorkerError) as caught:
            await worker.initial(spec, room.train, room.folder / "v0", place)
        assert (caught.value.cause, worker.pid) == ("timeout", None)
        nursery.cancel_scope.cancel()
