"""What a run will compute: the cells of the table, what is left out and why, and about how long it takes."""

# Axes: n rows, d features, t tasks.

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from molcmim.moleculenet.heads import ROUNDS, TREES, grid
from molcmim.moleculenet.protocols import INNER_FOLDS, LARGE, Protocol
from molcmim.moleculenet.types import Dataset

LARGE_SETS = ("hiv", "muv", "tox21", "toxcast", "sider", "qm7", "qm8")
LARGE_HEADS = ("ridge", "xgb")  #: of large sets; linear alone for ToxCast and its 617 tasks
TYPICAL_WIDTH = 512  #: features, before they are computed


class Cell(NamedTuple):
    """One feature set and head on one data set under one protocol."""

    dataset: str
    protocol: str
    features: str
    head: str


@dataclass(frozen=True)
class Plan:
    """Cells in the order of data sets, and what was asked for but is not among them."""

    cells: list[Cell]
    left_out: list[str]


def make_plan(
    datasets: Iterable[Dataset],
    protocols: Sequence[Protocol],
    features: Sequence[str],
    heads: Sequence[str],
    everything: bool = False,
) -> Plan:
    """All combinations that make sense and aren't too expensive.

    Small sets get everything. Large ones (`LARGE_SETS`) get linear heads and XGBoost under the first protocol that
    fits, unless `everything` is true.
    """
    cells: list[Cell] = []
    left_out: list[str] = []
    for dataset in datasets:
        fitting = [protocol for protocol in protocols if dataset.task in protocol.tasks]
        for protocol in protocols:
            if protocol not in fitting:
                left_out.append(f"{dataset.name}: {protocol.name} is for {' and '.join(protocol.tasks)} only")
        allowed = tuple(heads)
        if dataset.name in LARGE_SETS and not everything:
            cheap = ("ridge",) if dataset.name == "toxcast" else LARGE_HEADS
            allowed = tuple(head for head in heads if head in cheap)
            dropped = [head for head in heads if head not in cheap]
            dropped += [protocol.name for protocol in fitting[1:]]
            fitting = fitting[:1]
            if dropped:
                left_out.append(
                    f"{dataset.name}: without {', '.join(dropped)}, as it is large (--everything adds them)"
                )
        for protocol in fitting:
            unfit = [head for head in allowed if head not in protocol.heads]
            if unfit:
                left_out.append(f"{dataset.name}: {protocol.name} is not for {', '.join(unfit)}")
            usable = [head for head in allowed if head in protocol.heads]
            cells += [Cell(dataset.name, protocol.name, label, head) for label in features for head in usable]
    return Plan(cells, left_out)


def estimate_seconds(cell: Cell, dataset: Dataset, protocol: Protocol, width: int = TYPICAL_WIDTH) -> float:
    """About how long one core takes for a cell: right within a factor of two or three.

    Constants were measured on one core of a server CPU of 2024, see benchmarks/moleculenet/README.md.
    """
    n, t = len(dataset), len(dataset.targets)
    candidates = len(grid(cell.head, dataset.task, n, width, wide=protocol.selection == "minimum"))
    folds = 1 if cell.head == "xgb" or 0.8 * n > LARGE or protocol.selection != "inner" else INNER_FOLDS
    n_splits = 1 if protocol.name == "scaffold" else 5
    if protocol.selection == "minimum":
        fits: float = n_splits * candidates
    elif protocol.selection == "first":
        fits = n_splits + (candidates if candidates > 1 else 0)
    else:
        fits = n_splits * (1 + (0.5 * folds * candidates if candidates > 1 else 0))
    return t * fits * _seconds_of_fit(cell.head, 0.8 * n, width) + 0.3


def _seconds_of_fit(head: str, n: float, d: float) -> float:
    """One fit and prediction on n rows; grids that share work count as if each entry cost its share."""
    if head == "svm":
        return 1.1e-7 * n**2 + 1e-11 * n**2 * d
    if head == "ridge":
        return 2e-11 * n * d * min(n, d) + 5e-8 * n * d
    if head.startswith("knn"):
        return 2e-11 * n**2 * d
    if head == "mlp":
        return 1.5e-3 * n + 4e-7 * n * d
    if head == "rf":
        return TREES * 1.5e-7 * n * d**0.5 * 10
    return max(ROUNDS) / len(ROUNDS) * (2e-3 + 1.2e-8 * n * d)
