"""The report as one HTML page that loads nothing: style, script, plots and data are in it.

Every text from the output folder goes through `escape`; the page also forbids itself to load anything (a content
security policy).
"""

# Axes: k data sets, f feature sets.

from __future__ import annotations

from collections.abc import Callable

from molcmim.moleculenet.map_plot import choose_examples, drawing_svg, map_plot, script_data, value_text
from molcmim.moleculenet.plots import escape
from molcmim.moleculenet.report_data import Report, View
from molcmim.moleculenet.report_sections import (
    agreement_section,
    answers_section,
    differences_section,
    html_table,
    ranks_section,
    scores_section,
    settings_section,
)
from molcmim.moleculenet.report_style import SCRIPT, STYLE
from molcmim.moleculenet.report_text import DATASET_HEADER, dataset_rows, run_facts
from molcmim.moleculenet.types import REGRESSION

MOST_AGREEMENT = 1_200_000  #: bytes of predicted-against-measured plots, so that the page stays under 6 MB
MOST_MAPS = 3_000_000  #: and of molecules to be shown on hover

POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"

HOW_TO_READ = (
    (
        "Score",
        "How well measured values of molecules that were not trained on are predicted from frozen features. RMSE is a "
        "typical error, in the unit of the measurement: lower is better. ROC-AUC is the chance that a positive "
        "molecule is ranked above a negative one: 0.5 is guessing, 1 is perfect.",
    ),
    (
        "Head",
        "The small model trained on top of the features. Compare features under the same head. The page does not pick "
        "the best head for each: choosing by test scores flatters.",
    ),
    (
        "[low, high]",
        "A 95 % interval. Splits of the same molecules overlap, so a plain standard error would be too small; these "
        "intervals are corrected for that. Where there is one split only, its test molecules are resampled instead, "
        "which says nothing about other splits.",
    ),
    (
        "Ahead, tie, behind",
        "Two feature sets are compared split by split. Ahead or behind: the interval of the difference excludes "
        "zero, so the difference is beyond chance. Tie: it doesn't, which is no proof that they are equal.",
    ),
    (
        "Which number to trust",
        "The differences, rather than whether the intervals of two scores overlap: scores go up and down together "
        "from split to split.",
    ),
)


def page(report: Report) -> str:
    """The whole page."""
    title = "MoleculeNet benchmark"
    body = [
        _head(report, title),
        _controls(report),
        "<main>",
        _section("answers", "What the numbers say", "", _views(report, answers_section)),
        _how_to_read(),
        _section("scores", "Scores", "", _views(report, scores_section)),
        _section("differences", "Against the reference", _reference_note(report), _views(report, differences_section)),
        _section("ranks", "Over all data sets: ranks", "", _views(report, ranks_section)),
        _agreement(report),
        _maps(report),
        _section("settings", "Hyper-parameters and other metrics", "", _views(report, settings_section)),
        _provenance(report),
        "</main>",
    ]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(part for part in body if part)
        + f"\n<script>{SCRIPT}</script>\n</body></html>\n"
    )


def _section(name: str, title: str, intro: str, body: str) -> str:
    if not body:
        return ""
    lead = f'<p class="intro">{intro}</p>' if intro else ""
    return f'<section id="{name}"><h2>{escape(title)}</h2>{lead}{body}</section>'


def _views(report: Report, function: Callable[[Report, View], str]) -> str:
    """What `function` makes of each view, in blocks that the page's script shows one at a time."""
    parts = []
    for view in report.views:
        inner = function(report, view)
        if inner:
            parts.append(_block(view, inner))
    return "".join(parts)


def _block(view: View, inner: str) -> str:
    protocol, head = escape(view.protocol), escape(view.head)
    caption = f'<p class="caption">Protocol <b>{protocol}</b>, head <b>{head}</b></p>'
    return f'<div class="view" data-protocol="{protocol}" data-head="{head}">{caption}{inner}</div>'


def _head(report: Report, title: str) -> str:
    datasets = {column.dataset for view in report.views for column in view.columns}
    features = {f for view in report.views for f in view.features}
    facts = dict(run_facts(report))
    counts = [
        (len(datasets), "data set"),
        (len(features), "feature set"),
        (len(report.protocols), "protocol"),
        (len(report.heads), "head"),
    ]
    what = ", ".join(f"{n} {name}{'s' if n != 1 else ''}" for n, name in counts)
    when = f" · {escape(facts['Date'])}" if "Date" in facts else ""
    command = f"<pre>{escape(facts['Command'])}</pre>" if "Command" in facts else ""
    return (
        f'<header><h1>{title}</h1><p class="lede">Frozen features of molecules, and small models trained on them to '
        f"predict measured properties: which features are best, and is the difference beyond chance?</p>"
        f'<p class="what">{what}{when}</p>{command}</header>'
    )


