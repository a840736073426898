"""Parts of the HTML page that are made for each protocol and head."""

# Axes: k data sets, f feature sets.

from __future__ import annotations

import math
from collections.abc import Sequence

from molcmim.moleculenet.plots import Dot, agreement_plot, critical_difference_plot, dot_plot, escape
from molcmim.moleculenet.report_data import METRIC_TITLES, UNTESTED, Column, Report, View, read_predictions
from molcmim.moleculenet.report_text import (
    MARKS,
    VERDICTS,
    Spans,
    answer,
    footnotes,
    interval_text,
    params_text,
    ranks_text,
    tally,
)

TIPS = {
    "rmse": "root mean squared error, in the unit of the measurement; lower is better",
    "mae": "mean absolute error, in the unit of the measurement; lower is better",
    "mse": "mean squared error, in the squared unit of the measurement; lower is better",
    "r2": "share of the variance that is explained; 1 is perfect, 0 is as good as the mean",
    "roc_auc": "chance that a positive molecule is ranked above a negative one; 0.5 is guessing, 1 is perfect",
    "pr_auc": "area under precision against recall (average precision); guessing gives the share of positives",
}


def html_spans(spans: Spans) -> str:
    """Spans (see `report_text`) as HTML."""
    tags = {"b": "b", "code": "code"}
    return "".join(
        f"<{tags[style]}>{escape(text)}</{tags[style]}>" if style in tags else escape(text) for style, text in spans
    )


def html_table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    """A table from cells that are HTML already."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    )


def warning(report: Report, view: View) -> str:
    """The protocol's warning: it stands wherever its numbers do."""
    text = report.protocol_info(view.protocol).get("warning")
    return f'<p class="warning"><b>Mind:</b> {escape(text)}</p>' if text else ""


def column_head(column: Column, differences: bool = False) -> str:
    """Title, metric and unit; the arrow says which way is better, which for differences is always up."""
    arrow, better = ("↑", "higher is better") if column.higher_is_better else ("↓", "lower is better")
    unit = f" <small>{escape(column.unit)}</small>" if column.unit else ""
    tip = escape(TIPS.get(column.metric, better))
    mark = "" if differences else f' <span class="arrow" title="{better}">{arrow}</span>'
    return f'{escape(column.title)}<br><abbr title="{tip}">{escape(column.heading)}</abbr>{mark}{unit}'


def _label(view: View, features: str) -> str:
    kind = ' class="ref" title="the reference"' if features == view.reference else ""
    return f"<code{kind}>{escape(features)}</code>"


