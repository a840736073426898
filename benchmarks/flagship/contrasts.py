"""How far one feature set is ahead of another, set by set, with intervals: embeddings, objectives, descriptors.

    python benchmarks/flagship/contrasts.py RESULTS MORE --pairs A:both=A:latent --out X.json   # and X.md

Differences are taken split by split in the set's own metric, errors with their sign turned: above zero the first of a
pair is ahead. Intervals are Nadeau and Bengio's for overlapping splits; the last column is the difference of the mean
standardised scores of standings.py, among the feature sets of the same results.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from standings import SETS, Table, publish, read_table, results_parser, standings

from molcmim.moleculenet.report import table as markdown_table
from molcmim.moleculenet.statistics import paired


def contrast(table: Table, ours: str, theirs: str) -> dict[str, Any]:
    """One pair: ``difference``, ``low``, ``high`` and ``verdict`` for each set and for the standardised mean.

    Raises
    ------
    ValueError
        If one of them isn't among the complete feature sets.
    """
    rows = {row["features"]: row for row in standings(table, ours)}
    if theirs not in rows or theirs == ours:
        raise ValueError(f"pairs: expected two of {', '.join(table.features)}, got {ours!r} and {theirs!r}")
    found = {"ours": ours, "theirs": theirs}
    for name, scores in zip(SETS, table.scores, strict=True):
        a, b = (scores[table.features.index(features)] for features in (ours, theirs))
        found[name] = paired(a, b, table.n_train, table.n_test, True)._asdict()
    mean = rows[theirs]
    found["standardised"] = {"difference": mean["ahead_by"], **{key: mean[key] for key in ("low", "high", "verdict")}}
    return found


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One line a pair; differences whose interval holds no zero are bold."""
    head = ["ours", "against", *(f"{name} {metric.removeprefix('roc_').upper()}" for name, metric in SETS.items())]
    lines = []
    for row in rows:
        cells = []
        for name in (*SETS, "standardised"):
            found, digits = row[name], 2 if name == "standardised" else 3
            text = f"{found['difference']:+.{digits}f}"
            text = text if found["verdict"] == "tie" else f"**{text}**"
            cells.append(f"{text} ({found['low']:+.{digits}f} to {found['high']:+.{digits}f})")
        lines.append([row["ours"], row["theirs"], *cells])
    return markdown_table([*head, "standardised"], lines)


def main() -> None:
    parser = results_parser(__doc__)
    parser.add_argument("--pairs", nargs="+", required=True, metavar="OURS=THEIRS")
    arguments = parser.parse_args()
    table = read_table(arguments)
    rows = []
    for pair in arguments.pairs:
        ours, equals, theirs = pair.partition("=")
        if not equals:
            parser.error(f"--pairs: expected OURS=THEIRS, got {pair!r}")
        rows.append(contrast(table, ours, theirs))
    text = markdown(rows)
    if arguments.out:
        title = f"Differences, {arguments.protocol}, {arguments.head}: above zero the first is ahead (95 % intervals)"
        publish(arguments.out, "contrasts.py", "contrasts", rows, title, text)
    print(text)


if __name__ == "__main__":
    main()
