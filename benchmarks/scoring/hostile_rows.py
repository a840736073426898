"""Hostile rows scattered through a million clean ones: is every status right, is nothing lost, what does it cost?

    python benchmarks/scoring/hostile_rows.py --molecules MOLECULES

The rows are those of tests/hostile.py, over and over, with rows among them that crash a worker (three ways), and some
at which one hangs: RDKit has no such SMILES under the cap that we know of, so these are made by MOLCMIM_FAULTS, as in
the tests. The file is Parquet, which can hold every one of them: line breaks, nulls, bytes that aren't UTF-8.

Three runs are compared: the clean rows alone (shared with memory.py), with the hostile ones but no hanging ones, and
with all. Stopped and started again it goes on with the next run.
Writes results/hostile_rows_MODEL.json.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from job import KIND, SHARD_ROWS, add_compute, clean_folder, clean_run, watched
from memory import run_settings
from study import REPOSITORY, Study, options, read_molecules

from molcmim.chem import TIMEOUT_SECONDS, Status, cpu_count

CRASHES = {"[901C]": "segv", "[902C]": "exit", "[903C]": "memory"}  #: SMILES that no file has, and how a worker dies
HANGS = {"[904C]": "hang"}
BEYOND_MODEL = ("unknown_token", "too_many_tokens")  #: what a molecule may be to the model
GROUP_ROWS = 20_000
SEARCH_SECONDS = max(1.0, TIMEOUT_SECONDS / 5)  #: of silence before the pool looks for the row; see molcmim.worker_pool
EXAMPLES = 10


class Row(NamedTuple):
    """A row of shards."""

    id: str
    smiles: str | None
    canonical: str | None
    status: str
    vector: Any  #: (d,), or None


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    add_compute(parser)
    parser.add_argument("--rows", type=int, default=1_000_000, help="clean ones")
    parser.add_argument("--share", type=float, default=0.01, help="hostile rows by clean ones")
    parser.add_argument("--crashes", type=int, default=30, help="of them, rows that crash a worker")
    parser.add_argument("--timeouts", type=int, default=5, help="of them, rows at which one hangs")
    given = parser.parse_args(arguments)
    smiles = read_molecules(given.molecules, given.rows, given.seed)
    shared = Study(given, "memory", run_settings(given, given.rows), kept="runs")
    settings = {"kind": KIND, "compute": given.compute, "seed": given.seed, "rows": given.rows, "share": given.share}
    settings |= {"crashes": given.crashes, "timeouts": given.timeouts}
    study = Study(given, "hostile_rows", settings)
    clean = clean_run(shared, smiles, "parquet")
    rows = scattered(len(smiles), attacks(round(given.share * given.rows), given.crashes, given.timeouts), given.seed)
    path, folder = given.work / "hostile.parquet", given.work / "hostile"
    runs = {}
    for name, faults in (("without_timeouts", CRASHES), ("with_timeouts", CRASHES | HANGS)):

        def make(faults: dict[str, str] = faults) -> dict[str, Any]:
            write_rows(path, smiles, rows)
            try:
                found = watched(given, path, folder, SHARD_ROWS, {"MOLCMIM_FAULTS": json.dumps(faults)})
                return {**found, "check": check(smiles, rows, faults, clean_folder(shared, given.rows), folder)}
            finally:
                path.unlink()
                shutil.rmtree(folder, ignore_errors=True)

        runs[name] = study.measure(name, make)
        print(f"{name}: {runs[name]['seconds']} s, {runs[name]['check']['wrong']} rows wrong", flush=True)
    facts = {**settings, "hostile": len(rows) - len(smiles)}
    results = {**facts, "clean": clean, **runs, **costs(clean, runs, len(rows))}
    study.write(results, also=[clean], name=f"hostile_rows_{study.model['model']}")


def attacks(n: int, crashes: int, timeouts: int) -> list[tuple[bytes | None, str]]:
    """`n` hostile rows with the status that each must have: those of the tests, again and again."""
    sys.path.append(str(REPOSITORY / "tests"))
    from hostile import HOSTILE

    known: list[tuple[bytes | None, str]] = []
    for row, status in HOSTILE:
        if row is None or isinstance(row, str | bytes):  # a file holds no numbers, lists or objects
            data = row.encode("utf-8", errors="surrogatepass") if isinstance(row, str) else row
            known.append((data, status.value))
    faults = [(text.encode(), "crash") for text in CRASHES], [(text.encode(), "timeout") for text in HANGS]
    rows: list[tuple[bytes | None, str]] = []
    for kind, wanted in zip(faults, (crashes, timeouts), strict=True):
        rows += [kind[i % len(kind)] for i in range(wanted)]
    if len(rows) > n:
        raise ValueError(f"--rows, --share: expected at least {len(rows)} hostile rows, got {n}")
    return rows + [known[i % len(known)] for i in range(n - len(rows))]


def scattered(n: int, hostile: list[tuple[bytes | None, str]], seed: int) -> list[int | tuple[bytes | None, str]]:
    """Numbers of the `n` clean rows, in order, and hostile rows at random places between them."""
    choose = random.Random(seed + 1)
    choose.shuffle(hostile)
    at = set(choose.sample(range(n + len(hostile)), len(hostile)))
    clean, bad = iter(range(n)), iter(hostile)
    return [next(bad) if i in at else next(clean) for i in range(n + len(hostile))]


def id_of(number: int, row: int | tuple[bytes | None, str]) -> str:
    """Of a row of the file: m7 is clean row 7, as in the clean file; h9 is hostile, and row 9 of the file."""
    return f"m{row}" if isinstance(row, int) else f"h{number}"


def write_rows(path: Path, smiles: Sequence[str], rows: Sequence[int | tuple[bytes | None, str]]) -> None:
    """All rows as Parquet; texts that aren't UTF-8 as they are, under the type of text, as some programs write them."""
    schema = pa.schema([("id", pa.string()), ("smiles", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, len(rows), GROUP_ROWS):
            some = rows[start : start + GROUP_ROWS]
            texts = pa.array([smiles[row].encode() if isinstance(row, int) else row[0] for row in some], pa.binary())
            ids = pa.array([id_of(start + i, row) for i, row in enumerate(some)])
            writer.write_table(pa.table([ids, texts.view(pa.string())], schema=schema))


def check(
    smiles: Sequence[str],
    rows: Sequence[int | tuple[bytes | None, str]],
    faults: dict[str, str],
    clean: Path,
    folder: Path,
) -> dict[str, Any]:
    """Compare the shards of a run with what went in, and its clean rows with those of the clean run."""
    wrong: list[dict[str, Any]] = []
    expected, got, n = Counter[str](), Counter[str](), Counter[str]()
    distance, cosine = 0.0, 1.0
    others = rows_of(clean)
    for number, row in enumerate(rows_of(folder)):
        n["out"] += 1
        given = rows[number] if number < len(rows) else None
        got[row.status] += 1
        if given is None or row.id != id_of(number, given):
            problem = "lost, or in another place"
        elif isinstance(given, int):
            other = next(others)
            problem = differs(row, other, smiles[given])
            if row.vector is not None and other.vector is not None:
                distance = max(distance, float(np.abs(row.vector - other.vector).max()))
                cosine = min(cosine, alike(row.vector, other.vector))
        else:
            want = wanted(given, faults)
            expected[want] += 1
            fits = row.status == want or (want == "ok" and row.status in BEYOND_MODEL)
            text = None if given[0] is None else given[0].decode("utf-8", "replace")
            problem = "" if fits else f"expected {want}"
            if not problem and (row.smiles or "") != (text or ""):
                problem = "the SMILES isn't the one given"
            if not problem and (row.vector is None) != (row.status != "ok"):
                problem = "a vector, or none"
        if problem:
            n["wrong"] += 1
            if len(wrong) < EXAMPLES:
                wrong.append({"row": number, "id": row.id, "status": row.status, "problem": problem})
    return {
        "rows_in": len(rows),
        "rows_out": n["out"],
        "wrong": n["wrong"] + abs(len(rows) - n["out"]),
        "wrong_rows": wrong,
        "expected": dict(sorted(expected.items())),
        "statuses": dict(sorted(got.items())),
        "largest_difference": distance,
        "least_cosine": round(cosine, 6),
    }


def wanted(row: tuple[bytes | None, str], faults: dict[str, str]) -> str:
    """Status that a hostile row must have in a run with these faults: without its fault it is a molecule."""
    text, status = row
    made = {each.encode() for each in CRASHES | HANGS}
    return Status.ok.value if text in made and (text or b"").decode() not in faults else status


def differs(row: Row, other: Row, smiles: str) -> str:
    """In what a clean row differs from that of the clean run and from its input; "" if in nothing but last digits."""
    if row.id != other.id or row.smiles != smiles:
        return "the SMILES isn't the one given"
    if (row.status, row.canonical) != (other.status, other.canonical):
        return f"in the clean run {other.status} {other.canonical}"
    return "" if (row.vector is None) == (row.status != "ok") else "a vector, or none"


def alike(one: Any, other: Any) -> float:
    """Cosine of two vectors."""
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def rows_of(folder: Path) -> Iterator[Row]:
    """All rows of a folder of shards, in order."""
    columns = ["id", "smiles", "canonical_smiles", "status", "embedding"]
    for path in sorted(folder.glob("part-*.parquet")):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(8192, columns=columns):
                null = batch["embedding"].is_null().to_pylist()
                width = batch["embedding"].type.list_size
                vectors = iter(batch["embedding"].flatten().to_numpy().reshape(-1, width))  # (not null, d)
                texts = [batch[name].to_pylist() for name in columns[:4]]
                for name, smiles, canonical, status, bad in zip(*texts, null, strict=True):
                    yield Row(name, smiles, canonical, status, None if bad else next(vectors))


def costs(clean: dict[str, Any], runs: dict[str, Any], n_rows: int) -> dict[str, Any]:
    """Rates in rows a second, start-up included, and what a hanging row costs."""
    rate = clean["rows"] / clean["seconds"]
    without, all_of_it = (n_rows / runs[name]["seconds"] for name in ("without_timeouts", "with_timeouts"))
    n = runs["with_timeouts"]["check"]["statuses"].get("timeout", 0)
    extra = runs["with_timeouts"]["seconds"] - runs["without_timeouts"]["seconds"]
    return {
        "rates": {"clean": round(rate, 1), "without_timeouts": round(without, 1), "with_timeouts": round(all_of_it, 1)},
        "ratio": {"without_timeouts": round(without / rate, 4), "with_timeouts": round(all_of_it / rate, 4)},
        "timeout": {
            "rows": n,
            "limit_seconds": TIMEOUT_SECONDS,
            "search_seconds": SEARCH_SECONDS,
            "workers": cpu_count(),
            "calculated_seconds": round(n * (TIMEOUT_SECONDS + SEARCH_SECONDS) / cpu_count(), 1),
            "measured_seconds": round(extra, 1),
        },
    }


if __name__ == "__main__":
    main()
