"""The page's routes: who is refused, what is answered, and how much of it there is."""

from __future__ import annotations

import json

import httpx
import pytest
import trio
from starlette.routing import Route

from swarm.page import files, guard, openapi, routes
from swarm.page.guard import Guard
from tests.page.conftest import HOST, TOKEN
from tests.page.fake_source import PNG, ROOTS, TASK

QUESTIONS = [
    "/api/node",
    "/api/tasks",
    f"/api/tasks/{TASK}",
    "/api/peers",
    "/api/storage",
    "/api/logs",
    "/api/samples",
    "/api/events",
    f"/api/samples/{ROOTS[2]}/image",
]


def error_of(answer):
    return answer.json()["error"]


# Who is refused


@pytest.mark.parametrize("path", QUESTIONS)
async def test_nothing_is_told_without_a_session(stranger, path):
    answer = await stranger.get(path)
    assert answer.status_code == 401
    assert "swarm page" in error_of(answer)["hint"]


@pytest.mark.parametrize("path", ["/api/pause", "/api/resume", "/api/samples"])
async def test_nothing_is_changed_without_a_session(stranger, source, path):
    body = {"part": "train"} if "samples" not in path else {"name": "tiny-gpt", "version": 1}
    answer = await stranger.post(path, json=body, headers={"origin": HOST})
    assert answer.status_code == 401
    assert source.held == []
    assert await source.samples.kept() == []


@pytest.mark.parametrize("authorization", ["Bearer wrong", "Bearer ", "Basic dDp0", "Bearer é"])
async def test_a_wrong_token_is_refused_even_beside_a_session(browser, authorization):
    header = {"authorization": authorization.encode()}
    expected = 200 if authorization.startswith("Basic") else 401
    assert (await browser.get("/api/node", headers=header)).status_code == expected


async def test_a_program_may_show_the_token_itself(stranger):
    header = {"authorization": f"Bearer {TOKEN}"}
    assert (await stranger.get("/api/node", headers=header)).status_code == 200
    paused = await stranger.post("/api/pause", json={"part": "train"}, headers=header)
    assert paused.status_code == 200


async def test_a_cookie_alone_lets_nobody_in_as_every_port_of_the_machine_is_sent_it(browser):
    del browser.headers["x-swarm-key"]
    assert (await browser.get("/api/node")).status_code == 401


async def test_the_key_alone_lets_nobody_in(browser):
    browser.cookies.clear()
    assert (await browser.get("/api/node")).status_code == 401


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example:4747", "192.168.1.7", "evil@127.0.0.1", ""]
)
@pytest.mark.parametrize("path", ["/", "/static/page.js", "/api/node", openapi.PATH, "/nothing"])
async def test_another_name_than_the_machine_s_own_is_refused(browser, host, path):
    answer = await browser.get(path, headers={"host": host})
    assert answer.status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:4747", "localhost:9999", "[::1]:4747", "LOCALHOST"])
async def test_every_loopback_name_and_a_forwarded_port_are_served(stranger, host):
    assert (await stranger.get("/", headers={"host": host})).status_code == 200


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "http://127.0.0.1:8080", "http://localhost:4747", "null"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_another_origin_is_refused_with_a_session_too(browser, source, origin, method):
    body = {"part": "train"} if method == "POST" else None
    path = "/api/pause" if method == "POST" else "/api/node"
    answer = await browser.request(method, path, json=body, headers={"origin": origin})
    assert answer.status_code == 403
    assert source.held == []
    assert "access-control-allow-origin" not in answer.headers


async def test_a_change_that_does_not_say_where_it_comes_from_is_refused(browser, source):
    del browser.headers["origin"]
    answer = await browser.post("/api/pause", json={"part": "train"})
    assert answer.status_code == 403
    assert source.held == []


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_of_another_site_embeds_nothing_and_may_link_to_the_page(stranger, site):
    script = {"sec-fetch-site": site, "sec-fetch-dest": "script"}
    link = {"sec-fetch-site": site, "sec-fetch-dest": "document"}
    assert (await stranger.get("/static/page.js", headers=script)).status_code == 403
    assert (await stranger.get("/", headers=link)).status_code == 200
    assert (await stranger.get("/api/logs", headers=link)).status_code == 403


async def test_a_preflight_is_allowed_nothing(stranger):
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answer = await stranger.options("/api/pause", headers=asked)
    assert answer.status_code == 403
    assert not [name for name in answer.headers if name.startswith("access-control")]


