"""`swarm dataset …` as a person types it, on nodes that exchange chunks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from storage import cid as cids
from storage.importer import hash_path
from swarm.versions.commit import encode, make
from swarm.versions.working import MARKER, STAGING
from tests.versions.test_inside import safetensors
from tests.versions.world import ALICE, BOB, read, write


@pytest.fixture
def ok(swarm):
    """Run a command that has to succeed; gives its JSON."""

    def run(*arguments, node=0):
        code, out, err = swarm(*arguments, "--json", node=node)
        assert code == 0, err
        lines = [json.loads(line) for line in out.splitlines()]
        return lines[0] if len(lines) == 1 else lines

    return run


@pytest.fixture
def plays(ok, tmp_path, monkeypatch):
    """A dataset with one commit; the test stands in its working folder."""
    folder = write(tmp_path / "plays", {"hamlet": "to be", "comedies/dream": "puck"})
    ok("init", "plays", folder)
    monkeypatch.chdir(folder)
    ok("commit", "-m", "the first")
    return folder


def test_the_main_job_by_the_command_line(ok, swarm, plays, pair):
    first = ok("log")["commit"]
    write(plays, {"hamlet": "to be or not", "comedies/dream": "puck", "macbeth": "out"})
    assert [(one["path"], one["change"]) for one in ok("diff")["files"]] == [
        ("hamlet", "changed"),
        ("macbeth", "added"),
    ]
    made = ok("commit", "-m", "more", "--publish")
    assert (made["added"], made["changed"], made["removed"], made["version"]) == (1, 1, 0, 0)
    assert made["parents"] == [first]
    assert cids.text(pair.names.roots["plays"][0]) == made["commit"]

    ok("branch", "short", "--at", "HEAD~1")
    ok("checkout", "short")
    assert read(plays) == {"hamlet": "to be", "comedies/dream": "puck"}
    write(plays, {"hamlet": "to be", "comedies/dream": "short"})
    short = ok("commit", "-m", "shorter")
    assert [one["current"] for one in ok("branch")] == [False, True]

    ok("checkout", "main")
    merged = ok("merge", "short", "-m", "both")
    assert merged["result"] == "merged"
    assert (merged["written"], merged["removed"]) == (1, 0)
    assert read(plays) == {
        "hamlet": "to be or not",
        "comedies/dream": "short",
        "macbeth": "out",
    }
    log = ok("log")
    assert [one["message"] for one in log] == ["both", "shorter", "more", "the first"]
    assert log[0]["parents"] == [made["commit"], short["commit"]]
    assert log[0]["branches"] == ["main"]
    assert {one["author"] for one in log} == {ALICE.peer_id}

    fork = ok("fork", "plays", "mine")
    assert (fork["new_bytes"], fork["commits"]) == (0, 4)
    assert fork["branches"] == ["main", "short"]
    code, out, _ = swarm("log", "mine", "-n", "1")
    assert code == 0
    assert out.startswith(merged["commit"])


def test_another_node_checks_out_the_published_name_and_forks_it(ok, plays, pair, tmp_path):
    write(plays, {"hamlet": "two", "old": "x"})
    ok("commit", "-m", "second")
    write(plays, {"hamlet": "three"})
    ok("commit", "-m", "third", "--publish")

    got = ok("checkout", "plays", "-o", tmp_path / "theirs", node=1)
    assert read(tmp_path / "theirs") == {"hamlet": "three"}
    assert got["branch"] == "main"
    assert got["fetched"] > 0
    assert [one["message"] for one in ok("log", "plays", node=1)] == [
        "third",
        "second",
        "the first",
    ]
    old = hash_path(write(tmp_path / "old", {"hamlet": "two", "old": "x"})).root
    assert not pair.peers[1].store.has(old)  # an old tree is not fetched with the history

    assert ok("diff", "plays~1", "plays", node=1)["files"][-1]["path"] == "old"
    ok("fork", "plays", "ours", node=1)
    ok("checkout", "ours", "-o", tmp_path / "ours", node=1)
    write(tmp_path / "ours", {"hamlet": "four"})
    made = ok("commit", "-m", "by bob", "--publish", tmp_path / "ours", node=1)
    assert made["author"] == BOB.peer_id
    assert ok("log", "ours@latest")[0]["author"] == BOB.peer_id
    merged = ok("merge", "ours@latest")
    assert merged["result"] == "fast-forward"
    assert read(plays) == {"hamlet": "four"}


def test_a_conflict_is_listed_with_exit_1_and_changes_nothing(ok, swarm, plays):
    ok("branch", "other")
    write(plays, {"hamlet": "here", "comedies/dream": "puck"})
    here = ok("commit", "-m", "here")["commit"]
    ok("checkout", "other")
    write(plays, {"hamlet": "there", "comedies/dream": "puck", "new": "there"})
    ok("commit", "-m", "there")
    ok("checkout", "main")
    code, out, err = swarm("merge", "other")
    assert code == 1
    assert out == "hamlet: changed on both sides\n"
    assert "nothing was changed" in err
    assert read(plays) == {"hamlet": "here", "comedies/dream": "puck"}
    assert ok("log", "-n", "1")["commit"] == here

    assert ok("merge", "other", "--theirs")["result"] == "merged"
    assert read(plays) == {"hamlet": "there", "comedies/dream": "puck", "new": "there"}
    assert ok("merge", "other")["result"] == "up-to-date"


def test_a_checkout_writes_only_what_differs_and_keeps_what_was_not_committed(ok, swarm, plays):
    kept = (plays / "comedies" / "dream").stat()
    ok("branch", "before")
    write_one = plays / "hamlet"
    write_one.write_text("changed")
    ok("commit", "-m", "changed")
    back = ok("checkout", "before")
    assert (back["written"], back["removed"]) == (1, 0)
    after = (plays / "comedies" / "dream").stat()
    assert (after.st_ino, after.st_mtime_ns) == (kept.st_ino, kept.st_mtime_ns)

    write_one.write_text("precious")
    code, _, err = swarm("checkout", "main")
    assert code == 4
    assert "hamlet" in err
    assert write_one.read_text() == "precious"
    ok("checkout", "main", "--force")
    assert write_one.read_text() == "changed"
    write_one.write_text("unwanted")
    ok("checkout", "HEAD", "--force")
    assert write_one.read_text() == "changed"
    assert not (plays / STAGING).exists()


def test_files_and_folders_may_trade_places(ok, plays):
    write(plays, {"hamlet/act1": "a", "hamlet/act2": "b", "comedies": "all of them"})
    (plays / "empty").mkdir()
    (plays / "link").symlink_to("comedies")
    ok("commit", "-m", "traded")
    ok("checkout", "HEAD~1")
    assert read(plays) == {"hamlet": "to be", "comedies/dream": "puck"}
    assert not (plays / "empty").exists()
    assert not (plays / "link").is_symlink()
    ok("checkout", "main")
    assert (plays / "hamlet" / "act2").read_text() == "b"
    assert (plays / "comedies").read_text() == "all of them"
    assert (plays / "empty").is_dir()
    assert (plays / "link").readlink() == Path("comedies")


def test_the_marker_is_part_of_no_version(ok, plays, tmp_path):
    clean = write(tmp_path / "clean", {"hamlet": "to be", "comedies/dream": "puck"})
    assert ok("log")["root"] == cids.text(hash_path(clean).root)
    assert ok("diff")["files"] == []
    (plays / STAGING).write_text("left by a crash")
    assert ok("diff")["files"] == []


def test_a_tree_that_brings_a_marker_of_its_own_is_refused(ok, swarm, plays, pair, tmp_path):
    hostile = write(tmp_path / "hostile", {"a": "1"})
    (hostile / MARKER).write_text('{"dataset": "plays", "branch": "main", "commit": null}')
    store = pair.peers[0].store
    from storage.importer import add_path

    commit = make(BOB, add_path(hostile, store).root, [], "mine", 0)
    store.put_many([(commit.cid, encode(commit))])
    before = ok("log")
    for command in (("checkout", "-o", tmp_path / "out"), ("merge",), ("merge", "--theirs")):
        code, _, err = swarm(*command, cids.text(commit.cid))
        assert code == 4
        assert MARKER in err
    assert not (tmp_path / "out").exists()
    assert ok("log") == before
    assert read(plays) == {"hamlet": "to be", "comedies/dream": "puck"}


def test_a_forged_commit_of_a_stranger_is_named_and_refused(ok, swarm, plays, pair):
    import dataclasses

    commit = make(BOB, cids.parse(ok("log")["root"]), [], "mine", 0)
    forged = dataclasses.replace(commit, author=ALICE.public_key)
    store = pair.peers[1].store
    store.put_many([(forged.cid, encode(forged))])
    pair.names.roots["evil"] = [forged.cid]
    code, _, err = swarm("log", "evil")
    assert code == 4
    assert ALICE.peer_id in err
    assert cids.text(forged.cid) in err


def test_commits_follow_their_branch_or_are_refused(ok, swarm, plays, tmp_path):
    code, _, err = swarm("commit", "-m", "again")
    assert code == 4
    assert "nothing has changed" in err
    ok("checkout", "plays", "-o", tmp_path / "second")
    write(tmp_path / "second", {"hamlet": "from the second"})
    ok("commit", "-m", "second folder", tmp_path / "second")
    write(plays, {"hamlet": "from the first"})
    code, _, err = swarm("commit", "-m", "first folder")
    assert code == 4
    assert "not where this folder left it" in err
    ok("branch", "mine")
    assert ok("checkout", "mine")["written"] == 0
    assert read(plays) == {"hamlet": "from the first"}
    ok("commit", "-m", "first folder")
    ok("checkout", "HEAD~1")
    write(plays, {"hamlet": "nowhere"})
    code, _, err = swarm("commit", "-m", "lost")
    assert code == 4
    assert "follows no branch" in err


def test_every_newest_commit_is_pinned_and_no_other(ok, plays, pair):
    store = pair.peers[0].store
    first = ok("log")["commit"]
    ok("branch", "keep")
    write(plays, {"a": "1"})
    second = ok("commit", "-m", "second")["commit"]
    assert {cids.text(cid) for cid in store.pins()} == {first, second}
    ok("fork", "plays", "fork")
    ok("branch", "-d", "keep")
    assert {cids.text(cid) for cid in store.pins()} == {
        first,
        second,
    }  # the fork has the branch too
    ok("branch", "--dataset", "fork", "-d", "keep")
    assert {cids.text(cid) for cid in store.pins()} == {second}


def test_changed_tensors_are_named(ok, swarm, plays):
    def model(weights):
        write(plays, {"model.safetensors": safetensors({"a": weights, "b": b"same"})})

    model(b"12345678")
    ok("commit", "-m", "a model")
    model(b"abcdefgh")
    assert ok("diff")["files"][0]["tensors"]["changed"] == ["a"]
    ok("commit", "-m", "trained")
    _, out, _ = swarm("diff", "HEAD~1", "HEAD")
    assert "changed: a" in out
    assert "the same: 1" in out


@pytest.mark.slow
def test_changed_rows_are_counted(ok, plays):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"n": [1, 2, 3]}), plays / "t.parquet")
    ok("commit", "-m", "a table")
    parquet.write_table(pyarrow.table({"n": [1, 3, 4, 5]}), plays / "t.parquet")
    assert ok("diff")["files"][0]["rows"] == {"added": 2, "removed": 1}
    (plays / "t.parquet").write_bytes(b"no table")
    assert "rows" not in ok("diff")["files"][0]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("init", "Not A Name"), 2, "is not a name"),
        (("log", "nobody"), 3, "'nobody' is no branch here"),
        (("log", "HEAD~9"), 3, "not 9"),
        (("log", "a b"), 2, "is not a version"),
        (("log", "plays:none"), 3, "no branch 'none'"),
        (("log", "bafkreiaxnnnb7qz2focittuqq3ya25q7rcv3bqynnczfzako47346wosmu"), 2, "no commit"),
        (("branch", "HEAD"), 2, "not a branch's name"),
        (("branch", "main"), 4, "already"),
        (("branch", "-d", "main"), 4, "in use"),
        (("init", "plays", "elsewhere"), 4, "already"),
        (("fork", "plays", "plays"), 4, "already"),
        (("commit", "-m", " "), 2, "-m"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_told_with_its_exit_code(swarm, plays, arguments, code, words):
    got, _, err = swarm(*arguments)
    assert (got, words in err) == (code, True), err
    assert err.startswith("error: ")


def test_outside_of_a_working_folder_a_dataset_has_to_be_named(swarm, pair, tmp_path):
    for arguments in (("commit", "-m", "x"), ("diff",), ("branch",), ("log",), ("merge", "x")):
        code, _, err = swarm(*arguments)
        assert code == 2, arguments
        assert "hint: " in err


def test_a_commit_is_found_by_the_beginning_of_its_cid(ok, plays):
    commit = ok("log")["commit"]
    assert ok("log", commit[:14])["commit"] == commit
    assert ok("log", commit)["commit"] == commit
