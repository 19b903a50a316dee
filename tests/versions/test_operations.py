"""Versions between two nodes, without the command line: long histories, hostile blocks, refused names."""

from __future__ import annotations

import cbor2
import pytest
import trio

from protocols.exchange.errors import ContentTooLargeError
from storage import cid as cids
from storage.importer import add_path
from swarm.errors import RefusedError
from swarm.versions.commit import MAX_COMMIT_BYTES, CommitError, encode, make
from swarm.versions.working import find_marker
from tests.protocols.exchange.conftest import open_neighbourhood
from tests.versions.world import ALICE, BOB, TREE, Names, silent, versions_of, write


def history(store, root, count):
    """A line of commits in a store; the newest."""
    parents = []
    for number in range(count):
        commit = make(ALICE, root, parents, f"m{number}", number)
        parents = [(commit.cid, commit)]
        store.put_many([(commit.cid, encode(commit))])
    return parents[0][0]


async def test_a_history_longer_than_a_walk_is_deep_comes_block_by_block(tmp_path):
    async with open_neighbourhood() as near:
        giver, taker = await near.node(), await near.node()
        old = add_path(write(tmp_path / "old", {"a": "old"}), giver.store).root
        new = add_path(write(tmp_path / "new", {"a": "new"}), giver.store).root
        middle = history(giver.store, old, 100)
        versions = versions_of(giver, ALICE, tmp_path / "home", Names())
        parent = await versions._source.commit(middle)
        head = make(ALICE, new, [(middle, parent)], "the newest", 0)
        giver.store.put_many([(head.cid, encode(head))])
        theirs = versions_of(taker, BOB, tmp_path / "theirs", Names())
        told = []
        got = await theirs.checkout(
            None,
            tmp_path,
            cids.text(head.cid),
            tmp_path / "out",
            lambda *now: told.append(now),
        )
        assert (got["dataset"], got["commit"]) == (None, cids.text(head.cid))
        assert (tmp_path / "out" / "a").read_text() == "new"
        assert find_marker(tmp_path / "out") is None  # a commit of no dataset of this node
        assert max(done for stage, done, *_ in told if stage == "history") == 100
        assert taker.store.has(middle)
        assert not taker.store.has(old)


async def test_a_block_too_large_for_a_commit_is_refused_and_not_kept(tmp_path):
    async with open_neighbourhood() as near:
        giver, taker = await near.node(), await near.node()
        block = cbor2.dumps({"kind": "swarm/commit/1", "message": "m" * MAX_COMMIT_BYTES})
        cid = cids.of_dag_cbor(block)
        giver.store.put_many([(cid, block)])
        versions = versions_of(taker, BOB, tmp_path, Names())
        with pytest.raises(ContentTooLargeError):
            await versions.log(None, cids.text(cid), 1, silent)
        assert not taker.store.has(cid)


async def test_a_parent_that_is_no_commit_is_named(tmp_path):
    async with open_neighbourhood() as near:
        node = await near.node()
        junk = cbor2.dumps({"kind": "something else"}, canonical=True)
        parent = cids.of_dag_cbor(junk)
        made_up = make(ALICE, TREE, [], "first", 0)
        child = make(BOB, TREE, [(parent, made_up)], "child", 0)
        node.store.put_many([(parent, junk), (child.cid, encode(child))])
        versions = versions_of(node, BOB, tmp_path, Names())
        with pytest.raises(CommitError, match=cids.text(parent)):
            await versions.log(None, cids.text(child.cid), 9, silent)


async def test_a_refused_name_leaves_the_commit_and_says_so(tmp_path):
    class Taken(Names):
        async def point(self, name, published):
            raise RefusedError(f"the name {name!r} belongs to another", "choose another name")

    async with open_neighbourhood() as near:
        node = await near.node()
        versions = versions_of(node, ALICE, tmp_path / "home", Taken())
        folder = write(tmp_path / "plays", {"a": "1"})
        await versions.init("plays", folder)
        with pytest.raises(RefusedError, match="belongs to another; the commit bafyrei") as raised:
            await versions.commit(folder, "first", silent, publish=True)
        head = (await versions.log(folder, "HEAD", 1, silent))["commits"][0]["commit"]
        assert head in raised.value.message
        assert raised.value.hint == "choose another name"


