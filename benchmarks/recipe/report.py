"""Tables of the recipe study, and a figure, from results/*.json.

python benchmarks/recipe/report.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
BASE = "base"
NOT_YET = "No results yet: see README.md for the command that makes them.\n"

Result = dict[str, Any]


def read(folder: Path) -> dict[int, list[Result]]:
    """Results by round."""
    rounds: dict[int, list[Result]] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        rounds.setdefault(result["round"], []).append(result)
    return dict(sorted(rounds.items()))


def merged(results: Sequence[Result]) -> list[Result]:
    """One row a variant: means over its seeds that came out, best first; those with none come last."""
    rows = []
    for name in dict.fromkeys(result["variant"] for result in results):
        runs = [result for result in results if result["variant"] == name]
        good = [run for run in runs if run["status"] == "ok"]
        row: Result = {"variant": name, "group": runs[0]["group"], "runs": len(runs), "failed": len(runs) - len(good)}
        row["why"] = "; ".join(sorted({f"{r['status']} in {r['stage']}" for r in runs if r["status"] != "ok"}))
        if good:
            row |= means(good)
        rows.append(row)
    return sorted(rows, key=lambda row: -row.get("yardstick", -np.inf))


def means(runs: Sequence[Result]) -> Result:
    """Mean of every number of a table over the seeds of a variant."""
    keys = ("token_accuracy", "exact_reconstruction", "molecules", "steps", "molecules_per_cpu_second")
    row: Result = {key: float(np.mean([run[key] for run in runs])) for key in keys}
    row["nats"] = float(np.mean([run["yardstick"]["nats"] for run in runs]))  # of the same molecules for all
    row["seeds"] = [run["yardstick"]["summary"] for run in runs]
    row["yardstick"] = float(np.mean(row["seeds"]))
    row["parameters"] = runs[0]["parameters"]
    for kind in ("latent", "informative", "both"):
        row[kind] = float(np.mean([run["yardstick"]["summary_by_kind"].get(kind, np.nan) for run in runs]))
    for key in ("jump", "self_retrieval"):
        values = [run["yardstick"]["text_jump"].get("both", {}).get(key, np.nan) for run in runs]
        row[key] = float(np.mean(values))
    names = runs[0]["yardstick"]["standardised"]
    row["sets"] = {
        name: float(np.mean([run["yardstick"]["standardised"][name].get("both", np.nan) for run in runs]))
        for name in names
    }
    return row


def spread(rows: Sequence[Result]) -> tuple[float, int]:
    """Standard deviation of the yardstick between seeds, pooled over variants, and its degrees of freedom."""
    several = [np.asarray(row["seeds"]) for row in rows if len(row.get("seeds", ())) > 1]
    freedom = sum(len(values) - 1 for values in several)
    total = sum(float(((values - values.mean()) ** 2).sum()) for values in several)
    return (float(np.sqrt(total / freedom)) if freedom else float("nan")), freedom


def table(rows: Sequence[Result]) -> list[str]:
    """Markdown lines, best first."""
    base = next((row.get("yardstick") for row in rows if row["variant"] == BASE), None)
    lines = [
        "| variant | group | yardstick | to base | latent | informative | both | nats | tokens right | exact | passes "
        "| molecules / CPU s | M parameters | jump | self-retrieval |",
        "|---|---|" + "---:|" * 13,
    ]
    for row in rows:
        if "yardstick" not in row:
            lines.append(f"| {row['variant']} | {row['group']} | {row['why']} |" + " |" * 12)
            continue
        note = f" ({len(row['seeds'])} seeds)" if len(row["seeds"]) > 1 else ""
        note += f" ({row['failed']} {row['why']})" if row["failed"] else ""
        to_base = "" if base is None else f"{row['yardstick'] - base:+.3f}"
        lines.append(
            f"| {row['variant']}{note} | {row['group']} | {row['yardstick']:.3f} | {to_base} | {row['latent']:.3f} "
            f"| {row['informative']:.3f} | {row['both']:.3f} | {row['nats']:.2f} | {100 * row['token_accuracy']:.1f} % "
            f"| {100 * row['exact_reconstruction']:.1f} % | {row['molecules'] / 1000:.0f} k "
            f"| {row['molecules_per_cpu_second']:.0f} | {row['parameters'] / 1e6:.2f} | {row['jump']:.3f} "
            f"| {row['self_retrieval']:.3f} |"
        )
    return lines


def set_table(rows: Sequence[Result]) -> list[str]:
    """Standardised score of `both` on each set."""
    good = [row for row in rows if "sets" in row]
    if not good:
        return []
    names = list(good[0]["sets"])
    lines = ["| variant | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    lines += [
        f"| {row['variant']} | " + " | ".join(f"{row['sets'][name]:.3f}" for name in names) + " |" for row in good
    ]
    return lines


def conditions(results: Sequence[Result]) -> str:
    """Where and from which code the runs came."""
    commits = sorted({(r["commit"] or "?")[:7] + (" (modified)" if r["modified"] else "") for r in results})
    machines = sorted(
        {f"{r['machine']['cpu']}, {r['machine']['cores']} cores, torch {r['machine']['torch']}" for r in results}
    )
    return f"Commit {', '.join(commits)}; {'; '.join(machines)}."


def figure(rounds: dict[int, list[Result]], path: Path) -> bool:
    """Yardstick against nats, one panel a round; False without matplotlib."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn, axes = plt.subplots(1, len(rounds), figsize=(5.5 * len(rounds), 4.5), squeeze=False)
    for axis, (number, results) in zip(axes[0], rounds.items(), strict=True):
        rows = [row for row in merged(results) if "yardstick" in row]
        for group in dict.fromkeys(row["group"] for row in rows):
            mine = [row for row in rows if row["group"] == group]
            marker = "*" if group == BASE else "o"
            axis.scatter([r["nats"] for r in mine], [r["yardstick"] for r in mine], label=group, marker=marker, s=40)
        for row in rows:
            axis.annotate(
                row["variant"], (row["nats"], row["yardstick"]), fontsize=6, xytext=(3, 3), textcoords="offset points"
            )
        axis.margins(x=0.2)
        axis.set_xlabel("reconstruction, nats a molecule (z = mu)")
        axis.set_ylabel("yardstick: 0 = counts, 1 = RDKit descriptors")
        axis.set_title(f"round {number}: {results[0]['limit']['max_flops'] / 1e12:g} TFLOP")
        axis.legend(fontsize=6)
    drawn.tight_layout()
    drawn.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(drawn)
    return True


def text(rounds: dict[int, list[Result]], with_figure: bool) -> str:
    """The whole of results.md."""
    lines = ["# Recipe study: results", ""]
    if not rounds:
        return "\n".join([*lines, NOT_YET])
    for number, results in rounds.items():
        rows = merged(results)
        deviation, freedom = spread(rows)
        lines += [f"## Round {number}: {results[0]['limit']['max_flops'] / 1e12:g} TFLOP a run", ""]
        if freedom:
            lines += [
                f"Standard deviation between seeds: {deviation:.3f} ({freedom} degrees of freedom); by chance two "
                f"single runs differ by more than {2 * np.sqrt(2) * deviation:.3f} in about one case of twenty.",
                "",
            ]
        lines += [
            *table(rows),
            "",
            "`both` on each set, standardised:",
            "",
            *set_table(rows),
            "",
            conditions(results),
            "",
        ]
    if with_figure:
        lines += ["![yardstick against reconstruction, one panel a round](results.png)", ""]
    return "\n".join(lines)


def main() -> None:
    rounds = read(HERE / "results")
    drawn = bool(rounds) and figure(rounds, HERE / "results.png")
    (HERE / "results.md").write_text(text(rounds, drawn), encoding="utf-8")


if __name__ == "__main__":
    main()
