"""The report's sentences, made from its numbers; for the page and the Markdown file alike.

A sentence is a list of spans (style, text), style one of "" (plain), "b" (bold), "code" (a label) or "good" / "bad" (a
verdict). Whoever writes them out escapes the text.
"""

# Axes: k data sets, f feature sets.

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

from molcmim.moleculenet.report_data import AHEAD, BEHIND, TIE, UNTESTED, Column, Pair, Report, View

Spans = list[tuple[str, str]]

CHANCE = {AHEAD: "beyond chance", BEHIND: "beyond chance", TIE: "within chance", UNTESTED: "not tested"}
VERDICTS = {AHEAD: "ahead", BEHIND: "behind", TIE: "tie", UNTESTED: "not tested"}
MARKS = {AHEAD: "▲", BEHIND: "▼", TIE: "≈", UNTESTED: ""}


def ordinal(n: int) -> str:
    ending = "th" if 10 <= n % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(n % 10, "th")
    return f"{n}{ending}"


def joined(labels: Sequence[str]) -> Spans:
    """Labels as `a`, `b` and `c`."""
    spans: Spans = []
    for i, label in enumerate(labels):
        if i:
            spans.append(("", " and " if i == len(labels) - 1 else ", "))
        spans.append(("code", label))
    return spans


def _amount(pair: Pair, column: Column) -> str:
    """By how much, as a positive number, with its interval."""
    shown = pair if pair.advantage >= 0 else pair.reversed()
    interval = column.interval(shown.low, shown.high)
    return column.number(abs(shown.advantage)) + (f" {interval}" if interval else "")


def answer(view: View, column: Column) -> Spans:
    """Which features win on a data set, by how much, and whether that is beyond chance; and where the reference is."""
    order = view.order(column.dataset)
    if not order:
        return [("b", column.title), ("", ": no feature set has a score here.")]
    best, cell = order[0], view.cells[order[0], column.dataset]
    extreme = "highest" if column.higher_is_better else "lowest"
    unit = f" {column.unit}" if column.unit else ""
    interval = column.interval(cell.low, cell.high)
    level = [f for f in order[1:] if view.level(f, column.dataset)]
    spans: Spans = [("b", f"{column.title}: "), ("code", best)]
    score = f" {column.heading}, {column.number(cell.mean)}{unit}{' ' + interval if interval else ''}"
    if len(order) == 1:
        return [*spans, ("", f" alone was scored: {column.number(cell.mean)}{unit} {column.heading}.")]
    second = view.versus_best[order[1], column.dataset]
    if all(view.versus_best[f, column.dataset].verdict == UNTESTED for f in order[1:]):
        spans.append(("", f" has the {extreme}{score}; whether that is chance was not tested."))
    elif level:
        spans += [("", f" has the {extreme}{score}, but "), *joined(level)]
        spans.append(("", f" {'is' if len(level) == 1 else 'are'} level with it: the difference is within chance."))
    else:
        spans += [("b", " wins"), ("", f" with the {extreme}{score}: ahead of the next, "), ("code", order[1])]
        spans.append(("", f" ({column.number(view.cells[order[1], column.dataset].mean)}), by "))
        spans += [("", _amount(second, column)), ("", f", {CHANCE[second.verdict]}.")]
    return spans + _reference_sentence(view, column, order)


def _reference_sentence(view: View, column: Column, order: Sequence[str]) -> Spans:
    """Where the reference stands."""
    ours = view.reference
    if ours not in order:
        return [("", " "), ("code", ours), ("", " was not scored here.")]
    pairs = {f: view.versus_reference[f, column.dataset] for f in order if f != ours}
    spans: Spans = [("", " ")]
    if ours != order[0]:
        pair = pairs[order[0]]
        mean = column.number(view.cells[ours, column.dataset].mean)
        place = f" ({mean}) is {ordinal(order.index(ours) + 1)} of {len(order)}, "
        spans += [("code", ours), ("", place)]
        if pair.verdict == TIE:
            spans += [("", f"{_amount(pair, column)} behind "), ("code", order[0]), ("", ", within chance.")]
        elif pair.verdict == UNTESTED:
            spans += [("", f"{_amount(pair, column)} behind "), ("code", order[0]), ("", " (not tested).")]
        else:
            spans += [
                ("", "behind "),
                ("code", order[0]),
                ("", f" by {_amount(pair, column)}, "),
                ("b", "beyond chance"),
            ]
            spans.append(("", "."))
    groups = [(word, [f for f, p in pairs.items() if p.verdict == v]) for v, word in _GROUPS]
    groups = [(word, found) for word, found in groups if found]
    if groups and not (len(order) == 2 and ours != order[0]):
        spans += [("", " It is ")] if ours != order[0] else [("", " "), ("code", ours), ("", " is ")]
        for i, (word, found) in enumerate(groups):
            spans += [("", "; " if i else ""), ("b", word), ("", " "), *joined(found)]
        spans.append(("", "."))
    return spans


_GROUPS = ((AHEAD, "ahead of"), (TIE, "level with"), (BEHIND, "behind"))


def tally(view: View) -> Spans:
    """How often the reference is ahead, level, behind."""
    counts = Counter(pair.verdict for pair in view.versus_reference.values())
    total = sum(counts[v] for v in (AHEAD, TIE, BEHIND))
    if not total:
        return [("", "No difference could be tested.")]
    chance = f"about {total * 0.05:.0f}" if total >= 20 else "fewer than one"
    return [
        ("code", view.reference),
        ("", f" is ahead in {counts[AHEAD]}, level in {counts[TIE]} and behind in {counts[BEHIND]} of {total} "),
        ("", f"comparisons. Of {total} intervals of 95 %, {chance} would exclude zero by chance alone "),
        ("", "if there were no differences at all."),
    ]