async def test_the_tree_of_a_commit_is_found_on_another_node(tmp_path):
    async with open_neighbourhood() as near:
        giver, taker = await near.node(), await near.node()
        root = add_path(write(tmp_path / "files", {"a": "1"}), giver.store).root
        head = history(giver.store, root, 2)
        versions = versions_of(taker, BOB, tmp_path, Names())
        assert await versions.tree_of(head, silent) == root
        assert await versions.tree_of(root, silent) == root


async def test_why_a_commit_does_not_come_is_told_while_it_is_looked_for(tmp_path):
    async with open_neighbourhood() as near:
        versions = versions_of(await near.node(), BOB, tmp_path, Names())
        told = []
        with trio.move_on_after(1):
            await versions.tree_of(
                make(ALICE, TREE, [], "lost", 0).cid, lambda *now: told.append(now)
            )
    assert told[0] == ("history", 0, 0, "looking for peers that have it")
    assert told[-1] == ("history", 0, 0, "there is nobody to ask; looking again in 1 s")


async def test_a_crash_between_branch_and_folder_is_mended_by_a_checkout(tmp_path):
    async with open_neighbourhood() as near:
        node = await near.node()
        versions = versions_of(node, ALICE, tmp_path / "home", Names())
        folder = write(tmp_path / "plays", {"a": "1"})
        await versions.init("plays", folder)
        await versions.commit(folder, "first", silent)
        marker = (folder / ".swarm-dataset").read_bytes()
        write(folder, {"a": "2"})
        await versions.commit(folder, "second", silent)
        (folder / ".swarm-dataset").write_bytes(
            marker
        )  # the branch has moved, the folder does not know
        write(folder, {"a": "2"})
        with pytest.raises(RefusedError, match="not where this folder left it"):
            await versions.commit(folder, "third", silent)
        got = await versions.checkout(folder, tmp_path, "main", None, silent)
        assert (got["written"], got["branch"]) == (0, "main")
        write(folder, {"a": "3"})
        assert (await versions.commit(folder, "third", silent))["height"] == 3


async def two_versions(near, tmp_path, files=40):
    """A dataset of two commits whose files all differ, and the folder that holds the second."""
    versions = versions_of(await near.node(), ALICE, tmp_path / "home", Names())
    folder = tmp_path / "plays"
    await versions.init("plays", folder)
    for text in ("first", "second"):
        write(folder, {f"{number}": f"{text} {number}" for number in range(files)})
        await versions.commit(folder, text, silent)
    return versions, folder


async def test_a_look_at_a_folder_leaves_what_a_checkout_is_writing_there(tmp_path):
    async with open_neighbourhood() as near:
        versions, folder = await two_versions(near, tmp_path)
        seen = []
        async with trio.open_nursery() as nursery:

            async def look():
                seen.append(await versions.diff(folder, None, None, silent))

            def told(stage, *_):
                if stage == "write" and not seen:
                    seen.append(None)
                    nursery.start_soon(look)

            got = await versions.checkout(folder, tmp_path, "HEAD~1", None, told)
        assert got["written"] == 40
        assert {path.read_text()[:5] for path in folder.glob("[0-9]*")} == {"first"}
        assert len(seen) == 2


async def test_two_checkouts_of_one_folder_wait_for_each_other(tmp_path):
    async with open_neighbourhood() as near:
        versions, folder = await two_versions(near, tmp_path)
        async with trio.open_nursery() as nursery:
            for version in ("plays~1", "plays", "plays~1"):
                nursery.start_soon(versions.checkout, folder, tmp_path, version, None, silent)
        marker = find_marker(folder)
        commit = await versions._source.commit(marker.commit)
        assert {path.read_text().split()[0] for path in folder.glob("[0-9]*")} == {commit.message}


