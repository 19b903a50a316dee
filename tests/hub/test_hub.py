"""The Hub's read API over a real socket: a ledger's names, content at another peer, and the Hub's own client."""

from __future__ import annotations

import importlib.util
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest
import trio

from storage import cid as cids
from storage import unixfs
from storage.dag_pb import Link
from swarm.errors import NotFoundError
from swarm.gateway.service import serve
from swarm.hub import app, cards, revisions
from swarm.hub.operations import HubOperations
from swarm.hub.repository import MAX_FILES, Hub
from swarm.hub.revisions import Revision, Revisions
from swarm.ledger import rules
from swarm.ledger.transactions import NameRegister, NameUpdate
from swarm.shelf import Shelf
from swarm.versions import tree
from tests.gateway.reading import open_pair
from tests.ledger.alone import ALICE, open_alone

LARGE = random.Random(4).randbytes(2**20 + 77)
CONFIG = b'{"model_type": "gpt2"}'


@pytest.fixture
async def hub(tmp_path, nursery):
    """Two versions of a name at one peer, and a client of the Hub of another that holds nothing."""
    made = tmp_path / "made"
    (made / "deep").mkdir(parents=True)
    (made / "config.json").write_bytes(CONFIG)
    (made / "deep" / "é.bin").write_bytes(LARGE)
    (made / "link").symlink_to("config.json")
    async with open_pair() as (giver, taker, ranges):
        with open_alone(tmp_path / "chain") as chain:
            first = unixfs.add_path(made, giver.store).root
            (made / "README.md").write_text(
                "---\nlicense: mit\npipeline_tag: text-generation\n---\nown"
            )
            second = unixfs.add_path(made, giver.store).root
            assert chain.run(ALICE, NameRegister("gpt", first)) == ""
            assert chain.run(ALICE, NameUpdate("gpt", second, 1, first)) == ""
            kept = Revisions(tmp_path / "revisions.log", ALICE)
            found = Hub(chain.ledger.view, ranges, kept)
            port = await nursery.start(serve, ranges, 0, app.routes(found))
            with httpx.Client(base_url=f"http://127.0.0.1:{port}/") as client:

                async def ask(path, method="GET", data=None, **headers):
                    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
                    call = partial(client.request, method, path, headers=spelled, data=data)
                    return await trio.to_thread.run_sync(call)

                ask.port, ask.roots, ask.hub, ask.chain = port, (first, second), found, chain
                ask.giver = giver
                ask.shelf = Shelf(tmp_path / "shelf", taker.store, taker.exchange, 10 * 2**20)
                yield ask
            nursery.cancel_scope.cancel()


def alias(root, version=1, kind="models") -> str:
    return Revision(kind, "gpt", version, root).alias


async def test_a_file_is_told_as_the_hub_tells_it(hub) -> None:
    answer = await hub("swarm/gpt/resolve/main/deep/%C3%A9.bin", "HEAD")
    cid = unixfs.resolve(hub.roots[1], "deep/é.bin", hub.shelf._store)
    assert answer.status_code == 200
    assert answer.headers["etag"] == answer.headers["x-linked-etag"] == f'"{cids.text(cid)}"'
    assert answer.headers["x-linked-size"] == answer.headers["content-length"] == str(len(LARGE))
    assert answer.headers["x-repo-commit"] == alias(hub.roots[1])
    whole = await hub("swarm/gpt/resolve/main/deep/%C3%A9.bin")
    assert whole.content == LARGE
    part = await hub("swarm/gpt/resolve/main/deep/%C3%A9.bin", range="bytes=1048570-1048579")
    assert (part.status_code, part.content) == (206, LARGE[1048570:1048580])
    assert part.headers["content-range"] == f"bytes 1048570-1048579/{len(LARGE)}"


async def test_main_numbers_and_aliases_name_the_same_versions(hub) -> None:
    for spelled in ("main", "v1", "%401", alias(hub.roots[1])):
        answer = await hub(f"api/models/swarm/gpt/revision/{spelled}")
        assert answer.json()["sha"] == alias(hub.roots[1])
    for spelled in ("v0", "@0", alias(hub.roots[0], 0)):
        answer = await hub(f"api/models/swarm/gpt/revision/{spelled}")
        assert answer.json()["swarm"]["cid"] == cids.text(hub.roots[0])
    assert alias(hub.roots[0], 0) != alias(hub.roots[0], 0, "datasets")


