"""What a person asked of a node: as it was started, and what was changed while it ran.

A change holds until the node is started with another value than it had when it was changed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import structlog

from storage.files import DISK
from swarm.config import LIMITS, read_setting, show_setting
from swarm.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from swarm.config import Settings

FILE: Final = "limits.json"
MAX_FILE_BYTES: Final = 16_384

_log = structlog.get_logger("swarm.limits")


class Wishes:
    """The limits that hold now, by the names of the settings.

    Args:
        settings: What the node was started with.
        path: Where changes are remembered; None: nowhere.
    """

    def __init__(self, settings: Settings, path: Path | None = None) -> None:
        self._path = path
        self._given = {name: getattr(settings, name) for name in LIMITS}
        self._changed: dict[str, str] = {}
        for name, (given, changed) in _read(path).items():
            shown = show_setting(name, self._given[name])
            # Once no cap was the default; who changed it then meant the change.
            if given == shown or (name, given, shown) == ("monthly_cap", "off", "auto"):
                self._changed[name] = changed
        self._now = {name: self._value(name) for name in LIMITS}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a value of any setting
        return self._now[name]

    def shown(self) -> dict[str, str]:
        """Every limit as a person writes it."""
        return {name: show_setting(name, self._now[name]) for name in LIMITS}

    def change(self, name: str, text: str) -> None:
        """Let a limit be another one from now on; durable when it returns.

        Raises:
            UsageError: There is no such limit, or the value is none.
            OSError: It cannot be remembered.
        """
        if name not in LIMITS:
            names = ", ".join(one.replace("_", "-") for one in LIMITS)
            message = f"there is no limit {name[:32]!r}: {names}"
            raise UsageError(message)
        value = read_setting(name, text)
        changed = self._changed | {name: show_setting(name, value)}
        if self._path is not None:
            told = {
                one: [show_setting(one, self._given[one]), text] for one, text in changed.items()
            }
            DISK.replace(self._path, json.dumps(told).encode())
        self._changed, self._now[name] = changed, value

    def _value(self, name: str) -> Any:  # noqa: ANN401
        changed = self._changed.get(name)
        if changed is not None:
            try:
                return read_setting(name, changed)
            except UsageError as error:
                _log.warning("limits.unreadable", limit=name, error=str(error))
                del self._changed[name]
        return self._given[name]


def _read(path: Path | None) -> dict[str, tuple[str, str]]:
    """What is remembered; a file that cannot be read changes nothing and is said in the log."""
    if path is None:
        return {}
    try:
        with path.open("rb") as file:
            found = json.loads(file.read(MAX_FILE_BYTES))
        return {
            name: (str(found[name][0]), str(found[name][1])) for name in LIMITS if name in found
        }
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        _log.warning("limits.unreadable", path=str(path), error=str(error))
        return {}