@pytest.mark.parametrize("change", ["written over", "removed", "put beside"])
async def test_what_a_person_does_during_a_checkout_is_not_written_over(tmp_path, change):
    async with open_neighbourhood() as near:
        versions, folder = await two_versions(near, tmp_path)
        write(folder, {"0": "second 0", "1": "second 1"})
        await versions.commit(folder, "fewer", silent)

        def meddle(stage, *_):
            if stage == "write":
                if change == "written over":
                    (folder / "0").write_text("a person's own")
                elif change == "removed":
                    (folder / "0").unlink(missing_ok=True)
                else:
                    (folder / "7").write_text("a person's own")

        with pytest.raises(RefusedError, match="was changed meanwhile"):
            await versions.checkout(folder, tmp_path, "HEAD~2", None, meddle)
        found = {path.name: path.read_text() for path in folder.glob("[0-9]*")}
        assert (
            found
            == {
                "written over": {"0": "a person's own", "1": "second 1"},
                "removed": {"1": "second 1"},
                "put beside": {"0": "second 0", "1": "second 1", "7": "a person's own"},
            }[change]
        )
        assert not (folder / ".swarm-dataset.new").exists()


async def test_a_file_that_becomes_a_folder_and_a_link_that_becomes_one_are_checked_out(tmp_path):
    async with open_neighbourhood() as near:
        versions = versions_of(await near.node(), ALICE, tmp_path / "home", Names())
        folder = tmp_path / "plays"
        await versions.init("plays", folder)
        write(folder, {"a": "a file", "b/x": "in a folder", "d/x": "behind a link"})
        (folder / "c").symlink_to("d")
        await versions.commit(folder, "first", silent)
        (folder / "c").unlink()
        write(folder, {"a/x": "in a folder", "b": "a file", "c/x": "a folder", "d/x": "alone"})
        await versions.commit(folder, "second", silent)
        await versions.checkout(folder, tmp_path, "plays~1", None, silent)
        assert (folder / "a").read_text() == "a file"
        assert (folder / "c").is_symlink()
        assert (folder / "c" / "x").read_text() == "behind a link"
        await versions.checkout(folder, tmp_path, "plays", None, silent)
        assert (folder / "b").read_text() == "a file"
        assert [(folder / one / "x").read_text() for one in "acd"] == [
            "in a folder",
            "a folder",
            "alone",
        ]


async def test_a_merge_that_is_refused_for_what_was_changed_meanwhile_moves_no_branch(tmp_path):
    async with open_neighbourhood() as near:
        versions = versions_of(await near.node(), ALICE, tmp_path / "home", Names())
        folder = tmp_path / "plays"
        await versions.init("plays", folder)
        write(folder, {"a": "1", "b": "1"})
        await versions.commit(folder, "first", silent)
        await versions.branch(folder, None, "side", None, None, silent)
        write(folder, {"a": "2", "b": "1"})
        ours = await versions.commit(folder, "ours", silent)
        await versions.checkout(folder, tmp_path, "side", None, silent)
        write(folder, {"a": "1", "b": "2"})
        await versions.commit(folder, "theirs", silent)
        await versions.checkout(folder, tmp_path, "main", None, silent)

        def meddle(stage, *_):
            if stage == "write":
                (folder / "b").write_text("a person's own")

        with pytest.raises(RefusedError, match="was changed meanwhile"):
            await versions.merge(folder, "side", None, None, meddle)
        assert cids.text(versions._repository.load("plays").branches["main"]) == ours["commit"]
        write(folder, {"a": "2", "b": "1"})
        merged = await versions.merge(folder, "side", None, None, silent)
        assert (merged["result"], (folder / "b").read_text()) == ("merged", "2")
