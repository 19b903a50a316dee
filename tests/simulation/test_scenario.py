from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from cli.main import main
from swarm.simulator import plot, scenario
from swarm.simulator.errors import ScenarioError, SimulationError
from swarm.simulator.events import Schedule
from swarm.simulator.measures import quantile
from swarm.simulator.simulation import Simulation

SMALL = """
title = "small"
chaos_s = 2
calm_s = 1
[links]
latency_ms = [5, 10, 20, 30]
[consensus]
delta_ms = 100
block_interval_ms = 100
"""


@pytest.mark.parametrize(
    "name",
    ["calm", "lossy", "partition", "churn", "liars", "hundred", "keepers", "dropper"],
)
def test_every_scenario_that_is_shipped_can_be_read(name):
    assert name in scenario.names()
    assert scenario.load(name).title


def test_as_many_as_are_allowed_own_no_more_tokens_than_there_are():
    text = "weights = [49997, 1, 1, 1]\nchaos_s = 0\ncalm_s = 0.1\n[ledger]\naccounts = 1000\n[storage]\n[[keepers]]\ncount = 200"
    assert Simulation(scenario.parse(text), 1).town is not None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x = 1", "x: there is no such field"),
        ("links.los = 1", "links.los: there is no such field"),
        ("validators = 101", "validators: 101 is outside 1 to 100"),
        ("validators = true", "a whole number is wanted"),
        ("validators = 4.0", "a whole number is wanted"),
        ("links.loss = 1.5", "links.loss: 1.5 is outside 0 to 0.9"),
        ("links.loss = nan", "links.loss: nan is outside"),
        ("links.latency_ms = [1, 2, 3]", "a list of 4 numbers"),
        ("links.latency_ms = [2, 1, 3, 4]", "no number may be below"),
        ("chaos_s = -1", "chaos_s: -1 is outside"),
        ("links = 3", "links: a table is wanted"),
        ("liars = 3", "written as [[liars]]"),
        ("weights = [50000, 1, 1, 1]\n[ledger]", "weights: 50,003 together where 50,000"),
        ("weights = [1, 2]", "2 where there are 4 validators"),
        ("[[liars]]\nkind = 'thief'", "there is no 'thief'"),
        ("[[liars]]\nkind = 'slow'\ncount = 5", "more of slow than there are nodes"),
        ("[[liars]]\nkind = 'slow'\n[[liars]]\nkind = 'mute'", "two kinds of liar"),
        ("[[liars]]\nkind = 'late_revealer'", "needs [training]"),
        ("[training]", "needs a [ledger]"),
        ("[[keepers]]", "keepers and deals: need [storage]"),
        ("[deals]", "keepers and deals: need [storage]"),
        ("[storage]", "storage: needs a [ledger]"),
        ("[ledger]\n[storage]", "at least one [[keepers]]"),
        ("[ledger]\n[storage]\naudit_blocks = 11\n[[keepers]]", "has to be 2 above"),
        ("[ledger]\n[storage]\n[[keepers]]\naway_s = [3]", "two seconds are wanted"),
        ("[ledger]\n[storage]\n[[keepers]]\naway_s = [3, 3]", "two seconds are wanted"),
        ("[ledger]\n[storage]\n[[keepers]]\ncount = 3\nslots = 4000", "12,000 slots where"),
        ("[ledger]\n[storage]\n[[keepers]]\n[deals]\npieces = 32\nreplicas = 3", "at most 64"),
        ("[[liars]]\nkind = 'dropper'", "needs [storage]"),
        ("[ledger]\n[storage]\n[[keepers]]\n[[liars]]\nkind = 'vanisher'\ncount = 2", "more of"),
        ("[[partitions]]\nbegin_s = 2\nend_s = 1", "end_s has to be after begin_s"),
        ("[[crashes]]\nnode = 4", "the validators are 0 to 3"),
        ("chaos_s = 0\ncalm_s = 0", "nothing to run"),
        ("title = 3", "a line of at most"),
        ("partitions = [{one_way = 1}]", "true or false is wanted"),
        ("= 3", "not TOML"),
    ],
)
def test_a_scenario_that_is_wrong_is_told_which_field_and_why(text, said):
    with pytest.raises(ScenarioError) as raised:
        scenario.parse(text)
    assert said in str(raised.value)


