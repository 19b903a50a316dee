import json
import logging
import re
import threading
from pathlib import Path

import pytest
import structlog

from cli import logs
from cli.commands.logs import _following
from swarm.care import levels
from swarm.errors import UsageError
from swarm.identity import Identity

ROOT = Path(__file__).parents[2]


@pytest.fixture
def log(tmp_path):
    """The log of a node, as `swarm join` configures it."""
    root, before = logging.getLogger(), logging.root.handlers[:]
    level = root.level
    (tmp_path / "home").mkdir(exist_ok=True)
    logs.configure("info", tmp_path / "talk.log", tmp_path / "home" / "logs")
    yield tmp_path / "home" / "logs" / "node.jsonl"
    for handler in root.handlers:
        handler.close()
    root.handlers[:] = before
    root.setLevel(level)
    structlog.reset_defaults()
    for names in levels.PARTS.values():
        for name in names:
            logging.getLogger(name).setLevel(logging.NOTSET)


def test_the_level_of_a_part_changes_while_it_runs(node, swarm, log):
    say = structlog.get_logger("swarm.participant")
    other = structlog.get_logger("swarm.network")
    say.debug("before")
    code, out, err = swarm("logs", "--level", "training=debug", "--level", "network=error")
    assert code == 0
    assert "training=debug, network=error" in err
    say.debug("after", step=3)
    other.warning("hidden")
    code, out, _ = swarm("logs", "-n", "5")
    assert re.search(r"debug +after step=3\n", out)
    assert "before" not in out
    assert "hidden" not in out


def test_a_level_alone_is_for_all_parts(node, swarm, log):
    assert swarm("logs", "--level", "warning")[0] == 0
    assert set(levels.told().values()) == {"warning"}


@pytest.mark.parametrize("text", ["loud", "training=loud", "nobody=debug", "", "=", "training="])
def test_parts_and_levels_that_do_not_exist_are_refused(text):
    with pytest.raises(UsageError):
        levels.parse(text)


def test_every_logger_of_the_product_is_in_a_part():
    named = re.compile(r'get(?:_l|L)ogger\("(swarm\.[a-z.]+)"\)')
    found = {
        name
        for room in ("swarm", "protocols", "storage")
        for path in (ROOT / room).rglob("*.py")
        for name in named.findall(path.read_text())
    }
    known = [name for names in levels.PARTS.values() for name in names]
    missing = {one for one in found if not any(f"{one}.".startswith(f"{k}.") for k in known)}
    assert not missing


def test_no_secret_is_shown(swarm, log, tmp_path):
    seed = Identity.load_or_create(tmp_path / "home").signer.seed.hex()
    structlog.get_logger("swarm.node").info("x", token="abc", why=f"key {seed}", url="a?token=abc")  # noqa: S106
    for flags in ([], ["--json"]):
        out = swarm("logs", *flags)[1]
        assert seed not in out
        assert "abc" not in out


def test_every_line_of_json_is_json_and_a_count_of_tokens_is_no_secret(swarm, log):
    say = structlog.get_logger("swarm.node")
    say.info("a", error="no answer: cookie: x", tokens=5, max_tokens=7)
    say.info(
        "b", loss=float("nan"), name="\ud800", why="\x9b2J", inner={"api_key": ["x-x"], "n": 1}
    )
    say.info("c", deep=json.loads("[" * 100 + "]" * 100))
    say.info("d", tokens="x-x", private_key=5)
    out = swarm("logs", "--json")[1]
    a, b, _, d = map(json.loads, out.splitlines())
    assert (a["error"], a["tokens"], a["max_tokens"]) == ("no answer: cookie: <secret>", 5, 7)
    assert (b["loss"], b["name"], b["why"]) == ("NaN", "\ud800", "\x9b2J")
    assert b["inner"] == {"api_key": "<secret>", "n": 1}
    assert (d["tokens"], d["private_key"]) == ("<secret>", "<secret>")
    assert "x-x" not in out
    assert all(line.isprintable() for line in out.splitlines())


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_nothing_in_the_log_steers_the_terminal(swarm, log, flags):
    evil = "\x1b]0;owned\x07\x1b[2J\x9b2J"
    structlog.get_logger("swarm.node").warning(f"x {evil}", error=evil)
    logging.getLogger("libp2p").warning("y %s", evil)
    for handler in logging.root.handlers:
        handler.flush()
    for text in (swarm("logs", *flags)[1], (log.parents[2] / "talk.log").read_text()):
        assert not {"\x1b", "\x07", "\x9b"} & set(text)
        assert "owned" in text


def test_lines_below_a_level_are_left_out_and_only_the_last_are_shown(swarm, log):
    say = structlog.get_logger("swarm.node")
    for number in range(5):
        say.info(f"i{number}")
        say.warning(f"w{number}")
    told = [
        json.loads(line)["event"]
        for line in swarm("logs", "--json", "--at-least", "warning", "-n", "2")[1].splitlines()
    ]
    assert told == ["w3", "w4"]
    assert swarm("logs", "-n", "0")[1] == ""


def test_what_follows_is_seen_also_in_the_file_that_takes_the_place_of_a_full_one(tmp_path):
    path = tmp_path / "node.jsonl"
    path.write_bytes(b"one\ntw")
    with path.open("rb") as file:
        lines = _following(path, file, b"")
        assert next(lines) == b"one"
        with path.open("ab") as more:
            more.write(b"o\n")
        assert next(lines) == b"two"
        path.rename(tmp_path / "node.jsonl.1")
        threading.Timer(0.05, path.write_bytes, [b"three\n"]).start()
        assert next(lines) == b"three"
        lines.close()


def test_a_folder_without_a_log_is_told(swarm):
    assert swarm("logs")[0] == 3
