"""The plan of a run over 1,000,000,000 rows: how long does it take, how much memory, how large is it?

    python benchmarks/scoring/plan.py

Makes a file of that many rows ("CCO", 4 GB), plans a run over it as `molcmim embed` does before its first shard (one
pass that counts, hashes and cuts), and deletes it. Writes results/plan.json.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from study import Study, child, options

LINE = b"CCO\n"
BLOCK_ROWS = 1 << 18
SPARE_BYTES = 1 << 30  #: that must stay free on the disk


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__, molecules=False)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 1_000_000_000])
    parser.add_argument("--shard-rows", type=int, default=1_000_000)
    given = parser.parse_args(arguments)
    study = Study(given, "plan", {"shard_rows": given.shard_rows, "line": LINE.decode()})
    plans = []
    for n in given.rows:
        path, few = given.work / "plan.smi", given.work / "plan_few.smi"

        def make(n: int = n, path: Path = path, few: Path = few) -> dict[str, object]:
            few.write_bytes(LINE * 1000)
            try:
                write_lines(path, n)
                spec = {"what": "plan", "model": given.model, "input": str(path), "few": str(few)}
                return child("measure.py", spec | {"shard_rows": given.shard_rows})
            finally:
                path.unlink(missing_ok=True)
                few.unlink()

        plans.append(study.measure(f"{n}", make))
        print(f"{n:,} rows: {plans[-1]['seconds']} s, {plans[-1]['peak_mib']} MiB at most", flush=True)
    study.write({"shard_rows": given.shard_rows, "line": LINE.decode().strip(), "plans": plans})


def write_lines(path: Path, n: int) -> None:
    """A file of `n` equal rows.

    Raises
    ------
    OSError
        If the disk hasn't the room for it.
    """
    free = shutil.disk_usage(path.parent).free
    if free < n * len(LINE) + SPARE_BYTES:
        raise OSError(f"{path.parent}: expected {n * len(LINE) + SPARE_BYTES:,} bytes free, got {free:,}")
    block = LINE * BLOCK_ROWS
    with path.open("wb") as file:
        for _ in range(n // BLOCK_ROWS):
            file.write(block)
        file.write(LINE * (n % BLOCK_ROWS))


if __name__ == "__main__":
    main()
