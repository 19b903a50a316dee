"""The control API's description of itself, and the table that people read."""

from __future__ import annotations

import re
from pathlib import Path

from starlette.routing import Route
from starlette.testclient import TestClient

from swarm.control import app, openapi
from tests.control.fake_node import FakeNode

PAGE = Path(__file__).parents[2] / "docs" / "protocols" / "control.md"
TOLD = openapi.describe(app._QUESTIONS, app._OPERATIONS, app.VERSION)


def operations():
    return [(path, method) for path, methods in TOLD["paths"].items() for method in methods]


def test_every_route_is_described_and_nothing_else_is(tmp_path):
    served = {
        (route.path, method.lower())
        for route in app.make_app(FakeNode(tmp_path)).routes
        if isinstance(route, Route) and route.path.startswith(f"/{app.VERSION}/")
        for method in (route.methods or ()) - {"HEAD"}
    }
    assert served - {(app.DESCRIPTION, "get")} == set(operations())


def test_what_is_not_described_is_not_there_nor_led_away_from(tmp_path):
    client = TestClient(app.make_app(FakeNode(tmp_path)), follow_redirects=False)
    for path in ("/v1/blocks/", "/v1/status/", "/v1/nothing"):
        answer = client.get(path)
        assert answer.status_code == 404
        assert f"does not know GET {path}" in answer.json()["error"]["message"]


def test_what_a_route_reads_is_found_by_asking_it():
    sent = TOLD["paths"]["/v1/send"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert sent["required"] == ["to", "amount"]
    assert sent["properties"]["wait"] == {"type": "boolean", "default": True}
    assert sent["properties"]["amount"] == {"type": "integer", "minimum": 1, "maximum": 2**63 - 1}
    (height,) = TOLD["paths"]["/v1/blocks/{height}"]["get"]["parameters"]
    assert (height["in"], height["required"]) == ("path", True)
    limit = TOLD["paths"]["/v1/receipts"]["get"]["parameters"][1]
    assert (limit["name"], limit["schema"]["default"]) == ("limit", limit["schema"]["maximum"])


def test_every_field_that_a_route_reads_is_documented():
    rows = re.findall(r"^\| (`[^|]+`) \| (.*)\|$", PAGE.read_text(), re.MULTILINE)
    documented: dict[str, str] = {}
    for names, text in rows:
        for name in re.findall(r"`([^`]+)`", names):
            documented[name] = documented.get(name, "") + text
    for path, method in operations():
        name = re.sub(r"\{(\w+)\}", r"<\1>", path.removeprefix(f"/{app.VERSION}/"))
        told = TOLD["paths"][path][method]
        if method == "post":
            fields = set(told["requestBody"]["content"]["application/json"]["schema"]["properties"])
        else:
            fields = {one["name"] for one in told["parameters"] if one["in"] == "query"}
        text = documented.get(name)
        assert text is not None, f"{name} is not documented"
        for other in re.findall(r"as `([^`]+)`", text):
            text += documented[other]
        assert fields - set(re.findall(r"`(\w+)`", text)) == set(), name
