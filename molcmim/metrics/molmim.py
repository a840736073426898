"""MolMIM's measures of sampling around seeds (Reidenbach et al. 2022, arXiv 2208.09016), and reconstruction.

For each seed some molecules (10 there) are sampled near its latent vector. After canonicalisation:

    validity           valid / generated
    uniqueness         mean over seeds of  distinct valid / valid
    novelty            distinct valid not in the training set / distinct valid, over all seeds together
    non-identicality   1 - mean over seeds of  valid equal to the seed / valid
    effective novelty  mean over seeds of  (distinct valid, neither the seed nor in the training set) / generated

A seed without a valid sample counts as 0 in effective novelty, and not at all in uniqueness and non-identicality,
whose denominator would be 0.
"""

# S seeds, N samples of all seeds together.

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from molcmim.chem import Prepared, prepare_many
from molcmim.metrics.known import KnownSet


def molmim_metrics(
    seeds: Sequence[object],
    samples: Sequence[Sequence[object]],
    known: KnownSet | None = None,
    workers: int | None = None,
) -> dict[str, float]:
    """MolMIM's five measures (definitions at the top of the file).

    Parameters
    ----------
    seeds
        S SMILES. Each must be a molecule, or there would be nothing to compare with.
    samples
        S lists, what was generated around each seed; None or text that is no molecule counts as generated and not
        valid.
    known
        The training set; None: `novelty` and `effective_novelty` are NaN.
    workers
        Processes that parse; see `molcmim.chem.prepare_many`.

    Returns
    -------
    dict
        `validity`, `uniqueness`, `novelty`, `non_identicality`, `effective_novelty` (0 to 1, NaN where nothing can be
        said), and the counts `seeds`, `generated`, `valid`, `distinct`.

    Raises
    ------
    ValueError
        If the two lists differ in length, are empty, or a seed is no molecule.
    """
    if len(seeds) != len(samples) or not len(seeds):
        raise ValueError(f"samples: expected one list for each of at least 1 seed, got {len(samples)} for {len(seeds)}")
    flat = [row for rows in samples for row in rows]
    prepared = prepare_many([*seeds, *flat], workers=workers)
    seed_smiles = _all_molecules(seeds, prepared[: len(seeds)], "seeds")
    answers = iter(row.canonical_smiles for row in prepared[len(seeds) :])
    valid = [[text for _ in rows if (text := next(answers)) is not None] for rows in samples]  # S lists

    distinct = sorted({text for texts in valid for text in texts})
    in_training = set()
    if known is not None:
        in_training = {text for text, found in zip(distinct, known.contains(distinct), strict=True) if found}
    effective = [
        len(set(texts) - in_training - {seed}) / len(rows) if len(rows) else math.nan
        for seed, texts, rows in zip(seed_smiles, valid, samples, strict=True)
    ]
    n_valid = sum(map(len, valid))
    return {
        "validity": _ratio(n_valid, len(flat)),
        "uniqueness": _mean([len(set(texts)) / len(texts) for texts in valid if texts]),
        "novelty": _ratio(len(distinct) - len(in_training), len(distinct)) if known is not None else math.nan,
        "non_identicality": 1
        - _mean([texts.count(seed) / len(texts) for seed, texts in zip(seed_smiles, valid, strict=True) if texts]),
        "effective_novelty": _mean([x for x in effective if not math.isnan(x)]) if known is not None else math.nan,
        "seeds": len(seeds),
        "generated": len(flat),
        "valid": n_valid,
        "distinct": len(distinct),
    }


def reconstruction_metrics(
    originals: Sequence[object], decoded: Sequence[object], workers: int | None = None
) -> dict[str, float]:
    """How often a molecule came back.

    Parameters
    ----------
    originals
        N SMILES, each a molecule.
    decoded
        N texts that the decoder wrote for them; None where it didn't finish.
    workers
        See `molcmim.chem.prepare_many`.

    Returns
    -------
    dict
        `exact`: share with the same canonical isomeric SMILES; `ignoring_stereo`: the same after stereo centres and
        double-bond geometry are removed from both; `valid`; `n`.

    Raises
    ------
    ValueError
        If the two lists differ in length, are empty, or an original is no molecule.
    """
    if len(originals) != len(decoded) or not len(originals):
        raise ValueError(f"decoded: expected as many rows as originals, at least 1, got {len(decoded)}")
    n = len(originals)
    prepared = prepare_many([*originals, *decoded], workers=workers)
    before = _all_molecules(originals, prepared[:n], "originals")
    after = [row.canonical_smiles for row in prepared[n:]]
    exact = [a == b for a, b in zip(before, after, strict=True)]
    flat = [
        same or (b is not None and without_stereo(a) == without_stereo(b))
        for same, a, b in zip(exact, before, after, strict=True)
    ]
    return {
        "exact": sum(exact) / n,
        "ignoring_stereo": sum(flat) / n,
        "valid": sum(text is not None for text in after) / n,
        "n": n,
    }


def without_stereo(canonical_smiles: str) -> str:
    """Canonical SMILES without stereo centres and double-bond geometry; isotopes stay.

    >>> without_stereo("C/C=C/[C@H](N)[13CH3]")
    'CC=CC([13CH3])N'

    Raises
    ------
    ValueError
        If the text is no SMILES.
    """
    if not any(mark in canonical_smiles for mark in "@/\\"):
        return canonical_smiles
    from rdkit import Chem

    molecule = Chem.MolFromSmiles(canonical_smiles)
    if molecule is None:
        raise ValueError(f"canonical_smiles: expected a SMILES, got {canonical_smiles[:80]!r}")
    Chem.RemoveStereochemistry(molecule)
    # written twice: the order of atoms that the stereo decided is decided anew
    return str(Chem.CanonSmiles(Chem.MolToSmiles(molecule)))


def _all_molecules(given: Sequence[object], prepared: Sequence[Prepared], name: str) -> list[str]:
    """Canonical SMILES of rows that must all be molecules."""
    found = []
    for row, (text, status) in enumerate(prepared):
        if text is None:
            raise ValueError(f"{name}, row {row}: expected a molecule, got {str(given[row])[:80]!r} ({status})")
        found.append(text)
    return found


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan
