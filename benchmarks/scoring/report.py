"""Tables from the results of this folder.

    python benchmarks/scoring/report.py [--price 0.04]

Writes results.md; sections whose results are missing are left out.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from typing import Any

from study import HERE, RESULTS

PRICE = 0.04  #: USD for an hour of a core: an assumption, not a quotation
BILLION = 1_000_000_000
TOLERANCE = 0.10  #: what was asked: memory within 10 % from 10^5 to 10^6 rows, throughput within 10 % with hostile rows
STAGES = {"chemistry": "chemistry", "model": "model, tokens, reading", "writing": "writing"}
Results = dict[str, Any]


def load(name: str) -> Results:
    result: Results = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def table(heading: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def made(result: Results) -> str:
    """How a result was made."""
    about = result["about"]
    machine = about["machine"]
    commits = ", ".join(commit[:7] for commit in about["commits"])
    return (
        f"`{about['command']}`, commit {commits}{' (modified)' if about['modified'] else ''}, {about['model']} "
        f"({about['model_id']}), {machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}, "
        f"rdkit {machine['rdkit']}, pyarrow {machine['pyarrow']}, {about['cpu_minutes']:.0f} min of CPU, "
        f"{about['date'][:10]}"
    )


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def passed(good: bool) -> str:
    return "yes" if good else "**no**"


# ------------------------------------------------------------------------------------------------ rates


def cost(rate: float, cores: int, price: float) -> tuple[float, float]:
    """Core-hours for a billion molecules at a rate (molecules a second) on so many cores, and their price."""
    hours = BILLION / rate / 3600 * cores
    return hours, hours * price


def rates_section(found: Results, price: float) -> str:
    main = [each for each in found["variants"] if each["workers"] is None]
    return f"""## Rates: SMILES text to Parquet on disk

{found["rows"]:,} different molecules, float32 vectors, medians of {found["turns"]} turns.

{rate_table(main)}

{ratio_text(found["two_cores"])}Start-up (imports, model, plan) is not in the rate: {startup_text(main)}.

### Where the time goes

{share_table(main)}

Shares of the CPU seconds of all processes and threads; they add up to 100 %. "busy" is CPU time by what the cores had.
Shares of the wall time overlap, since writing has a thread of its own: the rest is waiting for that thread and
making files durable.

### Number of worker processes

{worker_table(found["variants"])}

### Chemistry alone

{chemistry_table(found["chemistry"])}

One worker a core, nothing behind it. Policy `none` parses nothing: its rate is that of the checks.

### Bytes a row on disk

{size_table(found["sizes"])}

With id, SMILES as given, canonical SMILES and status; zstd level 1; computed in float32.

### A billion molecules

{cost_table(main, price)}

Extrapolated from the rates above, by these assumptions: {price:g} USD for an hour of a core (no quotation: put in your
own with `report.py --price`); molecules like these, all different; as many such machines as it takes, each at the same
rate; a disk that keeps up with them; no start-up, no failures.

