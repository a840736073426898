"""Peak memory of `molcmim embed` and of its workers, for 100,000 and for 1,000,000 rows: is it flat?

    python benchmarks/scoring/memory.py --molecules MOLECULES

Every 0.2 s it reads from /proc the largest resident size so far (VmHWM) of the command and of each worker; for the
course of a run, the Pss of all together as well. Shards of 100,000 rows; --one-shard: of 1,000,000 as well, from
.smi. Last, the Parquet files are read alone, under two of Arrow's allocators. Stopped and started again it goes on with
the next run. Writes results/memory.json.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from job import KIND, PERIOD, SHARD_ROWS, add_compute, clean_run, write_input
from study import Study, child, options, read_molecules

FORMATS = ("parquet", "smi")
ROWS = (100_000, 1_000_000)
POOLS = ("mimalloc", "system")  #: allocators of Arrow; the first is its default
PARTS = ("parent_mib", "worker_mib", "together_mib")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    add_compute(parser)
    parser.add_argument("--rows", type=int, nargs=2, default=list(ROWS), metavar=("FEW", "MANY"))
    parser.add_argument("--formats", nargs="+", choices=("parquet", "smi", "smi.gz"), default=list(FORMATS))
    parser.add_argument("--one-shard", action="store_true", help="the larger .smi also as a single shard")
    given = parser.parse_args(arguments)
    few, many = given.rows
    smiles = read_molecules(given.molecules, many, given.seed)
    # hostile_rows.py looks for its clean run among these measurements, so nothing more may be in the settings
    study = Study(given, "memory", run_settings(given, many), kept="runs")
    cases = [(ending, SHARD_ROWS) for ending in given.formats] + [("smi", many)] * given.one_shard
    results = []
    for ending, shard_rows in cases:
        small, large = (clean_run(study, smiles[:n], ending, shard_rows) for n in (few, many))
        results.append({"format": ending, "shard_rows": shard_rows, "few": small, "many": large, **grown(small, large)})
        print(f"{ending}, shards of {shard_rows:,}: " + ", ".join(f"{p} ×{results[-1]['ratio'][p]}" for p in PARTS))
    facts = {"kind": KIND, "compute": given.compute, "seed": given.seed, "rows": given.rows, "period_seconds": PERIOD}
    study.write({**facts, "runs": results, "reading": reading(study, smiles, given.rows)})


def reading(study: Study, smiles: Sequence[str], rows: Sequence[int]) -> list[dict[str, Any]]:
    """Peak memory of reading Parquet files of so many rows, without anything behind it, by allocator."""
    path = study.given.work / "read.parquet"
    found = []
    for n in rows:
        write_input(path, smiles[:n])
        for pool in POOLS:
            spec, variables = {"what": "read", "input": str(path)}, {"ARROW_DEFAULT_MEMORY_POOL": pool}
            found.append(study.measure(f"read {n} {pool}", partial(child, "measure.py", spec, None, variables)))
        path.unlink()
    return found


def run_settings(given: argparse.Namespace, n: int) -> dict[str, Any]:
    """What the runs that are shared with hostile_rows.py depend on; `n`: of how many molecules a sample was drawn."""
    return {"kind": KIND, "compute": given.compute, "seed": given.seed, "sample": n}


def grown(small: dict[str, Any], large: dict[str, Any]) -> dict[str, Any]:
    """Peaks of the larger run by those of the smaller."""
    return {"ratio": {part: round(large[part] / small[part], 3) if small[part] else None for part in PARTS}}


if __name__ == "__main__":
    main()
