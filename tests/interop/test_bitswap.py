"""Kubo and Helia fetch from a real node of ours, and it fetches from them, byte for byte."""

from __future__ import annotations

import os
import time

import pytest

from tests.interop.conftest import tree

pytestmark = pytest.mark.interop

BIG_BYTES = 256 * 2**20


def test_kubo_fetches_a_folder_of_ours(swarm_node, kubo, folder, tmp_path):
    node, _ = kubo
    published = swarm_node.command("publish", str(folder))
    node.connect(swarm_node.address())
    node.get(published["cid"], tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(folder)


def test_we_fetch_a_folder_of_kubos(swarm_node, kubo, folder, tmp_path):
    node, address = kubo
    cid = node.add(folder)
    swarm_node.command("get", cid, "--from", address, "-o", str(tmp_path / "copy"))
    assert tree(tmp_path / "copy") == tree(folder)


def test_we_fetch_a_file_by_its_cid_of_version_0(swarm_node, kubo, tmp_path):
    node, address = kubo
    (tmp_path / "file").write_bytes(os.urandom(2_000_000))
    cid = node.add(tmp_path / "file")
    assert cid.startswith("Qm")
    swarm_node.command("get", cid, "--from", address, "-o", str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()


def test_kubo_fetches_by_a_cid_of_version_0_what_we_hold(swarm_node, tmp_path, kubo):
    from tests.interop import nodes

    node, address = kubo
    (tmp_path / "file").write_bytes(os.urandom(2_000_000))
    cid = node.add(tmp_path / "file")
    swarm_node.command("get", cid, "--from", address, "-o", str(tmp_path / "ours"))
    other, _ = nodes.start_kubo(tmp_path / "other")
    try:
        other.connect(swarm_node.address())
        other.get(cid, tmp_path / "copy")
    finally:
        other.end()
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "file").read_bytes()


def test_helia_fetches_a_folder_of_ours(swarm_node, helia, folder, tmp_path):
    node, _ = helia
    published = swarm_node.command("publish", str(folder))
    node.connect(swarm_node.address())
    node.get(published["cid"], tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(folder)


def test_we_fetch_a_file_of_helias(swarm_node, helia, tmp_path):
    node, address = helia
    (tmp_path / "file").write_bytes(os.urandom(5_000_000))
    cid = node.add(tmp_path / "file")
    swarm_node.command("get", cid, "--from", address, "-o", str(tmp_path / "copy"))
    copy = tmp_path / "copy"  # Helia wraps a file that has a name in a folder
    found = copy / "file" if copy.is_dir() else copy
    assert found.read_bytes() == (tmp_path / "file").read_bytes()


def test_content_that_kubo_does_not_have_is_said_to_be_missing(swarm_node, kubo, tmp_path):
    _, address = kubo
    with pytest.raises(AssertionError, match="none of the peers that were asked has"):
        swarm_node.command(
            "get",
            "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
            "--from",
            address,
            "-o",
            str(tmp_path / "copy"),
        )


def test_the_speed_of_a_large_file_both_ways(swarm_node, kubo, tmp_path, record_property):
    node, address = kubo
    (tmp_path / "ours").write_bytes(os.urandom(BIG_BYTES))
    (tmp_path / "theirs").write_bytes(os.urandom(BIG_BYTES))
    published = swarm_node.command("publish", str(tmp_path / "ours"))
    theirs = node.add(tmp_path / "theirs")

    node.connect(swarm_node.address())
    start = time.monotonic()
    assert node.do("pin", cid=published["cid"]) == 0
    up = BIG_BYTES / (time.monotonic() - start)
    node.get(published["cid"], tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "ours").read_bytes()

    os.sync()  # what the test itself wrote is not to be waited for
    swarm_node.command("get", theirs, "--from", address, "-o", str(tmp_path / "copied"))
    down = BIG_BYTES / swarm_node.last_fetch_seconds()  # without writing the file out
    assert (tmp_path / "copied").read_bytes() == (tmp_path / "theirs").read_bytes()
    print(f"\nKubo <- swarm {up / 1e6:.0f} MB/s; swarm <- Kubo {down / 1e6:.0f} MB/s")  # noqa: T201