{made(found)}
"""


def label(variant: Results) -> str:
    return f"{variant['kind']}, {variant['compute']}"


def rate_table(main: Sequence[Results]) -> str:
    rows = [
        [label(each), each["cores"], f"{each['rate']:,.0f}", " ".join(f"{rate:.0f}" for rate in each["all"])]
        for each in main
    ]
    return table(["vectors, matrix products", "cores", "molecules/s", "each turn"], rows)


def ratio_text(pairs: Sequence[Results]) -> str:
    listed = "; ".join(f"{label(pair)}: {pair['ratio']:.2f}" for pair in pairs)
    return f"Two cores by one (median over turns): {listed}. " if listed else ""


def startup_text(main: Sequence[Results]) -> str:
    seconds = [each["startup_seconds"] for each in main]
    return f"{min(seconds):.1f} to {max(seconds):.1f} s"


def share_table(main: Sequence[Results]) -> str:
    rows = [
        [
            label(each),
            each["cores"],
            *(percent(each["cpu"][stage]) for stage in STAGES),
            percent(each["cpu_seconds"] / (each["seconds"] * each["cores"])),
            *(percent(each["wall"][stage]) for stage in ("waiting", "model", "writing")),
        ]
        for each in main
    ]
    wall = ["wall: waiting for rows %", "wall: model %", "wall: writing %"]
    cpu = [f"CPU: {name} %" for name in STAGES.values()]
    return table(["vectors, matrix products", "cores", *cpu, "busy %", *wall], rows)


def worker_table(variants: Sequence[Results]) -> str:
    varied = {(label(each), each["cores"]) for each in variants if each["workers"] is not None}
    rows = [
        [
            label(each),
            each["cores"],
            f"{each['cores']} (default)" if each["workers"] is None else each["workers"],
            f"{each['rate']:,.0f}",
        ]
        for each in variants
        if (label(each), each["cores"]) in varied
    ]
    rows.sort(key=lambda row: (row[0], row[1], str(row[2])))
    return table(["vectors, matrix products", "cores", "workers", "molecules/s"], rows) + (
        "\n\nWith 0 workers chemistry is done in the process of the model, where a crash takes the job along."
    )


def chemistry_table(measured: Sequence[Results]) -> str:
    rows = [[each["policy"], each["cores"], f"{each['rate']:,.0f}"] for each in measured]
    return table(["policy", "cores", "molecules/s"], rows)


def size_table(sizes: Sequence[Results]) -> str:
    dtypes = list(dict.fromkeys(each["dtype"] for each in sizes))
    found = {(each["kind"], each["dtype"]): each["bytes_per_row"] for each in sizes}
    kinds = list(dict.fromkeys(each["kind"] for each in sizes))
    rows = [[kind, *(f"{found[kind, dtype]:,.0f}" for dtype in dtypes)] for kind in kinds]
    return table(["vectors", *dtypes], rows)


def cost_table(main: Sequence[Results], price: float) -> str:
    rows = []
    for each in main:
        hours, money = cost(each["rate"], each["cores"], price)
        size = each["bytes_per_row"] * BILLION / 1e12
        rows.append([label(each), each["cores"], f"{hours:,.0f}", f"{money:,.0f}", f"{size:.2f}"])
    return table(["vectors, matrix products", "cores a machine", "core-hours", "USD", "TB on disk (float32)"], rows)


# ------------------------------------------------------------------------------------------------ memory


def memory_section(found: Results) -> str:
    few, many = found["rows"]
    rows = []
    for run in found["runs"]:
        for part, name in (("parent_mib", "parent"), ("worker_mib", "largest worker"), ("together_mib", "together")):
            ratio = run["ratio"][part]
            rows.append(
                [
                    f".{run['format']}, shards of {run['shard_rows']:,}",
                    name,
                    f"{run['few'][part]:,.0f}",
                    f"{run['many'][part]:,.0f}",
                    "-" if ratio is None else f"{ratio:.3f}",
                    "-" if ratio is None else passed(ratio <= 1 + TOLERANCE),
                ]
            )
    heading = ["input", "process", f"{few:,} rows, MiB", f"{many:,} rows, MiB", "ratio", "within 10 %"]
    return f"""## Peak memory of `molcmim embed`: {found["about"]["model"]}

{table(heading, rows)}

`--kind {found["kind"]} --compute {found["compute"]}`, different molecules. Parent and worker: largest resident size
(VmHWM, which counts shared pages in full); together: the sum of these peaks over the parent and as many workers as ran
at once, which is more than they held at any one moment.

### Reading Parquet alone

{reading_table(found["reading"])}

All rows in one row group. "Arrow's own" is the most that Arrow had allocated at once: that is flat, but its default
allocator (mimalloc) gives pages that were freed back late, so the process grows once by some MiB. `molcmim embed` has
it use `system`, unless the variable ARROW_DEFAULT_MEMORY_POOL says otherwise.

{made(found)}
"""


def reading_table(measured: Sequence[Results]) -> str:
    rows = [
        [each["allocator"], f"{each['rows']:,}", f"{each['peak_mib']:.0f}", f"{each['arrow_mib']:.1f}"]
        for each in measured
    ]
    return table(["allocator of Arrow", "rows", "process, MiB", "Arrow's own, MiB"], rows)


# ------------------------------------------------------------------------------------------------ number formats


def formats_section(found: Results) -> str:
    rows = [
        [
            f"{each['kind']}, {each['width']}",
            each["dtype"],
            f"{each['largest_error']:.1e}",
            f"{each['median_error']:.1e}",
            f"{each['largest_change']:.5f}",
            percent(each["neighbours_kept"]),
        ]
        for each in found["formats"]
    ]
    errors = ["1 - cosine, largest", "median", "largest change between two"]
    heading = ["vectors, width", "format", *errors, f"{found['neighbours']} nearest kept, %"]
    return f"""## Number formats

{table(heading, rows)}

Of {found["rows"]:,} different molecules, beside float32. Cosine: of a vector with its rounded form; largest change: of
the cosine between any two molecules; nearest kept: mean share of a molecule's nearest others, by cosine, that stay.