# Sessions


async def test_a_link_lets_one_browser_in_with_a_cookie_that_no_script_sees(stranger, access):
    code = access.new_code()
    first = await stranger.post("/api/session", json={"code": code}, headers={"origin": HOST})
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert "path=/api" in cookie
    again = await stranger.post("/api/session", json={"code": code}, headers={"origin": HOST})
    assert again.status_code == 403
    assert "set-cookie" not in again.headers


async def test_a_forgotten_browser_is_not_known_any_more(browser):
    await browser.delete("/api/session")
    assert (await browser.get("/api/node")).status_code == 401


# What is answered


@pytest.mark.parametrize(
    "path", [one for one in QUESTIONS if "events" not in one and "image" not in one]
)
async def test_a_session_is_told(browser, path):
    answer = await browser.get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"value"}


async def test_training_is_paused_and_goes_on(browser, source):
    await browser.post("/api/pause", json={"part": "train", "seconds": 60})
    assert source.held[0]["part"] == "train"
    answer = await browser.post("/api/resume", json={"part": "train"})
    assert answer.json()["value"]["resumed"] == ["train"]


async def test_a_sample_is_drawn_once_and_kept(browser, source):
    body = {"name": "tiny-gpt", "version": 1}
    first = (await browser.post("/api/samples", json=body)).json()["value"]
    source.go_on = trio.Event()  # a second drawing would never end
    assert (await browser.post("/api/samples", json=body)).json()["value"] == first
    assert (await browser.get("/api/samples")).json()["value"] == [first]
    assert "ROMEO" in first["text"]


async def test_a_picture_is_served_as_one(browser):
    await browser.post("/api/samples", json={"name": "tiny-gpt", "version": 2})
    answer = await browser.get(f"/api/samples/{ROOTS[2]}/image")
    assert (answer.headers["content-type"], answer.content) == ("image/png", PNG)


async def test_one_sample_is_drawn_at_a_time(browser, source, nursery):
    source.go_on = trio.Event()
    nursery.start_soon(
        lambda: browser.post("/api/samples", json={"name": "tiny-gpt", "version": 1})
    )
    await source.drawing.wait()
    answer = await browser.post("/api/samples", json={"name": "tiny-gpt", "version": 3})
    assert answer.status_code == 409
    source.go_on.set()


@pytest.mark.parametrize(
    "name", ["../../identity.key", "..%2F..%2Fidentity.key", "%2e%2e", ROOTS[1]]
)
async def test_no_path_leads_out_of_the_samples(browser, tmp_path, name):
    (tmp_path / "identity.key").write_text("secret")
    (tmp_path / "identity.key.png").write_text("secret")
    answer = await browser.get(f"/api/samples/{name}/image")
    assert answer.status_code == 404
    assert b"secret" not in answer.content


@pytest.mark.parametrize(
    "path",
    [
        "/static/../access.py",
        "/static/%2e%2e/access.py",
        "/static/",
        "/static/none",
        "//etc/passwd",
    ],
)
async def test_no_path_leads_out_of_the_static_files(stranger, path):
    assert (await stranger.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/pause", {}),
        ("/api/pause", {"part": 7}),
        ("/api/pause", {"part": "everything"}),
        ("/api/pause", {"part": "train", "seconds": 1.5}),
        ("/api/resume", {"part": "vote"}),
        ("/api/pause", {"part": "train", "more": 1}),
        ("/api/pause", {"part": "train", "seconds": 0}),
        ("/api/pause", {"part": "train", "seconds": None}),
        ("/api/pause", ["train"]),
        ("/api/samples", {"name": "tiny-gpt", "version": -1}),
        ("/api/samples", {"name": "x" * 200, "version": 1}),
        ("/api/session", {"code": ["a"]}),
    ],
)
async def test_a_body_of_another_form_is_refused(browser, source, path, body):
    answer = await browser.post(path, json=body)
    assert answer.status_code == 400
    assert source.held == []


async def test_a_body_is_bounded_typed_and_json(browser):
    large = b'{"part": "' + b"a" * routes.MAX_BODY_BYTES + b'"}'
    typed = {"content-type": "application/json"}
    assert (await browser.post("/api/pause", content=large, headers=typed)).status_code == 413
    assert (await browser.post("/api/pause", content=b"{", headers=typed)).status_code == 400
    deep = b"[" * 4_000
    assert (await browser.post("/api/pause", content=deep, headers=typed)).status_code == 400
    form = await browser.post("/api/pause", data={"part": "train"})
    assert form.status_code == 415


