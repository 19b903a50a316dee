"""`swarm storage`, `swarm keep` and `swarm publish --replicas`, against a node that answers from memory."""

from __future__ import annotations

import json
import threading

import pytest
import trio

from cli.commands.keep import cost_lines
from cli.main import main
from cli.view import sealed
from swarm.control.service import serve
from swarm.keeper.coding import Coding
from swarm.keeper.quotes import Terms
from tests.control.fake_node import CID, FakeNode

GB = 10**9
QUOTE = {
    "cid": CID,
    "bytes": 3 * GB,
    "replicas": 3,
    "pieces": 1,
    "needed": None,
    "audits": 720,
    "days": 30.0,
    "price": 1_000_000,
    "cost": 6_480_000_000,
    "fee": 324_000_000,
    "seats": 3,
    "coded": False,
    "keepers": 1,
    "balance": 12_500_000_000,
}
STORAGE = {
    "lent": 500 * GB,
    "used": 20 * GB,
    "free": 480 * GB,
    "in_place": 0,
    "reclaimable": GB,
    "sealed": 100 * GB,
    "goal": 400 * GB,
    "seconds_left": 7_200.0,
    "shelf": 2 * GB,
    "encodings": 3 * GB,
    "own": 5 * GB,
    "slots": {
        "sealed": 95_367,
        "goal": 381_000,
        "counted": 90_000,
        "proven": 80_000,
        "share": 0.25,
    },
    "duties": {"pieces": 3, "here": 2, "bytes": 7 * GB},
    "collateral": 90 * GB,
    "earned": 3_500_000_000,
    "strikes": 1,
    "suspended": False,
    "audit": 9,
    "verdict": "strike: no answer stood on the ledger in time",
    "height": 14_000,
    "next_audit": 14_400,
    "opens": 14_413,
    "block_seconds": 2.5,
    "problems": ["9 slots are sealed, and the balance covers the collateral of 4"],
}


class FakeKeeping:
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    async def storage(self):
        return STORAGE

    async def lend(self, size):
        self.asked.append(size)
        return STORAGE | {"lent": size, "waits": True}

    async def quote(self, text, terms):
        return QUOTE

    async def keep(self, text, terms, progress):
        self.asked.append((text, terms))
        return QUOTE | {"deal": "ab" * 32, "height": 7, "recipe": None}

    async def deals(self, *, is_all):
        deal = {"deal": "ab" * 32, "bytes": GB, "pieces": 1, "replicas": 3, "seats": 2, "shown": 1}
        deal |= {"audits_left": 700, "escrow": GB, "ended": False, "coded": False, "roots": [CID]}
        return [deal] if is_all else []

    async def end(self, text):
        self.asked.append(text)
        return {"deal": "ab" * 32, "height": 8}

    async def restore(self, text, progress):
        return {"cid": CID, "bytes": 5, "pieces": 10}


