"""The gateway, asked over a real socket as curl would."""

from __future__ import annotations

import io
import random
import socket
from functools import partial
from urllib.parse import quote

import httpx
import pytest
import trio

from protocols.signing import Signer
from storage import car, unixfs
from storage import cid as cids
from storage.memory import MemoryBlockstore
from swarm.config import Settings
from swarm.errors import RefusedError, UsageError
from swarm.gateway import requests
from swarm.gateway.requests import Span, UnsatisfiableError
from swarm.gateway.service import serve
from swarm.versions import commit
from tests.gateway.reading import open_pair

MIB = 2**20
LARGE = random.Random(8).randbytes(5 * MIB + 5)


@pytest.fixture
async def gateway(tmp_path, nursery):
    """A root at one peer, and a client of the gateway of another that holds nothing."""
    site = tmp_path / "site"
    (site / "sub folder").mkdir(parents=True)
    (site / "page").mkdir()
    (site / "sub folder" / "é.txt").write_text("hello")
    (site / "sub folder" / "<script>").write_bytes(LARGE)
    (site / "sub folder" / "link").symlink_to("é.txt")
    (site / "page" / "index.html").write_text("<p>hello</p>")
    async with open_pair() as (giver, taker, ranges):
        root = unixfs.add_path(site, giver.store).root
        port = await nursery.start(serve, ranges, 0)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}/ipfs/") as client:

            async def ask(path="", method="GET", **headers):
                spelled = {name.replace("_", "-"): value for name, value in headers.items()}
                url = f"{cids.text(root)}{path}"
                call = partial(client.request, method, url, headers=spelled)
                return await trio.to_thread.run_sync(call)

            ask.root, ask.port, ask.giver, ask.taker = root, port, giver, taker
            ask.ranges = ranges
            yield ask
        nursery.cancel_scope.cancel()


def only_root(gateway) -> str:
    return cids.text(gateway.root)


async def test_a_file_is_served_with_its_type_and_for_ever(gateway):
    answer = await gateway("/sub%20folder/%C3%A9.txt")
    assert answer.status_code == 200
    assert answer.text == "hello"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["content-length"] == "5"
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox")
    assert answer.headers["x-ipfs-path"] == f"/ipfs/{only_root(gateway)}/sub%20folder/%C3%A9.txt"
    etag = answer.headers["etag"]
    assert etag == f'"{cids.text(cids.of_raw(b"hello"))}"'
    again = await gateway("/sub%20folder/%C3%A9.txt", if_none_match=f'"other", W/{etag}')
    assert (again.status_code, again.content) == (304, b"")


async def test_a_commit_is_a_chunk_to_programs_and_its_files_to_a_browser(gateway):
    made = commit.make(Signer(b"a" * 32), gateway.root, [], "all", 7)
    gateway.giver.store.put_many([(made.cid, commit.encode(made))])
    above = f"/../{cids.text(made.cid)}"  # of another root than the fixture's
    page = await gateway(f"{above}/sub%20folder/%C3%A9.txt")
    assert (page.status_code, page.text) == (200, "hello")
    raw = await gateway(f"{above}?format=raw")
    assert raw.content == commit.encode(made)
    listed = car.Reader(io.BytesIO((await gateway(f"{above}?format=car&dag-scope=block")).content))
    assert listed.roots == (made.cid,)


async def test_a_range_of_a_file_brings_only_its_chunks(gateway):
    path = "/sub%20folder/%3Cscript%3E"
    answer = await gateway(path, range=f"bytes={MIB}-{MIB + 9}")
    assert answer.status_code == 206
    assert answer.content == LARGE[MIB : MIB + 10]
    assert answer.headers["content-range"] == f"bytes {MIB}-{MIB + 9}/{len(LARGE)}"
    assert answer.headers["content-type"] == "application/octet-stream"
    held = [cid for cid in gateway.taker.store.chunks if cids.codec(cid) == cids.RAW]
    assert held == [cids.of_raw(LARGE[MIB : 2 * MIB])]
    assert (await gateway(path, range="bytes=-5")).content == LARGE[-5:]
    answer = await gateway(path, range=f"bytes={len(LARGE)}-")
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{len(LARGE)}")
    answer = await gateway(path, range="bytes=0-1", if_range='"another"')
    assert (answer.status_code, answer.content) == (200, LARGE)


