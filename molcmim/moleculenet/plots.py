"""Plots of the report as SVG text: small, sharp, coloured by the page's style sheet, and with nothing to load.

A plot is a string to be put into an HTML page. Every text in it is escaped.
"""

# Axes: m points of a plot, f feature sets.

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from molcmim.moleculenet.maps import make_map
from molcmim.moleculenet.report_data import Ranks
from molcmim.moleculenet.types import Array

LETTER = 7.0  #: about the width of a letter at 12 px, in a wide typeface
BOLD = 7.8
ROW = 21  #: height of a row of a dot plot
MOST_POINTS = 900  #: above that many, points are counted in hexagons

__all__ = ["Canvas", "Dot", "agreement_plot", "critical_difference_plot", "dot_plot", "escape", "make_map", "ticks"]


def escape(text: Any) -> str:
    """Text for HTML, in an element or an attribute."""
    return html.escape(str(text), quote=True)


class Canvas:
    """Collects the elements of an SVG image. Coordinates are pixels, y downwards."""

    def __init__(self, width: float, height: float, label: str, kind: str = "") -> None:
        self.width, self.height, self.label, self.kind = width, height, label, kind
        self.items: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        self.items.append(f'<path class="{kind}" d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}"/>')

    def circle(self, x: float, y: float, r: float, kind: str, more: str = "") -> None:
        self.items.append(f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r:g}"{more}/>')

    def path(self, d: str, kind: str) -> None:
        self.items.append(f'<path class="{kind}" d="{d}"/>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str, more: str = "") -> None:
        self.items.append(
            f'<rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"{more}/>'
        )

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", tip: str = "") -> None:
        title = f"<title>{escape(tip)}</title>" if tip else ""
        self.items.append(
            f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{title}{escape(text)}</text>'
        )

    def render(self) -> str:
        return (
            f'<svg class="plot {self.kind}" viewBox="0 0 {self.width:g} {self.height:g}" width="{self.width:g}" '
            f'height="{self.height:g}" role="img" aria-label="{escape(self.label)}">{"".join(self.items)}</svg>'
        )


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, at most about `most` of them."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [low] if math.isfinite(low) else []
    raw = span / most
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(unit * factor for factor in (1, 2, 2.5, 5, 10) if unit * factor >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(step * i, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def tick_texts(values: Sequence[float]) -> list[str]:
    """Tick labels, all with the digits that the step needs."""
    digits = next((d for d in range(7) if all(abs(v - round(v, d)) < 1e-9 for v in values)), 6)
    return [f"{value:.{digits}f}".replace("-", "−") for value in values]


def shortened(label: str, width: float, letter: float = LETTER) -> str:
    """A label that fits into so many pixels; the middle is left out, as ends tell embeddings apart."""
    most = int(width / letter)
    return label if len(label) <= most else f"{label[: most - most // 2 - 1]}…{label[len(label) - most // 2 :]}"


# ---------------------------------------------------------------------------------------- dots with intervals


class Dot(NamedTuple):
    """A row of a dot plot."""

    label: str
    value: float
    low: float  #: NaN: no interval
    high: float
    kind: str  #: a class of the style sheet: "reference", "best", "level", "other"; "ahead", "tie", "behind"
    text: str  #: the number, at the right
    strong: bool = False  #: label in bold
    tip: str = ""


def dot_plot(
    dots: Sequence[Dot], label: str, axis: str, ends: tuple[str, str] = ("", ""), zero: bool = False, width: int = 372
) -> str:
    """One row a feature set: a dot, its 95 % interval and the number.

    Parameters
    ----------
    dots
        From top to bottom.
    label
        What the plot shows, for those who can't see it.
    axis
        Title of the axis.
    ends
        Texts at the two ends of the axis.
    zero
        Draw the line of no difference.
    """
    left = min(166.0, max(len(dot.label) * (BOLD if dot.strong else LETTER) for dot in dots) + 10)
    right = max(len(dot.text) * (BOLD if dot.strong else LETTER) for dot in dots) + 8
    plot = Canvas(width, ROW * len(dots) + 50, label, "dots")
    values = [v for dot in dots for v in (dot.value, dot.low, dot.high) if math.isfinite(v)] + [0.0] * zero
    low, high = min(values), max(values)
    pad = 0.05 * (high - low) or abs(high) * 0.05 or 1.0
    low, high = low - pad, high + pad
    bottom = ROW * len(dots) + 4

    def x(value: float) -> float:
        return left + (width - left - right) * (value - low) / (high - low)

    marks = ticks(low, high, 4)
    for mark, text in zip(marks, tick_texts(marks), strict=True):
        plot.line(x(mark), 2, x(mark), bottom, "grid")
        plot.text(x(mark), bottom + 14, text, "tick", "middle")
    if zero:
        plot.line(x(0), 0, x(0), bottom + 3, "zero")
    for i, dot in enumerate(dots):
        y = ROW * i + ROW / 2 + 2
        plot.items.append(f'<g class="{dot.kind}"><title>{escape(dot.tip or f"{dot.label}: {dot.text}")}</title>')
        plot.rect(0, y - ROW / 2, width, ROW, "hit")
        weight = "label strong" if dot.strong else "label"
        plot.text(left - 8, y + 4, shortened(dot.label, left - 8, BOLD if dot.strong else LETTER), weight, "end")
        if math.isfinite(dot.low) and math.isfinite(dot.high):
            plot.line(x(dot.low), y, x(dot.high), y, "whisker")
        plot.circle(x(dot.value), y, 4.2, "dot")
        plot.text(width - 2, y + 4, dot.text, "number", "end")
        plot.items.append("</g>")
    middle = (left + width - right) / 2
    plot.text(middle, bottom + 42 if any(ends) else bottom + 30, axis, "axis", "middle")
    plot.text(left, bottom + 28, ends[0], "end", "start")
    plot.text(width - right, bottom + 28, ends[1], "end", "end")
    return plot.render()


# ---------------------------------------------------------------------------------------- ranks


def cliques(ranks: Sequence[float], critical: float) -> list[tuple[int, int]]:
    """Largest runs (first, last) of sorted ranks that lie within the critical difference."""
    found: list[tuple[int, int]] = []
    for first, rank in enumerate(ranks):
        last = max(i for i, other in enumerate(ranks) if other - rank <= critical)
        if last > first and (not found or last > found[-1][1]):
            found.append((first, last))
    return found


def critical_difference_plot(ranks: Ranks, reference: str, width: int = 900) -> str:
    """Average ranks on a line, best at the left; bars join those that Nemenyi's test can't tell apart.

    Demšar 2006 (J. Mach. Learn. Res. 7, 1), figure 1.
    """
    f, side = len(ranks.features), 210.0
    bars = cliques(ranks.ranks, ranks.critical_difference)
    top, below = 62.0, 76.0 + 9.0 * len(bars)
    half = (f + 1) // 2
    plot = Canvas(width, below + 22 * half + 6, "average ranks and critical difference", "ranks")

    def x(rank: float) -> float:
        return side + (width - 2 * side) * (rank - 1) / (f - 1)

    plot.line(x(1), top, x(f), top, "axisline")
    for whole in range(1, f + 1):
        plot.line(x(whole), top - 5, x(whole), top, "axisline")
        plot.text(x(whole), top - 10, str(whole), "tick", "middle")
    plot.text(side - 10, top - 9, "best", "end", "end")
    plot.text(width - side + 10, top - 9, "worst", "end", "start")
    cd_end = min(float(f), 1 + ranks.critical_difference)
    longer = ranks.critical_difference > f - 1
    plot.line(x(1), 22, x(cd_end), 22, "cd")
    plot.line(x(1), 18, x(1), 26, "cd")
    if not longer:
        plot.line(x(cd_end), 18, x(cd_end), 26, "cd")
    note = f"critical difference {ranks.critical_difference:.2f}" + (" (longer than the axis)" if longer else "")
    plot.text(x(1), 12, note, "end", "start")
    for i, (first, last) in enumerate(bars):
        height = top + 10 + 9 * i
        plot.line(x(ranks.ranks[first]) - 3, height, x(ranks.ranks[last]) + 3, height, "clique")
    for i, (label, rank) in enumerate(zip(ranks.features, ranks.ranks, strict=True)):
        at_left = i < half
        y = below + 22 * (i if at_left else f - 1 - i) + 8
        edge = side - 4 if at_left else width - side + 4
        kind = "reference" if label == reference else "other"
        plot.items.append(f'<g class="{kind}"><title>{escape(label)}: average rank {rank:.2f}</title>')
        plot.path(f"M{x(rank):.1f} {top:.1f}V{y:.1f}H{edge:.1f}", "elbow")
        text = shortened(label, side - 48)
        shown = f"{text}  {rank:.1f}" if at_left else f"{rank:.1f}  {text}"
        plot.text(edge + (-5 if at_left else 5), y + 4, shown, "label", "end" if at_left else "start")
        plot.items.append("</g>")
    return plot.render()


# ---------------------------------------------------------------------------------------- predicted and measured


def agreement_plot(measured: Array, predicted: Array, unit: str, kind: str, size: int = 250) -> str:
    """Predicted against measured values with the diagonal; many points are counted in hexagons.

    Parameters
    ----------
    measured, predicted
        (m,)
    kind
        A class of the style sheet: "reference" or "other".
    """
    low, high = float(measured.min()), float(measured.max())
    pad = 0.08 * (high - low) or 1.0
    low, high = low - pad, high + pad
    left, top, area = 44.0, 6.0, size - 52.0
    plot = Canvas(size, size - 2, "predicted against measured values", f"agreement {kind}")
    marks = ticks(low, high, 5)
    for mark, text in zip(marks, tick_texts(marks), strict=True):
        at = area * (mark - low) / (high - low)
        plot.line(left + at, top, left + at, top + area, "grid")
        plot.line(left, top + area - at, left + area, top + area - at, "grid")
        plot.text(left + at, top + area + 14, text, "tick", "middle")
        plot.text(left - 5, top + area - at + 4, text, "tick", "end")
    px = left + area * (measured - low) / (high - low)
    py = top + area * (1 - (np.clip(predicted, low, high) - low) / (high - low))
    if len(measured) <= MOST_POINTS:
        for x, y in zip(px, py, strict=True):
            plot.items.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>')
    else:
        for d, level in hexagons(px, py, 4.0):
            plot.path(d, f"hex h{level}")
    plot.line(left, top + area, left + area, top, "diagonal")
    plot.text(left + area / 2, top + area + 30, f"measured, {unit}" if unit else "measured", "axis", "middle")
    plot.items.append(
        f'<text class="axis" transform="translate(11 {top + area / 2:.0f}) rotate(-90)" text-anchor="middle">'
        "predicted</text>"
    )
    return plot.render()


def hexagons(x: Array, y: Array, radius: float, levels: int = 5) -> list[tuple[str, int]]:
    """Count points in hexagons: one path a level (1 to `levels`, by the count's logarithm), empty ones left out."""
    width, height = radius * math.sqrt(3), radius * 1.5
    row = np.round(y / height)
    column = np.round(x / width - 0.5 * (row % 2))
    centres, counts = np.unique(np.stack([column, row], axis=1), axis=0, return_counts=True)
    most = max(2, int(counts.max()))
    level = np.clip(np.ceil(levels * np.log(counts + 0.5) / math.log(most + 0.5)), 1, levels).astype(int)
    a, b, c = width / 2, radius / 2, radius
    outline = f"l{a:.1f} {b:.1f}v{c:.1f}l{-a:.1f} {b:.1f}l{-a:.1f} {-b:.1f}v{-c:.1f}z"
    paths = []
    for wanted in range(1, levels + 1):
        chosen = centres[level == wanted]
        parts = [f"M{(cx + 0.5 * (cy % 2)) * width:.1f} {cy * height - c:.1f}{outline}" for cx, cy in chosen]
        if parts:
            paths.append(("".join(parts), wanted))
    return paths
