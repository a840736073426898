"""Rates from SMILES text to Parquet on disk, on one core and on two: where the time goes, and how large the files are.

    python benchmarks/scoring/rates.py --molecules MOLECULES

Each measurement is a process of its own that is limited to so many cores (affinity, OMP_NUM_THREADS) and does
what `molcmim embed FILE -o FOLDER` does, into a fresh folder. Variants take turns. A rate is rows by the seconds from
when the workers are started until the last shard is on disk; what comes before (imports, the model, the plan) is
reported separately. Stopped and started again it goes on. Writes results/rates.json.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from study import Study, child, options, read_molecules

KINDS = ("latent", "informative", "both")
COMPUTE = ("float32", "bfloat16")
CORES = (1, 2)
POLICIES = ("canonical", "parent", "none")
DTYPES = ("float32", "float16", "int8")
#: where the number of worker processes is varied: the heaviest use of the model (first precision), the lightest (last)
WORKERS_OF = ("both", "latent")
WORKERS = {1: (0, 1), 2: (0, 1, 2)}
SIZE_ROWS = 8192  #: for bytes a row; one row group
Variant = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=20_000, help="different molecules")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument(
        "--compute",
        nargs="+",
        choices=COMPUTE,
        default=list(COMPUTE),
        help="precisions; bfloat16 is slow on a CPU without instructions for it (avx512_bf16, amx_bf16)",
    )
    parser.add_argument("--cores", type=int, nargs="+", default=list(CORES))
    given = parser.parse_args(arguments)
    settings = {"rows": given.rows, "seed": given.seed}
    study = Study(given, "rates", settings)
    smiles = read_molecules(given.molecules, given.rows, given.seed)
    path, few = given.work / "rates.smi", given.work / "rates_few.smi"
    path.write_text("\n".join(smiles) + "\n", encoding="ascii")
    few.write_text("\n".join(smiles[:SIZE_ROWS]) + "\n", encoding="ascii")
    variants = list_variants(given.cores, given.compute)
    policies = list(product(POLICIES, given.cores))
    for turn in range(given.turns):
        for variant in variants:
            found = study.measure(f"{name_of(variant)}, turn {turn}", partial(run, given, variant, path))
            print(f"{name_of(variant)}: {found['rows'] / found['seconds']:.0f} rows/s", flush=True)
        for policy, cores in policies:
            spec = {"what": "chemistry", "input": str(path), "workers": cores, "policy": policy}
            key = f"chemistry {policy}, {cores} cores, turn {turn}"
            found = study.measure(key, partial(child, "measure.py", spec, cores))
            print(f"{key}: {found['rows'] / found['seconds']:.0f} rows/s", flush=True)
    sizes = []
    for kind, dtype in product(KINDS, DTYPES):
        variant = {"kind": kind, "compute": "float32", "cores": max(given.cores), "workers": None, "dtype": dtype}
        found = study.measure(f"size {kind} {dtype}", partial(run, given, variant, few))
        sizes.append({"kind": kind, "dtype": dtype, "rows": found["rows"], "bytes_per_row": found["bytes_per_row"]})
    measured = study.measured
    results = {
        **settings,
        "turns": given.turns,
        "variants": [
            variant | summary([measured[f"{name_of(variant)}, turn {turn}"] for turn in range(given.turns)])
            for variant in variants
        ],
        "two_cores": two_cores(measured, variants, given.turns),
        "chemistry": [
            {"policy": policy, "cores": cores}
            | rates([measured[f"chemistry {policy}, {cores} cores, turn {turn}"] for turn in range(given.turns)])
            for policy, cores in policies
        ],
        "sizes": sizes,
    }
    study.write(results)


def list_variants(cores: Sequence[int], compute: Sequence[str] = COMPUTE) -> list[Variant]:
    """All that is timed. `workers` None is what a user gets who says nothing: one a core."""
    main = [
        {"kind": kind, "compute": each, "cores": n, "workers": None} for kind, each, n in product(KINDS, compute, cores)
    ]
    varied = [
        {"kind": kind, "compute": each, "cores": n, "workers": workers}
        for (kind, each), n in product(zip(WORKERS_OF, (compute[0], compute[-1]), strict=False), cores)
        for workers in WORKERS.get(n, (0, 1, n))
        if workers != n  # that is the default
    ]
    return main + varied


def name_of(variant: Mapping[str, Any]) -> str:
    workers = "" if variant["workers"] is None else f", {variant['workers']} workers"
    return f"{variant['kind']}, {variant['compute']}, {variant['cores']} cores{workers}"


def run(given: argparse.Namespace, variant: Variant, path: Path) -> dict[str, Any]:
    """One measurement, in a fresh folder that is removed again."""
    folder = given.work / "rates"
    shutil.rmtree(folder, ignore_errors=True)
    spec = {"what": "embed", "model": given.model, "input": str(path), "folder": str(folder), "dtype": "float32"}
    try:
        return child("measure.py", spec | variant, variant["cores"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def rates(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Median rate over the turns, and all of them; in rows a second."""
    each = [turn["rows"] / turn["seconds"] for turn in turns]
    return {"rate": round(median(each), 1), "all": [round(rate, 1) for rate in each]}


def summary(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Rate, start-up and shares of a variant: medians over its turns.

    Shares of `wall`: of the seconds of the run; the three overlap (writing goes on beside the model), and what is left
    is waiting for the writer and making files durable. Shares of `cpu`: of the CPU seconds of all processes and
    threads; they add up to 1. `busy`: CPU seconds by those the cores had.
    """

    def middle(value: Any) -> float:
        return round(median(value(turn) for turn in turns), 4)

    stages = ("waiting", "model", "writing")
    return {
        **rates(turns),
        "startup_seconds": middle(lambda turn: turn["total_seconds"] - turn["seconds"]),
        "embedded": turns[0]["embedded"],
        "wall": {name: middle(lambda turn, name=name: turn[f"{name}_seconds"] / turn["seconds"]) for name in stages},
        "cpu": {
            name: middle(lambda turn, name=name: turn["cpu"][name] / sum(turn["cpu"].values()))
            for name in turns[0]["cpu"]
        },
        "cpu_seconds": middle(lambda turn: sum(turn["cpu"].values())),
        "seconds": middle(lambda turn: turn["seconds"]),
        "bytes_per_row": turns[0]["bytes_per_row"],
    }


def two_cores(measured: Mapping[str, Any], variants: Sequence[Variant], turns: int) -> list[dict[str, Any]]:
    """Rate on two cores by that on one, of each kind and precision: median of the ratios of each turn."""
    found = []
    for variant in variants:
        if variant["cores"] != 2 or variant["workers"] is not None or variant | {"cores": 1} not in variants:
            continue
        pairs = [
            [measured[f"{name_of(variant | {'cores': cores})}, turn {turn}"] for cores in (1, 2)]
            for turn in range(turns)
        ]
        ratios = [one["seconds"] / two["seconds"] for one, two in pairs]
        found.append({"kind": variant["kind"], "compute": variant["compute"], "ratio": round(median(ratios), 3)})
    return found


if __name__ == "__main__":
    main()
