"""Data folders that earlier versions wrote open in this one, and those of a later version are refused with words."""

from __future__ import annotations

import json
import sqlite3
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lmdb
import pytest

from storage import canonical
from storage.blockstore import SegmentBlockstore
from storage.consensus_log import ConsensusLog
from storage.errors import OTHER_PROGRAM, FormatError
from storage.slots import SlotStore
from storage.state_store import StateStore
from swarm.config import Settings
from swarm.errors import RefusedError, UsageError
from swarm.identity import KEY_FILE, Identity
from swarm.ledger.errors import GenesisError
from swarm.ledger.genesis import FIRST_PARAMS, Genesis, GenesisValidator, Params
from swarm.network.peerbook import PeerBook
from swarm.receipts import receipt
from swarm.versions.repository import Dataset, Repository
from tests.process.cluster import Node

if TYPE_CHECKING:
    from collections.abc import Callable

VECTORS = Path(__file__).parents[1] / "vectors"
HOMES = sorted(VECTORS.glob("home-*.json"))


@pytest.mark.slow
@pytest.mark.parametrize("pinned", HOMES, ids=lambda one: one.stem)
def test_the_data_folder_of_an_earlier_version_opens_and_goes_on(pinned: Path, tmp_path: Path):
    facts = json.loads(pinned.read_text())
    with tarfile.open(pinned.with_suffix(".tar.gz")) as archive:
        archive.extractall(tmp_path, filter="data")
    home = tmp_path / "home"
    assert Identity.load_or_create(home).peer == facts["account"]
    quiet = ["--no-train", "--no-page", "--no-mdns", "--no-upnp", "--no-seal"]
    node = Node(home, ["--listen", "127.0.0.1:0", *quiet])
    node.start()
    try:
        until(node, lambda: node.status() is not None)
        status = node.status()
        assert status is not None
        assert (status["chain_id"], status["account"]) == (facts["chain_id"], facts["account"])
        assert [one["part"] for one in status["paused"]] == ["seal"]
        block = node.ask(lambda client: client.block(facts["height"]))
        assert block["id"] == facts["block"]

        # What was published is held, named, pinned, committed, dealt for and trained on.
        copy = node.ask(lambda client: client.get(facts["root"], tmp_path / "copy"))
        assert copy["cid"] == facts["root"]
        kept = node.ask(lambda client: client.kept())
        assert facts["root"] in json.dumps(kept)
        named = node.ask(lambda client: client.fetch("text", None, tmp_path / "named"))
        assert named["cid"] == facts["root"]
        (task,) = node.ask(lambda client: client.tasks())
        assert (task["name"], task["version"]) == ("tiny", 0)
        node.ask(lambda client: client.fetch("tiny", 0, tmp_path / "model"))
        deals = node.ask(lambda client: client.keep("list"))["deals"]
        assert [one["deal"] for one in deals] == [facts["deal"]]
        log = node.ask(lambda client: client.dataset("log", version="poems"))
        assert [one["commit"] for one in log["commits"]] == [facts["commit"]]
        (told,) = node.ask(lambda client: client.receipts())
        assert receipt.read(told).account == facts["account"]

        # Its log of votes is the one that it goes on voting with.
        until(node, lambda: (node.status() or {"height": 0})["height"] > status["height"] + 2)
        assert node.status()["votes"]["code"] == "voting"
        assert node.stop() == 0
    finally:
        node.end()


def until(node: Node, true: Callable[[], Any]) -> None:
    """Wait for a process, a minute at most."""
    import time

    for _ in range(300):
        if true():
            return
        assert node.process is not None
        assert node.process.poll() is None, node.log.read_text()
        time.sleep(0.2)  # noqa: TID251 - a real process has no virtual clock
    raise AssertionError(node.log.read_text()[-3000:])


# One test a store: a later version is named beside this one, and what lies there is left as it is.


def test_chunks_of_a_later_version_are_refused(tmp_path: Path):
    SegmentBlockstore(tmp_path, 2**20).close()
    (tmp_path / "format").write_bytes(b"swarm blockstore 7\n")
    with pytest.raises(FormatError, match=f"version 7, .*version 1; {OTHER_PROGRAM}"):
        SegmentBlockstore(tmp_path, 2**20)
    assert (tmp_path / "format").read_bytes() == b"swarm blockstore 7\n"


