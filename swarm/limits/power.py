"""Whether this machine runs on battery, as the kernel tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

FOLDER: Final = Path("/sys/class/power_supply")
MAX_BYTES: Final = 64
MAX_SUPPLIES: Final = 64
OF_A_DEVICE: Final = "device"
"""The scope of a battery that feeds something else: a mouse, a headset."""


@dataclass(frozen=True, slots=True)
class Supply:
    """One power supply, in the kernel's words, lower case; empty where it does not say.

    Attributes:
        kind: `mains`, `usb`, `battery`, `ups` …
        online: `1` where power comes from it.
        status: Of a battery: `charging`, `discharging`, `full` …
        scope: `device` where it feeds something else.
    """

    kind: str
    online: str = ""
    status: str = ""
    scope: str = ""


def on_battery(supplies: Iterable[Supply]) -> bool:
    """Whether a battery empties and nothing else feeds the machine; a machine that tells nothing is on mains."""
    own = [one for one in supplies if one.scope != OF_A_DEVICE]
    if any(one.kind not in {"battery", "ups"} and one.online not in {"", "0"} for one in own):
        return False
    return any(one.status == "discharging" for one in own)


def supplies(folder: Path = FOLDER) -> list[Supply]:
    """What this machine has; empty where the kernel tells nothing."""
    try:
        found = sorted(folder.iterdir())[:MAX_SUPPLIES]
    except OSError:
        return []
    return [
        Supply(*(_word(one / name) for name in ("type", "online", "status", "scope")))
        for one in found
    ]


def _word(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES).decode("ascii", "replace").strip().lower()
    except OSError:
        return ""
