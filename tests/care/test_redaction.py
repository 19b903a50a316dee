import json
import logging

import pytest
import structlog

from cli import logs
from swarm.care import bug_report
from swarm.care.redaction import Private, redact
from swarm.config import Settings
from swarm.identity import Identity

ANN = Private(home="/home/ann", user="ann", host="attic")
PEER = "12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN"
CID = "bafkreiaxnnnb7qz2focittuqq3ya25q7rcv3bqynnczfzako47346wosmu"


@pytest.mark.parametrize(
    "text",
    [
        "token=s3cr3t-value",
        'password: "s3cr3t-value"',
        "{'api_key': 's3cr3t-value', 'x': 1}",
        '{"Authorization": "Bearer s3cr3t-value"}',
        "Authorization: Bearer s3cr3t-value",
        "SWARM_SEED = s3cr3t-value",
        '{"error": "got {\\"token\\": \\"s3cr3t-value\\"}"}',
        "https://ann:s3cr3t-value@example.org/x",
        r'{"token": "a\"s3cr3t-value"}',
        r'{"error": "got {\"token\": \"a b s3cr3t-value\"}"}',
        "password=a,s3cr3t-value",
        "password=a}s3cr3t-value;x",
        "Authorization: Token s3cr3t-value",
        "Authorization: Digest username=x, response=s3cr3t-value",
        "Cookie: a=1; b=s3cr3t-value",
        "(b'x-api-key', b's3cr3t-value')",
        "['authorization', 's3cr3t-value']",
        "swarm join --token s3cr3t-value",
        "pwd=s3cr3t-value",
        "api key: s3cr3t-value",
        "secret:             s3cr3t-value",
        "https://x.org/a?Expires=1&Signature=s3cr3t-value&Key-Pair-Id=s3cr3t",
        "https://x.org/a?X-Amz-Credential=s3cr3t-value&x=1",
        "-----BEGIN PRIVATE KEY-----\ns3cr3t-value\n-----END PRIVATE KEY-----",
        "-----BEGIN OPENSSH PRIVATE KEY-----\ns3cr3t-value",
    ],
)
def test_a_secret_goes_whatever_way_it_is_written(text):
    assert "s3cr3t" not in redact(text, ANN)


@pytest.mark.parametrize(
    "token",
    [
        "hf_" + "a" * 34,
        "sk-" + "b" * 40,
        "ghp_" + "c" * 36,
        "glpat-" + "e" * 20,
        "AIza" + "f" * 35,
        "ASIA" + "D" * 16,
        "AKIA" + "D" * 16,
        "eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",
    ],
)
def test_tokens_of_known_forms_go_without_a_name_beside_them(token):
    assert token not in redact(f"got {token} from the environment", ANN)


def test_the_home_and_the_name_of_the_user_go():
    text = "/home/ann/.local/share/swarm and /home/bob/x by ann on attic; Joanna's annex"
    assert redact(text, ANN) == "~/.local/share/swarm and ~/x by <user> on <host>; Joanna's annex"


def test_addresses_go_but_for_those_that_tell_nothing():
    text = "/ip4/203.0.113.7/tcp/4001 [2001:db8::17]:80 fe80::1 127.0.0.1:9417 0.0.0.0 ::1"
    found = redact(text, ANN)
    assert found == "/ip4/<address>/tcp/4001 [<address>]:80 <address> 127.0.0.1:9417 0.0.0.0 ::1"
    assert redact(text, Private(keeps_addresses=True)) == text


@pytest.mark.parametrize(
    "part",
    [":", "a", "token", "1.", "-", "/home/", " ", "://", "=\\", "\\", "token\\", "'token", "--"],
)
def test_a_hostile_line_of_any_length_is_read_in_time_that_grows_with_it(part):
    assert redact(part * 20_000, ANN)


@pytest.mark.parametrize(
    "text",
    [
        r"refused\n203.0.113.7 again",
        "v203.0.113.7",
        "_203.0.113.7_v1.2",
        r"refused\n2001:db8::17 again",
        "addr:2001:db8::17",
        "/mnt/home/bob/x",
        "/var/home/bob/x",
        "Bob on ATTIC",
    ],
)
def test_addresses_and_names_go_whatever_stands_before_them(text):
    found = redact(text, Private(user="bob", host="attic"))
    assert not any(one in found.lower() for one in ("203.0", "db8", "bob", "attic"))


