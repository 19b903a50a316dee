"""The machine that a figure was measured on, in one line."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import psutil


def describe() -> str:
    """Processor, cores, memory and Python."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip()
            for line in cpuinfo.read_text().splitlines()
            if line.startswith("model name")
        ]
        model = names[0] if names else model
    memory = psutil.virtual_memory().total / 2**30
    return f"machine: {model}, {os.cpu_count()} cores, {memory:.0f} GiB, Python {platform.python_version()}"
