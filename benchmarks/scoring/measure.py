"""One measurement of rates.py, in a process of its own; prints a JSON object.

python benchmarks/scoring/measure.py '{"what": "embed", "cores": 1, ...}'
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from study import cpu_seconds, mib, peak_kib, use_cores


def embed(spec: dict[str, Any]) -> dict[str, Any]:
    """What `molcmim embed INPUT -o FOLDER` does, and how long each part took; FOLDER must not be there."""
    import torch

    from molcmim import MolCMIM
    from molcmim.scoring.manifest import JobOptions, open_job
    from molcmim.scoring.run import run_shards
    from molcmim.scoring.source import open_source

    if spec["cores"] is not None:
        torch.set_num_threads(spec["cores"])
    model = MolCMIM.from_pretrained(spec["model"], device="cpu", dtype=spec["compute"])
    folder = Path(spec["folder"])
    writing = count_writing()
    with open_source(spec["input"]) as source:
        manifest = open_job(folder, model, source, JobOptions(kind=spec["kind"], dtype=spec["dtype"]))
        before, mine = cpu_seconds(), time.process_time()
        summary = run_shards(model, source, manifest, folder, workers=spec["workers"])
        total, mine = cpu_seconds() - before, time.process_time() - mine
    sizes = [path.stat().st_size for path in folder.glob("part-*.parquet")]
    return {
        "rows": summary.n_new_rows,
        "embedded": summary.n_embedded,
        "statuses": dict(summary.statuses),
        "seconds": round(summary.seconds, 3),
        **{f"{name}_seconds": round(value, 3) for name, value in summary.times._asdict().items()},
        "cpu": {  # seconds
            "chemistry": round(total - mine, 2),
            "writing": round(writing(), 2),
            "model": round(mine - writing(), 2),  # and tokens, and reading
        },
        "bytes_per_row": round(sum(sizes) / max(1, summary.n_new_rows), 1),
    }


def count_writing() -> Callable[[], float]:
    """From now on count the CPU seconds of the threads that write shards; the result says how many so far."""
    from molcmim.scoring.shard import WriterThread

    run, spent = WriterThread._run, [0.0]

    def counted(self: WriterThread) -> None:
        run(self)
        spent[0] += time.thread_time()  # of a thread that does nothing else

    WriterThread._run = counted  # type: ignore[method-assign]
    return lambda: spent[0]


def chemistry(spec: dict[str, Any]) -> dict[str, Any]:
    """Rows through the worker processes alone, with nothing behind them."""
    from molcmim.worker_pool import WorkerPool

    rows = Path(spec["input"]).read_text(encoding="ascii").split()
    size = 8192  # as the reader's chunks
    with WorkerPool(spec["workers"], spec["policy"]) as pool:
        pool.map(["C"] * 2000)  # they have started
        began = time.perf_counter()
        n = sum(map(len, pool.imap(rows[i : i + size] for i in range(0, len(rows), size))))
        seconds = time.perf_counter() - began
    return {"rows": n, "seconds": round(seconds, 4)}


def read(spec: dict[str, Any]) -> dict[str, Any]:
    """Read INPUT alone, with nothing behind it: the largest resident size, and Arrow's own part of it."""
    import pyarrow as pa

    from molcmim.scoring.source import open_source

    with open_source(spec["input"]) as source:
        n = sum(len(chunk.smiles) for chunk in source.read())
    pool = pa.default_memory_pool()
    return {
        "rows": n,
        "allocator": pool.backend_name,
        "peak_mib": mib(peak_kib()),
        "arrow_mib": mib((pool.max_memory() or 0) / 1024),
    }


def plan(spec: dict[str, Any]) -> dict[str, Any]:
    """Plan a run over INPUT: seconds, and the largest resident size before and while it is planned."""
    from molcmim import MolCMIM
    from molcmim.scoring.manifest import JobOptions, make_manifest
    from molcmim.scoring.source import open_source

    model = MolCMIM.from_pretrained(spec["model"], device="cpu")
    with open_source(spec["few"]) as source:  # all imports are made, all that is made once is there
        make_manifest(model, source, JobOptions(), 1).to_bytes()
    forget_peak()
    before = peak_kib()
    began, cpu = time.perf_counter(), time.process_time()
    with open_source(spec["input"]) as source:
        manifest = make_manifest(model, source, JobOptions(), spec["shard_rows"])
    text = manifest.to_bytes()
    return {
        "rows": manifest.n_rows,
        "bytes": manifest.files[0].size,
        "shards": len(manifest.shards),
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "manifest_bytes": len(text),
        "before_mib": mib(before),
        "peak_mib": mib(peak_kib()),
    }


def forget_peak() -> None:
    """Let VmHWM begin again with what is resident now, where the system can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    spec = json.loads(sys.argv[1])
    use_cores(spec["cores"])  # before torch and the workers look how many there are
    result = {"embed": embed, "chemistry": chemistry, "read": read, "plan": plan}[spec["what"]](spec)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
