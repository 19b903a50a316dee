import re
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families
from starlette.applications import Starlette

from swarm.care import metrics, probes
from swarm.care.metrics import METRICS, render
from swarm.errors import RefusedError

GUIDE = (Path(__file__).parents[2] / "docs/guide/operate.md").read_text()


class Care:
    """What the probes ask, with what the test says."""

    def __init__(self, reasons=()):
        self.reasons = list(reasons)

    def why_not_ready(self):
        return self.reasons

    def numbers(self):
        return {"swarm_peers": [({}, 7)], "swarm_paused": [({"part": 'a"b'}, 1)]}


async def ask(care, path, *, check_host=True, host="127.0.0.1:9417"):
    app = Starlette(routes=probes.routes(lambda: care, check_host=check_host))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.get(path, headers={"host": host})


def test_every_measure_is_in_the_guide_with_its_kind_and_labels_and_no_other_is():
    rows = re.findall(r"^\| `(swarm_\w+)` \| (\w+) \| (.*?) \|", GUIDE, re.MULTILINE)
    told = {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert told == {one.name: (one.kind, one.labels) for one in METRICS}


def test_names_follow_the_conventions_of_prometheus():
    for one in METRICS:
        assert re.fullmatch(r"swarm_[a-z0-9_]+", one.name)
        assert one.name.endswith("_total") == (one.kind == "counter")
        assert not re.search(r"_(ms|kb|mb|gb|percent|minutes)(_|$)", one.name)
        assert not {"peer", "cid", "account"} & set(one.labels)


def test_the_text_reads_back_as_the_same_numbers():
    numbers = {one.name: [(dict.fromkeys(one.labels, 'odd "label"\n'), 1.5)] for one in METRICS}
    families = list(text_string_to_metric_families(render(numbers).decode()))
    samples = {one.name: one for family in families for one in family.samples}
    assert samples.keys() == {one.name for one in METRICS}
    assert {one.value for one in samples.values()} == {1.5}
    assert samples["swarm_paused"].labels == {"part": 'odd "label"\n'}


def test_a_measure_that_is_not_known_is_absent():
    assert b"swarm_finality_seconds" not in render({"swarm_peers": [({}, 1)]})


def test_a_process_that_is_gone_has_no_measures():
    assert metrics._process("swarm_worker", 2**22 + 1) == {}


async def test_a_node_that_is_not_ready_says_why():
    answer = await ask(Care(["catching up: height 3 of 9"]), "/readyz")
    assert (answer.status_code, answer.text) == (503, "catching up: height 3 of 9\n")
    assert (await ask(Care(["catching up"]), "/livez")).status_code == 200
    assert (await ask(Care(), "/readyz")).status_code == 200


async def test_the_measures_are_told_in_the_format_of_prometheus():
    answer = await ask(Care(), "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "swarm_peers 7.0" in answer.text


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:9417", "127.0.0.1.evil.example", "127.0.0.1:evil.example"],
)
async def test_a_question_under_a_foreign_name_is_refused_on_the_port(host):
    for path in ("/metrics", "/readyz", "/livez"):
        assert (await ask(Care(), path, host=host)).status_code == 421
    assert (await ask(Care(), "/metrics", host="localhost:9417")).status_code == 200


async def test_nothing_can_be_posted():
    app = Starlette(routes=probes.routes(lambda: Care(), check_host=True))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.post(path)).status_code == 405


async def test_a_port_of_this_machine_answers_and_a_taken_one_is_refused():
    async with trio.open_nursery() as nursery:
        port = await nursery.start(probes.serve, Care(), 0)
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{port}/metrics")
        assert "swarm_peers 7.0" in answer.text
        with pytest.raises(RefusedError, match=f"cannot have port {port}"):
            await probes.serve(Care(), port)
        nursery.cancel_scope.cancel()


async def test_the_control_socket_answers_the_same_routes(tmp_path):
    from swarm.control.app import make_app

    node = SimpleNamespace(care=Care())
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(make_app(node)), base_url="http://swarm"
    ) as client:
        assert "swarm_peers 7.0" in (await client.get("/metrics")).text
        assert (await client.get("/livez")).status_code == 200
