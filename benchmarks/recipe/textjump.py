"""How far does an embedding move when the same molecule is written in another way?"""

# Axes: n molecules, d features.

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from molcmim.corpus_chem import parse, random_smiles

MOLECULES = 1000
SEED = 0


def text_jump(model: Any, smiles: list[str], canonical: Mapping[str, np.ndarray], n: int = MOLECULES) -> dict[str, Any]:
    """Of n molecules: a random SMILES, embedded as it is written, against the canonical one.

    Parameters
    ----------
    smiles
        Canonical SMILES, of which the first n are used.
    canonical
        Their embeddings (n or more, d) by kind.

    Returns
    -------
    dict
        For each kind `jump`, the mean cosine distance between the two texts of a molecule as a share of the mean cosine
        distance between different molecules, and `self_retrieval`, the share of random SMILES whose nearest neighbour
        among the canonical ones, by cosine, is the same molecule.
    """
    chosen = smiles[:n]
    other = [random_smiles(parse(text), text, SEED) for text in chosen]
    found: dict[str, Any] = {}
    for kind, x in canonical.items():
        y = model.embed(other, kind=kind, policy="none", workers=0)
        found[kind] = compare(np.asarray(x[: len(chosen)], dtype=np.float64), np.asarray(y, dtype=np.float64))
    return found


def compare(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """`jump` and `self_retrieval` of embeddings (n, d) of two texts a molecule; rows of NaN are left out."""
    known = np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)
    a, b = (part[known] / np.linalg.norm(part[known], axis=1, keepdims=True) for part in (x, y))
    n = len(a)
    same = 1 - (a * b).sum(axis=1)
    between = 1 - (a @ a.T)
    different = between[~np.eye(n, dtype=bool)].mean()
    return {
        "n": n,
        "jump": float(same.mean() / different),
        "self_retrieval": float(((b @ a.T).argmax(axis=1) == np.arange(n)).mean()),
    }