async def test_a_cid_is_a_repository_of_its_own(hub) -> None:
    name = cids.text(hub.roots[0])
    answer = await hub(f"datasets/swarm/{name}/resolve/main/config.json")
    assert answer.content == CONFIG
    assert (await hub(f"datasets/swarm/{name}/resolve/v1/config.json")).headers[
        "x-error-code"
    ] == "RevisionNotFound"


async def test_an_old_name_that_reads_like_a_cid_does_not_stand_in_for_it(hub, monkeypatch) -> None:
    monkeypatch.setattr(rules, "reads_as_cid", lambda _name: False)  # as it was once
    name = cids.text(hub.roots[0])
    assert hub.chain.run(ALICE, NameRegister(name, hub.roots[1])) == ""
    told = (await hub(f"api/models/swarm/{name}")).json()["swarm"]
    assert (told["version"], told["cid"]) == (None, name)
    assert [
        one["name"] for one in (await hub(f"api/models/swarm/{name}/refs")).json()["tags"]
    ] == []


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("swarm/no-such/resolve/main/config.json", "RepoNotFound"),
        ("somebody/gpt/resolve/main/config.json", "RepoNotFound"),
        ("api/models/swarm/gpt/revision/v2", "RevisionNotFound"),
        ("api/models/swarm/gpt/revision/" + "0" * 40, "RevisionNotFound"),
        ("swarm/gpt/resolve/branch/config.json", "RevisionNotFound"),
        ("swarm/gpt/resolve/main/absent.json", "EntryNotFound"),
        ("swarm/gpt/resolve/main/deep", "EntryNotFound"),
        ("swarm/gpt/resolve/main/link", "EntryNotFound"),
        ("swarm/gpt/resolve/main/deep/%2E%2E/config.json", "EntryNotFound"),
        ("api/models/swarm/gpt/tree/main/config.json", "EntryNotFound"),
    ],
)
async def test_what_is_not_there_has_the_code_that_clients_look_at(hub, path, code) -> None:
    answer = await hub(path)
    assert answer.status_code == 404
    assert answer.headers["x-error-code"] == code
    if code == "EntryNotFound":
        assert answer.headers["x-repo-commit"] == alias(hub.roots[1])


async def test_content_that_nobody_has_is_not_told_as_absent(hub) -> None:
    root = cids.of_dag_pb(b"nobody has this")
    hub.hub._ranges.patience = 0.1
    answer = await hub(f"datasets/swarm/{cids.text(root)}/resolve/main/x")
    assert answer.status_code == 503
    assert "x-error-code" not in answer.headers


async def test_a_version_is_written_down_only_when_its_content_was_found(hub, tmp_path) -> None:
    hub.hub._ranges.patience = 0.1
    absent = cids.text(cids.of_dag_pb(b"nobody has this"))
    assert (await hub(f"api/datasets/swarm/{absent}")).status_code == 503
    assert not (tmp_path / "revisions.log").exists()
    assert (await hub("api/models/swarm/gpt")).status_code == 200
    assert Revisions(tmp_path / "revisions.log", ALICE).find(alias(hub.roots[1])) is not None


async def test_who_asks_from_a_page_or_by_another_name_is_refused(hub) -> None:
    path = "api/models/swarm/gpt"
    assert (await hub(path, host="hub.example")).status_code == 403
    assert (await hub(path, origin="https://evil.example")).status_code == 403
    assert (await hub(path, origin="null")).status_code == 403
    assert (await hub(path, origin="http://[x")).status_code == 403
    assert (await hub(path, sec_fetch_site="cross-site")).status_code == 403
    assert (await hub(path, origin=f"http://127.0.0.1:{hub.port}")).status_code == 200


async def test_a_version_lists_its_files_and_its_tags(hub) -> None:
    tree = (await hub("api/models/swarm/gpt/tree/main?recursive=true")).json()
    assert [(one["type"], one["path"]) for one in tree] == [
        ("file", "README.md"),
        ("file", "config.json"),
        ("directory", "deep"),
        ("file", "deep/é.bin"),
    ]
    assert tree[3]["size"] == len(LARGE)
    top = (await hub("api/models/swarm/gpt/tree/main")).json()
    assert [one["path"] for one in top] == ["README.md", "config.json", "deep"]
    below = (await hub("api/models/swarm/gpt/tree/main/deep")).json()
    assert [one["path"] for one in below] == ["deep/é.bin"]
    some = await hub(
        "api/models/swarm/gpt/paths-info/main", "POST", data={"paths": ["deep", "absent"]}
    )
    assert [(one["type"], one["path"]) for one in some.json()] == [("directory", "deep")]
    refs = (await hub("api/models/swarm/gpt/refs")).json()
    assert refs["branches"][0]["targetCommit"] == alias(hub.roots[1])
    assert [one["name"] for one in refs["tags"]] == ["v1", "v0"]


