"""The `spec5` protocol: how well an SVM predicts measured properties from frozen features.

Random 80/20 splits, five of them; RBF kernel; every number that could be tuned is fixed but C, which is chosen
once a data set and feature set, inside the first split's training part. The docstrings below are its exact terms.
"""

# Axes: n molecules (rows), d features.

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from rdkit import Chem, rdBase
from sklearn.metrics import roc_auc_score
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.svm import SVC, SVR

Array = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

SEEDS = range(5)
INNER_SEED = 99
TRAIN_SHARE = 0.8
CLIP = 10.0  #: standard deviations
COSTS = (0.3, 1.0, 3.0, 10.0)  #: values of C to choose from
EPSILON = 0.1  #: of the SVR, in standard deviations of the target

FLOOR_ATOMS = ("C", "N", "O", "F", "P", "S", "Cl", "Br", "I", "B", "Si")


class SetInfo(NamedTuple):
    """A benchmark file and what to read from it."""

    title: str
    file: str  #: below ``moleculenet/`` of the data directory, without .csv or .csv.gz
    smiles: str
    target: str
    task: str  #: ``"regression"`` (scored by RMSE) or ``"classification"`` (scored by ROC AUC)


SETS = {
    "esol": SetInfo("ESOL", "delaney-processed", "smiles", "measured log solubility in mols per litre", "regression"),
    "freesolv": SetInfo("FreeSolv", "SAMPL", "smiles", "expt", "regression"),
    "lipo": SetInfo("Lipophilicity", "Lipophilicity", "smiles", "exp", "regression"),
    "bace": SetInfo("BACE", "bace", "mol", "Class", "classification"),
    "bbbp": SetInfo("BBBP", "BBBP", "smiles", "p_np", "classification"),
}


class Dataset(NamedTuple):
    """The rows of a benchmark file that RDKit can parse, in the file's order."""

    smiles: list[str]  #: as given, blanks and all (some of ESOL's end in one)
    mols: list[Chem.Mol]
    y: Array  #: (n,)
    task: str
    unparsable: int  #: rows left out


class Score(NamedTuple):
    """Result of one feature set on one data set."""

    mean: float  #: over the splits; RMSE in the target's units, or ROC AUC
    std: float  #: over the splits (population)
    splits: list[float]
    cost: float  #: C chosen
    not_embedded: int  #: rows without features, replaced by the mean

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


def load_set(data: Path, name: str) -> Dataset:
    """Read one benchmark set from ``data/moleculenet``.

    Raises
    ------
    FileNotFoundError
        If the file isn't there.
    ValueError
        If there is no such set, or a label isn't a number.
    """
    if name not in SETS:
        raise ValueError(f"set: expected one of {sorted(SETS)}, got {name!r}")
    info = SETS[name]
    plain, packed = (data / "moleculenet" / f"{info.file}{end}" for end in (".csv", ".csv.gz"))
    raw = plain.read_bytes() if plain.is_file() else gzip.decompress(packed.read_bytes())
    rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"))))
    with rdBase.BlockLogs():
        parsed = [(row[info.smiles], Chem.MolFromSmiles(row[info.smiles]), float(row[info.target])) for row in rows]
    kept = [row for row in parsed if row[1] is not None]
    smiles, mols, y = zip(*kept, strict=True)
    return Dataset(list(smiles), list(mols), np.array(y), info.task, len(rows) - len(kept))


def floor_features(mol: Chem.Mol, smiles: str) -> list[float]:
    """19 counts that any embedding should beat.

    Atoms of C N O F P S Cl Br I B Si; aromatic atoms, formal charge, hydrogens; double, triple and ring bonds;
    rings; length of the SMILES as given.
    """
    atoms, bonds = list(mol.GetAtoms()), list(mol.GetBonds())
    symbols = [atom.GetSymbol() for atom in atoms]
    return [
        *(float(symbols.count(symbol)) for symbol in FLOOR_ATOMS),
        sum(atom.GetIsAromatic() for atom in atoms),
        Chem.GetFormalCharge(mol),
        sum(atom.GetTotalNumHs() for atom in atoms),
        sum(bond.GetBondType() == Chem.BondType.DOUBLE for bond in bonds),
        sum(bond.GetBondType() == Chem.BondType.TRIPLE for bond in bonds),
        sum(bond.IsInRing() for bond in bonds),
        mol.GetRingInfo().NumRings(),
        len(smiles),
    ]


