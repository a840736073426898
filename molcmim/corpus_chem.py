"""What a corpus build asks of RDKit: random SMILES, and descriptors for the `properties` factor.

Only rows that passed `chem.prepare` and fit `max_tokens` come here.
"""
# n molecules, P properties

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rdkit import Chem, rdBase
from rdkit.Chem import rdFingerprintGenerator, rdMolDescriptors

from .corpus import SPLITS, PropertyInfo

# Cheap ones, all from the graph: RDKit's names for its C++ calculators, then counts made here. Crippen's logP
# and molar refractivity take half the time.
_RDKIT_NAMES = (
    *("amw", "CrippenClogP", "CrippenMR", "tpsa", "labuteASA", "NumHBA", "NumHBD", "lipinskiHBA"),
    *("NumRotatableBonds", "NumHeavyAtoms", "NumAtoms", "NumHeteroatoms", "NumAmideBonds", "FractionCSP3"),
    *("NumRings", "NumAromaticRings", "NumAliphaticRings", "NumSaturatedRings", "NumHeterocycles"),
    *("NumAromaticHeterocycles", "NumSaturatedHeterocycles", "NumBridgeheadAtoms", "NumAtomStereoCenters"),
    *("chi0v", "chi1v", "hallKierAlpha", "kappa1", "kappa2"),
)
_ELEMENTS = ("N", "O", "F", "P", "S", "Cl", "Br")
_FORMULA_PART = re.compile("([A-Z][a-z]?)([0-9]*)")
_COUNT_NAMES = ("FormalCharge", *(f"Num{symbol}" for symbol in _ELEMENTS))
_BASIC = (*_RDKIT_NAMES, *_COUNT_NAMES)
# A third as much time again: surface area by ranges of atomic log P, refractivity and charge, and counts of atoms,
# bonds, charges and rings of each size (van Deursen et al. 2010).
_WIDE: tuple[tuple[str, int, Callable[[Chem.Mol], Sequence[float]]], ...] = (
    ("SlogP_VSA", 12, rdMolDescriptors.SlogP_VSA_),
    ("SMR_VSA", 10, rdMolDescriptors.SMR_VSA_),
    ("PEOE_VSA", 14, rdMolDescriptors.PEOE_VSA_),
    ("MQN", 42, rdMolDescriptors.MQNs_),
)
_WIDE_NAMES = (*_BASIC, *(f"{family}{i}" for family, n, _ in _WIDE for i in range(1, n + 1)))
MORGAN_RADIUS, MORGAN_SIZE = 2, 256  # counts of circular substructures (Rogers and Hahn 2010), folded: ECFP4 counts
PROPERTY_SETS: dict[str, tuple[str, ...]] = {
    "basic": _BASIC,
    "wide": _WIDE_NAMES,
    "morgan": (*_WIDE_NAMES, *(f"Morgan{i}" for i in range(MORGAN_SIZE))),
}

CLIP = 5.0
STEP = 0.04  #: of the stored values: 125 of them are CLIP
SAMPLE = 200_000
_NORMAL_IQR = 1.349  # interquartile range of a unit normal


def parse(smiles: str) -> Chem.Mol | None:
    """A molecule, or None if RDKit can't read it; RDKit's log is silent."""
    with rdBase.BlockLogs():
        return Chem.MolFromSmiles(smiles)


def random_smiles(molecule: Chem.Mol | None, smiles: str, seed: int) -> str:
    """A random SMILES of the molecule, the same for equal (seed, smiles); `smiles` itself if None."""
    if molecule is None:
        return smiles
    digest = hashlib.blake2b(f"{seed} {smiles}".encode(), digest_size=4).digest()
    random_seed = int.from_bytes(digest, "little") >> 2  # positive, below 2**30
    return str(Chem.MolToRandomSmilesVect(molecule, 1, randomSeed=random_seed)[0])


