"""What exists is in the documents: settings, control routes, and the measures that the board shows."""

import json
import re
from dataclasses import fields
from pathlib import Path

from swarm.care import checks, probes
from swarm.care.metrics import METRICS
from swarm.config import Settings
from swarm.control.app import _OPERATIONS, _QUESTIONS
from swarm.hub import app as hub
from swarm.page import openapi
from swarm.serving import app as serving

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = (DOCS / "guide/commands.md").read_text()
CONTROL = (DOCS / "protocols/control.md").read_text()
OPERATE = (DOCS / "guide/operate.md").read_text()
BOARD = json.loads((DOCS / "operate/grafana.json").read_text())
OF_A_FLAG_ALONE = {"temporary"}
"""What a command says to the node that it starts."""


def first_cells(text):
    """The names in the first column of the tables of a text."""
    rows = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def test_every_setting_is_in_the_guide():
    table = COMMANDS.split("## Settings", 1)[1].split("\n## ", 1)[0]
    assert {one.name for one in fields(Settings)} - first_cells(table) == OF_A_FLAG_ALONE


def test_every_route_of_the_control_api_is_in_its_document():
    questions, operations = CONTROL.split("## Operations")
    known = {one.replace("{height}", "<height>") for one in _QUESTIONS}
    assert known == first_cells(questions)
    assert set(_OPERATIONS) == first_cells(operations.split("## Errors")[0])


def expressions():
    return [target["expr"] for panel in BOARD["panels"] for target in panel["targets"]]


def test_the_board_names_only_measures_and_labels_that_exist():
    known = {one.name: one for one in METRICS}
    for expression in expressions():
        names = re.findall(r"swarm_\w+", expression)
        assert names
        assert set(names) <= known.keys(), expression
    for panel in BOARD["panels"]:
        for target in panel["targets"]:
            labels = set(re.findall(r"{{(\w+)}}", target["legendFormat"])) - {"instance"}
            (one, *_) = (known[name] for name in re.findall(r"swarm_\w+", target["expr"]))
            assert labels <= set(one.labels), target


def test_the_board_shows_completion_throughput_latency_earnings_resources_and_distance():
    shown = {name for expression in expressions() for name in re.findall(r"swarm_\w+", expression)}
    assert shown >= {
        "swarm_task_seconds",
        "swarm_training_samples_per_second",
        "swarm_finality_seconds",
        "swarm_tokens_earned_total",
        "swarm_process_cpu_seconds_total",
        "swarm_worker_resident_memory_bytes",
        "swarm_storage_bytes",
        "swarm_peer_latency_seconds",
    }


def test_rates_are_taken_of_counters_and_of_nothing_else():
    kinds = {one.name: one.kind for one in METRICS}
    for expression in expressions():
        for name, wrapped in re.findall(r"(rate\()?(swarm_\w+)", expression):
            assert (kinds[wrapped] == "counter") == bool(name), expression


def test_every_line_of_the_doctor_is_in_the_guide():
    source = Path(checks.__file__).read_text()
    names = set(re.findall(r"\b(?:Check|good|warn|bad|unknown)\(\s*\"([a-z ]+)\"", source))
    assert {"clock", "disk", "port", "reachable", "gpu", "torch", "store", "sync"} <= names
    table = OPERATE.split("## What is wrong", 1)[1].split("\n## ", 1)[0]
    assert names == first_cells(table)


def protocol(name):
    return (DOCS / f"protocols/{name}.md").read_text()


def test_every_route_of_the_page_is_in_its_protocol():
    known = {
        f"{method.upper()} {path}"
        for path, methods in openapi.describe("c")["paths"].items()
        for method in methods
    }
    assert len(known) > 10
    missing = {one for one in known if f"`{one}`" not in protocol("page")}
    assert missing == set()


def test_every_route_of_the_hub_and_the_gateway_is_in_its_protocol():
    told = protocol("hub")
    for one in hub.routes(None):
        kinds = ("datasets", "/datasets/") if "datasets" in one.path else ("models", "/swarm/")
        words = re.findall(r"/(resolve|revision|tree|paths-info|refs)/?", one.path)
        assert any(f"/{kind}" in told or kind in told for kind in kinds)
        for word in words:
            assert f"/{word}" in told, one.path
        for method in one.methods - {"HEAD"}:
            assert f"`{method}" in told, one.path
    assert "`/ipfs/<cid>[/path]`" in protocol("gateway")


def test_every_probe_and_every_route_of_a_served_model_is_in_the_guide():
    probed = {one.path for one in probes.routes(lambda: None, check_host=False)}
    assert probed == {"/livez", "/readyz", "/metrics"}
    assert probed <= first_cells(OPERATE)
    source = Path(serving.__file__).read_text()
    served = set(re.findall(r'Route\(\s*"(/v1/[a-z/]+[a-z])', source))
    assert len(served) >= 3
    section = COMMANDS.split("## `swarm serve", 1)[1].split("\n## ", 1)[0]
    assert {one for one in served if f"`{one}`" not in section} == set()


def test_links_between_the_documents_lead_somewhere():
    root = DOCS.parent
    for path in [*DOCS.rglob("*.md"), *root.glob("*.md")]:
        text = path.read_text()
        for target in re.findall(r"\]\((?!https?://|mailto:)([^)\s]+)\)", text):
            place, _, anchor = target.partition("#")
            there = (path.parent / place).resolve() if place else path
            assert there.exists(), f"{path.relative_to(root)}: {target}"
            if anchor and there.suffix == ".md":
                assert anchor in anchors(there.read_text()), f"{path.relative_to(root)}: {target}"


def anchors(text):
    """Headings, as the places that hold Markdown name them."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", one.lower()) for one in found)
    return {one.strip().replace(" ", "-") for one in plain}