def load_peer(directory: Path, name: str, smiles: list[str]) -> Array:
    """Another model's frozen embeddings (n, d) of one set, ``{name}.npz`` with `smiles` and `emb`.

    Raises
    ------
    ValueError
        If its molecules aren't these, in this order.
    """
    with np.load(directory / f"{name}.npz", allow_pickle=False) as file:
        theirs, features = [str(text) for text in file["smiles"]], file["emb"].astype(np.float64)
    if theirs != smiles:
        raise ValueError(f"{directory / name}.npz: expected the {len(smiles)} molecules of the set, in its order")
    return features


def split(n: int, seed: int) -> tuple[Rows, Rows]:
    """Row numbers of train and test: a permutation by ``RandomState(seed)``, its first 80 % for training."""
    order = np.random.RandomState(seed).permutation(n)
    cut = int(TRAIN_SHARE * n)
    return order[:cut], order[cut:]


def inner_split(train: Rows) -> tuple[Rows, Rows]:
    """Rows to fit on and rows to choose C on, from the first split's training part.

    Permuted by ``RandomState(99)``, the first 20 % (rounded up) are for choosing: the rows that scikit-learn's
    ``train_test_split(train, test_size=0.2, random_state=99)`` gives. This seed reproduces the numbers
    quoted for this protocol for other models, see README.md.
    """
    order = np.random.RandomState(INNER_SEED).permutation(len(train))
    cut = len(train) - int(TRAIN_SHARE * len(train))
    return train[order[cut:]], train[order[:cut]]


def standardise(train: Array, test: Array) -> tuple[Array, Array]:
    """Both parts by the mean and standard deviation that the training part has, clipped at 10 of them.

    Columns that are constant in the training part are dropped. NaN rows (molecules that couldn't be embedded)
    don't count, and become the mean: zeros.
    """
    known = train[np.isfinite(train).all(axis=1)]
    if not len(known):
        raise ValueError("train: expected rows with features, got none")
    mean, std = known.mean(axis=0), known.std(axis=0)
    # rounding gives a constant column a tiny standard deviation, not always 0
    varies = std > 1e-10 * np.maximum(1.0, np.abs(mean))
    if not varies.any():
        raise ValueError("train: expected columns that vary, got only constant ones")

    def apply(part: Array) -> Array:
        scaled = np.clip((part[:, varies] - mean[varies]) / std[varies], -CLIP, CLIP)
        scaled[~np.isfinite(part).all(axis=1)] = 0.0
        return scaled

    return apply(train), apply(test)


def svm_scores(features: Array, y: Array, train: Rows, test: Rows, task: str, costs: tuple[float, ...]) -> list[float]:
    """RMSE (of the SVR) or ROC AUC (of the SVC) on the test rows for each value of C.

    gamma is 1 / number of features. The SVR sees the target standardised. The kernel is computed here, with one
    matrix product, as libsvm's own loop over 500 dense features takes several times as long.
    """
    x, x_test = standardise(features[train], features[test])
    gamma = 1.0 / x.shape[1]
    kernel = np.exp(-gamma * euclidean_distances(x, squared=True))
    kernel_test = np.exp(-gamma * euclidean_distances(x_test, x, squared=True))
    scores = []
    for cost in costs:
        if task == "classification":
            model = SVC(kernel="precomputed", C=cost, cache_size=1000).fit(kernel, y[train])
            scores.append(float(roc_auc_score(y[test], model.decision_function(kernel_test))))
        else:
            center, scale = y[train].mean(), y[train].std()
            model = SVR(kernel="precomputed", C=cost, epsilon=EPSILON, cache_size=1000)
            predicted = model.fit(kernel, (y[train] - center) / scale).predict(kernel_test) * scale + center
            scores.append(float(np.sqrt(np.mean((predicted - y[test]) ** 2))))
    return scores


def evaluate(features: npt.ArrayLike, y: Array, task: str) -> Score:
    """Features (n, d), NaN rows where there are none, and targets (n,) to a score.

    C is chosen on an inner 80/20 of the first split's training part, see `inner_split`.
    """
    x = np.asarray(features, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y):
        raise ValueError(f"features: expected shape ({len(y)}, d), got {x.shape}")
    outer = [split(len(y), seed) for seed in SEEDS]
    trials = svm_scores(x, y, *inner_split(outer[0][0]), task, COSTS)
    best = np.argmax(trials) if task == "classification" else np.argmin(trials)
    cost = COSTS[int(best)]
    splits = [svm_scores(x, y, train, test, task, (cost,))[0] for train, test in outer]
    missing = int((~np.isfinite(x).all(axis=1)).sum())
    return Score(float(np.mean(splits)), float(np.std(splits)), splits, cost, missing)
