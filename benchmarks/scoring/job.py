"""`molcmim embed` as a subprocess whose memory is watched; what memory.py and hostile_rows.py have in common."""

from __future__ import annotations

import argparse
import gzip
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from study import Study, mib, peak_kib

PERIOD = 0.2  #: seconds between two looks at /proc
POINTS = 20  #: of a run's course in the result
SHARD_ROWS = 100_000
KIND = "latent"  #: the quickest; other kinds differ by the width of the vectors
Usage = dict[int, tuple[int, int]]  #: process id: VmHWM and Pss, in KiB


def add_compute(parser: argparse.ArgumentParser) -> None:
    """The option --compute."""
    parser.add_argument(
        "--compute",
        choices=("float32", "bfloat16"),
        default="float32",
        help="precision of matrix products; bfloat16 is quicker on CPUs that have instructions for it",
    )


def write_input(path: Path, smiles: Sequence[str]) -> None:
    """A file of molecules called m0, m1, ...; .parquet has them all in one row group."""
    if path.name.endswith(".parquet"):
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {"id": [f"m{i}" for i in range(len(smiles))], "smiles": list(smiles)}
        pq.write_table(pa.table(columns), path, row_group_size=max(1, len(smiles)))
        return
    lines = "".join(f"{text} m{i}\n" for i, text in enumerate(smiles)).encode("ascii")
    path.write_bytes(gzip.compress(lines, 6) if path.name.endswith(".gz") else lines)


def clean_run(study: Study, smiles: Sequence[str], ending: str, shard_rows: int = SHARD_ROWS) -> dict[str, Any]:
    """Embed all of `smiles` from a file of that type, unless it has been measured; shards stay if it is Parquet.

    memory.py and hostile_rows.py share the measurement: it is kept under `runs` in the work folder.
    """
    n = len(smiles)
    key = f"{ending} {n} {shard_rows}"
    folder = clean_folder(study, n)
    keep = ending == "parquet" and shard_rows == SHARD_ROWS  # for hostile_rows.py to compare with
    if keep and not folder.is_dir():
        study.forget(key)

    def make() -> dict[str, Any]:
        path = study.given.work / f"clean.{ending}"
        target = folder if keep else study.given.work / "clean"
        write_input(path, smiles)
        try:
            return {"rows": n, **watched(study.given, path, target, shard_rows)}
        finally:
            path.unlink()
            if not keep:
                shutil.rmtree(target, ignore_errors=True)

    return study.measure(key, make)


def clean_folder(study: Study, n: int) -> Path:
    """Where the shards of a clean run from Parquet lie."""
    path: Path = study.given.work / f"clean_{n}"
    return path


def watched(
    given: argparse.Namespace, path: Path, folder: Path, shard_rows: int, variables: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Embed a file into a fresh folder; seconds, start-up included, and the memory of the processes.

    Of the script's options, `given`, it takes `model` and `compute`.

    Raises
    ------
    RuntimeError
        If the command fails.
    """
    shutil.rmtree(folder, ignore_errors=True)
    words = ["embed", str(path), "-o", str(folder), "--shard-rows", str(shard_rows), "-m", given.model]
    words += ["--kind", KIND, "--compute", given.compute, "--device", "cpu"]
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "molcmim", *words], stdout=subprocess.DEVNULL, env={**os.environ, **(variables or {})}
    )
    peaks: dict[int, int] = {}
    at_once = 0  # workers
    course: list[tuple[float, int, int]] = []  # seconds, sum of Pss, Pss of the parent
    try:
        while process.poll() is None:
            usage = memory_of(process.pid)
            for pid, (peak, _) in usage.items():
                peaks[pid] = max(peaks.get(pid, 0), peak)
            if process.pid in usage:
                at_once = max(at_once, len(usage) - 1)
                total = sum(pss for _, pss in usage.values())
                course.append((time.perf_counter() - began, total, usage[process.pid][1]))
            time.sleep(PERIOD)
    finally:
        if process.poll() is None:  # Ctrl-C
            process.terminate()
            process.wait()
    seconds = time.perf_counter() - began
    if process.returncode:
        raise RuntimeError(f"molcmim embed {path.name}: exit code {process.returncode}")
    workers = sorted((peak for pid, peak in peaks.items() if pid != process.pid), reverse=True)
    parent = peaks.get(process.pid, 0)
    every = max(1, len(course) // POINTS)
    return {
        "seconds": round(seconds, 2),
        "parent_mib": mib(parent),
        "worker_mib": mib(max(workers, default=0)),
        "workers_seen": len(workers),
        # not the largest sum of Pss: a short run is looked at less often, so its peak is missed more easily
        "together_mib": mib(parent + sum(workers[:at_once])),
        "course": [[round(at, 1), mib(total), mib(own)] for at, total, own in course[::every]],
    }


def memory_of(pid: int) -> Usage:
    """VmHWM and Pss of a process and its descendants, those that can be seen."""
    found: Usage = {}
    for each in [pid, *descendants(pid)]:
        peak = peak_kib(each)
        if peak:
            found[each] = (peak, pss_kib(each))
    return found


def descendants(pid: int) -> Iterator[int]:
    """Process ids of the children of a process, their children and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parent = int((entry / "stat").read_text(errors="replace").rsplit(")", 1)[1].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        waiting += below
        yield from below


def pss_kib(pid: int) -> int:
    """Resident KiB of a process, pages that it shares counted in part."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return 0
