"""Geometry of a latent space: how evenly it is filled, in how many dimensions, and whether neighbours are alike."""

# Axes: n rows, L latent.

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.generated import tanimoto
from molcmim.scoring.search_exact import unit_rows

Array = npt.NDArray[Any]
MAX_ROWS = 2000  #: of which all pairs are looked at


def uniformity(x: Array) -> float:
    """log mean over pairs of exp(-2 |u_i - u_j|^2) of unit vectors u (n, L): lower is more even, -4 at best.

    Source: Wang and Isola, arXiv 2005.10242, with t = 2.
    """
    u = unit_rows(x[:MAX_ROWS])
    squared = (2 - 2 * u @ u.T)[np.triu_indices(len(u), 1)]
    return float(np.log(np.exp(-2 * squared).mean()))


def effective_rank(x: Array) -> float:
    """exp of the entropy of the normalised singular values of the centred x (n, L): between 1 and L.

    Source: Roy and Vetterli, "The effective rank", EUSIPCO 2007.
    """
    s = np.linalg.svd(np.asarray(x, dtype=np.float64) - x.mean(0), compute_uv=False)
    p = s / s.sum()
    return float(np.exp(-(p * np.log(p.clip(1e-300))).sum()))


def nearest(x: Array, k: int = 1) -> npt.NDArray[np.intp]:
    """(n, k) rows of the k nearest others of each row by cosine, nearest first."""
    u = unit_rows(x)
    similarity = u @ u.T
    np.fill_diagonal(similarity, -np.inf)
    return np.argsort(-similarity, axis=1, kind="stable")[:, :k]


def neighbour_chemistry(x: Array, smiles: Sequence[str], k: int = 1) -> dict[str, float]:
    """Mean Tanimoto similarity (Morgan, radius 2, 2048 bits) of neighbours, and how often they share the scaffold.

    Parameters
    ----------
    x
        (n, L) vectors.
    smiles
        Their molecules, RDKit's canonical SMILES.

    Returns
    -------
    dict
        `tanimoto`, `tanimoto_at_random` (between other pairs), `same_scaffold` (Bemis-Murcko, of the molecules with a
        ring), `same_scaffold_at_random`.
    """
    from rdkit import Chem
    from rdkit.Chem.Scaffolds import MurckoScaffold

    scaffolds = [Chem.MolToSmiles(MurckoScaffold.GetScaffoldForMol(Chem.MolFromSmiles(text))) for text in smiles]

    def compare(others: npt.NDArray[np.intp]) -> tuple[float, float]:
        pairs = [(i, int(j)) for i, row in enumerate(others) for j in row]
        alike = tanimoto([smiles[i] for i, _ in pairs], [smiles[j] for _, j in pairs]).mean()
        same = [scaffolds[i] == scaffolds[j] for i, j in pairs if scaffolds[i]]
        return float(alike), float(np.mean(same)) if same else float("nan")

    shifts = np.random.RandomState(0).randint(1, len(smiles), (len(smiles), k))
    at_random = (np.arange(len(smiles))[:, None] + shifts) % len(smiles)
    (near, near_same), (far, far_same) = compare(nearest(x, k)), compare(at_random)
    return {
        "tanimoto": near,
        "tanimoto_at_random": far,
        "same_scaffold": near_same,
        "same_scaffold_at_random": far_same,
    }
