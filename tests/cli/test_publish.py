import json
import os

import pytest

from swarm.retrieval import link
from tests.control.fake_node import CID, PEER


@pytest.fixture
def file(tmp_path):
    (tmp_path / "x").write_text("hello")
    return "x"


def test_a_dry_run_says_what_is_new_and_publishes_nothing(node, swarm, file):
    code, out, err = swarm("publish", file, "--dry-run")
    assert (code, out) == (0, f"{CID}\n")
    assert "5 B in 1 chunk, 3 B of it new here" in err
    assert "nothing was written" in err
    assert json.loads(swarm("publish", file, "--dry-run", "--json")[1])["new_bytes"] == 3


def test_a_dry_run_needs_no_node_and_makes_no_folder(swarm, file, tmp_path):
    code, out, err = swarm("publish", file, "--dry-run")
    assert (code, out) == (0, swarm("publish", file, "--only-hash")[1])
    assert "5 B of it new here" in err
    assert not (tmp_path / "home").exists()


def test_what_a_node_that_does_not_run_holds_is_not_known(swarm, file, tmp_path):
    (tmp_path / "home" / "chunks").mkdir(parents=True)
    code, out, err = swarm("publish", file, "--dry-run", "--json")
    assert (code, json.loads(out)["new_bytes"]) == (0, None)
    assert "not known" in err


@pytest.mark.parametrize("flag", ["--dry-run", "--only-hash"])
@pytest.mark.parametrize(
    "flags",
    [
        *(["--in-place"], ["--name", "greeting"], ["--replicas", "3"], ["--audits", "5"]),
        *(["--price", "abc"], ["--yes"], ["--no-wait"], ["--qr"]),
    ],
)
def test_what_publishes_nothing_takes_no_option_of_a_publication(swarm, file, flag, flags):
    code, out, err = swarm("publish", file, flag, *flags)
    assert (code, out) == (2, "")
    assert f"{flag} publishes nothing, so it takes no {flags[0]}" in err


@pytest.mark.parametrize("flags", [["--price", "1"], ["--audits", "5"]])
def test_a_price_without_a_deal_is_refused(node, swarm, file, flags):
    code, out, err = swarm("publish", file, *flags)
    assert (code, out) == (2, "")
    assert "--replicas" in err


def test_what_cannot_be_published_is_refused_and_is_no_bug(swarm, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / os.fsdecode(b"\xff")).touch()
    for path, words in (("pipe", "cannot be published"), ("folder", "is not UTF-8")):
        code, out, err = swarm("publish", path, "--only-hash")
        assert (code, out) == (4, "")
        assert words in err
        assert "bug" not in err


def test_with_nobody_connected_it_says_so_and_how_to_see_later(node, swarm, file):
    code, out, err = swarm("publish", file)
    assert (code, out) == (0, f"{CID}\n")
    assert "no other peer is connected" in err
    assert f"`swarm check {CID}`" in err
    assert f"link: swarm://{CID}" in err


def test_it_ends_with_the_peer_that_has_shown_a_chunk(node, swarm, file):
    asked = []

    async def wait(root, seconds, progress):
        asked.append(seconds)
        return {"peer": PEER, "bytes": 5, "sources": 1, "seconds": 1.5, "asked": 1, "reasons": {}}

    node.checks.wait = wait
    assert f"peer {PEER} found it by its CID" in swarm("publish", file)[2]
    assert "found it" not in swarm("publish", file, "--no-wait")[2]
    assert asked == [30]
    assert json.loads(swarm("publish", file, "--json")[1])["proof"]["peer"] == PEER


def test_why_peers_failed_is_told_in_words(node, swarm, file):
    async def wait(root, seconds, progress):
        reasons = {PEER: "found nobody who announces it", "12D3Ko": "has no room for the chunk"}
        return {"peer": None, "seconds": 30.0, "asked": 2, "reasons": reasons}

    node.checks.wait = wait
    err = swarm("publish", file)[2]
    assert "of 2 peers asked in 30 s, none: found nobody who announces it; has no room" in err


def test_check_tells_replicas_rates_and_reasons(node, swarm):
    code, out, _ = swarm("check", f"swarm://{CID}")
    assert code == 0
    assert "1 other peer showed all that was drawn" in out
    assert "3/3    10.0 kB/s" in out
    assert out.rstrip().endswith("has no room")
    found = json.loads(swarm("check", CID, "--json", "--draws", "5")[1])
    assert (found["peers"][0]["drawn"], found["link"]) == (5, f"swarm://{CID}")


def test_check_ends_with_3_where_nobody_has_it(node, swarm):
    node.checks.nobody = True
    code, _, err = swarm("check", CID)
    assert code == 3
    assert "swarm doctor" in err


def test_a_link_is_taken_wherever_a_root_is(node, swarm):
    assert link.without_scheme(link.link(CID)) == CID
    assert swarm("get", f"swarm://{CID}")[0] == 0


def test_the_picture_is_the_qr_code_of_the_link(node, swarm, file):
    segno = pytest.importorskip("segno")
    text = link.link(CID)
    lines = link.picture(text).split("\n")
    wanted = [list(row) for row in segno.make(text, micro=False).matrix_iter(border=2)]
    drawn = []
    for line in lines:
        pairs = [{"█": (0, 0), "▀": (0, 1), "▄": (1, 0), " ": (1, 1)}[one] for one in line]
        drawn += [[upper for upper, _ in pairs], [lower for _, lower in pairs]]
    assert [[bool(one) for one in row] for row in wanted] == [
        [bool(one) for one in row] for row in drawn[: len(wanted)]
    ]
    assert lines[3] in swarm("publish", file, "--qr")[2]
