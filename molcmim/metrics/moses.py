"""The measures of MOSES (Polykovskiy et al. 2020, Front. Pharmacol. 11, 565644), by the definitions of its code.

G: the valid molecules among those generated, in order, repeats kept. R: a test set. T: Tanimoto similarity of Morgan
fingerprints (see `molcmim.metrics.chemistry` for fingerprints, fragments, scaffolds, filters).

    valid           |G| / generated
    unique@k        distinct / k among the first k of G; NaN if G is smaller (the published code then uses all of G)
    Novelty         distinct molecules of G that aren't in MOSES' training set / distinct molecules of G
    IntDiv, IntDiv2 1 - mean over g of ( mean over h in G of T(g, h)^p )^(1/p), p = 1 and 2, g = h included
    SNN             mean over g of the largest T(g, r), r in R
    Frag, Scaf      cosine between the counts of fragments, of scaffolds, in G and in R
    FCD             Fréchet ChemNet Distance between G and R (`molcmim.metrics.fcd`)
    Filters         share of G that passes the structural filters
    logP, SA, QED,  1-Wasserstein distance between the property's distribution in G and in the test set (weight in Da)
    weight

SNN, Frag, Scaf and FCD are given against the test set (/Test) and the scaffold test set (/TestSF).

Deviations from the published code. The training set is written again by the RDKit in use before it is compared
(ours and its texts differ for about 1 in 5,000). MOSES has no stereochemistry, so a sample with a stereo centre is
always novel: `ignore_stereo` removes it first.
"""

# Axes: n, m molecules of two sets, F = 1024 bits, A, B of a block.

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from molcmim.chem import prepare_many
from molcmim.metrics.chemistry import PROPERTIES, Described, describe
from molcmim.metrics.fcd import ChemNet, frechet_distance
from molcmim.metrics.known import KnownSet
from molcmim.metrics.molmim import without_stereo
from molcmim.metrics.reference import Moses, Reference

if TYPE_CHECKING:
    from torch import Tensor

UNIQUE_AT = (1000, 10_000)
BLOCK_ROWS = 4096  # of a matrix of similarities: a block takes 64 MB

Fingerprints = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float64]


def moses_metrics(
    generated: Sequence[object],
    moses: Moses | None,
    device: str = "cpu",
    workers: int | None = None,
    ignore_stereo: bool = False,
    filters: Sequence[str] = (),
    known: KnownSet | None = None,
) -> dict[str, float]:
    """The MOSES measures of a sample (definitions at the top of the file); MOSES itself uses 30,000 molecules.

    Parameters
    ----------
    generated
        What a model wrote, in order; None or text that is no molecule counts as invalid.
    moses
        The references, see `molcmim.metrics.reference.load_moses`; None: only what needs none.
    device
        Of torch, for ChemNet and the similarities.
    workers
        Processes that parse and compute; None: one per CPU.
    ignore_stereo
        Remove stereo centres and double-bond geometry from the samples first.
    filters
        SMARTS for `Filters` where there is no `moses`; without either it is left out.
    known
        Another training set than MOSES', the model's own: adds `Novelty/known`.

    Returns
    -------
    dict
        By the names at the top of the file, and `n` (generated). NaN where a measure can't be computed: fewer than
        2 valid molecules, none with a scaffold, and so on.

    Raises
    ------
    ValueError
        If `generated` is empty.
    ImportError
        If `fcd_torch` isn't installed, with `moses`.
    """
    if not len(generated):
        raise ValueError("generated: expected at least 1 row, got none")
    network = ChemNet(device) if moses is not None else None  # first: a missing package is known at once
    prepared = prepare_many(generated, workers=workers)
    valid = [text for text, _ in prepared if text is not None]
    if ignore_stereo:
        valid = [without_stereo(text) for text in valid]
    result: dict[str, float] = {"n": len(generated), "valid": len(valid) / len(generated)}
    result |= {f"unique@{k}": unique_at(valid, k) for k in UNIQUE_AT}
    patterns = moses.filters if moses is not None else filters
    found = describe(valid, patterns, workers)
    if moses is not None and network is not None:
        gaussian = network.gaussian(valid) if len(valid) > 1 else None
        for name, reference in (("Test", moses.test), ("TestSF", moses.test_scaffolds)):
            distance = math.nan if gaussian is None else frechet_distance(gaussian, reference.gaussian)
            result[f"FCD/{name}"] = distance
            result |= {f"{key}/{name}": value for key, value in _similarities(found, reference, device).items()}
    result["IntDiv"], result["IntDiv2"] = internal_diversity(found.fingerprints, device)
    if patterns:
        result["Filters"] = float(found.passes.mean()) if valid else math.nan
    if moses is not None:
        for column, name in enumerate(PROPERTIES):
            result[name] = wasserstein(found.properties[:, column], moses.test.properties[:, column])
        result["Novelty"] = novelty(valid, moses.train)
    if known is not None:
        result["Novelty/known"] = novelty(valid, known)
    return result


