"""Success, gains and their intervals, from the traces that optimization.py wrote."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

Results = dict[str, Any]


def goal_calls(result: Results) -> np.ndarray:
    """The call at which each start reached QED 0.9; infinity where it didn't."""
    return np.array([min((c for c, s in e["trace"] if s >= 0.9), default=math.inf) for e in result["starts"]])


class Share(NamedTuple):
    share: float
    low: float
    high: float


def succeeded(result: Results, calls: int) -> Share | None:
    """Share of starts that reach QED 0.9 within so many calls, with Wilson's 95 % interval.

    Of a run that was stopped, a start counts as far as it got (Kaplan and Meier 1958). None where more than half of
    those without success hadn't got that far.
    """
    reached, spent = goal_calls(result), np.array([entry["calls"] for entry in result["starts"]])
    left = 1.0
    for n in np.unique(reached[reached <= calls]):
        left *= 1 - (reached == n).sum() / ((reached >= n) & (spent >= n)).sum()
    without = reached > calls
    followed = int((without & (spent >= min(calls, result["budget"]))).sum())
    if 2 * followed < without.sum():
        return None
    seen = len(reached) - int(without.sum()) + followed
    return Share(1 - left, *wilson((1 - left) * seen, seen)[1:])


def gains(result: Results, calls: int) -> np.ndarray:
    """Best feasible score within so many calls less the start's own, which is feasible itself."""
    best = [max(s for c, s in e["trace"] if c <= calls) for e in result["starts"]]
    return np.array(best) - np.array([e["start_score"] for e in result["starts"]])


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of a mean over independent starts, Student's t."""
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values)))
    return float(values.mean()) - half, float(values.mean()) + half


def wilson(k: float, n: int, z: float = 1.96) -> tuple[float, float, float]:
    """A share and its 95 % interval (Wilson 1927)."""
    p, centre = k / n, (k + z * z / 2) / (n + z * z)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return p, centre - half, centre + half
