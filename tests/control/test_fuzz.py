"""Everything that a running node serves on this machine, asked from its own descriptions with good and bad requests.

`make fuzz` asks for longer: it sets `FUZZ_EXAMPLES`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage import cid as cids
from tests.control import described
from tests.control.fake_node import CID, PEER
from tests.control.running import running

pytestmark = pytest.mark.slow
EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "60"))
ANSWER_SECONDS = 0.5
"""An operation that has told nothing by then is left: its client goes, and that cancels it."""
BUGS = ("control.bug", "page.bug", "gateway.bug", "hub.bug", "connection_failed", "Traceback")
ENDS_IT = {("post", "/v1/stop"), ("post", "/v1/care/finish"), ("post", "/v1/care/leave")}
SPENDS_TIME = {("post", "/v1/serve"), ("post", "/v1/replay"), ("post", "/v1/sample")}
TAKES_AWAY = {("post", "/v1/store/unpin")}
"""With a collection after it, the content that the gateway is asked for is gone, and it looks for it in the network."""


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with running(tmp_path_factory.mktemp("fuzz")) as node:
        content = node.home.parent / "content"
        content.mkdir()
        (content / "a.txt").write_text("hello")
        (content / "sub").mkdir()
        node.root = node.ask(lambda client: client.publish(content))["cid"]
        yield node
        assert node.process.poll() is None, "it did not survive"
        said = node.said()
        assert [bug for bug in BUGS if bug in said] == [], said[-3_000:]


def examples(count=EXAMPLES):
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=count == EXAMPLES == 60,
        suppress_health_check=list(HealthCheck),
    )


def known(node):
    """What means something to it."""
    below = node.home.parent / "content"
    text = [
        node.root,
        CID,
        PEER,
        "tiny-gpt",
        "train",
        "models",
        "0" * 64,
        "upload=1MB",
        "127.0.0.1",
    ]
    return {
        "text": text,
        "path": [str(below), str(below / "a.txt"), "/nowhere/at/all", str(below / "new")],
    }


def ask(client, asked) -> httpx.Response | None:
    """The answer, or of an operation that goes on its first events; None if it did not come in time."""
    with (
        contextlib.suppress(httpx.ReadTimeout),
        client.stream(
            asked.method, asked.target, content=asked.body, headers=asked.headers
        ) as answer,
    ):
        told = b""
        with contextlib.suppress(httpx.ReadTimeout):
            for part in answer.iter_bytes():
                told += part
        return httpx.Response(answer.status_code, headers=answer.headers, content=told)
    return None


# The control API


def test_the_control_api_answers_every_request_as_it_describes(node):
    transport = httpx.HTTPTransport(uds=node.socket)
    client = httpx.Client(transport=transport, base_url="http://x", timeout=ANSWER_SECONDS)
    description = client.get("/v1/openapi.json", timeout=20).json()

    @examples()
    @given(described.requests(description, known(node), ENDS_IT | SPENDS_TIME | TAKES_AWAY))
    def asks(asked):
        answer = ask(client, asked)
        if answer is None:
            return
        if answer.headers["content-type"] == "application/x-ndjson":
            events = [json.loads(line) for line in answer.text.splitlines() if line.endswith("}")]
            assert all(one["event"] in {"progress", "alive", "result", "error"} for one in events)
            faults = [one["error"] for one in events if one["event"] == "error"]
            assert not [one for one in faults if one["code"] == "internal"], (asked, faults)
            return
        described.check(asked, answer, description, others=(404,))

    with contextlib.closing(client):
        asks()


# The page


@pytest.mark.parametrize("shows", ["token", "another token", "nothing"])
def test_the_page_answers_every_request_as_it_describes(node, shows):
    client = httpx.Client(base_url=node.page(), timeout=ANSWER_SECONDS)
    description = client.get("/api/openapi.json", timeout=20).json()
    tokens = {"token": node.token, "another token": node.token[::-1]}

    @examples(EXAMPLES // 2)
    @given(described.requests(description, known(node), {("get", "/api/events")}))
    def asks(asked):
        if shows in tokens:
            asked.headers["authorization"] = f"Bearer {tokens[shows]}"
        else:
            asked.headers["origin"] = node.page()
        answer = ask(client, asked)
        if answer is None:
            return
        described.check(asked, answer, description, others=(404, 405))
        if shows != "token" and asked.operation.get("security") != [] and answer.status_code != 404:
            assert answer.status_code == 401, asked

    with contextlib.closing(client):
        asks()


@pytest.mark.parametrize(
    "foreign",
    [
        {"host": "evil.example"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_a_token_is_of_no_use_to_another_site(node, foreign):
    authorization = {"authorization": f"Bearer {node.token}"}
    for path in ("/api/node", "/api/logs", "/api/storage"):
        answer = httpx.get(node.page() + path, headers=authorization | foreign)
        assert answer.status_code == 403
        assert "value" not in answer.text


# The gateway and the Hub

STEPS = [
    "..",
    ".",
    "%2e%2e",
    "%2E%2e%2f",
    "..%5c",
    "%00",
    "",
    "a.txt",
    "sub",
    "%252e%252e",
    "é",
    "~",
    "etc",
    "passwd",
]


def test_no_path_leads_the_gateway_or_the_hub_out_of_the_content(node):
    base = f"http://127.0.0.1:{node.gateway}"
    secret = (node.home / "identity.key").read_text().split()[-1]
    fronts = [
        f"/ipfs/{node.root}",
        f"/swarm/{node.root}/resolve/main",
        f"/api/models/swarm/{node.root}/tree/main",
    ]

    @examples()
    @given(st.sampled_from(fronts), st.lists(st.sampled_from(STEPS), max_size=6), st.booleans())
    def asks(front, steps, is_raw):
        target = "/".join([front, *steps])
        if is_raw:  # httpx would take the dots out
            said = raw(
                node.gateway,
                f"GET {quote(target, safe='/%~')} HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n".encode(),
            )
            status = int(said.split(b" ", 2)[1])
        else:
            answer = httpx.get(base + target, timeout=5)
            status, said = answer.status_code, answer.content
        assert status in {200, 301, 400, 404, 503}, (target, status, said)
        assert secret.encode() not in said
        assert b"root:" not in said

    asks()


@pytest.mark.parametrize(
    "path",
    [
        "/a%0d%0ax-evil:%20yes/name/resolve/main/f",
        "/swarm/a%0d%0ax-evil:%20yes/resolve/main/f",
        "/swarm/{root}/resolve/a%0d%0ax-evil:%20yes/f",
        "/swarm/{root}/resolve/main/a%0d%0ax-evil:%20yes",
        "/datasets/%00/%7f/resolve/main/f",
        "/ipfs/{root}/a%0d%0ax-evil:%20yes",
        "/ipfs/{root}/a.txt?download=true&filename=a%0d%0ax-evil:%20yes",
        "/ipfs/{root}/sub%0d%0ax-evil:%20yes/..",
    ],
)
def test_no_header_can_be_put_into_an_answer(node, path):
    answer = httpx.get(f"http://127.0.0.1:{node.gateway}" + path.format(root=node.root))
    assert "x-evil" not in answer.headers
    assert answer.status_code in {200, 301, 400, 404}


@pytest.mark.parametrize(
    ("shown", "status"),
    [({"host": "evil.example"}, 403), ({"origin": "https://evil.example"}, 403), ({}, 200)],
)
def test_the_gateway_and_the_hub_answer_this_machine_alone(node, shown, status):
    for path in (f"/ipfs/{node.root}/a.txt", f"/swarm/{node.root}/resolve/main/a.txt"):
        answer = httpx.get(f"http://127.0.0.1:{node.gateway}{path}", headers=shown)
        assert answer.status_code == status


# Bytes that are no HTTP


def raw(port, data, seconds=2) -> bytes:
    """What comes back for some bytes, as far as it comes in time."""
    with socket.create_connection(("127.0.0.1", port), seconds) as stream:
        stream.sendall(data)
        said = b""
        with contextlib.suppress(OSError):
            while part := stream.recv(65_536):
                said += part
        return said


LINES = [
    b"GET / HTTP/1.1\r\n", b"host: 127.0.0.1\r\n", b"host: a\r\n", b"content-length: 5\r\n", b"content-length: -1\r\n",
    b"transfer-encoding: chunked\r\n", b"connection: upgrade\r\n", b"upgrade: h2c\r\n", b"http2-settings: !\r\n",
    b"http2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n", b"upgrade: websocket\r\n", b"sec-websocket-version: 13\r\n",
    b"sec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n", b"expect: 100-continue\r\n", b"\r\n", b"5\r\nhello\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", b"PUT /api/node HTTP/1.0\r\n",
]  # fmt: skip


def test_bytes_that_are_no_request_end_their_own_connection_and_nothing_else(node):
    ports = [node.gateway, int(node.page().rpartition(":")[2])]

    @examples()
    @given(
        st.sampled_from(ports),
        st.lists(st.one_of(st.sampled_from(LINES), st.binary(max_size=20)), max_size=8),
    )
    def sends(port, parts):
        with (
            socket.create_connection(("127.0.0.1", port), 2) as stream,
            contextlib.suppress(OSError),
        ):
            stream.sendall(b"".join(parts))
            stream.shutdown(socket.SHUT_WR)
            stream.recv(65_536)
        assert b" 200 " in raw(port, PROBE[port == node.gateway], 5).split(b"\r\n")[0] + b" "

    root = cids.text(cids.parse(node.root))
    sends_probe = f"GET /ipfs/{root}/a.txt HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"
    PROBE[True] = sends_probe.encode()
    sends()


PROBE = {False: b"GET / HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n"}


def test_http_2_is_not_spoken(node):
    settings_frame = b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    said = raw(node.gateway, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings_frame)
    assert said == b""
