import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli import output, standing
from cli.commands import keep
from cli.main import main
from cli.money import format_tokens, parse_tokens
from storage.errors import ManifestError
from swarm.config import read_setting
from swarm.errors import UsageError
from swarm.sizes import counted
from tests.control.fake_node import CID, PEER


@pytest.mark.slow
def test_every_question_is_answered_in_text_and_in_json(node, swarm):
    for line in (
        ["status"],
        ["peers"],
        ["blocks"],
        ["blocks", "7"],
        ["balance"],
        ["tasks"],
        ["scoreboard", "tiny-gpt"],
    ):
        code, text, _ = swarm(*line)
        assert code == 0
        assert text
        code, out, err = swarm(*line, "--json")
        assert code == 0
        assert err == ""
        assert all(isinstance(json.loads(one), dict) for one in out.splitlines())


def test_status_in_json_is_what_the_node_says(node, swarm):
    assert json.loads(swarm("status", "--json")[1]) == node.status()


def test_status_shows_tokens_sizes_and_problems_for_people(node, swarm):
    _, out, _ = swarm("status")
    assert "12.5 owned, 2.5 earned, 1,000 staked" in out
    assert "500.0 GB lent, 1.4 GB used" in out
    assert "the clock is 3 s ahead of its peers" in out
    assert "round 2/6" in out


def test_blocks_print_as_many_lines_as_asked_for(node, swarm):
    _, out, _ = swarm("blocks", "--limit", "5", "--json")
    assert [json.loads(line)["height"] for line in out.splitlines()] == [42, 41, 40, 39, 38]


def test_publish_prints_the_cid_and_nothing_else_on_stdout(node, swarm, tmp_path):
    (tmp_path / "x").write_text("hello")
    code, out, err = swarm("publish", "x", "--name", "greeting")
    assert (code, out) == (0, f"{CID}\n")
    assert "greeting@1" in err


def test_only_hash_needs_no_node_and_gives_the_cid_of_ipfs(swarm, tmp_path):
    (tmp_path / "x").write_bytes(b"hello world\n")
    code, out, err = swarm("publish", "x", "--only-hash")
    assert (code, err) == (0, "")
    # CIDv1, raw, sha2-256 a948904f…: one chunk is its own root, in IPFS as here
    assert out == "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4\n"


def test_get_writes_the_file_and_prints_where(node, swarm, tmp_path):
    code, out, _ = swarm("get", CID, "-o", "there")
    assert (code, out) == (0, f"{tmp_path / 'there'}\n")
    assert (tmp_path / "there").read_text() == "hello"


def test_get_takes_a_path_below_a_cid(node, swarm, tmp_path):
    code, out, _ = swarm("get", f"ipfs://{CID}/plays/hamlet.txt")
    assert (code, out) == (0, f"{tmp_path / 'hamlet.txt'}\n")
    assert node.looked_at == [(CID, "plays/hamlet.txt")]
    code, out, _ = swarm("get", f"{CID}/plays/", "-o", "there")
    assert (code, out) == (0, f"{tmp_path / 'there'}\n")
    code, _, err = swarm("get", f"{CID}/plays", "--from", "/ip4/127.0.0.1/tcp/4001")
    assert code == 2
    assert "--from fetches all of a CID" in err


def test_fetch_takes_a_version_and_tells_the_proofs_height(node, swarm, tmp_path):
    code, out, err = swarm("fetch", "tiny-gpt@2")
    assert (code, out) == (0, f"{tmp_path / 'tiny-gpt'}\n")
    assert "tiny-gpt@2" in err
    assert "height 42" in err


def test_send_counts_in_tokens_exactly(node, swarm):
    assert swarm("send", PEER, "0.000000001")[0] == 0
    assert swarm("send", PEER, "12.5", "--no-wait")[0] == 0
    assert node.sent == [(PEER, 1, True), (PEER, 12_500_000_000, False)]


def test_a_task_is_posted_from_its_file(node, swarm, tmp_path):
    (tmp_path / "task.toml").write_text("rounds = 3")
    code, out, said = swarm("task", "post", "task.toml")
    assert (code, out) == (0, "12" * 32 + "\n")
    hint = said.split("watch it: swarm ")[1].split()
    assert swarm(*hint, "--help")[0] == 0


def test_a_task_file_of_tables_without_end_is_refused_in_words(node, swarm, tmp_path):
    (tmp_path / "task.toml").write_text("a = " + "[" * 20_000)
    code, out, said = swarm("task", "post", "task.toml")
    assert (code, out) == (2, "")
    assert "is not a task file" in said


