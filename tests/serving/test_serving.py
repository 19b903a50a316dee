"""OpenAI's API over a real socket: a ledger's name, a shelf, and a worker that answers at the test's command."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio
import trio.testing

from storage import cid as cids
from storage import unixfs
from swarm import models
from swarm.errors import RefusedError, UsageError
from swarm.ledger.transactions import NameRegister, NameUpdate
from swarm.serving import service
from swarm.serving.engine import MAX_WAITING, Engine
from swarm.serving.requests import MAX_BODY_BYTES
from swarm.shelf import Shelf
from swarm.training.completion import Completed, Loaded
from swarm.training.errors import WorkerError
from tests.gateway.reading import open_pair
from tests.ledger.alone import ALICE, open_alone

TOKEN = "a token of many characters"  # noqa: S105 - of this test alone


class Puppet:
    """A worker whose model says the words that it is told to, when it is told to."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.asked: list[object] = []
        self.given_up = 0
        self.words, self.say = trio.open_memory_channel[str | None](0)[::-1]

    async def load(self, folder) -> Loaded:
        self.loaded.append(folder.name)
        return Loaded("gpt", len(self.loaded) - 1, "gpt", 8, 256, 100)

    async def complete(self, job, on_text) -> Completed:
        self.asked.append(job)
        if job.prompt == "long":
            return Completed("too_long", 9, 0, 8)
        if job.prompt == "broken":
            raise WorkerError("killed", "the process was ended by SIGKILL")
        count = 0
        try:
            if job.prompt == "at once":
                on_text("so be it")
                return Completed("stop", 2, 3, 8)
            while (word := await self.words.receive()) is not None:
                on_text(word)
                count += 1
        except trio.Cancelled:
            self.given_up += 1
            raise
        return Completed("length", 2, count, 8)


class Stage:
    """A served model, and what a test needs to play with it."""

    def __init__(self, chain, giver, engine, puppet, nursery) -> None:
        self.chain = chain
        self.giver = giver
        self.engine = engine
        self.puppet = puppet
        self.nursery = nursery
        self.roots: list[cids.Cid] = []
        self.port = 0

    async def listen(self, address="127.0.0.1", token=None) -> None:
        self.port = await self.nursery.start(service.serve, self.engine, address, 0, token)

    async def ask(self, path, body=None, **headers):
        spelled = {name.replace("_", "-"): value for name, value in headers.items()}
        url = f"http://127.0.0.1:{self.port}/v1/{path}"
        content = json.dumps(body) if isinstance(body, dict) else body
        method = "GET" if body is None else "POST"
        call = partial(httpx.request, method, url, headers=spelled, content=content)
        return await trio.to_thread.run_sync(call)

    def publish(self, folder, version: int) -> cids.Cid:
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(f"version {version}")
        root = unixfs.add_path(folder, self.giver.store).root
        payload = NameUpdate("gpt", root, version, self.roots[-1]) if self.roots else None
        assert self.chain.run(ALICE, payload or NameRegister("gpt", root)) == ""
        self.roots.append(root)
        return root


@asynccontextmanager
async def open_stage(tmp_path, version=None):
    async with open_pair() as (giver, taker, _), trio.open_nursery() as nursery:
        with open_alone(tmp_path / "chain") as chain:
            shelf = Shelf(tmp_path / "shelf", taker.store, taker.exchange, 2**20)
            puppet = Puppet()
            find = partial(models.look_up, chain.ledger.view, "gpt", version)
            engine = Engine(find, chain.heights, shelf, puppet)
            stage = Stage(chain, giver, engine, puppet, nursery)
            stage.publish(tmp_path / "model", 0)
            await engine.open()
            yield stage
            engine.close()
            nursery.cancel_scope.cancel()


@pytest.fixture
async def stage(tmp_path):
    async with open_stage(tmp_path) as made:
        await made.listen()
        yield made


def prompt(text="at once", **fields):
    return {"model": "gpt", "prompt": text} | fields


def events(text: str) -> list:
    parts = [part.removeprefix("data: ").strip() for part in text.split("\n\n") if part]
    assert parts.pop() == "[DONE]"
    return [json.loads(part) for part in parts]


