"""A keeper and validator leaves a network of real processes, is killed while it does, and costs nobody anything."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from storage.unixfs import hash_path
from swarm.ledger.genesis import UNIT, Params
from tests.process.cluster import Cluster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.process.cluster import Node

pytestmark = pytest.mark.slow

QUICK = Params(
    block_interval_ms=150,
    delta_ms=1_000,
    epoch_length=12,
    min_bond=100 * UNIT,
    worker_bond=0,
    base_fee_floor=0,
    blocks_per_day=576_000,
    unbonding=24,
    audit_blocks=24,
    audit_answer_blocks=4,
    audit_report_blocks=10,
    strike_limit=20,
    audit_leaves=4,
    keeper_bond=1_000,
    free_slots=0,
    min_keep_price=5,
    seal_log_n=4,
    seal_passes=2,
)
FLAGS = ("--no-train", "--no-page", "--no-upnp", "--no-mdns", "--storage", "12MB")


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    started = Cluster(tmp_path, 4, QUICK, (*FLAGS, "--seal-share", "1"))
    try:
        yield started
    finally:
        started.end()


def leaving(node: Node, what: str = "look") -> dict:
    return node.ask(lambda client: client.leave(what))


def test_a_keeper_leaves_is_killed_meanwhile_and_hands_over_what_it_kept(
    cluster: Cluster, tmp_path: Path
) -> None:
    nodes = cluster.nodes
    owner, others = nodes[0], nodes[1:]
    for node in nodes:
        cluster.wait(
            lambda node=node: node.ask(lambda client: client.storage())["slots"]["counted"] >= 2,
            "slots that the ledger counts",
        )
    (tmp_path / "plays").write_bytes(os.urandom(300_000))
    published = owner.ask(lambda client: client.publish(tmp_path / "plays", None))
    owner.ask(
        lambda client: client.keep(
            "post", content=published["cid"], replicas=2, audits=200, price=7
        )
    )
    leaver = cluster.wait(
        lambda: next((one for one in others if leaving(one)["pieces"]), None), "a keeper", 90
    )
    rest = [one for one in nodes if one is not leaver]

    # First it says how long, then it goes; a kill in the middle changes nothing.
    asked = leaving(leaver)
    assert asked["state"] == "staying"
    assert asked["stake"] == 1_000 * UNIT
    assert asked["seconds_left"] > QUICK.unbonding * 0.15
    held = leaver.ask(lambda client: client.pause("seal", 7_200))
    assert [one["part"] for one in held["paused"]] == ["seal"]
    assert leaving(leaver, "drain")["state"] == "leaving"
    leaver.kill()
    leaver.start()
    cluster.wait(lambda: leaver.status() is not None, "it to answer again")
    again = leaving(leaver)
    assert (again["state"], again["pieces"]) == ("leaving", asked["pieces"])
    assert [one["part"] for one in leaver.status()["paused"]] == ["seal"]

    cluster.wait(lambda: leaving(leaver)["state"] == "left", "it to have left", 150)
    told = leaving(leaver)
    assert (told["stake"], told["collateral"], told["unbonding"], told["alone"]) == (0, 0, [], 0)
    assert leaver.ask(lambda client: client.balance())["balance"] > 10_900 * UNIT
    leaver.ask(lambda client: client.finish(wait=False))
    assert leaver.process is not None
    assert leaver.process.wait(timeout=30) == 0

    # The others decide, keep and verify without it.
    height = cluster.height(0)
    cluster.wait_for_height(0, height + 2 * QUICK.epoch_length)
    assert cluster.same_block(height + QUICK.epoch_length)
    assert len([one for one in rest if leaving(one)["pieces"]]) == 2
    owner.stop()
    rest[1].ask(lambda client: client.get(published["cid"], tmp_path / "copy"))
    assert hash_path(tmp_path / "copy").root == hash_path(tmp_path / "plays").root
