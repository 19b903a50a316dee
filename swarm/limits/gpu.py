"""Power, temperature and use of an accelerator: the rule, and what NVML tells where nvidia-ml-py is installed."""

from __future__ import annotations

import importlib
import importlib.util
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

COOLER: Final = 5
"""Degrees below the limit at which work that had to wait goes on."""
LESS: Final = 0.9
"""Of the limit's watts, likewise."""
SILENT: Final = "the GPU's driver does not answer"


@dataclass(frozen=True, slots=True)
class Reading:
    """One accelerator; None where it does not tell.

    Attributes:
        celsius: Its temperature.
        watts: What it takes.
        name: The maker's.
        busy: The share of the last moment in which it computed, 0 to 1.
        used: Bytes of its memory that are taken, by whomever.
        total: Bytes that it has.
    """

    celsius: float | None
    watts: float | None
    name: str = ""
    busy: float | None = None
    used: int | None = None
    total: int | None = None


class Probe(Protocol):
    """Who reads accelerators."""

    def read(self) -> list[Reading]:
        """All of this machine; empty where there are none."""


def judge(readings: Sequence[Reading], heat: int, power: int, *, waits: bool) -> str:
    """Why work waits for an accelerator; empty where it need not.

    Args:
        readings: As of now.
        heat: Degrees Celsius that are allowed; 0: whatever.
        power: Watts that are allowed of each; 0: whatever.
        waits: It waits already, and goes on only when there is some distance to the limit.
    """
    hottest = max((one.celsius for one in readings if one.celsius is not None), default=None)
    if heat and hottest is not None and hottest >= (heat - COOLER if waits else heat + 1):
        return f"the GPU is at {hottest:.0f} °C, and {heat} °C are allowed"
    most = max((one.watts for one in readings if one.watts is not None), default=None)
    if power and most is not None and most > (LESS * power if waits else power):
        return f"the GPU takes {most:.0f} W, and {power} W are allowed"
    if (heat and hottest is None) or (power and most is None):
        return "the GPU does not tell its temperature and power: nvidia-ml-py is not installed, or no NVIDIA driver"
    return ""


class Nvml:
    """NVIDIA's accelerators, by nvidia-ml-py; where it is not installed there are none."""

    def __init__(self) -> None:
        self._nvml: Any = None
        if importlib.util.find_spec("pynvml") is not None:
            nvml: Any = importlib.import_module("pynvml")
            with suppress(nvml.NVMLError):
                nvml.nvmlInit()
                self._nvml = nvml

    def read(self) -> list[Reading]:
        """See `Probe`."""
        nvml = self._nvml
        if nvml is None:
            return []
        found = []
        with suppress(nvml.NVMLError):
            for index in range(nvml.nvmlDeviceGetCount()):
                device = nvml.nvmlDeviceGetHandleByIndex(index)
                celsius = watts = None
                with suppress(nvml.NVMLError):
                    sensor = nvml.NVML_TEMPERATURE_GPU
                    celsius = float(nvml.nvmlDeviceGetTemperature(device, sensor))
                with suppress(nvml.NVMLError):
                    watts = nvml.nvmlDeviceGetPowerUsage(device) / 1000
                found.append(Reading(celsius, watts, *self._use(device)))
        return found

    def _use(self, device: object) -> tuple[str, float | None, int | None, int | None]:
        nvml, name, busy, used, total = self._nvml, "", None, None, None
        with suppress(nvml.NVMLError, UnicodeDecodeError):  # the module reads the name as UTF-8
            told = nvml.nvmlDeviceGetName(device)
            name = told.decode() if isinstance(told, bytes) else str(told)
        with suppress(nvml.NVMLError):
            busy = nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
        with suppress(nvml.NVMLError):
            memory = nvml.nvmlDeviceGetMemoryInfo(device)
            used, total = int(memory.used), int(memory.total)
        return name, busy, used, total
