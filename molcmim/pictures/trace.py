"""The chart of an optimisation: best score so far against oracle calls, one line a start, their median and a band."""

# Axes: r starts, m points of the common axis of calls. Coordinates are pixels at scale 1, y downwards.

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.moleculenet.plots import tick_texts, ticks
from molcmim.pictures.canvas import BAD, LINE, REFERENCE, SOFT, Canvas, Point, cut
from molcmim.pictures.molecules import INK

Array = npt.NDArray[np.float64]

HEIGHT = 330.0
BAND = (25.0, 75.0)  #: percentiles
MOST_LINES = 200  #: thin lines; more are one grey
POINTS, MOST_EXACT = 800, 3000  #: evenly spaced calls; up to so many steps, these are calls of the axis as well
LEFT, RIGHT, HEAD, FOOT = 46.0, 20.0, 32.0, 46.0
LEGEND = 330.0  #: width that the title of the axis leaves to it
THIN = "#6f7a86"


class Curves(NamedTuple):
    """What the chart shows."""

    calls: Array  #: (m,) common axis, from 0
    best: Array  #: (r, m) best score so far, NaN before the first score
    median: Array  #: (m,), over the starts that have a score
    low: Array  #: (m,) lower edge of the band
    high: Array  #: (m,)

    @property
    def n_scored(self) -> int:
        """Starts with any score."""
        return int(np.isfinite(self.best).any(axis=1).sum())


def curves(traces: Sequence[Any], calls: Sequence[int]) -> Curves:
    """Traces on a common axis; a start that ended early keeps its last value.

    Parameters
    ----------
    traces
        r sequences of (calls, best score so far), calls rising.
    calls
        r numbers of calls at the end.

    Raises
    ------
    ValueError
        If a trace isn't a sequence of pairs.
    """
    points = []
    for i, trace in enumerate(traces):
        array = np.asarray(list(trace), dtype=np.float64)
        if array.size and (array.ndim != 2 or array.shape[1] != 2):
            raise ValueError(f"trace: expected (calls, best score) pairs, got shape {array.shape} for start {i}")
        array = array.reshape(-1, 2)
        points.append(array[np.isfinite(array).all(axis=1)])
    last = max([1.0, *map(float, calls), *(float(array[-1, 0]) for array in points if len(array))])
    exact = points if sum(map(len, points)) <= MOST_EXACT else []
    axis = np.unique(np.concatenate([np.linspace(0, last, POINTS), *(array[:, 0] for array in exact)]))
    best = np.full((len(points), len(axis)), np.nan)
    for row, array in zip(best, points, strict=True):
        before = np.searchsorted(array[:, 0], axis, side="right") - 1  # (m,) last point at or before; -1: none
        reached = np.maximum.accumulate(array[:, 1]) if len(array) else array[:, 1]
        row[before >= 0] = reached[before[before >= 0]]
    some = np.isfinite(best).any(axis=0)
    summary = np.full((3, len(axis)), np.nan)
    if some.any():
        summary[:, some] = np.nanpercentile(best[:, some], (50.0, *BAND), axis=0)
    return Curves(axis, best, *summary)


