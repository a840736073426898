"""What a table of numbers says about how it was made: command, commit, machine, versions."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import molcmim

PACKAGES = ("torch", "rdkit", "numpy", "scikit-learn")
#: instruction sets that decide how fast a CPU multiplies matrices, the best first
INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "asimd")


def cpu_kind(info: str) -> str:
    """A CPU's name, family, model and best instruction set, from the text of /proc/cpuinfo.

    Clouds give one name to machines that differ by a factor of ten in bfloat16. Without the text: the architecture.
    """
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in info.splitlines())}
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = (fields.get("flags") or fields.get("Features") or "").split()
    details = [f"{key.removeprefix('cpu ')} {fields[key]}" for key in ("cpu family", "model") if fields.get(key)]
    details += [each for each in INSTRUCTIONS if each in flags][:1]
    return f"{name} ({', '.join(details)})" if details else name


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Kind of machine and versions of packages; no names or paths of the machine."""
    info = Path("/proc/cpuinfo")
    facts: dict[str, Any] = {
        "cpu": cpu_kind(info.read_text() if info.is_file() else ""),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "molcmim": molcmim.__version__,
    }
    for name in packages:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            continue
    return facts


def git_state(directory: Path | None = None) -> dict[str, Any]:
    """Commit of the working tree that holds `directory` (default: the package), and whether files differ from it.

    ``{"commit": None, "modified": False}`` where there is no such tree.
    """
    where = Path(molcmim.__file__).parent if directory is None else directory

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(["git", *words], cwd=where, capture_output=True, text=True, check=False)
        except OSError:  # no git
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # an installed package may lie inside somebody's working tree without being part of it
    if git("ls-files", "--error-unmatch", ".") is None:
        return {"commit": None, "modified": False}
    return {"commit": git("rev-parse", "HEAD"), "modified": bool(git("status", "--short", "-uno"))}


def command_line(program: str, words: Sequence[str] | None = None) -> str:
    """The command, absolute paths cut to their last two names: they mean nothing on another machine."""
    given = sys.argv[1:] if words is None else words
    short = [Path(*Path(word).parts[-2:]).as_posix() if Path(word).is_absolute() else word for word in given]
    return f"{program} {shlex.join(short)}".rstrip()


def now() -> str:
    """Date and time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