def test_a_scenario_file_that_is_wrong_is_named(tmp_path):
    path = tmp_path / "mine.toml"
    for text in ("x", "validators = -1"):
        path.write_text(text)
        with pytest.raises(ScenarioError, match=r"mine\.toml: "):
            scenario.read(path)
    path.write_text("valdators = 3")
    with pytest.raises(ScenarioError) as raised:
        scenario.read(path)
    assert "validators" in raised.value.hint


def test_units_are_those_of_the_keys():
    plan = scenario.parse(
        "chaos_s = 1.5\nlinks.loss = 0.25\n[[partitions]]\nend_s = 2\nnodes = [1]"
    )
    assert (plan.chaos_ms, plan.links.loss) == (1_500, 250_000)
    assert plan.partitions[0].end_ms == 2_000


def test_a_name_that_is_not_shipped_is_answered_with_those_that_are():
    with pytest.raises(ScenarioError) as raised:
        scenario.load("../calm")
    assert "calm" in raised.value.hint


def test_a_storm_of_messages_ends_the_run():
    schedule = Schedule(100)

    def again():
        schedule.after(0, again)

    schedule.after(0, again)
    with pytest.raises(SimulationError, match="a storm"):
        schedule.run(1)


def test_of_equal_times_the_first_that_was_planned_happens_first():
    schedule = Schedule(100)
    seen = []
    for name in "abc":
        schedule.at(5, seen.append, name)
    schedule.at(4, seen.append, "before")
    schedule.run(5)
    assert seen == ["before", "a", "b", "c"]


def test_a_quantile_is_a_value_that_was_there():
    assert quantile(range(1, 101), 99) == 99
    assert quantile([7], 50) == 7
    assert quantile([], 50) is None


def test_a_plot_has_a_column_a_value_and_none_where_there_is_none():
    drawn = plot.line([None, 1, 2, None], "ms", 10)
    assert drawn[0].endswith("┤  █")
    assert drawn[plot.ROWS - 1].endswith("┤ ██")
    assert plot.line([None], "ms", 1) == ["no values"]
    assert plot.bars([("a", 2.0, "2"), ("b", 0.0, "0")])[1] == "b   0"


def test_a_picture_is_xml_with_a_line_for_each_unbroken_piece():
    picture = ElementTree.fromstring(plot.svg([1, 2, None, 3], "ms", 10, "a < b"))  # noqa: S314 - our own
    lines = picture.findall("{http://www.w3.org/2000/svg}polyline")
    assert [len(one.get("points").split()) for one in lines] == [2, 1]


@pytest.mark.slow
def test_the_command_prints_writes_and_repeats(tmp_path, capsys):
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    assert main(["simulate", str(file), "--json", "--seed", "3", "-o", str(tmp_path / "out")]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first == json.loads((tmp_path / "out/report.json").read_text())
    assert (first["seed"], first["forks"], first["accused"]) == (3, 0, [])
    assert main(["simulate", str(file), "--json", "--seed", "2", "--seeds", "2"]) == 0
    both = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [one["seed"] for one in both] == [2, 3]
    assert both[1] == first
    assert main(["simulate", str(file)]) == 0
    assert "finality over time" in capsys.readouterr().out


def test_the_command_lists_and_refuses_with_words(tmp_path, capsys):
    assert main(["simulate", "--list"]) == 0
    assert "partition" in capsys.readouterr().out
    assert main(["simulate", "nowhere"]) == 2
    assert "there is no scenario 'nowhere'" in capsys.readouterr().err
    assert main(["simulate"]) == 2
    assert main(["simulate", str(tmp_path / "missing.toml")]) == 2
