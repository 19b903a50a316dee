"""Text as it is made: the same tokens as the whole model gives, in whole characters, up to a stop."""

from __future__ import annotations

import json
import random

import pytest
import torch
import trio
import trio.testing

from swarm.training import finetune, generation, models, tokens
from swarm.training.child import WorkerSettings
from swarm.training.completion import CompletionJob, Loaded
from swarm.training.errors import WorkerError
from swarm.training.generation import BytePieces, Reader, TokenPieces, Writer
from swarm.training.hf import byte_tokenizer
from swarm.training.sizes import FinetuneModel, LmModel
from swarm.training.supervisor import Worker
from tests.training.conftest import Room

CPU = torch.device("cpu")
SIZES = {
    "gpt": LmModel(layers=2, heads=2, width=16, context=16, hidden=32, kv_heads=2),
    "llama": LmModel(layers=2, heads=4, width=16, context=16, hidden=32, kv_heads=2, shape="llama"),
}


def made(shape: str, tokenizer=None) -> generation.Model:
    sizes = SIZES[shape]
    module = models.fill(models.build(sizes), models.initial(models.build(sizes), 3), CPU)
    about = Loaded("tiny", 1, shape, sizes.context, sizes.vocabulary, 0)
    return generation.Model(about, module.requires_grad_(False), sizes, tokenizer, CPU)


def ask(model, prompt="to be", **fields):
    told = []
    job = CompletionJob(None, prompt, **{"max_tokens": 8, "seed": 5} | fields)
    done = generation.complete(model, job, told.append, lambda: None)
    return "".join(told), done


@pytest.mark.parametrize("shape", SIZES)
def test_what_was_read_is_kept_and_gives_the_logits_of_the_whole_text(shape) -> None:
    model = made(shape)
    reader = Reader(model.module, model.sizes, CPU)
    text = list(b"or not to be, so")
    with torch.inference_mode():
        read = [reader.read(text[:5]), *(reader.read([one]) for one in text[5:])]
        whole = model.module(torch.tensor([text]))[0, 4:]
    assert torch.allclose(torch.stack(read), whole, atol=1e-5)


@pytest.mark.parametrize("shape", SIZES)
def test_a_decoder_of_a_frozen_and_a_trained_part_is_read_as_one(shape) -> None:
    kv_heads = 1 if shape == "llama" else 2
    sizes = FinetuneModel(
        "bafybase", 1, 16, 3, 2, 16, 64, shape, kv_heads=kv_heads, hidden=32, positions=16
    )
    torch.manual_seed(1)
    whole = finetune.Whole(finetune.Front(sizes), finetune.Tail(sizes))
    for item in whole.parameters():
        torch.nn.init.normal_(item, std=0.2)
    reader = Reader(whole, sizes, CPU)
    with torch.inference_mode():
        read = [reader.read([5, 6, 7]), reader.read([8]), reader.read([9])]
        expected = whole(torch.tensor([[5, 6, 7, 8, 9]]))[0, 2:]
    assert torch.allclose(torch.stack(read), expected, atol=1e-5)


@pytest.mark.parametrize("shape", SIZES)
def test_text_goes_on_past_the_context_and_is_a_function_of_its_seed(shape) -> None:
    model = made(shape)
    text, done = ask(model, "a" * 15, max_tokens=40)
    assert (done.finish, done.prompt_tokens, done.completion_tokens) == ("length", 15, 40)
    assert ask(model, "a" * 15, max_tokens=40)[0] == text
    assert ask(model, "a" * 15, max_tokens=40, seed=6)[0] != text


def test_a_prompt_that_does_not_fit_is_refused_or_cut_where_that_is_asked_for() -> None:
    model = made("gpt")
    text, done = ask(model, "a" * 17)
    assert (text, done.finish, done.prompt_tokens, done.context) == ("", "too_long", 17, 16)
    assert ask(model, "b" + "a" * 16, truncate=0)[1].prompt_tokens == 16
    assert ask(model, "b" + "a" * 16, truncate=3)[1].prompt_tokens == 3