async def test_a_head_says_the_size_without_the_bytes(gateway):
    answer = await gateway("/sub%20folder/%3Cscript%3E", "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(LARGE))
    assert answer.headers["accept-ranges"] == "bytes"
    assert all(cids.codec(cid) != cids.RAW for cid in gateway.taker.store.chunks)
    answer = await gateway("?format=car", "HEAD")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_folder_is_a_page_of_its_names_or_its_index(gateway):
    answer = await gateway("/sub%20folder")
    assert answer.status_code == 301
    assert answer.headers["location"] == "./sub%20folder/"
    answer = await gateway("/sub%20folder/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "&lt;script&gt;" in answer.text
    assert "<script>" not in answer.text
    assert 'href="./%C3%A9.txt"' in answer.text
    answer = await gateway("/page/")
    assert answer.text == "<p>hello</p>"
    assert answer.headers["content-type"] == "text/html; charset=utf-8"


@pytest.mark.parametrize("name", ["what?", "a#b", "back\\slash", "100%", "%2F", "é"])
async def test_a_folder_is_led_to_by_its_own_name(gateway, tmp_path, name):
    made = tmp_path / "odd"
    (made / name).mkdir(parents=True)
    (made / name / "inside").touch()
    gateway.root = unixfs.add_path(made, gateway.giver.store).root
    url = f"http://127.0.0.1:{gateway.port}/ipfs/{only_root(gateway)}/{quote(name, safe='')}"
    answer = await trio.to_thread.run_sync(partial(httpx.get, url, follow_redirects=True))
    assert answer.status_code == 200
    assert "inside" in answer.text
    assert [one.status_code for one in answer.history] == [301]


async def test_a_symbolic_link_is_told_and_not_followed(gateway):
    answer = await gateway("/sub%20folder/link")
    assert answer.content == "é.txt".encode()
    assert answer.headers["content-type"] == "inode/symlink"


@pytest.mark.parametrize("how", [{"path": "?format=raw"}, {"accept": "application/vnd.ipld.raw"}])
async def test_a_raw_answer_is_one_chunk(gateway, how):
    answer = await gateway(**how)
    assert answer.headers["content-type"] == "application/vnd.ipld.raw"
    assert cids.matches(gateway.root, answer.content)
    assert answer.headers["etag"] == f'"{only_root(gateway)}.raw"'
    assert "attachment" in answer.headers["content-disposition"]
    assert list(gateway.taker.store.chunks) == [gateway.root]


@pytest.mark.parametrize(
    ("query", "chunks"),
    [
        ("?format=car", 13),
        ("?format=car&dag-scope=block", 1),
        ("?format=car&dag-scope=entity", 1),
        ("/page/index.html?format=car", 3),
        (f"/sub%20folder/%3Cscript%3E?format=car&entity-bytes={MIB}:-{4 * MIB}", 4),
    ],
)
async def test_a_car_answer_holds_the_scope_and_the_way_to_it(gateway, query, chunks):
    answer = await gateway(query)
    assert (
        answer.headers["content-type"] == "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    )
    imported = car.load(io.BytesIO(answer.content), store := MemoryBlockstore())
    assert imported.blocks == chunks
    path = "" if query.startswith("?") else query.partition("?")[0].replace("%20", " ")
    path = path.replace("%3C", "<").replace("%3E", ">")
    assert imported.roots == (unixfs.resolve(gateway.root, path, store),)
    etag = answer.headers["etag"]
    assert (await gateway(query, if_none_match=etag)).status_code == 304


@pytest.mark.slow
@pytest.mark.parametrize("query", ["", "?format=car"])
async def test_an_answer_that_cannot_be_finished_is_broken_off(gateway, query):
    del gateway.giver.store.chunks[cids.of_raw(LARGE[5 * MIB :])]
    gateway.ranges.patience = 0.3
    with pytest.raises(httpx.RemoteProtocolError), trio.fail_after(5):
        await gateway(f"/sub%20folder/%3Cscript%3E{query}")
    answer = await gateway("/sub%20folder/%3Cscript%3E", range="bytes=0-100")
    assert answer.content == LARGE[:101]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/none", 404),
        ("/page/index.html/below", 404),
        ("?format=tar", 400),
        ("?format=car&dag-scope=some", 400),
        ("?format=car&car-version=2", 400),
        ("?format=car&entity-bytes=x", 400),
        ("x", 400),
        ("/" + "x" * 5_000, 400),
    ],
)
async def test_what_cannot_be_answered_says_why(gateway, path, status):
    answer = await gateway(path)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.strip()


async def test_only_a_loopback_name_and_reading_are_answered(gateway):
    assert (await gateway("/page/", host="evil.example")).status_code == 403
    assert (await gateway("/page/", host="localhost:1")).status_code == 200
    assert (await gateway("/page/", "POST")).status_code == 405


@pytest.mark.parametrize(
    ("site", "destination", "status"),
    [
        ("cross-site", "image", 403),
        ("cross-site", "iframe", 403),
        ("same-site", "empty", 403),
        ("cross-site", "document", 200),
        ("same-origin", "image", 200),
        ("none", "document", 200),
    ],
)
async def test_a_page_of_another_site_embeds_nothing_of_ours(gateway, site, destination, status):
    told = {"sec-fetch-site": site, "sec-fetch-dest": destination}
    assert (await gateway("/page/", **told)).status_code == status


async def test_a_port_that_is_taken_is_refused_by_name(gateway):
    with pytest.raises(RefusedError, match=str(gateway.port)), trio.fail_after(5):
        await serve(None, gateway.port)
    with socket.create_connection(("127.0.0.1", gateway.port)):
        pass


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-0", Span(0, 1)),
        ("bytes=2-", Span(2, 10)),
        ("bytes=-3", Span(7, 10)),
        ("bytes=-30", Span(0, 10)),
        ("bytes=5-100", Span(5, 10)),
        ("bytes=5-4", None),
        ("bytes=-", None),
        ("bytes=0-1,4-5", None),
        ("lines=1-2", None),
        ("bytes=" + "9" * 30 + "-", None),
    ],
)
def test_a_range_header_is_read(header, expected):
    assert requests.span(header, 10) == expected