{made(found)}
"""


# ------------------------------------------------------------------------------------------------ hostile rows


def hostile_section(found: Results) -> str:
    rates, ratio = found["rates"], found["ratio"]
    names = {"without_timeouts": "with hostile rows", "with_timeouts": "and rows that hang"}
    checks = {name: found[name]["check"] for name in names}
    runs = [
        [
            "clean rows alone",
            f"{found['rows']:,}",
            "-",
            f"{found['clean']['seconds']:,.0f}",
            f"{rates['clean']:,.0f}",
            "1",
        ]
    ]
    runs += [
        [
            text,
            f"{checks[name]['rows_out']:,}",
            checks[name]["wrong"],
            f"{found[name]['seconds']:,.0f}",
            f"{rates[name]:,.0f}",
            f"{ratio[name]:.3f}",
        ]
        for name, text in names.items()
    ]
    last = checks["with_timeouts"]
    statuses = sorted({*last["expected"], *last["statuses"]})
    counts = [[name, f"{last['expected'].get(name, 0):,}", f"{last['statuses'].get(name, 0):,}"] for name in statuses]
    heading = ["run", "rows", "rows wrong or lost", "seconds", "rows/s", "by clean"]
    return f"""## {found["hostile"]:,} hostile rows among {found["rows"]:,} clean ones: {found["about"]["model"]}

{table(heading, runs)}

Throughput outside the time-outs within 10 % of the clean file's: {passed(ratio["without_timeouts"] >= 1 - TOLERANCE)}.

Right means: every row in its place under its id; hostile ones with the status that they must have and their text as
given; clean ones with the status and canonical SMILES of the clean run; a vector where and only where the status is
`ok`. Vectors of clean rows differ by at most {last["largest_difference"]:.2g} from those of the clean run, in which
they stand in other batches (cosine at least {last["least_cosine"]:.5f}; {found["compute"]}).

{table(["status", "hostile rows that must have it", "rows that have it, clean ones too"], counts)}

A hostile row that is a molecule (`ok`) may be `unknown_token` or `too_many_tokens` to the model.

{timeout_text(found)}

{memory_text(found["clean"], found["with_timeouts"])}

{made(found)}
"""


def timeout_text(found: Results) -> str:
    """What rows that hang cost, calculated and measured."""
    timeout = found["timeout"]
    search, limit, seconds = timeout["search_seconds"], timeout["limit_seconds"], timeout["measured_seconds"]
    share = seconds / found["with_timeouts"]["seconds"]
    return (
        f"Time-outs: {timeout['rows']} rows hang. Each costs a worker {search:g} s until the pool looks for it, and "
        f"{limit:g} s more until it is given up. Divided by {timeout['workers']} workers that makes\n"
        f"{timeout['calculated_seconds']:g} s, or {timeout['rows'] * (search + limit):g} s where all wait meanwhile, "
        f"since rows keep their order. Measured, as the difference of the two runs: {seconds:g} s,\n"
        f"{percent(share)} % of the run."
    )


def memory_text(clean: Results, hostile: Results) -> str:
    """Memory beside that of the clean run."""
    return (
        f"Memory: parent {clean['parent_mib']:,.0f} MiB with the clean rows alone, {hostile['parent_mib']:,.0f} MiB "
        f"with all; largest worker {clean['worker_mib']:,.0f} and {hostile['worker_mib']:,.0f} MiB;\n"
        f"{hostile['workers_seen']} workers were seen, since each that died or hung was replaced."
    )


# ------------------------------------------------------------------------------------------------ plan


def plan_section(found: Results) -> str:
    rows = [
        [
            f"{each['rows']:,}",
            f"{each['bytes'] / 1e9:.3g}",
            f"{each['seconds']:,.1f}",
            f"{each['rows'] / max(each['seconds'], 1e-9) / 1e6:.1f}",
            f"{each['shards']:,}",
            f"{each['manifest_bytes'] / 1e3:,.1f}",
            f"{each['before_mib']:,.0f}",
            f"{each['peak_mib']:,.0f}",
        ]
        for each in found["plans"]
    ]
    heading = ["rows", "GB", "seconds", "million rows/s", "shards", "manifest, kB", "MiB before", "MiB at most"]
    return f"""## Planning a billion rows

{table(heading, rows)}

A .smi file of `{found["line"]}`, shards of {found["shard_rows"]:,} rows. The plan is one pass that counts, hashes and
cuts; "before" has the model loaded.

{made(found)}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--price", type=float, default=PRICE, help="USD for an hour of a core")
    price = parser.parse_args(arguments).price
    makers: dict[str, Callable[[Results], str]] = {
        "rates": lambda found: rates_section(found, price),
        "number_formats": formats_section,
        "memory": memory_section,
        "hostile_rows_*": hostile_section,
        "plan": plan_section,
    }
    sections = [
        make(load(path.stem)) for pattern, make in makers.items() for path in sorted(RESULTS.glob(f"{pattern}.json"))
    ]
    text = "# Batch scoring: results\n\nMade by report.py from results/*.json.\n\n"
    (HERE / "results.md").write_text(text + "\n".join(sections or ["Nothing has been measured yet.\n"]), "utf-8")


if __name__ == "__main__":
    main()
