"""Figures of report.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from shares import Results, gains, interval, succeeded

mpl.use("agg")
import matplotlib.pyplot as plt

METHODS = {"cma": "CMA-ES", "random": "random search"}
COLOURS = {"cma": "#1f5fa8", "random": "#b0541c"}


def optimization_figure(qed: dict[str, Results], plogp: dict[tuple[str, float], Results], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    for method, result in qed.items():
        calls = np.unique(np.geomspace(1, result["budget"], 200).astype(int))
        known = [(n, each) for n in calls if (each := succeeded(result, n)) is not None]
        calls, shares = np.array([n for n, _ in known]), 100 * np.array([each for _, each in known])
        left.plot(calls, shares[:, 0], color=COLOURS[method], label=METHODS[method])
        left.fill_between(calls, shares[:, 1], shares[:, 2], color=COLOURS[method], alpha=0.15, lw=0)
    left.set(xscale="log", xlabel="oracle calls per start", ylabel="starts with QED ≥ 0.9 (%)", ylim=(0, 100))
    left.set_title("QED ≤ 0.8 → ≥ 0.9 at Tanimoto ≥ 0.4", fontsize=10)
    left.legend(frameon=False, loc="upper left")
    for (method, delta), result in plogp.items():
        calls = np.unique(np.geomspace(1, result["budget"], 60).astype(int))
        each = [gains(result, n) for n in calls]
        low, high = np.array([interval(x) if x.std() > 0 else (0.0, 0.0) for x in each]).T
        style = "-" if delta == 0.4 else "--"
        label = f"{METHODS[method]}, δ = {delta:g}"
        right.plot(calls, [x.mean() for x in each], style, color=COLOURS[method], label=label)
        right.fill_between(calls, low, high, color=COLOURS[method], alpha=0.12, lw=0)
    right.set(xscale="log", xlabel="oracle calls per start", ylabel="mean gain", ylim=(0, None))
    right.set_title("penalised log P, lowest starts", fontsize=10)
    right.legend(frameon=False, loc="upper left", fontsize=8)
    finish(figure, (left, right), path)


def neighbours_figure(found: Results, path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
    rows = sorted((row for row in found["radii"]), key=lambda row: row["absolute"])
    rows = [row for row in rows if row["unit"] == "spread"]
    radius = [row["radius"] for row in rows]
    lines = {
        "validity": ("valid", "#1f5fa8"),
        "non_identicality": ("not the seed", "#2b7a4b"),
        "novelty": ("novel", "#7d4aa0"),
        "effective_novelty": ("effective novelty", "#b0541c"),
    }
    for name, (label, colour) in lines.items():
        left.plot(radius, [100 * row[name] for row in rows], "o-", ms=4, color=colour, label=label)
    left.set(xlabel="radius (spreads of the codes)", ylabel="%", ylim=(0, 102))
    left.legend(frameon=False, fontsize=8)
    right.plot(radius, [row["tanimoto"] for row in rows], "o-", ms=4, color="#1f5fa8")
    right.set(xlabel="radius (spreads of the codes)", ylabel="mean Tanimoto similarity to the seed", ylim=(0, 1))
    finish(figure, (left, right), path)


def finish(figure: Any, axes: Sequence[Any], path: Path) -> None:
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.25)
    figure.savefig(path, dpi=130, metadata={"Software": None})
    plt.close(figure)