def _feature_table(view: View, cells: dict[tuple[str, str], str], corner: str, differences: bool = False) -> str:
    """Features x data sets; `cells` holds whole <td> elements."""
    columns = view.columns
    direction = {True: "desc", False: "asc"}
    head = "".join(
        f'<th data-sort="{direction[c.higher_is_better or differences]}" tabindex="0" title="click to sort">'
        f"{column_head(c, differences)}</th>"
        for c in columns
    )
    rows = []
    for features in view.features:
        tds = "".join(cells.get((features, c.dataset), '<td class="none">not run</td>') for c in columns)
        kind = ' class="reference"' if features == view.reference else ""
        rows.append(f'<tr{kind}><th scope="row">{_label(view, features)}</th>{tds}</tr>')
    return (
        f'<div class="scroll"><table class="data"><thead><tr><th>{corner}</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


# ---------------------------------------------------------------------------------------- answers and scores


def answers_section(report: Report, view: View) -> str:
    """A paragraph a data set, and what wins under the other heads."""
    paragraphs = "".join(f"<p>{html_spans(answer(view, column))}</p>" for column in view.columns)
    return f'{warning(report, view)}<div class="answers">{paragraphs}</div>{_other_heads(report, view)}'


def _other_heads(report: Report, view: View) -> str:
    """The best features under each head of the protocol: does the answer depend on the head?"""
    views = [v for v in report.views if v.protocol == view.protocol]
    if len(views) < 2:
        return ""
    columns = {column.dataset: column for v in views for column in v.columns}
    rows = []
    for dataset, column in columns.items():
        row = [f"<b>{escape(column.title)}</b>"]
        for v in views:
            best = v.best.get(dataset)
            mine = next((c for c in v.columns if c.dataset == dataset), None)
            if best is None or mine is None:
                row.append("n/a")
                continue
            level = sum(v.level(f, dataset) for f in v.features)
            also = f' <span class="small">and {level} level</span>' if level else ""
            row.append(f"{_label(v, best)} {mine.number(v.cells[best, dataset].mean)}{also}")
        rows.append(row)
    header = ["lowest error or highest AUC", *(escape(v.head) for v in views)]
    table = html_table(header, rows, "data plain")
    return f"<h3>Does the answer depend on the head?</h3>{table}"


def scores_section(report: Report, view: View) -> str:
    """The main table with its footnotes, and the same as dots."""
    notes = footnotes(view)
    listed = list(dict.fromkeys(text for texts in notes.values() for text in texts))
    cells = {}
    for (features, dataset), cell in view.cells.items():
        column = next(c for c in view.columns if c.dataset == dataset)
        best, level = view.best.get(dataset) == features, view.level(features, dataset)
        marks = ",".join(str(listed.index(text) + 1) for text in notes.get((features, dataset), ()))
        sup = f'<sup title="{escape("; ".join(notes[features, dataset]))}">{marks}</sup>' if marks else ""
        number = column.number(cell.mean)
        shown = f"<b>{number}</b>" if best else number
        tie = (
            ' <span class="tie" title="level with the best: the difference is within chance">≈</span>' if level else ""
        )
        kind = "best" if best else "level" if level else "none" if not math.isfinite(cell.mean) else ""
        value = cell.mean if math.isfinite(cell.mean) else ""
        interval = f"<small>{column.interval(cell.low, cell.high)}</small>"
        cells[features, dataset] = f'<td class="{kind}" data-v="{value}">{shown}{tie}{sup}{interval}</td>'
    legend = (
        f"<p class='legend'>{escape(interval_text(view))} <b>Bold</b>: best mean. <span class='tie'>≈</span>: level "
        "with the best, the difference is within chance. Sorted by average place; click a heading to sort.</p>"
    )
    small = "".join(f"<li>{escape(text)}</li>" for text in listed)
    plots = "".join(_score_plot(view, column) for column in view.columns if view.order(column.dataset))
    return (
        f"{warning(report, view)}{_feature_table(view, cells, 'features')}{legend}"
        + (f"<ol class='footnotes'>{small}</ol>" if small else "")
        + f"<div class='grid'>{plots}</div>"
    )


def _score_plot(view: View, column: Column) -> str:
    dots = []
    for features in view.order(column.dataset):
        cell, reference = view.cells[features, column.dataset], features == view.reference
        best = view.best[column.dataset] == features
        kind = "reference" if reference else "best" if best or view.level(features, column.dataset) else "other"
        tip = f"{features}: {column.number(cell.mean)} {column.interval(cell.low, cell.high)}"
        number = column.number(cell.mean)
        dots.append(Dot(features, cell.mean, cell.low, cell.high, kind, number, reference or best, tip))
    arrow = "higher is better" if column.higher_is_better else "lower is better"
    axis = f"{column.heading}{f', {column.unit}' if column.unit else ''} ({arrow})"
    plot = dot_plot(dots, f"scores on {column.title}", axis)
    return f"<figure class='panel'><figcaption>{escape(column.title)}</figcaption>{plot}</figure>"


# ---------------------------------------------------------------------------------------- differences and ranks


def differences_section(report: Report, view: View) -> str:
    """The reference minus each other feature set: table, plots and how many there are."""
    if not view.versus_reference:
        return f"<p><code>{escape(view.reference)}</code> has no scores here, or nothing to be compared with.</p>"
    cells = {}
    for (features, dataset), pair in view.versus_reference.items():
        column = next(c for c in view.columns if c.dataset == dataset)
        mark = f'<span class="{pair.verdict}">{MARKS[pair.verdict]} {VERDICTS[pair.verdict]}</span>'
        interval = f"<small>{column.interval(pair.low, pair.high, sign=True)}</small>"
        number = column.number(pair.advantage, sign=True)
        value = pair.advantage if math.isfinite(pair.advantage) else ""
        cells[features, dataset] = f'<td data-v="{value}">{number} {mark}{interval}</td>'
    for column in view.columns:
        for features in view.features:
            if features == view.reference:
                cells[features, column.dataset] = '<td class="none">·</td>'
            else:
                cells.setdefault((features, column.dataset), '<td class="none">n/a</td>')
    plots = "".join(_difference_plot(view, column) for column in view.columns)
    corner = f"{_label(view, view.reference)}<br>against"
    table = _feature_table(view, cells, corner, differences=True)
    return (
        f"{warning(report, view)}{table}<p class='legend'>{html_spans(tally(view))}</p><div class='grid'>{plots}</div>"
    )


def _difference_plot(view: View, column: Column) -> str:
    dots = []
    for features in view.order(column.dataset):
        pair = view.versus_reference.get((features, column.dataset))
        if pair is None or not math.isfinite(pair.advantage):
            continue
        interval = column.interval(pair.low, pair.high, sign=True)
        number = column.number(pair.advantage, sign=True)
        tip = f"against {features}: {number} {interval}, {VERDICTS[pair.verdict]}"
        kind = pair.verdict if pair.verdict != UNTESTED else "other"
        dots.append(
            Dot(features, pair.advantage, pair.low, pair.high, kind, f"{number} {MARKS[pair.verdict]}", tip=tip)
        )
    if not dots:
        return ""
    axis = f"difference in {column.heading}{f', {column.unit}' if column.unit else ''}"
    plot = dot_plot(dots, f"differences on {column.title}", axis, ("◂ reference worse", "better ▸"), zero=True)
    return f"<figure class='panel'><figcaption>{escape(column.title)}</figcaption>{plot}</figure>"


def ranks_section(report: Report, view: View) -> str:
    """The critical-difference plot and what it can tell."""
    plot = critical_difference_plot(view.ranks, view.reference) if view.ranks else ""
    return f"{warning(report, view)}<p>{escape(ranks_text(view))}</p>{plot}"


# ---------------------------------------------------------------------------------------- predictions and settings


def agreement_section(report: Report, view: View) -> str:
    """Predicted against measured values, of the reference and the best other features."""
    rows = []
    for column in view.columns:
        order = view.order(column.dataset)
        others = [f for f in order if f != view.reference]
        chosen = [f for f in (view.reference, *others[:1]) if f in order]
        panels = []
        for features in chosen:
            found = read_predictions(report.out, column.dataset, view.protocol, features, view.head)
            if found is None or column.metric not in ("rmse", "mse") or len(found.measured) < 2:
                continue
            kind = "reference" if features == view.reference else "other"
            plot = agreement_plot(found.measured, found.predicted, column.unit.strip("()²"), kind)
            panels.append(
                f"<div class='pair'><p class='small'>{_label(view, features)}<br>"
                f"{escape(_panel_text(view, features, column, len(found.measured)))}</p>{plot}</div>"
            )
        if panels:
            caption = f"<figcaption>{escape(column.title)}</figcaption>"
            rows.append(f"<figure class='agree'>{caption}<div class='pairs'>{''.join(panels)}</div></figure>")
    return f"<div class='agreements'>{''.join(rows)}</div>" if rows else ""


def _panel_text(view: View, features: str, column: Column, n: int) -> str:
    parts = [f"{column.heading} {column.number(view.cells[features, column.dataset].mean)}"]
    r2 = view.secondary.get((features, column.dataset, "r2"))
    if r2 is not None and math.isfinite(r2.mean):
        parts.append(f"R² {r2.mean:.2f}".replace("-", "−"))
    return ", ".join([*parts, f"n {n:,}"])


def settings_section(report: Report, view: View) -> str:
    """Hyper-parameters chosen, and the metrics that the other parts leave out; folded away."""
    header = ["features", *(escape(c.title) for c in view.columns)]
    chosen = {
        (f, c.dataset): params_text(view.params.get((f, c.dataset), [])) for f in view.features for c in view.columns
    }
    parts = []
    if any(chosen.values()):
        rows = [[_label(view, f), *(escape(chosen[f, c.dataset]) or "–" for c in view.columns)] for f in view.features]
        table = html_table(header, rows, "data plain params")
        parts.append(f"<details><summary>Hyper-parameters chosen</summary>{table}</details>")
    for metric in dict.fromkeys(key[2] for key in view.secondary):
        columns = [c for c in view.columns if any(key[1:] == (c.dataset, metric) for key in view.secondary)]
        name = METRIC_TITLES.get(metric, metric)
        table = html_table(
            ["features", *(escape(c.title) for c in columns)],
            [[_label(view, f), *(_secondary(view, f, c, metric) for c in columns)] for f in view.features],
            "data plain",
        )
        tip = f"<p class='small'>{escape(TIPS.get(metric, ''))}.</p>" if metric in TIPS else ""
        parts.append(f"<details><summary>{escape(name)}</summary>{tip}{table}</details>")
    return "".join(parts)


def _secondary(view: View, features: str, column: Column, metric: str) -> str:
    cell = view.secondary.get((features, column.dataset, metric))
    if cell is None:
        return "not run"
    shown = column._replace(digits=3) if metric in ("r2", "pr_auc", "roc_auc") else column
    interval = shown.interval(cell.low, cell.high)
    return escape(shown.number(cell.mean)) + (f"<small>{escape(interval)}</small>" if interval else "")