@pytest.fixture
def keeping(tmp_path, monkeypatch):
    """A fake node behind a real socket on SWARM_HOME, in a thread of its own."""
    monkeypatch.setenv("SWARM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    node = FakeNode(tmp_path / "home")
    node.keeping = FakeKeeping()
    ready, stop = threading.Event(), []

    async def run():
        async with trio.open_nursery() as nursery:
            token = trio.lowlevel.current_trio_token()
            stop.append(lambda: token.run_sync_soon(nursery.cancel_scope.cancel))
            await nursery.start(serve, node, node.home / "control.sock")
            ready.set()

    thread = threading.Thread(target=trio.run, args=(run,))
    thread.start()
    assert ready.wait(10)
    yield node.keeping
    stop[0]()
    thread.join()


@pytest.fixture
def swarm(capsys):
    def run(*arguments):
        code = main(list(arguments))
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_storage_tells_what_is_lent_sealed_held_own_and_earned(keeping, swarm):
    code, out, err = swarm("storage")
    assert (code, err) == (0, "")
    for words in (
        "500.0 GB",
        "100.0 GB of 400.0 GB, 25 %, 02:00:00 left",
        "90,000 slots on the ledger, 80,000 proven",
        "7.0 GB in 2 pieces, 1 more on their way",
        "5.0 GB pinned",
        "no answer stood on the ledger in time (audit 9)",
        "at height 14,400, in 00:16:40",
        "3.5 tokens by lending",
    ):
        assert words in out
    assert json.loads(swarm("storage", "--json")[1]) == STORAGE


def test_lending_less_says_what_waits_for_an_audit(keeping, swarm):
    code, out, err = swarm("storage", "--lend", "200GB")
    assert code == 0
    assert keeping.asked == [200 * GB]
    assert "200.0 GB" in out
    assert "from height 14,413 on" in err
    assert swarm("storage", "--lend", "much")[0] == 2


def test_a_deal_says_what_it_costs_and_posts_what_it_said(keeping, swarm):
    code, out, err = swarm("keep", CID, "--replicas", "3")
    assert (code, out) == (0, "ab" * 32 + "\n")
    assert "6.48 tokens are put aside of 12.5" in err
    assert "1 keeper in good standing" in err
    assert keeping.asked == [(CID, Terms(3, 720, 1_000_000))]


def test_coded_pieces_have_one_replica_if_nobody_says_more(keeping, swarm):
    assert swarm("keep", "post", "plays", "--erasure", "--audits", "5", "--price", "0.5")[0] == 0
    [(name, terms)] = keeping.asked
    assert (name, terms.replicas, terms.is_coded, terms.coding) == ("plays", 1, True, None)


def test_the_pieces_may_be_told_and_then_no_other_number_is_made(keeping, swarm):
    assert swarm("keep", CID, "--erasure", "5+2")[0] == 0
    assert keeping.asked[0][1].coding == Coding(5, 2)
    assert swarm("keep", CID, "--erasure=5+0")[0] == 2
    assert swarm("keep", CID, "--erasure", "30+9")[0] == 2
    code, _, err = swarm("keep", "post", "--erasure", CID)
    assert code == 2
    assert "comes before it" in err
    assert len(keeping.asked) == 1


def test_a_quote_says_what_the_keepers_of_now_mean_for_it():
    def last(**other):
        return cost_lines(QUOTE | other)[-1]

    assert "seats wait" in last(keepers=2)
    several = {"replicas": 1, "pieces": 14, "seats": 14}
    assert "some keep several pieces" in last(keepers=4, **several)
    coded = {"coded": True, "needed": 10, **several}
    assert "14 pieces of which any 10 are enough" in cost_lines(QUOTE | coded)[0]
    assert "seats wait" in last(keepers=13, **coded)
    assert "in good standing" not in last(keepers=14, **coded) + last(keepers=3)


def test_deals_are_listed_ended_and_restored(keeping, swarm):
    assert "ab" * 8 not in swarm("keep", "list")[1]
    assert "2/3" in swarm("keep", "list", "--all")[1]
    assert swarm("keep", "end", "abab")[1] == "ab" * 32 + "\n"
    assert keeping.asked == ["abab"]
    assert swarm("keep", "restore", "abab")[1] == f"{CID}\n"


def test_publish_with_replicas_posts_a_deal_for_what_it_published(keeping, swarm, tmp_path):
    (tmp_path / "x").write_text("hello")
    code, out, err = swarm("publish", "x", "--replicas", "3")
    assert (code, out) == (0, f"{CID}\n")
    assert keeping.asked[0][0] == CID
    assert "deal " + "ab" * 32 in err
    assert "waiting for keepers, 120 s at most" in err, "a long wait without a word"
    assert "waiting" not in swarm("publish", "x", "--replicas", "3", "--no-wait")[2]


def test_a_node_without_slots_says_nothing_of_sealing():
    assert sealed({"lent": GB, "used": 0, "free": GB}) == ""
    assert sealed({"sealed": 0, "goal": 0, "seconds_left": None}) == "nothing yet"
    full = {"sealed": 3 * GB, "goal": GB, "seconds_left": 0.0}
    assert sealed(full) == "3.0 GB, and no more is sealed"
