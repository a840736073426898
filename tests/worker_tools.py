"""What the tests of worker processes share."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent

posix = pytest.mark.skipif(os.name != "posix", reason="signals and process groups as on POSIX")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def children(parent: int) -> list[int]:
    """Process ids of the living workers of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if b"molcmim.chem_worker" in command and f'"parent": {parent}}}'.encode() in command and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def script(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code as `python -` does: no file, no __main__ guard."""
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=120, env=variables)