def draw_chart(
    canvas: Canvas, x: float, y: float, width: float, shown: Curves, threshold: float | None, name: str
) -> None:
    """Draw into a field of (width, HEIGHT) with its upper left corner at (x, y)."""
    left, right, top, bottom = x + LEFT, x + width - RIGHT, y + HEAD, y + HEIGHT - FOOT
    finite = shown.best[np.isfinite(shown.best)]
    if not finite.size:
        canvas.text(x, y + 30, "no start has a score", 13.0, SOFT)
        return
    values = [float(finite.min()), float(finite.max()), *([] if threshold is None else [threshold])]
    low, high = min(values), max(values)
    pad = 0.06 * (high - low) or abs(high) * 0.05 or 1.0
    low, high, last = low - pad, high + pad, float(shown.calls[-1])

    def place(calls: float, score: float) -> Point:
        return left + (right - left) * calls / last, bottom - (bottom - top) * (score - low) / (high - low)

    _axes(canvas, (left, right, top, bottom), place, (low, high, last), name)
    n = shown.n_scored
    if n > 2:
        known = np.isfinite(shown.median)
        upper = _steps(shown.calls[known], shown.high[known], place)
        lower = _steps(shown.calls[known], shown.low[known], place)
        canvas.area([*upper, *reversed(lower)], REFERENCE, 0.14)
    for row in shown.best[:MOST_LINES]:
        known = np.isfinite(row)
        if known.any():
            canvas.lines(
                _steps(shown.calls[known], row[known], place),
                THIN if n > 1 else REFERENCE,
                0.9 if n > 1 else 2.4,
                _opacity(n),
            )
    if threshold is not None:
        _, level = place(0, threshold)
        canvas.lines([(left, level), (right, level)], BAD, 1.3)
        text = f"threshold {threshold:g}".replace("-", "−")
        canvas.text(left + 6, level - 5, text, 12.0, BAD)  # at the left, where curves are still below it
    if n > 1:
        known = np.isfinite(shown.median)
        canvas.lines(_steps(shown.calls[known], shown.median[known], place), REFERENCE, 2.6)
        _legend(canvas, right, y + 14, n)


def _opacity(n: int) -> float:
    """Of a thin line: the more there are, the fainter."""
    return 1.0 if n == 1 else min(0.75, max(0.16, 4.0 / math.sqrt(n) * 0.4))


def _axes(canvas: Canvas, box: tuple[float, ...], place: Any, ranges: tuple[float, float, float], name: str) -> None:
    left, right, top, bottom = box
    low, high, last = ranges
    marks = ticks(low, high, 6)
    for mark, text in zip(marks, tick_texts(marks), strict=True):
        _, level = place(0, mark)
        canvas.lines([(left, level), (right, level)], LINE)
        canvas.text(left - 7, level + 4, text, 11.5, SOFT, anchor="end")
    marks = [mark for mark in ticks(0, last, 6) if mark == int(mark)]
    for mark in marks:
        at, _ = place(mark, low)
        canvas.lines([(at, bottom), (at, bottom + 4)], SOFT)
        canvas.text(at, bottom + 18, f"{mark:,.0f}", 11.5, SOFT, anchor="middle")
    canvas.lines([(left, bottom), (right, bottom)], SOFT)
    canvas.text((left + right) / 2, bottom + 37, "oracle calls", 12.0, SOFT, anchor="middle")
    canvas.text(left - LEFT, top - 18, cut(f"best {name} so far", 12.0, right - left - LEGEND), 12.0, INK, True)


def _legend(canvas: Canvas, right: float, y: float, n: int) -> None:
    """From right to left: the band, the median, a start."""
    if n > 2:
        canvas.text(right, y, "middle half of the starts", 12.0, SOFT, anchor="end")
        canvas.area(
            [(right - 164, y - 9), (right - 142, y - 9), (right - 142, y + 1), (right - 164, y + 1)], REFERENCE, 0.2
        )
        right -= 182
    canvas.text(right, y, "median", 12.0, SOFT, anchor="end")
    canvas.lines([(right - 70, y - 4), (right - 48, y - 4)], REFERENCE, 2.6)
    right -= 88
    canvas.text(right, y, "one start", 12.0, SOFT, anchor="end")
    canvas.lines([(right - 82, y - 4), (right - 58, y - 4)], THIN, 0.9, 0.9)


def _steps(calls: Array, values: Array, place: Any) -> list[Point]:
    """The corners of a curve that stays level until the next call with another value."""
    corners: list[Point] = []
    for i, (at, value) in enumerate(zip(calls.tolist(), values.tolist(), strict=True)):
        if i and value == values[i - 1] and i < len(values) - 1:
            continue
        if i:
            corners.append(place(at, float(values[i - 1])))
        corners.append(place(at, value))
    return corners if len(corners) > 1 else [corners[0], corners[0]]
