"""Looks at clock, input, battery and accelerator every few seconds, and says what they hold back.

`Controls` asks `limit` and `room`; everything that is told of the limits comes from `told`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from swarm.care.controls import CPU, GPU, SEAL, SERVE, TRAIN, Reason, at
from swarm.limits import gpu, idle, power
from swarm.limits.month import ends_at
from swarm.sizes import format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from swarm.care.controls import Controls
    from swarm.limits.schedule import Schedule
    from swarm.limits.traffic import Traffic
    from swarm.limits.wishes import Wishes

    Json = dict[str, Any]

LOOK_SECONDS: Final = 2.0
"""Between two looks: what is begun for others ends so long after the first key that is pressed."""
GPU_SECONDS: Final = 2.0
"""For the accelerators' driver to answer."""

_log = structlog.get_logger("swarm.limits")


class Limits:
    """What one node's owner allows.

    Args:
        wishes: What was asked.
        traffic: Keeps to the rates and the cap.
        controls: Holds parts back.
        stop_serving: Breaks off what is being served.
        now: Seconds since 1970.
        look_idle: Asks for how long nobody has touched the machine; may block.
        look_power: Asks for the power supplies; may block.
        accelerators: Reads them; may block.
    """

    def __init__(
        self,
        wishes: Wishes,
        traffic: Traffic,
        controls: Controls,
        *,
        stop_serving: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
        look_idle: Callable[[], idle.Idle] = idle.look,
        look_power: Callable[[], list[power.Supply]] = power.supplies,
        accelerators: gpu.Probe | None = None,
    ) -> None:
        self.wishes = wishes
        self._traffic = traffic
        self._controls = controls
        self._stop_serving = stop_serving
        self._now = now
        self._look_idle = look_idle
        self._look_power = look_power
        self._gpus = accelerators
        self._one_reader = trio.CapacityLimiter(1)  # one that hangs is not joined by others
        self._changed = trio.Event()
        self._was_cut = False
        self.idle = idle.Idle(None, why="it was not asked yet")
        self.is_on_battery = False
        self.heat = ""
        """Why training waits for the accelerator; empty where it need not."""
        controls.limit = self.limit
        controls.room = self.room
        traffic.is_cut = lambda: controls.is_paused(SERVE)
        self._aim()

    def limit(self, part: str) -> Reason | None:
        """Why the limits hold a part back now; None where they do not."""
        if part == SERVE:
            return self._cap() if self._traffic.month.is_reached else None
        if part not in (TRAIN, SEAL):
            return None
        schedule: Schedule | None = self.wishes["schedule"]
        now = self._now()
        if schedule is not None and not schedule.is_open(now):
            opens = schedule.changes_at(now)
            when = "" if opens is None else f" until {at(opens)}"
            return Reason("schedule", f"outside of the schedule{when}", opens)
        if self.is_on_battery and not self.wishes["on_battery"]:
            return Reason("battery", "this machine runs on battery")
        wanted = self._wanted(part)
        if wanted and (why := idle.judge(self.idle, wanted)):
            return Reason("idle", why)
        if part == TRAIN and self._traffic.month.is_near:
            return self._cap(is_hard=False)
        if part == TRAIN and self.heat and self._controls.on_gpu():
            return Reason("heat", self.heat, is_hard=False)
        return None

    def room(self, part: str) -> float | None:
        """Seconds until the schedule holds a part back; None: it never does."""
        schedule: Schedule | None = self.wishes["schedule"]
        if schedule is None or part not in (TRAIN, SEAL):
            return None
        now = self._now()
        closes = schedule.changes_at(now)
        if closes is None:
            return None
        return closes - now if schedule.is_open(now) else 0.0

    def change(self, name: str, text: str) -> None:
        """Let a limit be another one from now on.

        Raises:
            UsageError: There is no such limit, or the value is none.
            OSError: It cannot be remembered.
        """
        self.wishes.change(name, text)
        self._aim()
        self._changed.set()

    async def look(self) -> None:
        """Ask the machine now what the wishes need to know."""
        await trio.to_thread.run_sync(self._look)
        await self._look_at_gpus()

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            self._changed = trio.Event()
            await self.look()
            is_cut = self._controls.is_paused(SERVE)
            if is_cut and not self._was_cut:
                self._stop_serving()
            self._was_cut = is_cut
            with trio.move_on_after(LOOK_SECONDS):
                await self._changed.wait()

    def told(self) -> Json:
        """For a status.

        Returns:
            `asked` (every limit as it is written), `idle` (`seconds`, `by`, `why`; None where it is not asked for),
            `gpu` (why training would wait for it; empty: it need not), `on_battery`, `schedule` (`open`, `changes`, None without one), `upload` and `download` (`limit`: bytes a second, 0
            where there is none now; `now`; of the upload `measured`, and `line`, 0 where it was never full), `month` (`name`,
            `sent`, `received`, `cap`, `ends`).
        """
        now, traffic = self._now(), self._traffic
        month = traffic.month
        schedule: Schedule | None = self.wishes["schedule"]
        asks_idle = self.wishes["idle"] or self.wishes["idle_gpu"]
        known = {"seconds": self.idle.seconds, "by": self.idle.by, "why": self.idle.why}
        return {
            "asked": self.wishes.shown(),
            "idle": known if asks_idle else None,
            "gpu": self.heat,
            "on_battery": self.is_on_battery,
            "schedule": None
            if schedule is None
            else {"open": schedule.is_open(now), "changes": schedule.changes_at(now)},
            "upload": {
                "limit": traffic.upload,
                "now": round(traffic.sent_rate),
                "measured": traffic.is_measured,
                "line": round(traffic.line.best),
            },
            "download": {"limit": traffic.download, "now": round(traffic.received_rate)},
            "month": {
                "name": month.name,
                "sent": month.sent,
                "received": month.received,
                "cap": month.cap,
                "ends": ends_at(now),
            },
        }

    def _aim(self) -> None:
        wishes = self.wishes
        self._traffic.limit(wishes["upload"], wishes["download"], wishes["monthly_cap"])

    def _wanted(self, part: str) -> int:
        on = GPU if part == TRAIN and self._controls.on_gpu() else CPU
        special: int | None = self.wishes["idle_gpu"] if on == GPU else None
        wanted: int = self.wishes["idle"] if special is None else special
        return wanted

    def _cap(self, *, is_hard: bool = True) -> Reason:
        month = self._traffic.month
        end = ends_at(self._now())
        used, cap = format_size(month.total), format_size(month.cap)
        return Reason("cap", f"{used} of the month's {cap} are used, until {at(end)}", end, is_hard)

    def _look(self) -> None:
        """Ask the machine what the wishes need to know; runs in a thread."""
        wishes = self.wishes
        if wishes["idle"] or wishes["idle_gpu"]:
            self.idle = self._look_idle()
        self.is_on_battery = power.on_battery(self._look_power())

    async def _look_at_gpus(self) -> None:
        """Likewise of the accelerators; a driver that hangs keeps neither the other limits nor the node's end waiting."""
        wishes = self.wishes
        if not wishes["gpu_heat"] and not wishes["gpu_power"]:
            self.heat = ""
            return
        with trio.move_on_after(GPU_SECONDS) as patience:
            readings = await trio.to_thread.run_sync(  # type: ignore[call-arg]  # the stubs are older
                self._read_gpus, abandon_on_cancel=True, limiter=self._one_reader
            )
            self.heat = gpu.judge(
                readings, wishes["gpu_heat"], wishes["gpu_power"], waits=bool(self.heat)
            )
        if patience.cancelled_caught:
            self.heat = gpu.SILENT

    def _read_gpus(self) -> list[gpu.Reading]:
        self._gpus = self._gpus or gpu.Nvml()
        return self._gpus.read()
