"""The development group: property sets on which a recipe is chosen, none of which is in the final table.

| set | molecules | tasks | folds |
|---|---|---|---|
| `qm8` | 1,500 at random | three computed excitation energies and strengths | random |
| `tox21` | 1,500 at random of those with a label | five assays | random |
| `toxcast` | 1,500 at random of those with a label | eight assays with many labels, none of Tox21's | by scaffold |
| `muv` | 2,500: all actives of any assay, others at random | all seventeen | random, actives spread evenly |
| `probes` | 1,500 held-out ones of a corpus | computed, which no `properties` factor is trained on | random |
| `probes-known` | the same | computed, which it is trained on; not in the summary | random |

Three folds: every molecule is tested once, and trained on twice. MUV has about thirty actives an assay and decoys that
are mostly unlabelled for it; keeping all actives makes an assay's part about one active in fourteen here, not one in
five hundred, and ROC-AUC doesn't depend on that share.
"""

# Axes: n molecules, t tasks.

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import QED, Crippen, GraphDescriptors, rdMolDescriptors
from subset import position

from molcmim.beside import written_beside
from molcmim.chem import prepare_many
from molcmim.corpus import TokenStore
from molcmim.moleculenet import splits
from molcmim.moleculenet.datasets import SETS as FILES
from molcmim.moleculenet.sources import find_file, read_table
from molcmim.moleculenet.types import CLASSIFICATION, REGRESSION, Dataset, Split
from molcmim.sa_score import sa_score
from molcmim.tokenizer import load_tokenizer

VERSION = 1  #: of the choice of molecules and tasks; part of the digest
FOLDS = 3
SEED = 0
PROBE_MOLECULES = 1500
FORBIDDEN = ("esol", "freesolv", "lipo", "bace", "bbbp", "clintox", "hiv", "sider")  #: of the final table


class SetPlan(NamedTuple):
    """Which part of a benchmark file is used."""

    n: int  #: molecules at most
    tasks: tuple[str, ...]  #: columns; empty: all
    by_scaffold: bool = False
    keep_actives: bool = False


PLANS: dict[str, SetPlan] = {
    "qm8": SetPlan(1500, ("E1-CC2", "E2-CC2", "f1-CC2")),
    "tox21": SetPlan(1500, ("NR-AhR", "NR-ER", "SR-ARE", "SR-MMP", "SR-p53")),
    "toxcast": SetPlan(1500, (), by_scaffold=True),
    "muv": SetPlan(2500, (), keep_actives=True),
}
PROBES = ("probes", "probes-known")  #: of the same molecules
NAMES = (*PLANS, *PROBES)
COUNTED = tuple(name for name in NAMES if name != "probes-known")  #: sets that the summary is the mean of
TOXCAST_TASKS = 8
TOXCAST_MINORITY = 0.1  #: an assay has at least this share of either class


class DevelopmentSet(NamedTuple):
    """One set, and the folds that its tasks are scored on."""

    data: Dataset
    folds: list[Split]
    groups: list[str]  #: what inner folds keep together


# ------------------------------------------------------------------------------------------ files of benchmarks


def choose_rows(y: np.ndarray, plan: SetPlan, seed: int = SEED) -> np.ndarray:
    """(m,) sorted rows of (n, t) labels: all with an active if the plan keeps them, and others at random."""
    labelled = np.flatnonzero(~np.isnan(y).all(axis=1))
    order = np.random.default_rng(seed).permutation(labelled)
    if plan.keep_actives:
        active = (np.nan_to_num(y[order]) > 0).any(axis=1)
        order = np.concatenate([order[active], order[~active]])
    return np.sort(order[: plan.n])


def choose_tasks(y: np.ndarray, names: Sequence[str], n: int, minority: float) -> list[int]:
    """Columns with most labels among those with at least that share of either class, Tox21's own assays left out."""
    found = []
    for k, name in enumerate(names):
        labels = y[~np.isnan(y[:, k]), k]
        share = labels.mean() if len(labels) else 0.0
        if not name.upper().startswith("TOX21") and minority <= share <= 1 - minority:
            found.append((-len(labels), k))
    return sorted(k for _, k in sorted(found)[:n])


def read_set(name: str, data_dir: Path) -> Dataset:
    """The molecules and labels of a plan, from the benchmark's file.

    Raises
    ------
    ValueError
        For a set of the final table, on which nothing is to be chosen.
    FileNotFoundError
        If the data directory lacks the file.
    """
    if name in FORBIDDEN:
        raise ValueError(f"name: {name!r} is of the final table; nothing is chosen by it")
    plan, info = PLANS[name], FILES[name]
    path, why = find_file(info, data_dir)
    if path is None:
        raise FileNotFoundError(f"{name}: {why}")
    table = read_table(path, info.smiles, plan.tasks or info.targets)
    y, targets = table.y, list(table.targets)
    if name == "toxcast":
        columns = choose_tasks(y, targets, TOXCAST_TASKS, TOXCAST_MINORITY)
        y, targets = y[:, columns], [targets[k] for k in columns]
    rows = choose_rows(y, plan)
    prepared = prepare_many([table.smiles[i] for i in rows], policy="canonical", workers=0)
    kept: dict[str, int] = {}  # canonical SMILES -> row, the first of equal molecules
    for i, (text, _) in zip(rows.tolist(), prepared, strict=True):
        if text is not None:
            kept.setdefault(text, i)
    return make_dataset(name, info.task, targets, list(kept), y[list(kept.values())])