async def test_an_answer_names_the_checkpoint_that_gave_it(stage) -> None:
    cid = cids.text(stage.roots[0])
    answer = await stage.ask("completions", prompt(seed=-1, stop="x"))
    told = answer.json()
    assert (answer.status_code, answer.headers["x-swarm-cid"]) == (200, cid)
    assert (told["object"], told["model"], told["system_fingerprint"]) == (
        "text_completion",
        "gpt@0",
        cid,
    )
    assert told["choices"][0]["text"] == "so be it"
    assert told["choices"][0]["finish_reason"] == "stop"
    assert told["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    job = stage.puppet.asked[0]
    assert job.checkpoint.name == cid
    assert (job.seed, job.stops) == (2**64 - 1, ["x"])
    listed = (await stage.ask("models")).json()["data"]
    assert [(one["id"], one["swarm"]["cid"]) for one in listed] == [("gpt", cid)]
    assert (await stage.ask("models/swarm/gpt@0")).json()["id"] == "gpt"


async def test_a_chat_is_streamed_word_by_word_and_ends_with_done(stage) -> None:
    body = {
        "model": "swarm/gpt",
        "messages": [{"role": "user", "content": "hello"}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    url = f"http://127.0.0.1:{stage.port}/v1/chat/completions"
    lines: list[str] = []
    first_words = trio.Event()

    def read() -> None:
        with httpx.stream("POST", url, json=body) as answer:
            for line in answer.iter_lines():
                lines.append(line)
                if '"to "' in line:
                    trio.from_thread.run_sync(first_words.set)

    async with trio.open_nursery() as reader:
        reader.start_soon(trio.to_thread.run_sync, read)
        await stage.puppet.say.send("to ")
        with trio.fail_after(10):
            await first_words.wait()  # the first word is there before the second is made
        await stage.puppet.say.send("be")
        await stage.puppet.say.send(None)
    first, *told, last, counts = events("\n".join(lines))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [one["choices"][0]["delta"]["content"] for one in told] == ["to ", "be"]
    assert (last["choices"][0]["delta"], last["choices"][0]["finish_reason"]) == ({}, "length")
    assert (counts["choices"], counts["usage"]["completion_tokens"]) == ([], 2)
    assert {one["object"] for one in (first, *told, last)} == {"chat.completion.chunk"}


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("completions", {"model": "other", "prompt": "x"}, 404, "model_not_found"),
        ("completions", prompt("long"), 400, "context_length_exceeded"),
        ("completions", prompt("long", stream=True), 400, "context_length_exceeded"),
        ("completions", prompt("broken"), 500, "worker_failed"),
        ("completions", prompt(n=3), 400, "unsupported_parameter"),
        ("completions", "{", 400, None),
        ("completions", "x" * (MAX_BODY_BYTES + 1), 413, "request_too_large"),
        ("embeddings", {"model": "gpt"}, 404, "unknown_url"),
        ("completions", None, 404, "unknown_url"),
        ("models/other", None, 404, "model_not_found"),
    ],
)
async def test_an_error_has_openais_shape_and_status(stage, path, body, status, code) -> None:
    answer = await stage.ask(path, body)
    told = answer.json()["error"]
    assert (answer.status_code, told["code"]) == (status, code)
    assert told.keys() == {"message", "type", "param", "code"}


async def test_a_newer_checkpoint_answers_after_the_stream_that_an_older_one_ends(
    stage, tmp_path
) -> None:
    served: list[str] = []
    swapped, answers = trio.Event(), {}

    def on_served(one) -> None:
        served.append(one.label)
        swapped.set()

    async def ask(text) -> None:
        answers[text] = await stage.ask("completions", prompt(text, stream=True))

    async with trio.open_nursery() as following, trio.open_nursery() as asking:
        following.start_soon(stage.engine.follow, on_served)
        asking.start_soon(ask, "slowly")
        await stage.puppet.say.send("one ")
        newer = stage.publish(tmp_path / "model", 1)
        asking.start_soon(ask, "at once")
        await trio.testing.wait_all_tasks_blocked(0.05)
        assert served == []
        await stage.puppet.say.send("two")
        await stage.puppet.say.send(None)
        with trio.fail_after(10):
            await swapped.wait()
        await ask("at once")
        following.cancel_scope.cancel()
    assert served == ["gpt@1"]
    assert answers["slowly"].headers["x-swarm-model"] == "gpt@0"
    slow = events(answers["slowly"].text)
    assert "".join(one["choices"][0]["text"] for one in slow) == "one two"
    assert {one["system_fingerprint"] for one in slow} == {cids.text(stage.roots[0])}
    assert answers["at once"].headers["x-swarm-cid"] == cids.text(newer)
    assert stage.puppet.loaded == [cids.text(one) for one in stage.roots]


async def test_a_checkpoint_that_nobody_has_leaves_the_older_one_in_place(stage) -> None:
    stage.engine._shelf._exchange._patience = 0.05
    absent = cids.of_dag_pb(b"nobody has this")
    assert stage.chain.run(ALICE, NameUpdate("gpt", absent, 1, stage.roots[0])) == ""
    with trio.move_on_after(0.3):
        await stage.engine.follow(lambda _: pytest.fail("nothing new can be served"))
    assert (await stage.ask("completions", prompt())).headers["x-swarm-model"] == "gpt@0"


async def test_more_requests_than_may_wait_are_refused_and_told_when_to_come_again(stage) -> None:
    async with trio.open_nursery() as asking:
        for _ in range(MAX_WAITING):
            asking.start_soon(stage.ask, "completions", prompt("slowly"))
        with trio.fail_after(20):
            while stage.engine._asked < MAX_WAITING:
                await trio.testing.wait_all_tasks_blocked(0.01)
        answer = await stage.ask("completions", prompt())
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert int(answer.headers["retry-after"]) > 0
        for _ in range(MAX_WAITING):
            await stage.puppet.say.send(None)
    assert (await stage.ask("completions", prompt())).status_code == 200


async def test_a_client_that_goes_gives_its_request_up(stage) -> None:
    body = json.dumps(prompt("slowly", stream=True)).encode()
    stream = await trio.open_tcp_stream("127.0.0.1", stage.port)
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    await stream.send_all(head.encode() + body)
    await stage.puppet.say.send("to ")
    await stream.receive_some(1)
    await stream.aclose()
    with trio.fail_after(10):
        while not stage.puppet.given_up:
            await trio.testing.wait_all_tasks_blocked(0.01)
    assert (await stage.ask("completions", prompt())).status_code == 200


async def test_pages_and_other_names_are_refused_on_this_machine(stage) -> None:
    for headers in (
        {"host": "model.example"},
        {"origin": "https://evil.example"},
        {"sec_fetch_site": "cross-site"},
    ):
        answer = await stage.ask("models", **headers)
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "forbidden")