async def test_an_own_card_is_kept_and_a_missing_one_is_made_of_the_record(hub) -> None:
    own = await hub("swarm/gpt/resolve/main/README.md")
    assert own.text.endswith("own")
    told = (await hub("api/models/swarm/gpt")).json()
    assert (told["pipeline_tag"], told["cardData"]["license"]) == ("text-generation", "mit")
    made = await hub("swarm/gpt/resolve/v0/README.md")
    assert made.headers["etag"] == f'"{cids.text(cids.of_raw(made.content))}"'
    assert 'library_name: "transformers"' in made.text
    assert cids.text(hub.roots[0]) in made.text
    listed = (await hub("api/models/swarm/gpt/tree/v0")).json()
    assert listed[0] == {
        "type": "file",
        "path": "README.md",
        "size": len(made.content),
        "oid": cids.text(cids.of_raw(made.content)),
    }


async def test_an_own_card_is_found_among_more_files_than_are_listed(hub) -> None:
    # In a folder of so many, names stand by their hashes: these two come after the first 10,000.
    store, own, file = hub.giver.store, b"a card of its own", b"x"
    links = [Link(cids.of_raw(file), f"{number:05}.txt", 1) for number in range(20_000)]
    links += [Link(cids.of_raw(own), "README.md", 17), Link(cids.of_raw(file), "config.json", 1)]

    def emit(cid, block) -> None:
        store.put_many([(cid, block)])

    emit(cids.of_raw(own), own)
    name = cids.text(tree.build(links, emit).cid)
    assert (await hub(f"swarm/{name}/resolve/main/README.md")).content == own
    name = cids.text(tree.build([links[0], *links[-1:]], emit).cid)
    assert (
        'library_name: "transformers"' in (await hub(f"swarm/{name}/resolve/main/README.md")).text
    )


async def test_a_listing_that_is_too_long_is_refused_before_its_files_are_fetched(hub) -> None:
    store = hub.shelf._store
    missing = cids.of_dag_pb(b"the manifest of a file that nobody has")
    links = [Link(missing, f"{number:05}", 1) for number in range(MAX_FILES + 1)]
    name = cids.text(tree.build(links, lambda cid, block: store.put_many([(cid, block)])).cid)
    answer = await hub(f"api/datasets/swarm/{name}/tree/main")
    assert (answer.status_code, answer.headers["x-error-code"]) == (413, "TooManyFiles")


async def test_a_revision_is_signed_and_known_again_without_the_ledger(hub, tmp_path) -> None:
    told = (await hub("api/models/swarm/gpt")).json()["swarm"]
    known = revisions.read(bytes.fromhex(told["record"]))
    assert (known.name, known.version, known.root) == ("gpt", 1, hub.roots[1])
    again = Revisions(tmp_path / "revisions.log", ALICE)
    assert again.find(alias(hub.roots[1])) == known


async def test_a_card_is_added_to_a_fetched_folder_that_has_none(hub, tmp_path) -> None:
    operations = HubOperations(hub.hub, hub.shelf, trio.lowlevel.checkpoint)
    folder = tmp_path / "fetched"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    add = partial(operations.add_card, hub.chain.ledger.view(), "gpt", 0, hub.roots[0], folder)
    assert await add()
    made = await hub("swarm/gpt/resolve/v0/README.md")
    card = (folder / "README.md").read_bytes()
    assert cards.read(card)["license"] == cards.read(made.content)["license"]
    assert cids.text(hub.roots[0]).encode() in card
    (folder / "README.md").write_text("an own one")
    assert not await add()
    assert (folder / "README.md").read_text() == "an own one"
    file = partial(
        operations.add_card, hub.chain.ledger.view(), "gpt", 0, hub.roots[0], folder / "config.json"
    )
    assert not await file()


async def test_a_card_is_written_through_no_link_and_its_lack_is_no_failure(hub, tmp_path) -> None:
    operations = HubOperations(hub.hub, hub.shelf, trio.lowlevel.checkpoint)
    add = partial(operations.add_card, hub.chain.ledger.view(), "gpt", 0, hub.roots[0])
    fetched, outside = tmp_path / "fetched", tmp_path / "outside"
    fetched.mkdir()
    (fetched / "README.md").symlink_to(outside)
    assert not await add(fetched)
    assert not outside.exists()
    assert not await add(Path("/proc/self/fdinfo"))  # takes no file of anybody


