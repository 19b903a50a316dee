"""What is shown of a task while it is trained."""

from __future__ import annotations

import json

import pytest

from cli import plot
from cli.commands.train import lines, points
from tests.control.fake_node import PEER

ENTRY = {"worker": PEER, "score": 0.01, "accepted": True, "reason": None}
REFUSED = {"worker": PEER, "score": None, "accepted": False, "reason": "malformed file"}
WAITING = {"worker": PEER, "score": None, "accepted": None, "reason": None}


def settled(number, version, base, loss, *entries):
    outcome = "unchanged" if loss is None else "merged"
    about = {"round": number, "version": version, "base_loss": base, "loss": loss}
    return {**about, "outcome": outcome, "submissions": list(entries)}


@pytest.fixture
def found():
    rounds = [
        settled(1, 1, 5.5, 4.5, ENTRY, REFUSED),
        settled(2, 1, 4.4, None, REFUSED),
        settled(3, 2, 4.5, 3.0, ENTRY),
        {**settled(4, 2, None, None, WAITING), "outcome": "reveal"},
    ]
    about = {"name": "tiny-gpt", "kind": "lm", "open": True, "round": 4, "all_rounds": 9}
    about |= {"phase": "reveal", "blocks_left": 3, "rounds": rounds, "speed": 1234.5}
    return about | {"activity": "training, step 3 of 6", "problem": None}


def test_each_version_has_the_loss_that_was_attested_and_the_first_one_its_rounds(found) -> None:
    assert points(found) == [(0.0, 5.5), (1.0, 4.5), (2.0, 3.0)]


def test_what_is_shown_names_rounds_scores_and_reasons(found) -> None:
    told = "\n".join(lines(found))
    assert "tiny-gpt: round 4 of 9, reveal, 3 blocks left" in told
    assert "round 3: merged, version 2, 4.5000 -> 3.0000" in told
    assert "refused: malformed file" in told
    assert "not scored yet" in told
    assert "1,234 tokens/s" in told or "1,235 tokens/s" in told
    assert "round 1:" not in told  # only the newest
    assert f"accepted so far: …{PEER[-13:]} 2" in told


def test_a_curve_falls_from_the_upper_left_to_the_lower_right() -> None:
    drawn = plot.curve([(0, 5.0), (1, 3.0), (2, 1.0)], "version 0", "version 2")
    assert drawn[0].startswith("5 ┤⠑") or drawn[0].startswith("5 ┤⠈") or "5 ┤" in drawn[0]
    filled = [[at for at, one in enumerate(row[3:]) if one not in (" ", "⠀")] for row in drawn[:8]]
    assert filled[0][0] == 0
    assert filled[-1][-1] == plot.COLUMNS - 1
    assert [row[0] for row in filled] == sorted(row[0] for row in filled)
    assert drawn[-1].split() == ["version", "0", "version", "2"]


@pytest.mark.parametrize("values", [[], [(3, 2.0)], [(0, 1.0), (5, 1.0)]])
def test_a_curve_of_nothing_or_of_one_height_is_drawn_too(values) -> None:
    assert plot.curve(values, "a", "b")
    assert plot.svg(values, "a", "b", "x < y").count("<circle") == len(values)
    assert "x &lt; y" in plot.svg(values, "a", "b", "x < y")


def test_watching_once_prints_json_and_writes_the_drawing(node, swarm, found, tmp_path) -> None:
    asked = []

    class Registry:
        async def watch(self, task):
            asked.append(task)
            return found

    node.registry = Registry()
    code, out, _ = swarm("train", "watch", "tiny-gpt", "--once", "--json", "--svg", "loss.svg")
    assert (code, asked, json.loads(out)) == (0, ["tiny-gpt"], found)
    assert (tmp_path / "loss.svg").read_text().count("<circle") == 3
    found["open"] = False
    code, out, _ = swarm("train", "watch", "tiny-gpt")
    assert code == 0
    assert "version 2" in out


def test_accuracies_gpus_and_the_unit_of_the_speed_are_shown(found) -> None:
    found["kind"] = "classifier"
    for one in found["rounds"]:
        one["accuracy"] = None
    found["rounds"][2]["accuracy"] = 0.8751
    found["gpus"] = [
        {"name": "H200", "busy": 0.97, "used": 3 * 10**9, "total": 140 * 10**9, "watts": 512.4},
        {"name": "", "busy": None, "used": None, "total": None, "watts": None},
    ]
    told = "\n".join(lines(found))
    assert "version 2, 4.5000 -> 3.0000, accuracy 87.5%" in told
    assert "samples/s" in told
    assert "H200, 97% busy, 3.0 GB of 140.0 GB, 512 W" in told
    found["kind"] = "finetune"
    assert "tokens/s" in "\n".join(lines(found))


VERSION = {"version": 1, "cid": "bafy", "height": 9, "round": 1, "task": None, "accepted": []}


def test_the_log_of_a_classifier_has_its_accuracies_and_that_of_others_none(node, swarm) -> None:
    class Registry:
        shares = (0.5, None)

        async def log(self, name, limit, _progress):
            made = [VERSION | {"loss": 1.0, "accuracy": one} for one in self.shares]
            return {"name": name, "versions": made, "more": False}

    node.registry = Registry()
    _, out, _ = swarm("model", "log", "digits")
    assert "ACCURACY" in out
    assert "50.0%" in out
    Registry.shares = (None,)
    _, out, _ = swarm("model", "log", "tiny-gpt")
    assert "ACCURACY" not in out


def test_a_classifier_is_asked_about_files_and_each_gets_a_line(node, swarm, tmp_path) -> None:
    asked = []

    class Registry:
        async def classify(self, name, version, paths, top, resize, _progress):
            asked.append((name, version, top, resize))
            labels = [{"label": "a\nb", "probability": 0.75}, {"label": "c", "probability": 0.25}]
            one, two = map(str, paths)
            samples = [(one, 0), (two, 0), (two, 1)]
            told = [{"path": path, "index": at, "labels": labels} for path, at in samples]
            return {"name": name, "version": 3, "cid": "bafy", "samples": told}

    node.registry = Registry()
    for name in ("one.png", "many.npy"):
        (tmp_path / name).write_bytes(b"x")
    words = ("classify", "digits@3", "one.png", "many.npy", "-k", "2", "--resize", "crop")
    code, out, _ = swarm(*words)
    assert (code, asked) == (0, [("digits", 3, 2, "crop")])
    assert out.splitlines() == [
        f"{name}\ta\ufffdb\t0.7500\tc\t0.2500" for name in ("one.png", "many.npy[0]", "many.npy[1]")
    ]
    _, out, _ = swarm(*words, "--json")
    assert [json.loads(line)["index"] for line in out.splitlines()] == [0, 0, 1]
    code, _, err = swarm("classify", "digits", "nowhere.png")
    assert code == 2
    assert "nowhere.png" in err
