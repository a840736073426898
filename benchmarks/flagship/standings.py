"""Who is ahead on ESOL, FreeSolv, Lipophilicity, BACE and BBBP together: ranks and mean standardised scores.

    python benchmarks/flagship/standings.py RESULTS --ours molcmim-tiny:both           # RESULTS: of molcmim benchmark
    python benchmarks/flagship/standings.py RESULTS MORE --ours molcmim-tiny:both --head svm --out X.json   # and X.md

A set's scores are divided by their standard deviation over the feature sets (each one's mean over splits) and averaged
over the five sets, errors with their sign turned: higher is better. The difference to each other feature set is taken
split by split, with the interval of Nadeau and Bengio for overlapping splits. Splits of different sets are paired by
number only, so the interval describes these five sets, not sets at large.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.beside import written_beside
from molcmim.moleculenet.report import table as markdown_table
from molcmim.moleculenet.report_data import Score, read_scores
from molcmim.moleculenet.statistics import average_ranks, paired
from molcmim.provenance import command_line, git_state, machine, now

SETS = {"esol": "rmse", "freesolv": "rmse", "lipo": "rmse", "bace": "roc_auc", "bbbp": "roc_auc"}
ROOT = Path(__file__).parents[2]


class Table(NamedTuple):
    """Scores of m feature sets, all complete."""

    features: list[str]
    scores: npt.NDArray[np.float64]  #: (5 sets, m, splits), higher is better
    n_train: float  #: mean over sets
    n_test: float


def collect(rows: Sequence[Score], protocol: str, head: str) -> Table:
    """Scores of one protocol and head; feature sets that lack a set or split are left out.

    Raises
    ------
    ValueError
        If there are no results of that protocol and head.
    """
    chosen = [r for r in rows if (r.protocol, r.head) == (protocol, head) and SETS.get(r.dataset) == r.metric]
    if not chosen:
        raise ValueError(f"no results of protocol {protocol!r} with head {head!r} on {', '.join(SETS)}")
    values = {(r.dataset, r.features, r.split): -r.value if r.metric == "rmse" else r.value for r in chosen}
    n_splits = 1 + max(r.split for r in chosen)
    places = [(name, split) for name in SETS for split in range(n_splits)]
    features = [f for f in dict.fromkeys(r.features for r in chosen) if all((n, f, s) in values for n, s in places)]
    scores = np.array([[[values[name, f, s] for s in range(n_splits)] for f in features] for name in SETS])
    sizes = [np.mean([getattr(r, size) for r in chosen]) for size in ("n_train", "n_test")]
    return Table(features, scores, *map(float, sizes))


def standings(table: Table, ours: str) -> list[dict[str, Any]]:
    """One row a feature set, best first: rank, standardised score, and how far `ours` is ahead, with its interval.

    Raises
    ------
    ValueError
        If `ours` isn't among the complete feature sets.
    """
    if ours not in table.features:
        raise ValueError(f"ours: expected one of {', '.join(table.features)}, got {ours!r}")
    means = table.scores.mean(axis=2)  # (5, m)
    ranks = average_ranks(means, True)
    spread = means.std(axis=1)[:, None, None]
    each = ((table.scores - means.mean(axis=1)[:, None, None]) / spread).mean(axis=0)  # (m, splits)
    us = table.features.index(ours)
    rows = []
    for i, name in enumerate(table.features):
        row = {"features": name, "mean_rank": float(ranks[i]), "standardised": float(each[i].mean())}
        row["wins"] = int((means[:, us] > means[:, i]).sum())
        if name != ours:
            found = paired(each[us], each[i], table.n_train, table.n_test, True)
            row |= {"ahead_by": found.difference, "low": found.low, "high": found.high}
            row["verdict"] = found.verdict
        rows.append(row)
    return sorted(rows, key=lambda row: -row["standardised"])


def markdown(rows: Sequence[dict[str, Any]], ours: str) -> str:
    head = ["features", "mean rank", "standardised score", f"{ours} ahead by", "95 % interval", "ahead on"]
    lines = []
    for row in rows:
        start = [row["features"], f"{row['mean_rank']:.1f}", f"{row['standardised']:+.2f}"]
        if row["features"] == ours:
            lines.append([*start, "", "", ""])
        else:
            interval = f"{row['low']:+.2f} to {row['high']:+.2f}"
            lines.append([*start, f"{row['ahead_by']:+.2f}", interval, f"{row['wins']} of {len(SETS)}"])
    return markdown_table(head, lines)


def publish(out: Path, script: str, key: str, rows: Sequence[dict[str, Any]], title: str, text: str) -> None:
    """Write rows with how they were made to `out`, and the same as a table beside it."""
    about = {"command": command_line(f"python benchmarks/flagship/{script}"), "date": now()}
    about |= {**git_state(ROOT), "machine": machine()}
    with written_beside(out) as part:
        part.write_text(json.dumps({"about": about, key: rows}, indent=1) + "\n", encoding="utf-8")
    made = f"Made by `{about['command']}`, commit {about['commit'][:7]}."
    out.with_suffix(".md").write_text(f"# {title}\n\n{text}\n\n{made}\n", encoding="utf-8")


def results_parser(description: str | None) -> argparse.ArgumentParser:
    """A command that reads results of molcmim benchmark: which folders, protocol and head, and where to write."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="folders of runs of molcmim benchmark")
    parser.add_argument("--protocol", default="random5")
    parser.add_argument("--head", default="svm")
    parser.add_argument("--out", type=Path)
    return parser


def read_table(arguments: argparse.Namespace) -> Table:
    """The scores that a command made by `results_parser` was given."""
    scores = [score for folder in arguments.results for score in read_scores(folder / "results.csv")]
    return collect(scores, arguments.protocol, arguments.head)


def main() -> None:
    parser = results_parser(__doc__)
    parser.add_argument("--ours", required=True, help="feature set that the others are compared with")
    arguments = parser.parse_args()
    rows = standings(read_table(arguments), arguments.ours)
    text = markdown(rows, arguments.ours)
    if arguments.out:
        title = f"{', '.join(SETS)} together: {arguments.protocol}, {arguments.head}"
        publish(arguments.out, "standings.py", "standings", rows, title, text)
    print(text)


if __name__ == "__main__":
    main()
