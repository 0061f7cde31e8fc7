"""What the machine can do, measured in the run that uses it, and how work is timed."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def seconds(work: Callable[[], Any], repeats: int = 3) -> float:
    """Least wall time after one run that is not counted (compilation, caches): other load only adds to it."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def describe() -> str:
    """Processor and cores."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, Python {platform.python_version()}"


def peak_flops() -> float:
    """Floating point operations per second of a matrix product in float32 on all cores."""
    a = np.random.default_rng(0).random((2048, 2048), np.float32)
    return 2 * 2048**3 / seconds(lambda: a @ a)


def peak_bytes() -> float:
    """Bytes per second that a copy of 256 MB reads and writes, one core."""
    a = np.zeros(2**26, np.float32)
    b = np.empty_like(a)
    return 2 * a.nbytes / seconds(lambda: np.copyto(b, a))
