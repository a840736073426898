"""The map of a data set as it stands in the page: a scatter plot, examples, and what the script needs for its tooltips.

The map files are data like any other, so nothing in them is trusted: paths are checked, texts escaped.
"""

# Axes: m molecules on the map.

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from molcmim.moleculenet.plots import Canvas, escape, tick_texts, ticks
from molcmim.moleculenet.types import REGRESSION

SIZE = (620, 500)  #: of the scatter plot
EDGE = 12
COLUMNS, ROWS = 3, 4  #: of the examples
LABEL_COLOURS = ("#222", "#2b5fc9", "#c62828", "#96700a", "#21803a")  #: see `maps.COLOURS`

#: viridis (Smith, van der Walt, Firing; CC0) in nine steps, without its lightest end
VIRIDIS = ("#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#e2e418")
CLASSES = ("#e69f00", "#0072b2")  #: class 0 and class 1; Okabe & Ito's colours
_SAFE_PATH = re.compile(r"[-MLQCZ0-9. ]*")


def safe_path(d: Any) -> str:
    """The path, or nothing if it is more than one."""
    return d if isinstance(d, str) and _SAFE_PATH.fullmatch(d) else ""


def colour(share: float) -> str:
    """Colour of a place from 0 to 1 on the scale."""
    at = min(max(share, 0.0), 1.0) * (len(VIRIDIS) - 1)
    i = min(int(at), len(VIRIDIS) - 2)
    low, high = (tuple(int(VIRIDIS[j][k : k + 2], 16) for k in (1, 3, 5)) for j in (i, i + 1))
    return "#" + "".join(f"{round(a + (b - a) * (at - i)):02x}" for a, b in zip(low, high, strict=True))


def colour_range(values: Sequence[float]) -> tuple[float, float]:
    """Ends of the colour scale: a few extreme values don't take it all."""
    low, high = (float(v) for v in np.percentile(values, [2, 98]))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def map_plot(content: Mapping[str, Any], examples: Sequence[int]) -> str:
    """The scatter plot with its colour scale; circles carry the number of their molecule (`data-i`)."""
    points = content["points"]
    regression = content.get("task") == REGRESSION
    values = [float(point["value"]) for point in points]
    low, high = colour_range(values)
    width, height = SIZE
    plot = Canvas(width + 76, height, f"map of {content.get('title', '')}", "map")
    plot.rect(0.5, 0.5, width - 1, height - 1, "frame")
    plot.items.append('<g class="links"></g><g class="points">')
    places = [place(point) for point in points]
    for i, ((x, y), value) in enumerate(zip(places, values, strict=True)):
        fill = colour((value - low) / (high - low)) if regression else CLASSES[int(value > 0.5)]
        plot.items.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.2" fill="{fill}" data-i="{i}"/>')
    plot.items.append("</g>")
    for number, i in enumerate(examples, 1):
        x, y = places[i]
        plot.circle(x, y, 7.5, "example")
        plot.text(x, y + 3.6, str(number), "exampletext", "middle")
    left = width + 14
    if regression:
        _scale(plot, left, low, high, content)
    else:
        for k, name in enumerate(("class 0", "class 1")):
            plot.circle(left + 6, 26 + 22 * k, 5, "swatch", f' fill="{CLASSES[k]}"')
            plot.text(left + 16, 30 + 22 * k, name, "tick")
    return plot.render()


def place(point: Mapping[str, Any]) -> tuple[float, float]:
    """Pixels of a molecule on the map."""
    x, y = (min(max(float(point[axis]), 0.0), 1.0) for axis in ("x", "y"))
    return EDGE + x * (SIZE[0] - 2 * EDGE), EDGE + (1 - y) * (SIZE[1] - 2 * EDGE)


def _scale(plot: Canvas, left: float, low: float, high: float, content: Mapping[str, Any]) -> None:
    top, tall, steps = 34.0, 240.0, 48
    unit = str(content.get("unit", ""))
    plot.text(left, 16, unit or "value", "tick", "start", tip=f"{content.get('target', '')}, {unit}")
    for step in range(steps):
        more = f' fill="{colour((step + 0.5) / steps)}"'
        plot.rect(left, top + tall * (1 - (step + 1) / steps), 13, tall / steps + 0.6, "swatch", more)
    marks = ticks(low, high, 6)
    for mark, text in zip(marks, tick_texts(marks), strict=True):
        y = top + tall * (1 - (mark - low) / (high - low))
        plot.line(left + 13, y, left + 17, y, "axisline")
        plot.text(left + 20, y + 4, text, "tick")


def choose_examples(points: Sequence[Mapping[str, Any]]) -> list[int]:
    """For each field of a grid of 3 x 4 over the map, from the upper left, the free molecule nearest to its centre.

    At most 12 numbers; molecules without a drawing are left out.
    """
    places = np.array([place(point) for point in points])  # (m, 2)
    free = [bool(point.get("drawing")) for point in points]
    chosen: list[int] = []
    for row in range(ROWS):
        for column in range(COLUMNS):
            centre = ((column + 0.5) / COLUMNS * SIZE[0], (row + 0.5) / ROWS * SIZE[1])
            distance = np.hypot(*(places - centre).T)
            distance[~np.array(free)] = math.inf
            best = int(distance.argmin())
            if math.isfinite(distance[best]):
                chosen.append(best)
                free[best] = False
    return chosen


def drawing_svg(content: Mapping[str, Any], drawing: Mapping[str, Any]) -> str:
    """A molecule's drawing as an SVG image."""
    width, height = int(content.get("width", 320)), int(content.get("height", 240))
    parts = [f'<path class="bond" d="{safe_path(drawing.get("lines", ""))}"/>']
    if drawing.get("fills"):
        parts.append(f'<path class="wedge" d="{safe_path(drawing["fills"])}"/>')
    for x, y, size, text, kind in drawing.get("labels", ()):
        fill = LABEL_COLOURS[int(kind) % len(LABEL_COLOURS)]
        parts.append(
            f'<text x="{float(x):g}" y="{float(y):g}" font-size="{float(size):g}" fill="{fill}">{escape(text)}</text>'
        )
    return f'<svg class="molecule" viewBox="0 0 {width} {height}" aria-hidden="true">{"".join(parts)}</svg>'


def value_text(content: Mapping[str, Any], value: float) -> str:
    """A measured value with its unit, or the class."""
    if content.get("task") != REGRESSION:
        return f"class {int(value > 0.5)}"
    return f"{value:.2f} {content.get('unit', '')}".strip().replace("-", "−", 1)


def script_data(content: Mapping[str, Any]) -> str:
    """JSON for the page's script, safe inside a <script> element."""
    points = [
        [
            round(place(point)[0], 1),
            round(place(point)[1], 1),
            value_text(content, float(point["value"])),
            str(point["smiles"]),
            [int(i) for i in point.get("near", ())],
            safe_path(point.get("drawing", {}).get("lines", "")),
            safe_path(point.get("drawing", {}).get("fills", "")),
            [[*(int(v) for v in label[:3]), str(label[3]), int(label[4])] for label in _labels(point)],
        ]
        for point in content["points"]
    ]
    data = {"width": int(content.get("width", 320)), "height": int(content.get("height", 240)), "points": points}
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _labels(point: Mapping[str, Any]) -> list[Any]:
    return list(point.get("drawing", {}).get("labels", ()))