async def test_a_version_is_linked_into_the_cache_with_its_card(hub, tmp_path) -> None:
    async def caught_up(_progress) -> None:
        """There is nobody to wait for."""

    operations = HubOperations(hub.hub, hub.shelf, caught_up)
    cache = tmp_path / "cache"
    linked = await operations.link("models", "gpt", 0, cache, lambda *_: None)
    assert linked["files"] == 3
    assert linked["revision"] == alias(hub.roots[0], 0)
    snapshot = cache / "models--swarm--gpt" / "snapshots" / alias(hub.roots[0], 0)
    assert str(snapshot) == linked["path"]
    assert (snapshot / "deep" / "é.bin").read_bytes() == LARGE
    kept = [one for one in (tmp_path / "shelf").rglob("é.bin") if one.is_file()]
    assert linked["copied"] == 0
    if "hard link" in linked["ways"]:
        assert (snapshot / "deep" / "é.bin").stat().st_ino == kept[0].stat().st_ino
    else:
        assert linked["ways"]["reflink"] == 2
    assert (snapshot / "README.md").read_text().startswith("---\n")
    assert not (cache / "models--swarm--gpt" / "refs" / "main").exists()
    newest = await operations.link("models", "gpt", None, cache, lambda *_: None)
    assert newest["ways"]["kept"] == 2
    refs = cache / "models--swarm--gpt" / "refs"
    assert {one.name: one.read_text() for one in refs.iterdir()} == {
        "main": alias(hub.roots[1]),
        "v0": alias(hub.roots[0], 0),
        "v1": alias(hub.roots[1]),
    }
    with pytest.raises(NotFoundError, match="versions 0 to 1"):
        await operations.link("models", "gpt", 7, cache, lambda *_: None)


async def by_client(hub, tmp_path, code: str) -> str:
    """What a program prints that is told of this Hub as of any other."""
    environment = os.environ | {
        "HF_ENDPOINT": f"http://127.0.0.1:{hub.port}",
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    done = await trio.run_process(
        [sys.executable, "-c", code],
        capture_stdout=True,
        capture_stderr=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("huggingface_hub"), reason="needs huggingface_hub")
async def test_the_hubs_own_client_downloads_a_version_and_finds_it_again_offline(
    hub, tmp_path
) -> None:
    code = (
        "from pathlib import Path\n"
        "from huggingface_hub import HfApi, hf_hub_download, snapshot_download\n"
        "from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError\n"
        "folder = Path(snapshot_download('swarm/gpt', revision='v0'))\n"
        "print(folder.name, (folder / 'deep/é.bin').stat().st_size)\n"
        "print(hf_hub_download('swarm/gpt', 'README.md', revision=folder.name, local_files_only=True) == str(folder / 'README.md'))\n"
        "print(HfApi().model_info('swarm/gpt').pipeline_tag)\n"
        "for name, file, revision, error in (\n"
        "    ('swarm/none', 'x', None, RepositoryNotFoundError), ('swarm/gpt', 'x', None, EntryNotFoundError),\n"
        "    ('swarm/gpt', 'x', 'v9', RevisionNotFoundError),\n"
        "):\n"
        "    try: hf_hub_download(name, file, revision=revision)\n"
        "    except error as caught: print(type(caught).__name__)\n"
    )
    said = (await by_client(hub, tmp_path, code)).splitlines()
    assert said == [
        f"{alias(hub.roots[0], 0)} {len(LARGE)}",
        "True",
        "text-generation",
        "RepositoryNotFoundError",
        "RemoteEntryNotFoundError",
        "RevisionNotFoundError",
    ]


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("transformers"), reason="needs transformers")
async def test_transformers_reads_a_config_of_the_swarm(hub, tmp_path) -> None:
    code = "from transformers import AutoConfig; print(AutoConfig.from_pretrained('swarm/gpt').model_type)"
    assert await by_client(hub, tmp_path, code) == "gpt2\n"


def test_the_hubs_side_needs_no_torch() -> None:
    code = "import sys, swarm.hub.app, swarm.hub.operations; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_a_card_that_is_a_link_does_not_hide_the_repository(hub, tmp_path) -> None:
    made = tmp_path / "linked"
    made.mkdir()
    (made / "config.json").write_bytes(CONFIG)
    (made / "README.md").symlink_to("config.json")
    name = cids.text(unixfs.add_path(made, hub.giver.store).root)
    answer = await hub(f"api/models/swarm/{name}")
    assert answer.status_code == 200
    assert answer.json()["cardData"] == {}
    assert [one["rfilename"] for one in answer.json()["siblings"]] == ["config.json"]
