"""Rounds of three real nodes: one is killed in the middle of its work, and another comes in the middle of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from cli import view
from storage import cid
from storage.unixfs import hash_path
from tests.process.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from swarm.client import Client
    from tests.process.cluster import Node

pytestmark = pytest.mark.slow

TRAIN_BLOCKS, REVEAL_BLOCKS = 120, 40
TASK = f"""
[task]
name = "live"
kind = "lm"
rounds = 3
budget = "90"

[data]
dataset = "text"
pool = "pool"

[model]
layers = 1
heads = 2
width = 16
context = 16

[train]
steps = 400
batch = 4

[score]
sequences = 8

[phases]
train = {TRAIN_BLOCKS}
reveal = {REVEAL_BLOCKS}
score_commit = 160
score_reveal = 40
attest = 160
"""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path, count=2)
    try:
        yield started
    finally:
        started.end()


def write_data(folder: Path) -> None:
    for name, numbers in (("text", range(600)), ("pool", range(600, 800))):
        (folder / name).mkdir()
        lines = "".join(f"{one} times {one} is {one * one}\n" for one in numbers)
        (folder / name / "lines.txt").write_text(lines)


def deadline(node: Node) -> tuple[str, int, int]:
    """Phase, round and the phase's last height, all of one height."""

    def ask(client: Client) -> tuple[str, int, int]:
        while True:
            height = client.status()["height"]
            (task,) = client.tasks()
            if client.status()["height"] == height:
                return task["phase"], task["round"], height + task["blocks_left"]

    found: tuple[str, int, int] = node.ask(ask)
    return found


def is_worker(node: Node) -> bool:
    return "worker" in (node.status() or {"roles": ()})["roles"]


def is_training(node: Node) -> bool:
    task = (node.status() or {}).get("task") or {}
    return task.get("activity", "").startswith("training")


def rounds(node: Node) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node.ask(lambda client: client.scoreboard("live"))["rounds"]
    return found


def peer_of(node: Node) -> str:
    status = node.status()
    assert status is not None
    peer: str = status["peer"]
    return peer


def test_a_worker_killed_in_mid_round_holds_nobody_past_the_deadline_and_a_newcomer_begins_with_the_next(
    cluster: Cluster, tmp_path: Path
) -> None:
    one, two = cluster.nodes
    third = cluster.join("--no-seal")
    cluster.wait(lambda: third.status() is not None, "the third node to answer", 180)
    workers = [peer_of(node) for node in (one, two, third)]

    for node in (one, two, third):
        cluster.wait(lambda node=node: is_worker(node), "three workers", 120)
    write_data(tmp_path)
    one.ask(lambda client: client.post_task(TASK, tmp_path))
    cluster.wait(lambda: is_training(third), "the third to begin its work")
    third.kill()
    phase, number, last = deadline(one)
    assert (phase, number) == ("train", 1)

    late = cluster.join("--no-seal", "--gpu")
    cluster.wait(lambda: is_worker(late), "a newcomer", 180)
    is_in_time = deadline(one) == ("train", 1, last)
    cluster.wait(lambda: deadline(one)[0] != "train", "the phase to end", 120)
    phase, number, end = deadline(one)
    if (phase, number) == ("reveal", 1):  # it began at the height at which the other ended
        assert end - REVEAL_BLOCKS == last

    cluster.wait(lambda: not one.ask(lambda client: client.tasks())[0]["open"], "the end", 240)
    first, second, third_round = rounds(one)
    assert {each["worker"] for each in first["submissions"]} == set(workers[:2])
    after = second if is_in_time else third_round  # a slow machine starts a node in a round's time
    assert peer_of(late) in {each["worker"] for each in after["submissions"]}
    status = late.status()
    assert status is not None
    assert status["device"]
    assert f"device: {view.device(status, gpu=True)}" in late.log.read_text()
    assert first["outcome"] == "merged"
    assert second["blocks"] < TRAIN_BLOCKS + REVEAL_BLOCKS  # nobody waits for it again

    for each in (one, two, late):
        folder = tmp_path / f"model-{each.home.name}"
        each.ask(lambda client, folder=folder: client.fetch("live", 1, folder))
        assert cid.text(hash_path(folder).root) == first["root"]
    for log in (one.log, two.log):  # each made it, and only one that both made alike is written
        assert "round.merged" in log.read_text()