def test_what_json_has_no_number_for_is_never_printed_as_json(capsys):
    with pytest.raises(ValueError, match="JSON"):
        output.print_json({"loss": float("nan")})
    assert capsys.readouterr().out == ""


def test_a_sample_is_printed_and_a_picture_is_named(node, swarm, tmp_path):
    assert swarm("sample", "tiny-gpt", "To be", "--length", "7", "--seed", "9")[1] == "To be…7…9\n"
    assert swarm("sample", "gan")[1] == f"{tmp_path / 'gan.png'}\n"


OTHER = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4"


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["get", OTHER], 3, f"nobody has {OTHER}: the DHT and 3 peers were asked"),
        (["fetch", "no-such"], 3, "no name 'no-such'"),
        (["scoreboard", "no-such"], 3, "no-such"),
        (["blocks", "43"], 3, "43"),
        (["publish", "too-large"], 4, "1,000,000,000,000 bytes are needed"),
        (["get", "bafynonsense"], 2, "CID: "),
        (["fetch", "a b"], 2, "NAME: 'a b'"),
        (["send", PEER, "-1"], 2, "-1"),
        (["send", PEER, "0"], 2, "AMOUNT: '0'"),
        (["balance", "me"], 2, "account: 'me'"),
        (["task", "post", "wrong.toml"], 2, "rounds: missing"),
        (["task", "post", "broken.toml"], 2, "broken.toml is not a task file"),
        (["publish", "absent"], 2, "absent"),
        (["blocks", "--limit", "0"], 2, "--limit"),
        (["no-such-command"], 2, "no-such-command"),
        (["join", "--storage", "much"], 2, "--storage: 'much' is not a size"),
        (["join", "--bootstrap", "nowhere"], 2, "--bootstrap: 'nowhere'"),
        (["sample", "broken"], 1, "ZeroDivisionError"),
    ],
)
def test_an_error_has_its_exit_code_and_says_what_is_wrong(
    node, swarm, tmp_path, line, code, words
):
    (tmp_path / "too-large").touch()
    (tmp_path / "wrong.toml").write_text("name = 'x'")
    (tmp_path / "broken.toml").write_text("= = =")
    got, out, err = swarm(*line)
    assert (got, out) == (code, "")
    assert err.startswith("error: ")
    assert words in err


