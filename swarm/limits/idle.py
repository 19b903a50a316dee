"""For how long nobody has touched this machine, as the machine knows it.

logind, over the system's D-Bus where jeepney is installed, says whether all sessions are idle and since when; a desktop tells
it some minutes after the last input, so what it says comes late and never early.
Terminals remember when somebody last typed into them, to 8 s; a desktop without a terminal is not seen that way, so what
terminals say counts only where no logind answers and the machine has no display.
Where nothing can be known the machine counts as in use.
"""

from __future__ import annotations

import importlib
import importlib.util
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from swarm.care.controls import span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

LOGIND: Final = "logind"
TERMINALS: Final = "terminals"
BUS_SECONDS: Final = 2.0
"""For logind to answer."""
MAX_TERMINALS: Final = 4096
TERMINAL_PATTERNS: Final = ("tty[0-9]*", "pts/[0-9]*")
DISPLAYS: Final = ("tmp/.X11-unix/X*", "run/user/*/wayland-[0-9]*")
"""Sockets of displays: somebody may sit before one whom no terminal sees."""


@dataclass(frozen=True, slots=True)
class Idle:
    """What is known.

    Attributes:
        seconds: Since the last input; None: it cannot be told.
        by: Who says so; empty where nobody does.
        why: Why it cannot be told.
    """

    seconds: float | None
    by: str = ""
    why: str = ""

    def __str__(self) -> str:
        """As the status shows it."""
        return (
            f"unknown: {self.why}"
            if self.seconds is None
            else f"{self.seconds:.0f} s (by {self.by})"
        )


def judge(idle: Idle, wanted: float) -> str:
    """Why a part waits for the machine to be idle; empty where it need not wait.

    Args:
        idle: What is known.
        wanted: Seconds without input that are asked for.
    """
    if idle.seconds is None:
        return f"whether this machine is idle cannot be told: {idle.why}"
    if idle.seconds < wanted:
        known = f"{span(int(idle.seconds))} of {span(int(wanted))}"
        return f"not idle: {known} without input (by {idle.by})"
    return ""


def look(root: Path = Path("/"), now: Callable[[], float] = time.time) -> Idle:
    """Ask this machine; blocks for at most some seconds.

    Args:
        root: Where its files begin.
        now: Seconds since 1970.
    """
    asked = _logind()
    if isinstance(asked, tuple):
        is_idle, since = asked
        return Idle(max(0.0, now() - since) if is_idle else 0.0, LOGIND)
    if any(True for pattern in DISPLAYS for _ in root.glob(pattern)):
        return Idle(None, why=f"it has a display, and {asked}")
    return by_terminals(_touched(root), now(), asked)


def by_terminals(touched: Iterable[float], now: float, why: str) -> Idle:
    """What the times of the last input of all terminals say.

    Args:
        touched: Seconds since 1970 each.
        now: Likewise.
        why: Why nobody better was asked.
    """
    last = max((one for one in touched if one <= now + 60), default=None)
    if last is None:
        return Idle(None, why=f"it has no terminals, and {why}")
    return Idle(max(0.0, now - last), TERMINALS)


def _touched(root: Path) -> list[float]:
    found: list[float] = []
    for pattern in TERMINAL_PATTERNS:
        for path in (root / "dev").glob(pattern):
            try:
                found.append(path.stat().st_atime)
            except OSError:  # closed a moment ago
                continue
            if len(found) >= MAX_TERMINALS:
                return found
    return found


def _logind() -> tuple[bool, float] | str:
    """Whether every session is idle, and since when; or why logind does not say."""
    if importlib.util.find_spec("jeepney") is None:
        return "jeepney is not installed, so logind cannot be asked"
    jeepney: Any = importlib.import_module("jeepney")
    blocking: Any = importlib.import_module("jeepney.io.blocking")
    try:
        manager = jeepney.DBusAddress(
            "/org/freedesktop/login1",
            bus_name="org.freedesktop.login1",
            interface="org.freedesktop.login1.Manager",
        )
        with _bus(blocking) as bus:
            found = []
            for name in ("IdleHint", "IdleSinceHint"):
                asked = jeepney.Properties(manager).get(name)
                answer = bus.send_and_get_reply(asked, timeout=BUS_SECONDS)
                if answer.header.message_type is not jeepney.MessageType.method_return:
                    return f"logind refuses: {answer.body[0] if answer.body else 'no reason'}"
                found.append(answer.body[0][1])
        return bool(found[0]), int(found[1]) / 1e6
    except (OSError, TimeoutError, ValueError, KeyError, IndexError, TypeError) as error:
        return f"logind does not answer: {str(error) or type(error).__name__}"
    except Exception as error:  # noqa: BLE001 - whatever the bus says, the machine counts as in use
        return f"logind does not answer: {type(error).__name__}: {error}"


def _bus(blocking: Any) -> Any:  # noqa: ANN401 - jeepney's, which may be missing
    """The system's bus; jeepney itself waits without an end for a bus that takes the connection and then says nothing."""

    class Bounded(blocking.DBusConnection):  # type: ignore[misc]
        def receive(self, *, timeout: float | None = None) -> Any:  # noqa: ANN401
            return super().receive(timeout=BUS_SECONDS if timeout is None else timeout)

    address = blocking.get_bus("SYSTEM")
    socket = blocking.prep_socket(address, timeout=BUS_SECONDS)
    try:
        return Bounded(socket)
    except BaseException:
        socket.close()
        raise