def test_a_state_of_a_later_version_is_refused(tmp_path: Path):
    StateStore(tmp_path).close()
    with (
        lmdb.open(str(tmp_path), max_dbs=8) as environment,
        environment.begin(write=True) as transaction,
    ):
        meta = environment.open_db(b"meta", txn=transaction)
        transaction.put(b"format", (7).to_bytes(4, "big"), db=meta)
    with pytest.raises(FormatError, match=f"version 7, .*version 2; {OTHER_PROGRAM}"):
        StateStore(tmp_path)


def test_a_log_of_votes_of_a_later_version_is_refused(tmp_path: Path):
    path = tmp_path / "consensus.log"
    ConsensusLog(path).close()
    data = bytearray(path.read_bytes())
    data[15] = 7
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"version 7, .*version 1; {OTHER_PROGRAM}"):
        ConsensusLog(path)
    assert path.read_bytes() == data


def test_sealed_slots_of_a_later_version_are_told_from_those_of_another_key(tmp_path: Path):
    slots = (b"k" * 32, b"c" * 32, 4, 2)
    SlotStore(tmp_path, *slots).close()
    database = sqlite3.connect(tmp_path / "slots.db")
    later = canonical.encode([7, *slots])
    database.execute("UPDATE about SET value = ? WHERE name = 'owner'", (later,))
    database.commit()
    database.close()
    with pytest.raises(FormatError, match=f"version 7, .*version 1; {OTHER_PROGRAM}"):
        SlotStore(tmp_path, *slots)


def test_a_key_of_a_later_version_is_refused_and_left(tmp_path: Path):
    Identity.load_or_create(tmp_path)
    path = tmp_path / KEY_FILE
    path.write_text(path.read_text().replace("swarm-identity 1", "swarm-identity 7"))
    with pytest.raises(RefusedError, match="is of version 7, and this program reads 1") as refused:
        Identity.load_or_create(tmp_path)
    assert refused.value.hint == OTHER_PROGRAM


def test_peers_of_a_later_version_are_named_and_not_taken():
    book = PeerBook("me")
    with pytest.raises(ValueError, match="version 7, and this program reads version 1"):
        book.load(b'{"version": 7, "peers": []}')


def test_branches_of_a_later_version_are_refused(tmp_path: Path):
    Repository(tmp_path).save(Dataset("poems"))
    path = tmp_path / "poems.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    with pytest.raises(RefusedError, match="is of version 7, and this program reads 1"):
        Repository(tmp_path).load("poems")


def test_a_setting_of_a_later_version_is_named(tmp_path: Path):
    (tmp_path / "swarm.toml").write_text('storage = "1GB"\nteleport = true\n')
    with pytest.raises(UsageError, match="no setting 'teleport'") as refused:
        Settings.build({}, {}, tmp_path / "swarm.toml")
    assert "later version" in str(refused.value.hint)


# Chains: a genesis of before a parameter came keeps its bytes, its id and its rules.


def test_a_genesis_with_more_parameters_or_of_another_version_is_refused_with_both_numbers():
    one = genesis()
    fields = canonical.decode(one.encode(), max_bytes=2**20)
    count = len(Params.__dataclass_fields__)
    with pytest.raises(GenesisError, match=f"{count + 1} parameters, and this program knows 44"):
        Genesis.decode(canonical.encode([*fields[:3], [*fields[3], 1], *fields[4:]]))
    with pytest.raises(GenesisError, match="version 7, and this program reads version 2"):
        Genesis.decode(canonical.encode([7, *fields[1:]]))


def test_a_parameter_that_came_later_and_has_the_rule_of_before_is_not_written(monkeypatch):
    last = list(Params.__dataclass_fields__)[-1]
    count = len(Params.__dataclass_fields__)
    monkeypatch.setattr("swarm.ledger.genesis.FIRST_PARAMS", count - 1)
    before = genesis()
    written = canonical.decode(before.encode(), max_bytes=2**20)[3]
    assert len(written) == count - 1
    assert Genesis.decode(before.encode()) == before
    assert Genesis.decode(before.encode()).chain_id == before.chain_id
    after = before.with_params(**{last: 7})
    assert Genesis.decode(after.encode()) == after
    assert len(canonical.decode(after.encode(), max_bytes=2**20)[3]) == count
    long = [*canonical.decode(before.encode(), max_bytes=2**20)]
    long[3] = [*long[3], getattr(Params(), last)]
    with pytest.raises(GenesisError, match="other bytes stand for the same"):
        Genesis.decode(canonical.encode(long))
    assert FIRST_PARAMS == 44


def genesis() -> Genesis:
    return Genesis.create("one", 0, [GenesisValidator(b"k" * 32, b"v" * 32, 1_000 * 10**9)])
