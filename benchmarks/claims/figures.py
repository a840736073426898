"""Figures of the claims study: scores against a number that varies, a panel for each embedding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from report_text import mean_and_deviation

POINT, SMALL = 110, 8  #: dots an inch; size of a legend with many lines


class Curve(NamedTuple):
    """One line: at each x the values over seeds, none where the cell isn't there."""

    label: str
    points: Sequence[tuple[float, Sequence[float]]]
    style: str = "o-"
    colour: int | None = None  #: number of the cycle's colour


def panels_of(rows: int, columns: int, **options: Any) -> tuple[Any, Any]:
    """A figure to be written without a screen, and its panels."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    return plt.subplots(rows, columns, sharey=True, layout="constrained", **options)


def add_legend(drawn: Any, axes: Any) -> None:
    """One for all panels, below them, where it hides nothing; each label once, in the order of the panels."""
    entries = {label: handle for axis in axes for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}
    if entries:
        drawn.legend(entries.values(), entries.keys(), fontsize=SMALL, ncols=6, loc="outside lower center")


def write(drawn: Any, path: Path) -> None:
    """As a PNG whose bytes don't depend on the version of matplotlib that it names."""
    from matplotlib import pyplot as plt

    drawn.savefig(path, dpi=POINT, metadata={"Software": None})
    plt.close(drawn)


def draw_curves(path: Path, panels: Mapping[str, Sequence[Curve]], x_label: str, y_label: str) -> None:
    """One panel a title, with error bars of one standard deviation; x is logarithmic."""
    drawn, axes = panels_of(1, len(panels), figsize=(4 * len(panels), 3.8))
    ticks = sorted({x for curves in panels.values() for curve in curves for x, _ in curve.points})
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for curve in curves:
            points = [(x, *mean_and_deviation(values)) for x, values in curve.points if len(values)]
            if points:
                x, means, errors = zip(*points, strict=True)
                colour = None if curve.colour is None else f"C{curve.colour}"
                axis.errorbar(x, means, errors, fmt=curve.style, color=colour, capsize=3, label=curve.label)
        axis.set(xscale="log", xlabel=x_label, title=title, xticks=ticks, xticklabels=[f"{x:g}" for x in ticks])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel(y_label)
    add_legend(drawn, axes)
    write(drawn, path)


def draw_bars(path: Path, panels: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]], y_label: str) -> None:
    """Panel -> group (on the x axis) -> bar -> values over seeds; a bar without values is left out."""
    drawn, axes = panels_of(len(panels), 1, figsize=(10, 2.7 * len(panels)), sharex=True)
    lowest = []
    for axis, (title, groups) in zip(axes, panels.items(), strict=True):
        bars = list(dict.fromkeys(bar for group in groups.values() for bar in group))
        for k, bar in enumerate(bars):
            there = [(i, *mean_and_deviation(group[bar])) for i, group in enumerate(groups.values()) if group.get(bar)]
            if there:
                x, means, errors = zip(*there, strict=True)
                places = np.asarray(x) + (k - (len(bars) - 1) / 2) * 0.8 / len(bars)
                axis.bar(places, means, 0.8 / len(bars), yerr=errors, capsize=2, label=bar, color=f"C{k}")
                lowest.append(min(means))
        axis.set(title=title, xticks=range(len(groups)), xticklabels=list(groups), ylabel=y_label)
        axis.grid(axis="y", alpha=0.3)
    for label in axes[-1].get_xticklabels():  # the names of variants are long
        label.set(rotation=30, ha="right", rotation_mode="anchor")
    add_legend(drawn, axes)
    if lowest:
        axes[0].set_ylim(bottom=max(0.0, np.floor(10 * min(lowest)) / 10 - 0.1))
    write(drawn, path)
