"""A real node under what systemd would give it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_node_tells_systemd_keeps_its_pause_over_a_restart_and_its_log(tmp_path):
    home, notified = tmp_path / "home", tmp_path / "notify"
    environ = os.environ | {
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_RUNTIME_DIR": str(tmp_path),
        "SWARM_HOME": str(home),
        "NOTIFY_SOCKET": str(notified),
        "PYTHONPATH": str(ROOT),
    }
    flags = ["--no-train", "--reader", "--listen", "/ip4/127.0.0.1/tcp/0", "--metrics", "0"]
    swarm = [sys.executable, "-P", "-m", "cli"]

    def ask(*arguments):
        return subprocess.run(
            [*swarm, *arguments], env=environ, capture_output=True, text=True, timeout=60
        )

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(notified))
        systemd.settimeout(60)
        for turn in range(2):
            child = subprocess.Popen(
                [*swarm, "join", "--no-view", *flags], env=environ, stderr=subprocess.DEVNULL
            )
            try:
                assert systemd.recv(100) == b"READY=1"
                if turn == 0:
                    assert "train until" in ask("pause", "train", "--for", "1h").stdout
                    found = ask("doctor", "--json")
                    checks = [json.loads(line) for line in found.stdout.splitlines()]
                    assert [one for one in checks if one["verdict"] == "bad"] == []
                    assert found.returncode == 0
                else:
                    status = json.loads(ask("status", "--json").stdout)
                    assert [one["part"] for one in status["paused"]] == ["train"]
                child.send_signal(signal.SIGTERM)
                assert systemd.recv(100) == b"STOPPING=1"
                assert child.wait(20) == 0
            finally:
                child.kill()
                child.wait()
    log = [json.loads(line) for line in (home / "logs/node.jsonl").read_text().splitlines()]
    assert "metrics.serving" in {one["event"] for one in log}