@pytest.mark.parametrize(("header", "size"), [("bytes=10-", 10), ("bytes=-0", 10), ("bytes=0-", 0)])
def test_a_range_without_a_byte_is_refused(header, size):
    with pytest.raises(UnsatisfiableError):
        requests.span(header, size)


def test_entity_bytes_are_read_from_either_end():
    def read(text):
        return requests.entity_bytes({"entity-bytes": text}, 100)

    assert read("0:*") == (0, None)
    assert read("10:19") == (10, 10)
    assert read("-10:*") == (90, None)
    assert read("-10:-1") == (90, 10)
    assert read("50:10") == (50, 0)
    with pytest.raises(UsageError):
        read("1")


@pytest.mark.parametrize(("value", "port"), [("8080", 8080), (0, 0), ("65535", 65_535)])
def test_the_port_is_a_setting_and_off_if_nothing_is_said(tmp_path, value, port):
    assert Settings.build({"home": tmp_path}, {}).gateway is None
    assert Settings.build({"home": tmp_path, "gateway": value}, {}).gateway == port
    assert Settings.build({"home": tmp_path}, {"SWARM_GATEWAY": str(value)}).gateway == port


@pytest.mark.parametrize("value", ["65536", "-1", "http", True, "8080 "])
def test_what_is_no_port_is_refused(tmp_path, value):
    with pytest.raises(UsageError, match="gateway"):
        Settings.build({"home": tmp_path, "gateway": value}, {})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:4748",
        "127.1.2.3:80",
        "[::1]",
        "[::1]:1",
    ],
)
def test_a_loopback_name_with_a_port_or_without_is_this_machine(host):
    assert requests.is_local(host)
    assert not requests.is_foreign(f"http://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:evil.example",
        "127.0.0.1.evil.example",
        "127.0.1",
        "localhost:80@evil.example",
        "evil.example@localhost",
        "localhost:80:80",
        "localhost.:80",
        "localhost:8\u0661",
        "::1",
        "[x",
        "",
    ],
)
def test_what_only_begins_or_ends_like_one_is_not(host):
    assert not requests.is_local(host)
    assert requests.is_foreign(f"http://{host}")


def test_an_origin_that_is_no_url_is_foreign():
    for origin in ("http://[x", "http://[::1", "null", "", "file://"):
        assert requests.is_foreign(origin)
    assert not requests.is_foreign(None)