def interval_text(view: View) -> str:
    """Where a view's intervals come from."""
    if view.resampled:
        return (
            "95 % intervals by resampling the test molecules of the one split (bootstrap): they say nothing about "
            "other splits. Sets of several tasks have none."
        )
    return "Means over the splits with 95 % intervals corrected for overlapping training parts (Nadeau & Bengio 2003)."


def ranks_text(view: View) -> str:
    """What a rank plot can and can't tell."""
    if view.ranks is None:
        return (
            "A comparison of ranks needs at least two data sets and two feature sets that have a score on all of them."
        )
    ranks, k = view.ranks, len(view.ranks.datasets)
    cd, places = ranks.critical_difference, len(ranks.features) - 1
    apart = sum(b - a > cd for a, b in combinations(ranks.ranks, 2))
    found = (
        "no two feature sets here are that far apart"
        if apart == 0
        else f"{apart} of {len(ranks.ranks) * places // 2} pairs are that far apart"
    )
    text = (
        f"Average place over {k} data sets ({', '.join(ranks.datasets)}). By Nemenyi's test at 95 %, two feature sets "
        f"differ if their ranks are more than {cd:.2f} places apart; {found}. Bars join those that this test can't "
        "tell apart."
    )
    if k < 10:
        text += (
            f" {k} data sets are few: the test treats each as one observation, so read the plot as an order, and the "
            "differences above for evidence."
        )
    if ranks.left_out:
        text += f" Left out, as a score is missing: {', '.join(ranks.left_out)}."
    return text


def footnotes(view: View) -> dict[tuple[str, str], list[str]]:
    """(features, dataset) -> what a reader must know of the cell."""
    notes: dict[tuple[str, str], list[str]] = {}
    for (features, dataset), cell in view.cells.items():
        found = []
        if cell.n_splits and cell.n_missing:
            found.append(f"{cell.n_missing} of {cell.n_splits + cell.n_missing} splits have no score")
        if cell.n_splits == 0:
            found.append("no score")
        if cell.note:
            found.append(cell.note)
        if cell.n_failed:
            found.append(f"{cell.n_failed:,} molecules without features, given the training mean")
        if found:
            notes[features, dataset] = ["; ".join(found)]
    return notes


def params_text(texts: Sequence[str]) -> str:
    """Hyper-parameters chosen in the splits, compactly: ``C 3 (4x), 10 (1x)``."""
    values: dict[str, Counter[str]] = {}
    for text in texts:
        try:
            found = json.loads(text)
        except ValueError:
            found = {}
        for name, value in found.items() if isinstance(found, dict) else ():
            values.setdefault(str(name), Counter())[_short(value)] += 1
    parts = []
    for name, counts in values.items():
        if len(counts) == 1:
            parts.append(f"{name} {next(iter(counts))}")
        else:
            parts.append(f"{name} " + ", ".join(f"{value} ({count}×)" for value, count in counts.most_common()))
    return "; ".join(parts)


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def run_facts(report: Report) -> list[tuple[str, str]]:
    """(what, text) of the latest run."""
    runs = report.run.get("runs") or []
    last = runs[-1] if runs and isinstance(runs[-1], dict) else {}
    machine = dict(last.get("machine") or {})
    commit = last.get("commit")
    versions = {k: v for k, v in machine.items() if k not in ("cpu", "cores", "processes")}
    where = ", ".join(
        part
        for part in (
            str(machine.get("cpu") or ""),
            f"{machine['cores']} cores" if machine.get("cores") else "",
            f"{machine['processes']} processes" if machine.get("processes") else "",
        )
        if part
    )
    facts = [
        ("Command", str(last.get("command") or "")),
        ("Date", str(last.get("date") or "").replace("T", " ").replace("+00:00", " UTC")),
        ("Commit", f"{commit}{' (with uncommitted changes)' if last.get('modified') else ''}" if commit else ""),
        ("Machine", where),
        ("Versions", ", ".join(f"{name} {value}" for name, value in versions.items())),
        ("Earlier runs into this folder", str(len(runs) - 1) if len(runs) > 1 else ""),
    ]
    return [(name, text) for name, text in facts if text]


def dataset_rows(report: Report) -> list[list[str]]:
    """The data sets: title, kind, molecules, failed rows, source, sha256."""
    names = list(dict.fromkeys(column.dataset for view in report.views for column in view.columns))
    rows = []
    for name in names:
        info = report.dataset_info(name)
        failures = info.get("failures") or {}
        failed = ", ".join(f"{count:,} {status}" for status, count in failures.items()) or "none"
        n = info.get("n")
        targets = info.get("targets") or []
        kind = str(info.get("task") or "?") + (f", {len(targets)} tasks" if len(targets) > 1 else "")
        unit = str(info.get("unit") or "")
        source, sha = str(info.get("source") or "?"), str(info.get("sha256") or "?")
        size = f"{n:,}" if isinstance(n, int) else "?"
        rows.append([str(info.get("title") or name), kind, unit, size, failed, source, sha])
    return rows


DATASET_HEADER = ("data set", "kind", "unit", "molecules", "rows left out", "source", "sha256 of the file")