@pytest.mark.parametrize(
    "query", ["lines=0", "lines=9999", "lines=x", "level=loud", "a=b", "lines=1&lines=2"]
)
async def test_a_question_of_another_form_is_refused(browser, query):
    assert (await browser.get(f"/api/logs?{query}")).status_code == 400


async def test_an_unknown_task_is_not_found(browser):
    assert (await browser.get("/api/tasks/nothing")).status_code == 404


async def test_a_slash_too_many_is_not_found_and_leads_nowhere(browser):
    assert (await browser.get("/api/node/")).status_code == 404


async def test_another_method_is_refused_with_those_that_are_allowed(browser):
    answer = await browser.put("/api/node")
    assert answer.status_code == 405
    assert answer.headers["allow"]


async def test_a_fault_of_ours_is_told_as_one(browser, source):
    source.failing = True
    answer = await browser.get("/api/peers")
    assert answer.status_code == 500
    assert error_of(answer)["code"] == "internal"


# What every answer says of itself


@pytest.mark.parametrize("path", ["/", "/static/page.css", "/api/node", "/nothing", openapi.PATH])
async def test_every_answer_forbids_what_the_page_does_not_need(stranger, path):
    headers = (await stranger.get(path)).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-resource-policy"] == "same-origin"


async def test_a_refusal_carries_the_same_headers(stranger):
    answer = await stranger.get("/", headers={"host": "evil.example"})
    assert answer.headers["content-security-policy"] == guard.POLICY


async def test_a_file_that_the_browser_has_is_not_sent_again(stranger):
    first = await stranger.get("/static/page.js")
    known = {"if-none-match": first.headers["etag"]}
    again = await stranger.get("/static/page.js", headers=known)
    assert (again.status_code, again.content) == (304, b"")


def test_the_whole_page_is_small():
    held = files.load()
    assert sum(len(one.content) for one in held.values()) <= files.MAX_BYTES
    assert files.INDEX in held


def test_the_page_has_no_inline_script_or_style_and_asks_nobody_else():
    for name, one in files.load().items():
        text = one.content.decode()
        if name.endswith(".html"):
            assert "<script>" not in text
            assert " style=" not in text
            assert " on" not in [part[:3] for part in text.split('"')]
        for scheme in ("http://", "https://", "//cdn"):
            where = text.replace("http://www.w3.org/2000/svg", "")
            assert scheme not in where, name
        assert "innerHTML" not in text
        assert "eval(" not in text


# The description


def test_every_route_is_described_and_nothing_else_is(app):
    assert isinstance(app, Guard)
    described = {
        (path, method.upper())
        for path, methods in openapi.describe("c")["paths"].items()
        for method in methods
    }
    served = {
        (route.path, method)
        for route in app._app.routes
        if isinstance(route, Route) and route.path.startswith("/api")
        for method in (route.methods or ()) - {"HEAD"}
    }
    assert described == served


async def test_the_description_is_open_and_names_what_each_answer_can_be(stranger):
    told = (await stranger.get(openapi.PATH)).json()
    assert told["openapi"].startswith("3.1")
    for methods in told["paths"].values():
        for one in methods.values():
            assert one["summary"].endswith(".")
            assert "200" in one["responses"]
    assert "401" not in told["paths"]["/api/session"]["post"]["responses"]
    names = {one["operationId"] for m in told["paths"].values() for one in m.values()}
    assert len(names) == sum(len(m) for m in told["paths"].values())


def test_no_route_spends_tokens():
    changing = {(one.method, one.path) for one in routes.ENDPOINTS if one.method != "GET"}
    assert changing == {
        ("POST", "/api/session"),
        ("DELETE", "/api/session"),
        ("POST", "/api/samples"),
        ("POST", "/api/pause"),
        ("POST", "/api/resume"),
    }


def test_the_description_is_json_and_stays_so():
    assert json.loads(json.dumps(openapi.describe("c"))) == openapi.describe("c")


async def test_a_head_of_the_news_ends(browser):
    with trio.fail_after(1):
        answer = await browser.head("/api/events")
    assert answer.status_code == httpx.codes.OK