def test_an_interrupted_command_exits_with_130(node, swarm, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("swarm.client.Client.status", interrupt)
    assert swarm("status")[0] == 130
    monkeypatch.setattr("swarm.client.Client.get", interrupt)
    code, _, err = swarm("get", CID)
    assert (code, err.splitlines()[-2]) == (130, "error: interrupted")
    assert "the same command goes on from there" in err.splitlines()[-1]


def test_swarm_alone_shows_help_and_is_a_usage_error(swarm):
    code, out, err = swarm()
    assert (code, out) == (2, "")
    assert "Content:" in err


@pytest.mark.parametrize(
    "line", [["--help"], ["--version"], ["join", "--help"], ["publish", "--help"]]
)
def test_help_imports_no_heavy_library(line):
    code = f"""
import sys
from cli.main import main
assert main({line!r}) == 0
heavy = {{"trio", "torch", "libp2p", "rich", "httpx", "numpy", "starlette", "hypercorn", "structlog"}}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("text", "units"), [("1", 10**9), ("0.5", 5 * 10**8), ("1,000.000000001", 10**12 + 1)]
)
def test_amounts_are_read_and_shown_exactly(text, units):
    assert parse_tokens(text) == units
    assert format_tokens(units) == text


@pytest.mark.parametrize(
    "text",
    ["", "1e3", "0.0000000001", "1.", ".5", "nan", "99999999999", "\N{ARABIC-INDIC DIGIT ONE}"],
)
def test_what_is_not_an_amount_is_refused(text):
    with pytest.raises(UsageError):
        parse_tokens(text)


@pytest.mark.parametrize(
    "text",
    [
        "1,5",
        "0,5",
        "12,34",
        "0,500",
        "1,0000",
        ",500",
        "5,",
        "1,,000",
        "1.500,5",
        "1000,000",
        "0,0",
    ],
)
def test_a_decimal_comma_multiplies_nothing_and_the_hint_says_how_to_write_it(text):
    with pytest.raises(UsageError) as raised:
        parse_tokens(text)
    assert "1.5" in raised.value.hint


@pytest.mark.parametrize(("text", "tokens"), [("1,500", 1500), ("12,345,678", 12_345_678)])
def test_a_comma_that_parts_thousands_is_taken_as_it_is_shown(text, tokens):
    assert parse_tokens(text) == tokens * 10**9
    assert format_tokens(tokens * 10**9) == text


@pytest.mark.parametrize(
    ("amount", "asks"), [("1,500", True), ("1500", False), ("1,500.0", False), ("1,500,000", False)]
)
def test_on_a_terminal_a_comma_that_might_be_a_decimal_point_is_asked_about(
    node, swarm, monkeypatch, amount, asks
):
    asked = []
    monkeypatch.setattr("cli.commands.send.sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("cli.commands.send.sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("click.termui.visible_prompt_func", lambda text: asked.append(text) or "n")
    code, _, err = swarm("send", PEER, amount)
    assert (code, bool(asked), node.sent == []) == (130 if asks else 0, asks, asks)
    assert ("1500 tokens" in err + "".join(asked)) is asks


class AmbushError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ManifestError("a pipe cannot be published"), 4, "error: a pipe cannot be published"),
        (FileNotFoundError(2, "No such file", "/x"), 2, "error: /x: No such file"),
        (PermissionError(13, "Permission denied", "/x"), 4, "error: /x: Permission denied"),
        (OSError(30, "Read-only file system", "/x"), 4, "error: /x: Read-only file system"),
        (OSError(36, "File name too long", "/x"), 2, "error: /x: File name too long"),
        (OSError(28, "No space left on device", "/x"), 4, "hint: make room on the disk"),
        (ExceptionGroup("of a nursery", [ManifestError("of a task")]), 4, "error: of a task"),
        (AmbushError("no rule knows it"), 1, "hint: this is a bug"),
    ],
)
def test_what_a_room_raises_here_is_told_as_its_rules_say_and_only_the_rest_is_a_bug(
    swarm, monkeypatch, error, code, words
):
    def fail(*_):
        raise error

    monkeypatch.setattr("cli.connection.settings_home", fail)
    got, out, err = swarm("status")
    assert (got, out) == (code, "")
    assert words in err
    assert ("bug" in err) == (code == 1)


def test_a_reader_that_closes_the_pipe_is_no_fault(monkeypatch, swarm):
    class Closed(io.StringIO):
        def write(self, _text):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with Path(os.devnull).open("w") as null:  # a descriptor of its own to lose
        closed = Closed()
        closed.fileno = null.fileno
        monkeypatch.setattr("sys.stdout", closed)
        assert main(["--help"]) == 0


def test_an_empty_task_file_is_named(node, swarm, tmp_path):
    (tmp_path / "task.toml").write_bytes(b"")
    code, out, err = swarm("task", "post", "task.toml")
    assert (code, out) == (2, "")
    assert "task.toml is not a task file: it is empty" in err
    assert "docs/guide/tasks.md" in err


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_fault(closed):
    line = f"{sys.executable} -m cli --help {closed}"
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_question_that_nobody_can_answer_is_told_as_one(swarm, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    code, out, err = swarm("key", "restore")
    assert (code, out) == (2, "")
    assert err == (
        "the 24 words: \nerror: nobody answered\n"
        "hint: run it on a terminal; some questions have an option: --help\n"
    )
    assert not (tmp_path / "home" / "identity.key").exists()


@pytest.mark.parametrize("content", [b"", b"\n \n"])
def test_a_file_without_a_receipt_is_refused(swarm, tmp_path, content):
    (tmp_path / "mine.jsonl").write_bytes(content)
    for flags in ([], ["--json"]):
        code, out, err = swarm("receipts", "verify", "mine.jsonl", *flags)
        assert (code, out) == (2, "")
        assert "mine.jsonl is empty: no receipt is in it" in err


@pytest.mark.parametrize(
    ("count", "noun", "told"),
    [
        (0, "peer", "0 peers"),
        (1, "peer", "1 peer"),
        (2000, "other peer", "2,000 other peers"),
        (3, "copy", "3 copies"),
    ],
)
def test_a_noun_agrees_with_its_number(count, noun, told):
    assert counted(count, noun) == told


def test_one_replica_is_told_as_one():
    quote = {"bytes": 5, "coded": False, "replicas": 1, "audits": 1, "days": 0.5, "price": 1}
    quote |= {"cost": 1, "balance": 2, "fee": 0, "keepers": 1, "seats": 1}
    first, *_, last = keep.cost_lines(quote)
    assert "1 replica, 1 audit (" in first
    assert last == "1 keeper in good standing now" or "keepers" not in last


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ("300s", "5m"),
        ("5400s", "1h30m"),
        ("86461s", "1d1m1s"),
        ("off", "off"),
        ("as idle", "as idle"),
    ],
)
def test_a_limit_in_seconds_is_shown_as_it_is_typed(kept, shown):
    assert standing.wait(kept) == shown
    if shown != kept:
        assert read_setting("idle", shown) == int(kept[:-1])