@pytest.mark.parametrize(
    "text",
    [
        "2001:db8::17: connection refused",
        "2001:db8:1:2:3:4:5:6:4001",
        "2001:db8:1:2:3:4:5:6:4001: refused",
        "2001:0db8:0001:0002:0003:0004:0005:0006:40010: refused",
        "2001:db8::: refused",
    ],
)
def test_addresses_go_with_a_port_or_a_colon_on_their_heels(text):
    assert "db8" not in redact(text, ANN)


def test_times_versions_peers_and_cids_stay():
    text = f"2026-01-02T03:04:05Z up 03:04:05 torch 2.13.0 {PEER} {CID} swarm 0.1.0 libp2p==0.8.1"
    assert redact(text, ANN) == text


def test_a_report_holds_neither_the_key_nor_who_the_user_is(tmp_path, monkeypatch):
    monkeypatch.setenv("USER", "annabel")
    monkeypatch.setenv("LOGNAME", "annabel")
    home = tmp_path / "annabel"
    signer = Identity.load_or_create(home).signer
    (home / "logs").mkdir()
    log = f'{{"event": "x", "seen": "{signer.seed.hex().upper()} at 198.51.100.9"}}\n'
    (home / bug_report.LOG).write_text("early\n" * 500 + log)
    text = bug_report.compose(Settings(home), ["ok  disk"], None, keeps_addresses=False)
    assert signer.seed.hex() not in text.lower()
    assert "annabel" not in text
    assert "198.51.100.9" not in text
    for part in ("## versions", "trio 0.", "storage = 10000000000", "ok  disk", "none runs"):
        assert part in text
    assert text.count("early") == bug_report.LOG_LINES - 1


def test_a_log_larger_than_the_bound_is_read_from_its_end(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {at}\n" for at in range(60_000)))
    assert bug_report.tail(path)[-1] == "line 59999"
    assert len(bug_report.tail(path)) == bug_report.LOG_LINES
    assert bug_report.tail(tmp_path / "none") == []


@pytest.fixture
def _logging():
    before, level = logging.root.handlers[:], logging.root.level
    yield
    for handler in logging.root.handlers:
        if handler not in before:
            handler.close()
    logging.root.handlers[:] = before
    logging.root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.usefixtures("_logging")
def test_a_node_keeps_its_log_as_json_without_secrets(tmp_path):
    logs.configure("info", tmp_path / "node.log", tmp_path / "logs")
    structlog.get_logger("swarm.x").info("round.trained", round=3, token="s3cr3t")  # noqa: S106
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        structlog.get_logger("swarm.x").exception("task.failed")
        logging.getLogger("swarm.y").exception("node.failed")
    lines = [json.loads(one) for one in (tmp_path / "logs/node.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "event": "round.trained",
        "level": "info",
        "round": 3,
        "timestamp": lines[0]["timestamp"],
        "token": "<secret>",
    }
    assert [one["event"] for one in lines[1:]] == ["task.failed", "node.failed"]
    for one in lines[1:]:
        assert "ZeroDivisionError" in one["exception"]
    assert "ZeroDivisionError" in (tmp_path / "node.log").read_text()


@pytest.mark.usefixtures("_logging")
def test_the_log_stays_within_its_files(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "MAX_KEPT_BYTES", 2000)
    logs.configure("info", tmp_path / "node.log", tmp_path / "logs")
    for at in range(300):
        structlog.get_logger("swarm.x").info("round.trained", round=at)
    files = sorted((tmp_path / "logs").iterdir())
    assert len(files) == logs.KEPT_FILES
    assert all(one.stat().st_size <= 2000 for one in files)


@pytest.mark.usefixtures("_logging")
def test_a_log_folder_that_cannot_be_made_ends_no_node(tmp_path):
    (tmp_path / "logs").write_text("a file")
    logs.configure("info", tmp_path / "node.log", tmp_path / "logs")
    structlog.get_logger("swarm.x").info("goes.on")
    assert "goes.on" in (tmp_path / "node.log").read_text()


def test_the_account_root_is_nobodys_name_and_the_word_stays_in_the_log(tmp_path, monkeypatch):
    monkeypatch.setenv("LOGNAME", "root")
    assert bug_report.private_of(tmp_path).user == ""
    monkeypatch.setenv("LOGNAME", "ann")
    assert bug_report.private_of(tmp_path).user == "ann"