def _controls(report: Report) -> str:
    """Buttons for protocol and head; the script shows them."""

    def group(kind: str, names: list[str]) -> str:
        buttons = "".join(f'<button type="button" data-{kind}="{escape(n)}">{escape(n)}</button>' for n in names)
        return f'<span class="group"><span class="name">{kind}</span>{buttons}</span>'

    links = "".join(
        f'<a href="#{name}">{text}</a>'
        for name, text in (
            ("answers", "Answers"),
            ("scores", "Scores"),
            ("differences", "Differences"),
            ("ranks", "Ranks"),
            ("agreement", "Predictions"),
            ("maps", "Map"),
            ("provenance", "Data"),
        )
    )
    return (
        f'<nav><div class="bar">{group("protocol", report.protocols)}{group("head", report.heads)}'
        f'<span class="links">{links}</span></div></nav>'
    )


def _how_to_read() -> str:
    entries = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in HOW_TO_READ)
    return (
        f'<section id="reading"><details open><summary>How to read this</summary><dl>{entries}</dl></details></section>'
    )


def _reference_note(report: Report) -> str:
    return (
        f'<code class="ref">{escape(report.reference)}</code> minus each other feature set on the same splits, turned '
        "so that <b>+ always means: the reference is better</b>, whether the metric is an error or an AUC."
    )


def _agreement(report: Report) -> str:
    parts, used, left_out = [], 0, 0
    for view in report.views:
        inner = agreement_section(report, view) if used < MOST_AGREEMENT else ""
        left_out += used >= MOST_AGREEMENT
        used += len(inner)
        if inner:
            parts.append(_block(view, inner))
    if not parts:
        return ""
    note = " To keep the page small, some heads and protocols are left out." if left_out else ""
    intro = (
        "Test molecules of all splits, regression sets only: the reference in blue, the best of the others in grey. On "
        f"the diagonal the prediction is right; darker means more molecules. "
        f"Predictions far outside the measured range are drawn at the edge.{note}"
    )
    return _section("agreement", "Predicted against measured", intro, "".join(parts))


def _maps(report: Report) -> str:
    parts, used = [], 0
    for content in report.maps:
        data = script_data(content)
        used += len(data)
        parts.append(_map(content, data if used < MOST_MAPS else ""))
    intro = (
        "Each dot is a molecule, placed by t-SNE so that molecules with similar features lie close together; the "
        "colour is the measured value. Move over the map to see a molecule and, ringed, its five nearest neighbours "
        "among those shown, found in all dimensions. The axes and long distances "
        "mean nothing."
    )
    return _section("maps", "A map of the features", intro, "".join(parts))


def _map(content: dict[str, object], data: str) -> str:
    points = content["points"]
    if not isinstance(points, list) or not points:
        return ""
    examples = choose_examples(points)
    figures = "".join(
        f"<figure><span>{number}</span>{drawing_svg(content, points[i]['drawing'])}"
        f'<figcaption title="{escape(points[i]["smiles"])}">'
        f"{escape(value_text(content, float(points[i]['value'])))}</figcaption></figure>"
        for number, i in enumerate(examples, 1)
    )
    features = f" by <code>{escape(content['features'])}</code>" if content.get("features") else ""
    size = f"{len(points):,} of {content.get('n_total', len(points)):,} molecules"
    script = f'<script type="application/json" class="mapdata">{data}</script>' if data else ""
    size += "" if data else "; without molecules on hover, to keep the page small"
    return (
        f'<div class="mapbox"><h3>{escape(content.get("title", ""))}{features}</h3>'
        f'<p class="small">{escape(size)}. {escape(_likeness(content))}</p>'
        f'<div class="mapline"><div class="canvas">{map_plot(content, examples)}</div>'
        f'<div class="examples">{figures}</div></div>{script}</div>'
    )


def _likeness(content: dict[str, object]) -> str:
    """What the map's numbers say, for those whom the picture could mislead."""
    near, any_two = content.get("neighbours"), content.get("any_two")
    if not isinstance(near, (int, float)) or not isinstance(any_two, (int, float)):
        return ""
    if content.get("task") == REGRESSION:
        unit = f" {content['unit']}" if content.get("unit") else ""
        return (
            f"Measured values of a molecule and its nearest neighbour differ by {near:.2f}{unit} on average; those of "
            f"any two molecules by {any_two:.2f}{unit}."
        )
    return (
        f"A molecule and its nearest neighbour are in the same class in {100 * near:.0f} % of cases; any two "
        f"molecules in {100 * any_two:.0f} %."
    )


def _provenance(report: Report) -> str:
    protocols = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(info.get('description', ''))}"
        + (f' <b class="warn">{escape(info["warning"])}</b>' if info.get("warning") else "")
        + "</dd>"
        for name in report.protocols
        for info in (report.protocol_info(name),)
    )
    rows = [
        [escape(cell) for cell in row[:-1]]
        + [f'<code class="hash" title="{escape(row[-1])}">{escape(row[-1][:12])}</code>']
        for row in dataset_rows(report)
    ]
    data = html_table([escape(text) for text in DATASET_HEADER], rows, "data plain")
    facts = "".join(f"<dt>{escape(name)}</dt><dd><code>{escape(text)}</code></dd>" for name, text in run_facts(report))
    return _section(
        "provenance",
        "Data, protocols, and how this was made",
        "",
        f"<h3>Data sets</h3>{data}<p class='small'>Molecules: rows that RDKit reads. Rows left out: why, and how many."
        f"</p><h3>Protocols</h3><dl>{protocols}</dl>" + (f'<h3>Run</h3><dl class="run">{facts}</dl>' if facts else ""),
    )
