"""The main job with real processes: four nodes train, one is killed, a fifth comes late and fetches by name."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest

from storage import cid
from storage.unixfs import hash_path
from swarm.errors import NotFoundError, RefusedError, UsageError
from tests.process.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

TASK = """
[task]
name = "tiny"
kind = "lm"
rounds = 3
budget = "90"

[data]
dataset = "text"
pool = "pool"

[model]
layers = 2
heads = 2
width = 32
context = 32

[train]
steps = 30
batch = 8

[score]
sequences = 16

[phases]
train = 160
reveal = 40
score_commit = 120
score_reveal = 40
attest = 120
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    started = Cluster(folder)
    try:
        yield started
    finally:
        started.end()


def write_data(folder: Path) -> None:
    line = "it was the best of times, it was the worst of times, {0} times {0} is {1}\n"
    for name, numbers in (("text", range(2_000)), ("pool", range(2_000, 2_400))):
        (folder / name).mkdir()
        text = "".join(line.format(number, number * number) for number in numbers)
        (folder / name / "lines.txt").write_text(text)


def test_the_main_job_through_kill_late_join_and_fetch_by_name(cluster: Cluster) -> None:
    nodes, folder = cluster.nodes, cluster.folder
    cluster.wait(
        lambda: all((one.status() or {"peers": 0})["peers"] >= 3 for one in nodes),
        "every node to see the three others",
    )
    for index in range(4):
        cluster.wait_for_height(index, 3)

    # Content is stored and found by CID.
    write_data(folder)
    published = nodes[1].ask(lambda client: client.publish(folder / "text", "lines"))
    assert published["cid"] == cid.text(hash_path(folder / "text").root)
    got = nodes[2].ask(lambda client: client.get(published["cid"], folder / "copy"))
    assert got["cid"] == published["cid"]
    expected = (folder / "text" / "lines.txt").read_bytes()
    assert (folder / "copy" / "lines.txt").read_bytes() == expected

    # Training begins, and one of four is killed in the middle of it.
    posted = nodes[0].ask(lambda client: client.post_task(TASK, folder))
    assert posted["name"] == "tiny"
    cluster.wait(lambda: nodes[0].ask(lambda client: client.tasks()), "the task on the ledger")
    cluster.wait(
        lambda: (nodes[3].status() or {"task": None})["task"],
        "node 4 to begin its part of the round",
    )
    nodes[3].kill()
    height = cluster.height(0)
    cluster.wait_for_height(0, height + 8)
    nodes[3].start()
    cluster.wait_for_height(3, height + 8)
    assert cluster.same_block(height + 4)

    # The task ends with versions that every node agrees on.
    task = cluster.wait(
        lambda: next(
            (one for one in nodes[1].ask(lambda client: client.tasks()) if not one["open"]), None
        ),
        "the task to end",
        300,
    )
    board = nodes[2].ask(lambda client: client.scoreboard("tiny"))
    assert [one["round"] for one in board["rounds"]] == [1, 2, 3]
    assert task["version"] >= 1
    assert any(entry["paid"] for one in board["rounds"] for entry in one["submissions"])

    # A node that comes late and knows one address fetches the latest version by its name.
    late = cluster.join("--no-train")
    cluster.wait(lambda: late.status() is not None, "the late node to answer")
    fetched = late.ask(lambda client: client.fetch("tiny", None, folder / "model"))
    assert fetched["version"] == task["version"]
    assert cid.text(hash_path(folder / "model").root) == fetched["cid"]
    tokenizer = {"tokenizer.json", "tokenizer_config.json"}
    assert {"model.safetensors", "config.json", "README.md"} | tokenizer == {
        one.name for one in (folder / "model").iterdir()
    }
    assert json.loads((folder / "model" / "config.json").read_text())
    assert late.status()["chain_id"] == cluster.chain_id

    # Honest nodes never count each other's starting, dying and coming back as misbehaviour.
    assert not [one.home.name for one in nodes if "network.misbehaviour" in one.log.read_text()]
    sample = late.ask(lambda client: client.sample("tiny", prompt="it was"))
    assert sample["text"]


def test_unknown_names_roots_and_malformed_words_are_told_apart(cluster: Cluster) -> None:
    node = cluster.nodes[0]
    with pytest.raises(NotFoundError, match="nothing-like-it"):
        node.ask(lambda client: client.fetch("nothing-like-it", None, cluster.folder / "no"))
    with pytest.raises(UsageError):
        node.ask(lambda client: client.get("bafy-not-a-cid", cluster.folder / "no"))
    unknown = cid.text(cid.of_raw(b"nobody ever published this"))
    with pytest.raises(NotFoundError, match=unknown):
        node.ask(lambda client: client.get(unknown, cluster.folder / "no"))
    with pytest.raises(UsageError, match="steps"):
        node.ask(
            lambda client: client.post_task(
                TASK.replace("steps = 30", 'steps = "x"'), cluster.folder
            )
        )
    (cluster.folder / "empty").mkdir()
    for field in ("text", "pool"):
        spoilt = TASK.replace(f'= "{field}"', '= "empty"').replace('"tiny"', '"other"')
        with pytest.raises(UsageError, match="cannot be started"):
            node.ask(lambda client, spoilt=spoilt: client.post_task(spoilt, cluster.folder))
    with pytest.raises(RefusedError):
        node.ask(lambda client: client.send(node.status()["peer"], 10**18))


def test_a_transfer_reaches_every_node(cluster: Cluster) -> None:
    sender, receiver = cluster.nodes[0], cluster.nodes[1]
    account = receiver.status()["account"]
    before = receiver.ask(lambda client: client.balance())["balance"]
    sent = sender.ask(lambda client: client.send(account, 5))
    cluster.wait_for_height(2, sent["height"])
    block = cluster.nodes[2].ask(lambda client: client.block(sent["height"]))
    assert sent["tx"] in {one["id"] for one in block["txs"]}
    assert receiver.ask(lambda client: client.balance())["balance"] >= before + 5


def test_two_of_four_gone_stop_the_blocks_and_come_back_without_loss(cluster: Cluster) -> None:
    nodes = cluster.nodes
    nodes[2].kill()
    nodes[3].kill()
    stopped = cluster.height(0) + 3  # what was under way may still become final
    time.sleep(3)  # noqa: TID251 - that nothing happens takes time to see
    assert cluster.height(0) <= stopped
    nodes[2].start()
    nodes[3].start()
    cluster.wait_for_height(0, stopped + 5)
    cluster.wait_for_height(3, stopped + 5)
    assert cluster.same_block(stopped + 2)


def test_a_second_node_on_the_same_folder_is_refused_with_the_process_of_the_first(
    cluster: Cluster,
) -> None:
    from tests.process.cluster import Node

    first = cluster.nodes[0]
    second = Node(first.home, first.arguments)
    second.log = cluster.folder / "second.log"
    second.start()
    assert second.process is not None
    assert second.process.wait(timeout=30) == 4
    assert str(first.process.pid) in second.log.read_text()


def test_sigterm_ends_a_node_cleanly(cluster: Cluster) -> None:
    for node in cluster.nodes:
        if node.process is not None and node.process.poll() is None:
            assert node.stop() == 0
