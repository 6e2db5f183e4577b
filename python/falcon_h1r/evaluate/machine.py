"""The machine a figure was measured on, and when."""

import os
import platform
import re
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("falcon-h1r", "torch", "numpy")


def machine() -> dict[str, Any]:
    """Return processor, cores, Python and the versions that matter."""
    cpuinfo = Path("/proc/cpuinfo")
    name = None
    if cpuinfo.is_file():
        name = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), flags=re.M)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": name[1] if name else platform.machine(),
        "num_cores": cores,
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in PACKAGES},
    }


def utc_now() -> str:
    """Return the date and time in UTC, to the minute."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