async def test_a_token_is_asked_for_where_one_is_set(tmp_path) -> None:
    async with open_stage(tmp_path) as stage:
        await stage.listen("0.0.0.0", TOKEN)  # noqa: S104 - with a token, as a person may
        for shown in ({}, {"authorization": "Bearer no"}, {"authorization": f"Basic {TOKEN}"}):
            answer = await stage.ask("models", **shown)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        given = {"authorization": f"Bearer {TOKEN}", "host": "model.example"}
        assert (await stage.ask("models", **given)).status_code == 200


async def test_any_address_that_only_this_machine_reaches_is_answered_on(tmp_path) -> None:
    async with open_stage(tmp_path) as stage:
        await stage.listen("127.0.0.2")
        url = f"http://127.0.0.2:{stage.port}/v1/models"
        answer = await trio.to_thread.run_sync(httpx.get, url)
        assert answer.status_code == 200
        foreign = {"host": f"127.0.0.2.evil.example:{stage.port}"}
        refused = await trio.to_thread.run_sync(partial(httpx.get, url, headers=foreign))
        assert refused.status_code == 403


@pytest.mark.parametrize(
    ("address", "token"), [("192.0.2.1", None), ("::", "short"), ("me", TOKEN)]
)
def test_an_address_that_others_reach_needs_a_token(address, token) -> None:
    with pytest.raises(UsageError):
        service.check_address(address, token)
    assert service.check_address("127.0.0.1", None)
    assert service.check_address("::1", None)
    assert not service.check_address("192.0.2.1", TOKEN)


async def test_a_version_that_was_asked_for_stays_and_a_taken_port_is_told(tmp_path) -> None:
    async with open_stage(tmp_path, version=0) as stage:
        await stage.listen()
        stage.publish(tmp_path / "model", 1)
        with trio.move_on_after(0.2):
            await stage.engine.follow(lambda _: pytest.fail("the version was asked for"))
        assert stage.engine.served.version == 0
        with pytest.raises(RefusedError, match=f"port {stage.port}"):
            await service.serve(stage.engine, "127.0.0.1", stage.port, None)


async def test_what_is_no_model_is_not_served(tmp_path) -> None:
    async with open_stage(tmp_path) as stage:
        (tmp_path / "model" / "config.json").unlink()
        (tmp_path / "model" / "plays.txt").write_text("to be")
        root = unixfs.add_path(tmp_path / "model", stage.giver.store).root
        assert stage.chain.run(ALICE, NameUpdate("gpt", root, 1, stage.roots[0])) == ""
        with pytest.raises(UsageError, match="is not a model"):
            await stage.engine.open()