def descriptors(molecules: Sequence[Chem.Mol | None], kind: str = "basic") -> npt.NDArray[np.float32]:
    """`PROPERTY_SETS[kind]` of each molecule, (n, P) float32; NaN where there is no molecule, or RDKit fails."""
    calculate = rdMolDescriptors.Properties(list(_RDKIT_NAMES)).ComputeProperties
    morgan = rdFingerprintGenerator.GetMorganGenerator(radius=MORGAN_RADIUS, fpSize=MORGAN_SIZE)
    values = np.full((len(molecules), len(PROPERTY_SETS[kind])), np.nan)
    for i, molecule in enumerate(molecules):
        if molecule is None:
            continue
        try:
            values[i, : len(_RDKIT_NAMES)] = calculate(molecule)
        except (RuntimeError, ValueError):
            continue
        values[i, len(_RDKIT_NAMES) : len(_BASIC)] = _counts(molecule)
        if kind != "basic":
            values[i, len(_BASIC) : len(_WIDE_NAMES)] = _families(molecule)
        if kind == "morgan":
            values[i, len(_WIDE_NAMES) :] = morgan.GetCountFingerprintAsNumPy(molecule)
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _counts(molecule: Chem.Mol) -> list[int]:
    # the formula is written in C++; going through the atoms here would take as long as parsing the molecule
    formula = {e: int(n or 1) for e, n in _FORMULA_PART.findall(rdMolDescriptors.CalcMolFormula(molecule))}
    return [Chem.GetFormalCharge(molecule), *(formula.get(symbol, 0) for symbol in _ELEMENTS)]


def _families(molecule: Chem.Mol) -> list[float]:
    found: list[float] = []
    for _, n, calculate_family in _WIDE:
        try:
            found += calculate_family(molecule)
        except (RuntimeError, ValueError):  # an element without parameters
            found += [math.nan] * n
    return found


def standardise(directory: Path, rows: Sequence[int], kind: str) -> PropertyInfo:
    """Turn ``{split}.properties.raw`` (float32, as RDKit gives them) into ``{split}.properties.bin``.

    Stored are (raw - median) / scale, with scale = interquartile range / 1.349 (the standard deviation where
    that range is 0, as for rare counts; 1 where that is 0 too), clipped at ±5, as multiples of `STEP`; 0 for what is
    not a finite number. Median and scale come from up to 200,000 training rows, evenly spaced.

    Parameters
    ----------
    directory : Path
    rows : sequence of int
        Rows of each split, training first.
    kind : str
        A key of `PROPERTY_SETS`.
    """
    names = PROPERTY_SETS[kind]
    width = len(names)
    if rows[0] < 1:
        raise ValueError(f"rows: at least one training row expected, got {rows[0]}")
    raws = [_raw(directory / f"{split}.properties.raw", n, width) for split, n in zip(SPLITS, rows, strict=True)]
    train = raws[0]
    sample = np.array(train[:: max(1, -(-len(train) // SAMPLE))], dtype=np.float64)
    center, scale = np.empty(width), np.empty(width)
    for p, column in enumerate(sample.T):
        finite = column[np.isfinite(column)]
        low, center[p], high = np.percentile(finite, (25, 50, 75)) if len(finite) else (0.0, 0.0, 0.0)
        scale[p] = (high - low) / _NORMAL_IQR or (finite.std() if len(finite) else 0.0) or 1.0
    for split, raw in zip(SPLITS, raws, strict=True):
        with open(directory / f"{split}.properties.bin", "wb") as file:
            for start in range(0, len(raw), 100_000):
                values = np.asarray(raw[start : start + 100_000], dtype=np.float64)
                standard = np.clip((values - center) / scale, -CLIP, CLIP)
                whole = np.rint(np.where(np.isfinite(values), standard, 0.0) / STEP)
                file.write(whole.astype("i1").tobytes())
        (directory / f"{split}.properties.raw").unlink(missing_ok=True)
    return PropertyInfo(names, tuple(center.tolist()), tuple(scale.tolist()), STEP)


def _raw(path: Path, n: int, width: int) -> npt.NDArray[np.float32]:
    shape = (n, width)
    return np.memmap(path, "<f4", mode="r", shape=shape) if n else np.empty(shape, np.float32)
