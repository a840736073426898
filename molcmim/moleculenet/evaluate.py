"""One cell of the table: a feature set and a head on the splits of one data set."""

# Axes: n rows, t tasks, d features.

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.moleculenet.heads import CannotFit, Params, choose, grid, predictions
from molcmim.moleculenet.metrics import METRICS, masked_scores
from molcmim.moleculenet.protocols import Protocol, choosing_folds
from molcmim.moleculenet.types import Array, Dataset, Split

CHOOSING_TASKS = 12  #: of a set with more tasks, those with most labels choose the hyper-parameters for all


class Evaluation(NamedTuple):
    """What a cell came to."""

    records: list[dict[str, Any]]  #: rows of the results table, without the columns that name the cell
    predictions: dict[str, npt.NDArray[Any]]  #: `row`, `split`, `task`, `measured`, `predicted`, all of one length


def evaluate(
    x: npt.NDArray[Any],
    dataset: Dataset,
    protocol: Protocol,
    splits: Sequence[Split],
    head: str,
    groups: list[str] | None = None,
    seed: int = 0,
) -> Evaluation:
    """Score features on every split of a protocol.

    Parameters
    ----------
    x
        (n, d) features; rows of NaN (molecules without features) count as the training part's mean.
    groups
        `protocol.inner_groups(dataset)`, if at hand.

    Raises
    ------
    ValueError
        If the shapes don't fit, no row has features, or the protocol has no such head or kind of task.
    """
    if x.ndim != 2 or len(x) != len(dataset):
        raise ValueError(f"features: expected shape ({len(dataset)}, d), got {x.shape}")
    if not np.isfinite(x).any():
        raise ValueError(f"features: expected vectors for some molecule of {dataset.name}, got none")
    if head not in protocol.heads or dataset.task not in protocol.tasks:
        raise ValueError(f"protocol {protocol.name}: it has no {head!r} for {dataset.task}")
    groups = protocol.inner_groups(dataset) if groups is None else groups
    if protocol.selection == "minimum":
        return _grid_minimum(x, dataset, splits, head, seed)
    params: Params = {}
    parts = []
    for number, split in enumerate(splits):
        if number == 0 or protocol.selection != "first":
            rows, folds = choosing_folds(protocol, groups, split, head, seed)
            params = choose(head, dataset.task, x[rows], _choosing_targets(dataset.y[rows]), folds, seed)
        predicted, notes = _predict(x, dataset, split, head, [params], seed)
        parts.append(_part(dataset, split, number, predicted[0], params, notes, METRICS[dataset.task]))
    return _joined(parts)


def _choosing_targets(y: Array) -> Array:
    """Columns of (n, t) targets that take part in the choice of hyper-parameters."""
    if y.shape[1] <= CHOOSING_TASKS:
        return y
    labelled = (~np.isnan(y)).sum(axis=0)
    return y[:, np.sort(np.argsort(-labelled, kind="stable")[:CHOOSING_TASKS])]


def _predict(
    x: npt.NDArray[Any], dataset: Dataset, split: Split, head: str, candidates: list[Params], seed: int
) -> tuple[list[Array], list[str]]:
    """(n_test, t) predictions for each candidate, NaN where a task can't be fitted; and why not, a text a task."""
    results = [np.full((len(split.test), len(dataset.targets)), np.nan) for _ in candidates]
    notes = []
    for task, y in enumerate(dataset.y.T):
        train = split.train[~np.isnan(y[split.train])]
        note = ""
        try:
            found = predictions(head, dataset.task, x[train], y[train], x[split.test], candidates, seed)
            for result, values in zip(results, found, strict=True):
                result[:, task] = values
        except CannotFit as error:
            note = str(error)
        notes.append(note)
    return results, notes


class _Part(NamedTuple):
    records: list[dict[str, Any]]
    predictions: dict[str, npt.NDArray[Any]]


def _part(
    dataset: Dataset,
    split: Split,
    number: int,
    predicted: Array,
    params: Params,
    notes: list[str],
    metrics: tuple[str, ...],
) -> _Part:
    """The records and predictions of one split."""
    y = dataset.y[split.test]
    found = masked_scores(y, predicted, dataset.task, metrics)
    shared = {
        "split": number,
        "n_train": len(split.train),
        "n_test": len(split.test),
        "params": json.dumps(params, sort_keys=True) if params else "",
    }
    reason = "; ".join(sorted({note for note in notes if note}))
    records = []
    for metric, value in found.average.items():
        note = "; ".join(text for text in (found.note, reason) if text)
        n_tasks = found.n_tasks[metric]
        records.append({**shared, "task": "", "metric": metric, "value": value, "n_tasks": n_tasks, "note": note})
    if len(dataset.targets) > 1:
        for name, scores, note in zip(dataset.targets, found.per_task, notes, strict=True):
            for metric, value in scores.items():
                records.append({**shared, "task": name, "metric": metric, "value": value, "n_tasks": 1, "note": note})
    test, task = np.nonzero(~np.isnan(y))
    arrays: dict[str, npt.NDArray[Any]] = {
        "row": split.test[test].astype(np.int64),
        "split": np.full(len(test), number, dtype=np.int16),
        "task": task.astype(np.int16),
        "measured": y[test, task].astype(np.float32),
        "predicted": predicted[test, task].astype(np.float32),
    }
    return _Part(records, arrays)


def _joined(parts: list[_Part]) -> Evaluation:
    names = parts[0].predictions
    arrays = {name: np.concatenate([part.predictions[name] for part in parts]) for name in names}
    return Evaluation([record for part in parts for record in part.records], arrays)


def _grid_minimum(x: npt.NDArray[Any], dataset: Dataset, splits: Sequence[Split], head: str, seed: int) -> Evaluation:
    """Protocol `paper`: the entry of a wide grid with the least mean squared error over the folds themselves."""
    candidates = grid(head, dataset.task, min(len(split.train) for split in splits), x.shape[1], wide=True)
    by_split = [_predict(x, dataset, split, head, candidates, seed) for split in splits]
    metrics = ("mse", *METRICS[dataset.task])
    tried = []  # one list of parts a candidate
    for k, params in enumerate(candidates):
        made = enumerate(zip(splits, by_split, strict=True))
        tried.append([_part(dataset, s, i, found[k], params, notes, metrics) for i, (s, (found, notes)) in made])
    means = [np.mean([r["value"] for part in parts for r in part.records if _is_mean_mse(r)]) for parts in tried]
    return _joined(tried[int(np.nanargmin(means))] if np.isfinite(means).any() else tried[0])


def _is_mean_mse(record: dict[str, Any]) -> bool:
    return record["metric"] == "mse" and record["task"] == ""
