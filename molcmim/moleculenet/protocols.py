"""Protocols: which rows are trained on and tested on, and how hyper-parameters are chosen.

A protocol is a frozen object with a name and a version: change what it does, and the version changes.

| name | splits | hyper-parameters chosen | equal molecules on both sides |
|---|---|---|---|
| `random5` | five random 80/20 | inner folds of each training part | no |
| `scaffold` | DeepChem's scaffold split, 80/10/10 | its validation part | no |
| `scaffold5` | five balanced scaffold splits, 80/20 | inner folds by scaffold | no |
| `spec5` | five random 80/20 by row | an inner 80/20 of the first training part | counted, not prevented |
| `paper` | one 5-fold cross-validation | minimum over a grid: optimistic | no |
"""

# Axes: n rows, d features.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from molcmim.moleculenet import splits
from molcmim.moleculenet.heads import HEADS
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION, Dataset, Rows, Split

INNER_FOLDS = 3
LARGE = 5000  #: training rows from which one inner fold is enough to choose on


@dataclass(frozen=True)
class Protocol:
    """How a feature set and a head are scored on a data set."""

    name: str
    version: int
    title: str
    description: str
    #: how hyper-parameters are chosen: "inner" folds of each training part, the "valid" part, an inner part of the
    #: "first" split's training rows for all splits, or the "minimum" of the score that is reported
    selection: str
    heads: tuple[str, ...] = HEADS  #: those it is defined for
    tasks: tuple[str, ...] = (REGRESSION, CLASSIFICATION)
    allows_duplicates: bool = False  #: equal molecules may stand in training and test part
    by_scaffold: bool = False  #: inner folds keep scaffolds together
    warning: str = ""  #: printed with every number made this way

    def make_splits(self, dataset: Dataset) -> list[Split]:
        """The outer splits of a data set, in a fixed order. See `molcmim.moleculenet.splits.check_split`."""
        if self.name == "random5":
            return [splits.random_split(dataset, seed) for seed in range(5)]
        if self.name == "scaffold":
            return [splits.scaffold_split(dataset)]
        if self.name == "scaffold5":
            return [splits.balanced_scaffold_split(dataset, seed) for seed in range(5)]
        if self.name == "spec5":
            return [splits.rows_split(len(dataset), seed) for seed in range(5)]
        return k_fold(dataset, 5, seed=0)

    def inner_groups(self, dataset: Dataset) -> list[str]:
        """What inner folds keep together: one label a row."""
        return splits.scaffolds(dataset) if self.by_scaffold else dataset.canonical


def k_fold(dataset: Dataset, k: int, seed: int) -> list[Split]:
    """K-fold cross-validation as splits, equal molecules kept together."""
    everything = np.arange(len(dataset))
    folds = splits.inner_folds(dataset.canonical, everything, k, seed)
    return [Split(train=everything[fit], test=everything[judge]) for fit, judge in folds]


def choosing_folds(
    protocol: Protocol, groups: list[str], split: Split, head: str, seed: int
) -> tuple[Rows, list[tuple[Rows, Rows]]]:
    """Rows of the data set, and the folds (as positions in them) on which to choose hyper-parameters.

    Boosting and training parts of over 5,000 rows make do with one fold.
    """
    if protocol.selection == "first":
        # the rows that scikit-learn's train_test_split(train, test_size=0.2, random_state=99) gives; this
        # seed reproduces the values quoted for the protocol for other models
        order = np.random.RandomState(99).permutation(len(split.train))
        cut = int(np.ceil(0.2 * len(order)))
        return split.train, [(order[cut:], order[:cut])]
    if protocol.selection == "valid" and len(split.valid):
        rows = np.concatenate([split.train, split.valid])
        return rows, [(np.arange(len(split.train)), np.arange(len(split.train), len(rows)))]
    n_folds = 1 if head == "xgb" or len(split.train) > LARGE else INNER_FOLDS
    return split.train, splits.inner_folds(groups, split.train, n_folds, seed)


_PAPER_WARNING = (
    "The number is the minimum over a grid of the very errors that are reported, so it is optimistic: compare it only "
    "with numbers made the same way."
)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "random5",
            1,
            "random splits",
            "Five random 80/20 splits (seeds 0-4); equal molecules (by canonical SMILES) stay on one side. "
            "Hyper-parameters are chosen on three inner folds of each training part.",
            "inner",
        ),
        Protocol(
            "scaffold",
            1,
            "DeepChem's scaffold split",
            "One 80/10/10 split by Bemis-Murcko scaffold, the most frequent scaffolds in the training part, row for "
            "row DeepChem's ScaffoldSplitter. Hyper-parameters are chosen on the validation part; intervals come from "
            "resampling the test molecules and know nothing of other splits.",
            "valid",
            by_scaffold=True,
        ),
        Protocol(
            "scaffold5",
            1,
            "balanced scaffold splits",
            "Five 80/20 splits (seeds 0-4) by Bemis-Murcko scaffold in random order; scaffolds larger than half the "
            "test part go to the training part. Hyper-parameters are chosen on three inner folds by scaffold.",
            "inner",
            by_scaffold=True,
        ),
        Protocol(
            "spec5",
            1,
            "random splits by row",
            "Five random 80/20 splits by row (RandomState(seed).permutation); hyper-parameters are chosen once, on "
            "an inner 80/20 of the first training part. Equal molecules may stand on both sides.",
            "first",
            allows_duplicates=True,
            warning="Some molecules stand in training and test part; random5 keeps them on one side.",
        ),
        Protocol(
            "paper",
            1,
            "grid minimum under cross-validation",
            "Features and target standardised, SVR with RBF kernel over a grid of C and gamma, or an MLP over a small "
            "grid; mean squared error over a 5-fold cross-validation in the target's own units (squared).",
            "minimum",
            heads=("svm", "mlp"),
            tasks=(REGRESSION,),
            warning=_PAPER_WARNING,
        ),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol of that name; ValueError with the names that there are."""
    if name not in PROTOCOLS:
        raise ValueError(f"protocol: expected one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]
