"""What helps others to find a fault: versions, settings, the doctor's lines, problems, the end of the log; redacted."""

from __future__ import annotations

import getpass
import platform
import re
import socket
from contextlib import suppress
from dataclasses import fields
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swarm.care.redaction import Private, redact
from swarm.identity import KEY_FILE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from swarm.config import Settings

    Json = dict[str, Any]

DISTRIBUTION: Final = "swarm-node"
LOG_LINES: Final = 200
MAX_LOG_BYTES: Final = 256 * 2**10
MAX_KEY_BYTES: Final = 4096
SHOWN: Final = (
    *("version", "network", "chain_id", "height", "epoch", "view", "peers", "validators"),
    *("roles", "device", "task", "uptime_s", "finality_ms", "storage", "paused"),
)
"""What is told of a running node's status; its money is nobody's business."""
LOG: Final = Path("logs") / "node.jsonl"
"""The newest log file, in the data folder."""


def compose(
    settings: Settings, doctor: Sequence[str], status: Json | None, *, keeps_addresses: bool
) -> str:
    """The report, redacted.

    Args:
        settings: Of a node here.
        doctor: The lines of `swarm doctor`.
        status: Of the running node; None where none runs.
        keeps_addresses: Whether IP addresses stay.
    """
    told = [
        ("settings of swarm.toml and the environment", _settings(settings)),
        ("doctor", doctor),
        ("node", ["none runs"] if status is None else _node(status)),
        (f"last {LOG_LINES} lines of the log", tail(settings.home / LOG)),
    ]
    private = private_of(settings.home, keeps_addresses=keeps_addresses)
    # A version in four parts looks like an address, and what is installed is no secret.
    known = _written([("versions", _versions()), ("packages", _packages())])
    return f"# A report for those who mend swarm\n{known}{redact(_written(told), private)}"


def _written(sections: Iterable[tuple[str, Sequence[str]]]) -> str:
    lines: list[str] = []
    for title, body in sections:
        lines += ["", f"## {title}", "", *(body or ["(none)"])]
    return "\n".join(lines) + "\n"


def _settings(settings: Settings) -> list[str]:
    return [f"{one.name} = {getattr(settings, one.name)}" for one in fields(settings)]


def private_of(home: Path, *, keeps_addresses: bool = False) -> Private:
    """What is private on this machine, with the secret of the key in a data folder."""
    user = host = ""
    with suppress(KeyError, OSError):
        user = getpass.getuser()
    if user == "root":  # no person's name, and a word of the log: root=bafy…
        user = ""
    with suppress(OSError):
        host = socket.gethostname()
    secrets: tuple[str, ...] = ()
    with suppress(OSError), (home / KEY_FILE).open("rb") as file:
        text = file.read(MAX_KEY_BYTES).decode("ascii", "replace")
        secrets = tuple(re.findall(r"\b[0-9a-fA-F]{32,}\b", text))
    user_home = ""
    with suppress(RuntimeError):
        user_home = str(Path.home())
    return Private(user_home, user, host.partition(".")[0], secrets, keeps_addresses)


def tail(path: Path) -> list[str]:
    """The last lines of a file, of a bounded end of it; none where it cannot be read."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - MAX_LOG_BYTES))
            lines = file.read(MAX_LOG_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
    return (lines[1:] if size > MAX_LOG_BYTES else lines)[-LOG_LINES:]


def _versions() -> list[str]:
    return [
        f"swarm {metadata.version(DISTRIBUTION)}",
        f"Python {platform.python_version()} ({platform.python_implementation()})",
        f"{platform.system()} {platform.release()} {platform.machine()}",
    ]


def _packages() -> list[str]:
    """What swarm needs, in the version that is installed."""
    found = []
    for requirement in metadata.requires(DISTRIBUTION) or []:
        if ";" in requirement and "extra" in requirement.partition(";")[2]:
            continue
        match = re.match(r"[\w.-]+", requirement)
        name = match[0] if match is not None else requirement
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            found.append(f"{name}: not installed")
    return sorted(found)


def _node(status: Json) -> list[str]:
    lines = [f"{name}: {status[name]}" for name in SHOWN if name in status]
    return lines + [f"problem: {one}" for one in status["problems"]]
