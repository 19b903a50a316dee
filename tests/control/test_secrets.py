"""No secret in a log, in what `ps` shows, in a report, or in a file that others can read: after a session with all of them."""

from __future__ import annotations

import base64
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import psutil
import pytest

from cli.main import main
from protocols.signing import Signer
from swarm.errors import RefusedError, SwarmError
from swarm.identity import KEY_FILE, Identity
from swarm.page import access
from swarm.words import words_of
from tests.control.running import REPOSITORY, running

pytestmark = pytest.mark.slow
SERVE_TOKEN = "a-token-that-clients-show-0123456789"  # noqa: S105 - of this test alone
HOLD_ONE = {KEY_FILE, access.FILE}
"""Files that are there to hold a secret."""


def spelled(data: bytes) -> list[bytes]:
    """A secret in the ways in which it could be written."""
    return [
        data,
        data.hex().encode(),
        data.hex().upper().encode(),
        base64.b64encode(data).rstrip(b"="),
        base64.urlsafe_b64encode(data).rstrip(b"="),
        repr(data).encode()[2:-1],
    ]


def back_up(home, environ) -> str:
    """`swarm key backup`, as a person does it; the words."""
    child = subprocess.Popen(
        [sys.executable, "-m", "cli", "key", "backup", "--home", str(home)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=0,
        env=environ,
    )
    with child:
        words = re.findall(r"\d+ ([a-z]+)", "".join(child.stdout.readline() for _ in range(6)))
        assert len(words) == 24
        for _ in range(3):
            asked = ""
            while not asked.endswith(": ") or "word" not in asked:
                asked += child.stderr.read(1)
            place = int(re.findall(r"word (\d+)", asked)[-1])
            child.stdin.write(f"{words[place - 1]}\n")
        child.stdin.close()
        assert child.wait(20) == 0, child.stderr.read()
    return " ".join(words)


def test_after_a_whole_session_no_secret_is_where_another_could_read_it(
    tmp_path, monkeypatch, capfd
):
    with running(tmp_path, "--log-level", "debug") as node:
        seed = bytes.fromhex((node.home / KEY_FILE).read_text().split()[-1])
        for name, value in (("SWARM_HOME", node.home), ("XDG_CONFIG_HOME", tmp_path / "config")):
            monkeypatch.setenv(name, str(value))
        words = back_up(node.home, dict(os.environ))
        assert words == " ".join(words_of(seed))
        told = []
        for line in (
            ["status"],
            ["key"],
            ["key", "payout", Signer(b"7" * 32).peer_id],
            ["doctor"],
            ["bug-report"],
            ["bug-report", "-o", str(tmp_path / "report.md")],
            ["logs"],
            ["receipts"],
            ["limit"],
        ):
            main(line)
            said = capfd.readouterr()
            told.append(said.out + said.err)
        link = node.ask(lambda client: client.page_link())["link"]
        code = link.partition("#")[2]
        begun = httpx.post(
            f"{node.page()}/api/session", json={"code": code}, headers={"origin": node.page()}
        )
        key, cookie = begun.json()["value"]["key"], next(iter(begun.cookies.values()))
        authorization = {"authorization": f"Bearer {node.token}"}
        told += [
            httpx.get(node.page() + path, headers=authorization).text
            for path in ("/api/node", "/api/logs?lines=500&level=debug", "/api/storage")
        ]
        httpx.get(node.page() + "/api/node", headers={"authorization": "Bearer wrong"})
        with pytest.raises(SwarmError):
            node.ask(
                lambda client: client.serve(
                    "gpt", None, host="127.0.0.1", port=0, token=SERVE_TOKEN, on_served=print
                )
            )
        told.append(capfd.readouterr().out)

        secrets = [
            *spelled(seed),
            words.encode(),
            " ".join(words.split()[:4]).encode(),
            node.token.encode(),
            SERVE_TOKEN.encode(),
            code.encode(),
            key.encode(),
            cookie.encode(),
        ]
        processes = [psutil.Process(node.process.pid)]
        processes += processes[0].children(recursive=True)
        told += [" ".join(one.cmdline()) for one in processes]
        for text in (*told, node.said()):
            assert [one for one in secrets if one in text.encode()] == []
        assert faults(tmp_path, secrets) == []
        assert stat.S_IMODE(node.home.stat().st_mode) == 0o700
        assert stat.S_IMODE((node.home / "control.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE((tmp_path / "report.md").stat().st_mode) == 0o600


def faults(folder: Path, secrets: list[bytes]) -> list[str]:
    """Files that hold a secret and are not there for it, or that others can read though they hold one."""
    found = []
    for path in sorted(one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()):
        data = path.read_bytes()
        if not any(one in data for one in secrets):
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        if path.name not in HOLD_ONE or mode & 0o077:
            found.append(f"{path.relative_to(folder)} {mode:04o}")
    return found


def test_a_secret_in_a_wrong_place_would_be_found(tmp_path):
    secret = b"0123456789abcdef"
    for name, mode in ((KEY_FILE, 0o644), (access.FILE, 0o600), ("node.jsonl", 0o600)):
        (tmp_path / name).write_bytes(b"x" + secret)
        (tmp_path / name).chmod(mode)
    assert faults(tmp_path, [secret]) == [f"{KEY_FILE} 0644", "node.jsonl 0600"]


@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_a_secret_that_others_can_read_is_not_used(tmp_path, mode):
    Identity.load_or_create(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(RefusedError):
        Identity.load_or_create(tmp_path)
    access.load_or_create(tmp_path)
    (tmp_path / access.FILE).chmod(mode)
    with pytest.raises(RefusedError):
        access.load_or_create(tmp_path)