def make_dataset(name: str, task: str, targets: Sequence[str], canonical: list[str], y: np.ndarray) -> Dataset:
    facts = f"{VERSION} {name} {task} {list(targets)} {canonical}".encode() + np.nan_to_num(y, nan=-9e9).tobytes()
    return Dataset(
        name, name, task, tuple(targets), canonical, canonical, y, np.arange(len(canonical)),
        sha256=hashlib.sha256(facts).hexdigest(),
    )  # fmt: skip


# ------------------------------------------------------------------------------------------ probes


def diameter(molecule: Chem.Mol) -> float:
    """Bonds between the two atoms of the largest fragment that are farthest apart."""
    distance = Chem.GetDistanceMatrix(molecule)
    return float(distance[distance < molecule.GetNumAtoms()].max(initial=0.0))


Calculator = Callable[[Any], float]
UNTRAINED: dict[str, Calculator] = {  #: not in corpus_chem.PROPERTY_SETS
    "QED": QED.qed,
    "SA score": sa_score,
    "Bertz CT": GraphDescriptors.BertzCT,
    "kappa3": rdMolDescriptors.CalcKappa3,
    "Balaban J": GraphDescriptors.BalabanJ,
    "diameter": diameter,
}
TRAINED: dict[str, Calculator] = {  #: among them
    "log P": Crippen.MolLogP,
    "TPSA": rdMolDescriptors.CalcTPSA,
    "fraction sp3": rdMolDescriptors.CalcFractionCSP3,
    "stereocentres": rdMolDescriptors.CalcNumAtomStereoCenters,
}


def held_out(corpus: Path, n: int = PROBE_MOLECULES) -> list[str]:
    """Canonical SMILES of n validation molecules of a corpus: the first by `subset.position`.

    So a corpus and a part of it chosen by subset.py have the same ones.
    """
    store, tokenizer = TokenStore.open(corpus, "valid"), load_tokenizer(corpus / "vocab.json")
    texts = {tokenizer.decode(row.tolist()) for row in store.rows(np.arange(len(store)))}
    order = sorted(texts, key=position)
    found: list[str] = []
    for text, _ in prepare_many(order[: 2 * n], policy="canonical", workers=0):
        if text is not None and len(found) < n:
            found.append(text)
    if len(found) < n:
        raise ValueError(f"{corpus.name}: expected at least {n} validation molecules, got {len(found)}")
    return list(dict.fromkeys(found))


def probe_sets(smiles: list[str]) -> list[Dataset]:
    """Computed properties of molecules as two regression sets; a value that isn't finite is missing."""
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(text) for text in smiles]
        made = []
        for name, calculators in zip(PROBES, (UNTRAINED, TRAINED), strict=True):
            y = np.array([[f(molecule) for f in calculators.values()] for molecule in molecules], dtype=np.float64)
            y[~np.isfinite(y)] = np.nan
            low, high = np.nanpercentile(y, (0.5, 99.5), axis=0)  # a few giants would be most of the variance
            made.append(make_dataset(name, REGRESSION, list(calculators), smiles, np.clip(y, low, high)))
    return made


# ------------------------------------------------------------------------------------------ folds


def make_folds(data: Dataset, by_scaffold: bool = False) -> DevelopmentSet:
    """Three folds: scaffolds together, or random with the actives of each task spread evenly."""
    everything = np.arange(len(data))
    if by_scaffold:
        groups = splits.scaffolds(data)
        pairs = splits.inner_folds(groups, everything, FOLDS, SEED)
        return DevelopmentSet(data, [Split(fit, judge) for fit, judge in pairs], groups)
    stratum = np.zeros(len(data), dtype=np.int64)
    if data.task == CLASSIFICATION:
        active = np.nan_to_num(data.y) > 0
        rarest = np.argsort(active.sum(axis=0), kind="stable")
        for k in rarest[::-1]:  # a molecule active in several tasks counts for the rarest
            stratum[active[:, k]] = k + 1
    rng = np.random.RandomState(SEED)
    fold = np.empty(len(data), dtype=np.int64)
    order = rng.permutation(len(data))
    order = order[np.argsort(stratum[order], kind="stable")]
    fold[order] = np.arange(len(data)) % FOLDS
    made = [Split(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]
    return DevelopmentSet(data, made, data.canonical)


def development_group(data_dir: Path, corpus: Path, cache: Path | None = None) -> dict[str, DevelopmentSet]:
    """All sets by name, read from the cache where they are in it."""
    sets = {name: cached(cache, name, FILES[name].task, lambda name=name: read_set(name, data_dir)) for name in PLANS}
    for data in probe_sets(held_out(corpus)):
        sets[data.name] = data
    return {name: make_folds(data, name in PLANS and PLANS[name].by_scaffold) for name, data in sets.items()}


def digest(group: dict[str, DevelopmentSet]) -> str:
    """Of molecules, labels and folds: equal ones give comparable scores."""
    facts = [part for s in group.values() for part in (s.data.sha256.encode(), *(f.test.tobytes() for f in s.folds))]
    return hashlib.sha256(b"".join(facts)).hexdigest()[:16]


def cached(cache: Path | None, name: str, task: str, make: Callable[[], Dataset]) -> Dataset:
    """A data set through a .npz file: reading ToxCast's and MUV's tables takes longer than scoring on them."""
    path = None if cache is None else cache / f"{name}-v{VERSION}.npz"
    if path is not None and path.is_file():
        with np.load(path, allow_pickle=False) as file:
            return make_dataset(name, task, file["targets"].tolist(), file["canonical"].tolist(), file["y"])
    data = make()
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(path, ".npz") as part:
            np.savez(part, targets=np.array(data.targets), canonical=np.array(data.canonical), y=data.y)
    return data