def test_the_likeliest_token_is_taken_at_temperature_zero_and_alone_in_a_small_nucleus() -> None:
    model = made("gpt")
    cold = ask(model, temperature=0.0)[0]
    assert ask(model, temperature=0.0, seed=9)[0] == cold
    assert ask(model, temperature=1.0, top_p=1e-9, seed=9)[0] == cold
    assert ask(model, temperature=1.0, top_p=0.0, seed=9)[0] == cold


def test_bytes_become_whole_characters_and_what_is_none_is_replaced() -> None:
    made = BytePieces()
    assert [made.add(one) for one in "é".encode()] == ["", "é"]
    assert [made.add(0xC3), made.end()] == ["", "\ufffd"]


@pytest.mark.parametrize("seed", range(4))
def test_pieces_of_a_tokenizer_join_to_what_it_decodes(seed) -> None:
    draw = random.Random(seed)
    tokenizer = tokens.Tokenizer(byte_tokenizer())
    text = "".join(draw.choice("aé €\U0001f600\n") for _ in range(40))
    prompt = [int(one) for one in tokenizer.encode(["before "])]
    pieces = TokenPieces(prompt, tokenizer.decode)
    told = [pieces.add(int(one)) for one in tokenizer.encode([text])]
    assert "".join([*told, pieces.end()]) == text
    assert not any("\ufffd" in one for one in told)


def test_a_tokenizer_that_writes_a_space_before_words_keeps_it_between_pieces() -> None:
    vocabulary = {"<unk>": 0, "\u2581to": 1, "\u2581be": 2, "\u2581or": 3}
    replace = {
        "type": "Metaspace",
        "replacement": "\u2581",
        "prepend_scheme": "always",
        "split": True,
    }
    content = {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": replace,
        "decoder": replace,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    }
    tokenizer = tokens.Tokenizer(json.dumps(content).encode())
    pieces = TokenPieces([1, 2], tokenizer.decode)
    assert "".join([pieces.add(3), pieces.add(1), pieces.end()]) == " or to"


def written(text: str, stops: list[str]) -> tuple[list[str], bool]:
    writer = Writer(BytePieces(), stops)
    told = []
    for one in text.encode():
        told.append(writer.add(one))
        if writer.stopped:
            return told, True
    return [*told, writer.end()], False


@pytest.mark.parametrize(
    ("text", "stops", "told", "stopped"),
    [
        ("to be or not", ["or"], "to be ", True),
        ("to be or not", ["not", " be"], "to", True),
        ("aab", ["ab"], "a", True),
        ("ENDE", ["ENDED"], "ENDE", False),
        ("éé", ["é"], "", True),
        ("text", [""], "text", False),
    ],
)
def test_nothing_of_a_stop_is_told_and_all_before_it_is(text, stops, told, stopped) -> None:
    pieces, ended = written(text, stops)
    assert ("".join(pieces), ended) == (told, stopped)


@pytest.mark.slow
async def test_a_worker_tells_text_as_it_is_made_and_survives_who_leaves_the_queue(
    room: Room,
) -> None:
    worker = Worker(WorkerSettings(nice=0))
    folder = room.folder / "v0"
    async with trio.open_nursery() as nursery:
        await nursery.start(worker.run)
        await worker.initial(room.spec, room.train, folder)
        about = await worker.load(folder)
        assert (about.name, about.context, about.vocabulary) == ("tiny", 16, 256)
        pid, told = worker.pid, []
        long, short = (CompletionJob(folder, "to be", most, seed=1) for most in (4_096, 20))
        began = trio.Event()
        async with trio.open_nursery() as asking:

            async def ask() -> None:
                await worker.complete(long, lambda _: began.set())

            asking.start_soon(ask)
            await began.wait()
            asking.start_soon(worker.complete, short, told.append)  # waits behind the long one
            await trio.testing.wait_all_tasks_blocked()
            asking.cancel_scope.cancel()
        assert told == []
        done = await worker.complete(short, told.append)
        assert (done.finish, done.completion_tokens, worker.pid) == ("length", 20, pid)
        assert len(told) > 1
        with pytest.raises(WorkerError, match=r"config\.json"):
            await worker.load(room.train)
        nursery.cancel_scope.cancel()