def unique_at(valid: Sequence[str], k: int) -> float:
    """Share of distinct texts among the first k; NaN if there are fewer.

    >>> unique_at(["C", "C", "CC", "CCC"], 3)
    0.6666666666666666
    """
    return len(set(valid[:k])) / k if len(valid) >= k else math.nan


def novelty(valid: Sequence[str], train: KnownSet) -> float:
    """Share of the distinct canonical SMILES that the training set lacks; NaN without any."""
    distinct = list(dict.fromkeys(valid))
    return 1.0 - float(train.contains(distinct).mean()) if distinct else math.nan


def cosine(a: Mapping[str, int], b: Mapping[str, int]) -> float:
    """Cosine between two tables of counts; NaN if one is empty.

    >>> cosine({"x": 3, "y": 4}, {"x": 1})
    0.6
    """
    if not a or not b:
        return math.nan
    shared = sum(count * b.get(key, 0) for key, count in a.items())
    return shared / math.sqrt(sum(x * x for x in a.values()) * sum(x * x for x in b.values()))


def wasserstein(a: FloatArray, b: FloatArray) -> float:
    """1-Wasserstein distance between two samples of numbers: the area between their distribution functions.

    NaNs are left out; NaN if nothing else is there.
    """
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if not len(a) or not len(b):
        return math.nan
    at = np.sort(np.concatenate([a, b]))
    share_a = np.searchsorted(a, at[:-1], side="right") / len(a)
    share_b = np.searchsorted(b, at[:-1], side="right") / len(b)
    return float(np.sum(np.abs(share_a - share_b) * np.diff(at)))


def nearest_similarity(generated: Fingerprints, reference: Fingerprints, device: str = "cpu") -> FloatArray:
    """Largest Tanimoto similarity of each of n packed fingerprints to any of m: (n,).

    Raises
    ------
    ValueError
        If there is no reference.
    """
    if not len(reference):
        raise ValueError("reference: expected at least 1 fingerprint, got none")
    best = np.zeros(len(generated))
    for start, block in _blocks(generated, device):
        rows = slice(start, start + len(block))
        for _, other in _blocks(reference, device):
            best[rows] = np.maximum(best[rows], _tanimoto(block, other).amax(dim=1).cpu().numpy())
    return best


def internal_diversity(fingerprints: Fingerprints, device: str = "cpu") -> tuple[float, float]:
    """IntDiv and IntDiv2 of n packed fingerprints; NaN for none."""
    n = len(fingerprints)
    if not n:
        return math.nan, math.nan
    plain, squared = np.zeros(n), np.zeros(n)
    for start, block in _blocks(fingerprints, device):
        rows = slice(start, start + len(block))
        for _, other in _blocks(fingerprints, device):
            similarity = _tanimoto(block, other)  # (A, B)
            plain[rows] += similarity.sum(dim=1).cpu().numpy()
            squared[rows] += similarity.square().sum(dim=1).cpu().numpy()
    return 1.0 - float((plain / n).mean()), 1.0 - float(np.sqrt(squared / n).mean())


def _similarities(found: Described, reference: Reference, device: str) -> dict[str, float]:
    """SNN, Frag and Scaf against one test set."""
    nearest = nearest_similarity(found.fingerprints, reference.fingerprints, device)
    return {
        "SNN": float(nearest.mean()) if len(nearest) else math.nan,
        "Frag": cosine(found.fragments, reference.fragments),
        "Scaf": cosine(found.scaffolds, reference.scaffolds),
    }


def _blocks(fingerprints: Fingerprints, device: str) -> Iterator[tuple[int, Tensor]]:
    """First row and (A, F) bits as float32 of one block after the other."""
    import torch

    for start in range(0, len(fingerprints), BLOCK_ROWS):
        bits = np.unpackbits(fingerprints[start : start + BLOCK_ROWS], axis=1)
        yield start, torch.from_numpy(bits).to(device).float()


def _tanimoto(a: Tensor, b: Tensor) -> Tensor:
    """(A, B) similarities of (A, F) and (B, F) bits; two molecules without any bit are alike (1), as in MOSES."""
    common = a @ b.T  # whole numbers far below 2^24, so exact in float32
    union = a.sum(dim=1)[:, None] + b.sum(dim=1) - common
    return (common / union).nan_to_num(nan=1.0)
