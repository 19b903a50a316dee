"""What exists is in the documents: settings, control routes, and the measures that the board shows."""

import json
import re
from dataclasses import fields
from pathlib import Path

from swarm.care.metrics import METRICS
from swarm.config import Settings
from swarm.control.app import _OPERATIONS, _QUESTIONS

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = (DOCS / "guide/commands.md").read_text()
CONTROL = (DOCS / "protocols/control.md").read_text()
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
