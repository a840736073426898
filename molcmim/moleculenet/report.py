"""The report of an output folder: report.md for a repository, report.html for people.

Everything in it comes from the folder's files: results.csv, run.json, predictions/ and maps/.
"""

# Axes: k data sets, f feature sets.

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from molcmim.beside import written_beside
from molcmim.moleculenet.report_data import Column, Report, View
from molcmim.moleculenet.report_text import (
    DATASET_HEADER,
    VERDICTS,
    Spans,
    answer,
    dataset_rows,
    footnotes,
    interval_text,
    params_text,
    ranks_text,
    run_facts,
    tally,
)
from molcmim.moleculenet.report_views import load_report


def write_report(out: Path, reference: str | None = None) -> None:
    """Write report.md and report.html into an output folder.

    Parameters
    ----------
    out
        The folder, with results.csv; run.json, predictions/ and maps/ are used where they are there.
    reference
        Features that all others are compared with. Default: the first `both` embedding of a molcmim model, or else
        the first features.

    Raises
    ------
    FileNotFoundError
        `out` has no results.csv.
    ValueError
        results.csv is empty or incomplete, or `reference` is not among its features.
    """
    from molcmim.moleculenet.report_html import page

    report = load_report(Path(out), reference)
    for name, text in (("report.md", markdown(report)), ("report.html", page(report))):
        with written_beside(report.out / name) as part:
            part.write_text(text, encoding="utf-8")


def markdown(report: Report) -> str:
    """The report as Markdown: answers, tables, differences, how it was made."""
    sections = ["# MoleculeNet benchmark"]
    for protocol in report.protocols:
        sections.append(f"## Protocol {code(protocol)}")
        info = report.protocol_info(protocol)
        if info.get("description"):
            sections.append(plain(str(info["description"])))
        if info.get("warning"):
            sections.append(f"> **Warning:** {plain(str(info['warning']))}")
        for view in report.views:
            if view.protocol == protocol:
                sections += _view_sections(view)
    sections += ["## Data sets", table(DATASET_HEADER, [[plain(cell) for cell in row] for row in dataset_rows(report)])]
    facts = run_facts(report)
    if facts:
        sections += ["## How this was made", "\n".join(f"- {plain(name)}: {code(text)}" for name, text in facts)]
    return "\n\n".join(sections) + "\n"


def _view_sections(view: View) -> list[str]:
    sections = [f"### Head {code(view.head)}"]
    sections.append("\n".join(f"- {rich(answer(view, column))}" for column in view.columns))
    header = ["features", *(f"{plain(c.title)} {c.heading} {arrow(c)}" for c in view.columns)]
    notes = footnotes(view)
    listed = list(dict.fromkeys(text for texts in notes.values() for text in texts))
    rows = [[code(f), *(_cell(view, f, c, notes, listed) for c in view.columns)] for f in view.features]
    sections.append(table(header, rows))
    legend = f"{interval_text(view)} **Bold**: best mean; ≈: level with the best, the difference is within chance."
    sections.append(" ".join([legend, *(f"({i}) {plain(text)}." for i, text in enumerate(listed, 1))]))
    others = [f for f in view.features if f != view.reference]
    if view.versus_reference:
        header = [f"{code(view.reference)} against", *(f"{plain(c.title)} {c.heading}" for c in view.columns)]
        rows = [[code(f), *(_pair(view, f, c) for c in view.columns)] for f in others]
        sections += [
            f"By how much {code(view.reference)} is better (+) or worse (−), same splits:",
            table(header, rows),
        ]
        sections.append(rich(tally(view)))
    if view.ranks is not None:
        places = ", ".join(
            f"{code(f)} {rank:.1f}" for f, rank in zip(view.ranks.features, view.ranks.ranks, strict=True)
        )
        sections.append(f"Average ranks: {places}. {plain(ranks_text(view))}")
    if any(view.params.values()):
        header = ["features", *(plain(c.title) for c in view.columns)]
        rows = [
            [code(f), *(plain(params_text(view.params.get((f, c.dataset), []))) for c in view.columns)]
            for f in view.features
        ]
        body = table(header, rows)
        sections.append(f"<details><summary>Hyper-parameters chosen</summary>\n\n{body}\n\n</details>")
    return sections


def _cell(
    view: View, features: str, column: Column, notes: dict[tuple[str, str], list[str]], listed: Sequence[str]
) -> str:
    cell = view.cells.get((features, column.dataset))
    if cell is None:
        return "not run"
    number = column.number(cell.mean)
    if view.best.get(column.dataset) == features:
        number = f"**{number}**"
    parts = [number + (" ≈" if view.level(features, column.dataset) else "")]
    parts.append(column.interval(cell.low, cell.high))
    parts += [f"({listed.index(text) + 1})" for text in notes.get((features, column.dataset), ())]
    return " ".join(part for part in parts if part)


def _pair(view: View, features: str, column: Column) -> str:
    pair = view.versus_reference.get((features, column.dataset))
    if pair is None:
        return "n/a"
    interval = column.interval(pair.low, pair.high, sign=True)
    parts = [column.number(pair.advantage, sign=True), interval, VERDICTS[pair.verdict]]
    return " ".join(part for part in parts if part)


def arrow(column: Column) -> str:
    return "↑" if column.higher_is_better else "↓"


# ---------------------------------------------------------------------------------------- Markdown

_INTERVAL = re.compile(r"\\\[([+−]?[\d.]+, [+−]?[\d.]+)\\\](?!\()")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no end of line."""
    escaped = re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))
    escaped = escaped.replace(r"\<", "&lt;").replace(r"\>", "&gt;")
    return _INTERVAL.sub(r"[\1]", escaped)  # reads better, and can't be a link


def code(text: str) -> str:
    """Text as code; what would end it, or a table's cell, is replaced."""
    return f"`{' '.join(text.split()).replace('`', chr(0x2BC)).replace('|', '¦')}`"


def rich(spans: Spans) -> str:
    """Spans as Markdown."""
    written = []
    for style, text in spans:
        if style == "code":
            written.append(code(text))
        elif style == "b":
            body = text.strip()
            written.append(text.replace(body, f"**{plain(body)}**") if body else text)
        else:
            gap = (" " if text[:1].isspace() else "", " " if text[-1:].isspace() else "")
            written.append(f"{gap[0]}{plain(text)}{gap[1]}" if text.strip() else text)
    return "".join(written)
