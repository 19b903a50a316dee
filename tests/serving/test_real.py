"""A real worker with a real model behind OpenAI's API, and a newer checkpoint taken up while it answers."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import partial

import httpx
import numpy as np
import pytest
import trio

from storage import cid as cids
from storage import unixfs
from swarm import models
from swarm.ledger.transactions import NameRegister, NameUpdate
from swarm.serving import service
from swarm.serving.engine import Engine
from swarm.shelf import Shelf
from swarm.training import checkpoint, philox
from swarm.training.child import WorkerSettings
from swarm.training.sizes import LmModel
from swarm.training.supervisor import Worker
from tests.gateway.reading import open_pair
from tests.ledger.alone import ALICE, open_alone

pytestmark = pytest.mark.slow
SIZES = LmModel(layers=1, heads=2, width=16, context=64, kv_heads=2, hidden=64)
START_SECONDS = 120
ANSWERS = 40


def write_model(folder, version: int) -> None:
    """A byte model with weights of its own for each version."""
    from swarm.training.models import build

    values = {
        name: philox.uniform(100 * version + at, tuple(item.shape), 0.3).astype(np.float32)
        for at, (name, item) in enumerate(sorted(build(SIZES).state_dict().items()))
    }
    config = checkpoint.Config("lm", "gpt", version, "bytes", SIZES)
    checkpoint.write(folder, config, values, "a card\n")


@asynccontextmanager
async def served(tmp_path):
    """A name with one version, served; gives the engine, the base URL, and what publishes the next."""
    worker = Worker(WorkerSettings(device="cpu", threads=1, nice=10, job_seconds=60))
    async with open_pair() as (giver, taker, _), trio.open_nursery() as nursery:
        with open_alone(tmp_path / "chain") as chain:
            roots: list[cids.Cid] = []

            def publish() -> str:
                version = len(roots)
                write_model(tmp_path / f"v{version}", version)
                root = unixfs.add_path(tmp_path / f"v{version}", giver.store).root
                change = NameUpdate("gpt", root, version, roots[-1]) if roots else None
                assert chain.run(ALICE, change or NameRegister("gpt", root)) == ""
                roots.append(root)
                return cids.text(root)

            publish()
            await nursery.start(worker.run)
            shelf = Shelf(tmp_path / "shelf", taker.store, taker.exchange, 2**24)
            find = partial(models.look_up, chain.ledger.view, "gpt", None)
            engine = Engine(find, chain.heights, shelf, worker)
            with trio.fail_after(START_SECONDS):
                await engine.open()
            port = await nursery.start(service.serve, engine, "127.0.0.1", 0, None)
            yield engine, f"http://127.0.0.1:{port}/v1", publish, roots
            engine.close()
            nursery.cancel_scope.cancel()


def read(url: str, body: dict, heard) -> tuple[str, set[str]]:
    """A streamed answer: its text, and the checkpoints that its events name."""
    texts, names = [], set()
    with httpx.stream("POST", url, json=body | {"stream": True}, timeout=60) as answer:
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if line.startswith("data: {"):
                event = json.loads(line.removeprefix("data: "))
                names.add(event["system_fingerprint"])
                texts += [one.get("text") or "" for one in event["choices"]]
                heard()
    return "".join(texts), names


async def test_a_newer_checkpoint_is_taken_up_while_the_older_one_answers(tmp_path) -> None:
    """Each answer is of one checkpoint, is what that checkpoint says, and says which it was."""
    body = {"model": "gpt", "prompt": "to be", "max_tokens": ANSWERS, "seed": 3}
    async with served(tmp_path) as (engine, url, publish, roots), trio.open_nursery() as nursery:
        first = await trio.to_thread.run_sync(read, f"{url}/completions", body, lambda: None)
        assert first[1] == {cids.text(roots[0])}
        swapped, begun = trio.Event(), trio.Event()
        nursery.start_soon(engine.follow, lambda _: swapped.set())
        answers: list[tuple[str, set[str]]] = []

        async def ask() -> None:
            def heard() -> None:
                trio.from_thread.run_sync(begun.set)

            call = partial(read, f"{url}/completions", body, heard)
            answers.append(await trio.to_thread.run_sync(call))

        async with trio.open_nursery() as asking:
            for _ in range(3):
                asking.start_soon(ask)
            with trio.fail_after(60):
                await begun.wait()
            newer = publish()
        with trio.fail_after(60):
            await swapped.wait()
        assert engine.served.cid == newer
        await ask()
        by_checkpoint: dict[str, set[str]] = {}
        for text, names in answers:
            (name,) = names
            by_checkpoint.setdefault(name, set()).add(text)
        assert by_checkpoint[cids.text(roots[0])] == {first[0]}
        assert len(by_checkpoint[newer]) == 1
        assert by_checkpoint[newer] != {first[0]}

        told = await trio.to_thread.run_sync(partial(httpx.get, f"{url}/models"))
        assert told.json()["data"][0]["swarm"]["cid"] == newer
        chat = {"model": "gpt", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}
        post = partial(httpx.post, f"{url}/chat/completions", json=chat, timeout=60)
        answer = await trio.to_thread.run_sync(post)
        assert answer.json()["choices"][0]["message"]["role"] == "assistant"
        assert answer.headers["x-swarm-cid"] == newer
        nursery.cancel_scope.cancel()
