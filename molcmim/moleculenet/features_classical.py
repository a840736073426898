"""Classical features from RDKit, the yardsticks of every embedding.

| name | width | what |
|---|---|---|
| `floor` | 19 | counts of atoms and bonds: what any embedding should beat |
| `maccs` | 167 | MACCS keys, RDKit's public set; bit 0 is never set |
| `ecfp4` | 2048 | Morgan fingerprint of radius 2, bits |
| `ecfp4-count` | 2048 | the same, counts |
| `rdkit2d` | 217 | every descriptor of `rdkit.Chem.Descriptors` (the number depends on the version of RDKit) |
| `rdkit2d+ecfp4` | 2265 | the two side by side |

>>> floor(["CCO"])[0, :3]                                                  # doctest: +SKIP
array([2., 0., 1.], dtype=float32)
"""

# Axes: n molecules, d features.

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.chem import cpu_count, screen

FloatArray = npt.NDArray[np.floating[Any]]
RowFunction = Callable[[Any, str], npt.ArrayLike]  # molecule and its text to (d,)

VERSION = 1  #: of the definitions here: part of the identity of what was computed
FLOOR_ATOMS = ("C", "N", "O", "F", "P", "S", "Cl", "Br", "I", "B", "Si")
FINGERPRINT_BITS = 2048
FINGERPRINT_RADIUS = 2
LARGEST = 3e38  #: magnitude at which descriptors are cut, so that float32 can hold them (Ipc alone goes beyond)
CHUNK_ROWS = 200  # molecules that a process gets at once: some seconds of descriptors
PARALLEL_ROWS = 400  # with fewer, starting processes costs more than it saves

_ROW_ERRORS = (RuntimeError, ValueError, ArithmeticError, LookupError)  # TypeError would be our own mistake


# ---------------------------------------------------------------------------------------------- feature sets


def floor(smiles: Sequence[str]) -> FloatArray:
    """(n, 19) float32 counts.

    Atoms of C N O F P S Cl Br I B Si; aromatic atoms, formal charge, hydrogens; double, triple and ring bonds;
    rings; length of the SMILES as given. Double bonds are those of the aromatic form: benzene has none.
    """
    return _rows(_floor_row, smiles, len(FLOOR_ATOMS) + 8)


def maccs(smiles: Sequence[str]) -> FloatArray:
    """(n, 167) float32 MACCS keys, bit 0 (never set) included so that columns have the keys' own numbers."""
    return _rows(_maccs_row, smiles, 167)


def ecfp4(smiles: Sequence[str]) -> FloatArray:
    """(n, 2048) float32 bits of the Morgan fingerprint of radius 2 (Rogers and Hahn 2010), no chirality."""
    return _rows(_ecfp4_row, smiles, FINGERPRINT_BITS)


def ecfp4_count(smiles: Sequence[str]) -> FloatArray:
    """(n, 2048) float32 counts of the same environments as `ecfp4`."""
    return _rows(_ecfp4_count_row, smiles, FINGERPRINT_BITS)


def rdkit2d(smiles: Sequence[str], workers: int | None = None) -> FloatArray:
    """(n, d) float64, every descriptor of RDKit in the order of `descriptor_names`; d is 217 in 2026.

    Parameters
    ----------
    smiles
        n texts.
    workers
        Processes; default: none for short lists, else one for each CPU.

    Returns
    -------
    (n, d) float64
        NaN where a descriptor raises, or isn't finite; values are cut at ±3e38. Rows of texts that are no molecules
        are NaN.

    Raises
    ------
    ValueError
        If `workers` is negative.
    """
    if workers is not None and workers < 0:
        raise ValueError(f"workers: expected None, 0 or more, got {workers}")
    texts, width = list(smiles), len(descriptor_names())
    if workers is None:
        workers = cpu_count() if len(texts) >= PARALLEL_ROWS else 1
    starts = range(0, len(texts), CHUNK_ROWS)
    if workers < 2 or len(starts) < 2:
        return _rows(_rdkit2d_row, texts, width, np.float64)
    from joblib import Parallel, delayed, parallel_config

    with parallel_config(backend="loky", n_jobs=workers, inner_max_num_threads=1):
        parts = Parallel(batch_size=1)(
            delayed(_rows)(_rdkit2d_row, texts[start : start + CHUNK_ROWS], width, np.float64) for start in starts
        )
    return np.concatenate(parts)


def rdkit2d_ecfp4(smiles: Sequence[str], workers: int | None = None) -> FloatArray:
    """(n, d + 2048) float64: `rdkit2d` and the bits of `ecfp4` side by side."""
    return np.hstack([rdkit2d(smiles, workers), ecfp4(smiles).astype(np.float64)])


#: Feature sets by name: n texts to (n, d), rows of NaN for texts that are no molecules
CLASSICAL: Mapping[str, Callable[[Sequence[str]], FloatArray]] = {
    "floor": floor,
    "maccs": maccs,
    "ecfp4": ecfp4,
    "ecfp4-count": ecfp4_count,
    "rdkit2d": rdkit2d,
    "rdkit2d+ecfp4": rdkit2d_ecfp4,
}


def classical(name: str, smiles: Sequence[str], workers: int | None = None) -> FloatArray:
    """A feature set by its name, with `workers` processes where it is slow (`rdkit2d`).

    Raises
    ------
    ValueError
        If there is no such feature set, or `workers` is negative.
    """
    if name not in CLASSICAL:
        raise ValueError(f"name: expected one of {', '.join(CLASSICAL)}, got {name!r}")
    if name == "rdkit2d":
        return rdkit2d(smiles, workers)
    if name == "rdkit2d+ecfp4":
        return rdkit2d_ecfp4(smiles, workers)
    return CLASSICAL[name](smiles)


def classical_identity(name: str) -> str:
    """What the values depend on besides the molecules: equal texts mean equal features."""
    import rdkit

    return f"{name} version {VERSION}, rdkit {rdkit.__version__}"


def descriptor_names() -> list[str]:
    """Names of the columns of `rdkit2d`, in the order that RDKit lists them in."""
    from rdkit.Chem import Descriptors

    return [name for name, _ in Descriptors.descList]


# ---------------------------------------------------------------------------------------------- rows


def _rows(row: RowFunction, smiles: Sequence[str], width: int, dtype: type = np.float32) -> FloatArray:
    """(n, width) of one function of a molecule; NaN rows where the text is no molecule or RDKit gives up."""
    from rdkit import Chem, rdBase

    x: FloatArray = np.full((len(smiles), width), np.nan, dtype=dtype)
    with rdBase.BlockLogs():
        for i, text in enumerate(smiles):
            stripped = screen(text).canonical_smiles  # None for what RDKit would misread
            mol = None if stripped is None else Chem.MolFromSmiles(stripped)
            if mol is None or not mol.GetNumAtoms():
                continue
            try:
                x[i] = row(mol, text)
            except _ROW_ERRORS:
                x[i] = np.nan
    return x


def _floor_row(mol: Any, text: str) -> list[float]:
    from rdkit.Chem import BondType, GetFormalCharge

    atoms, bonds = list(mol.GetAtoms()), list(mol.GetBonds())
    symbols = [atom.GetSymbol() for atom in atoms]
    kinds = [bond.GetBondType() for bond in bonds]
    return [
        *(symbols.count(symbol) for symbol in FLOOR_ATOMS),
        sum(atom.GetIsAromatic() for atom in atoms),
        GetFormalCharge(mol),
        sum(atom.GetTotalNumHs() for atom in atoms),
        kinds.count(BondType.DOUBLE),
        kinds.count(BondType.TRIPLE),
        sum(bond.IsInRing() for bond in bonds),
        mol.GetRingInfo().NumRings(),
        len(text),
    ]


def _maccs_row(mol: Any, text: str) -> npt.ArrayLike:
    from rdkit.Chem import rdMolDescriptors

    return list(rdMolDescriptors.GetMACCSKeysFingerprint(mol))


@cache
def _morgan() -> Any:
    from rdkit.Chem import rdFingerprintGenerator

    return rdFingerprintGenerator.GetMorganGenerator(radius=FINGERPRINT_RADIUS, fpSize=FINGERPRINT_BITS)


def _ecfp4_row(mol: Any, text: str) -> npt.ArrayLike:
    return _morgan().GetFingerprintAsNumPy(mol)


def _ecfp4_count_row(mol: Any, text: str) -> npt.ArrayLike:
    return _morgan().GetCountFingerprintAsNumPy(mol)


def _rdkit2d_row(mol: Any, text: str) -> npt.ArrayLike:
    from rdkit.Chem import Descriptors

    values = np.array([_descriptor(function, mol) for _, function in Descriptors.descList], dtype=np.float64)
    values[~np.isfinite(values)] = np.nan
    return np.clip(values, -LARGEST, LARGEST)


def _descriptor(function: Callable[[Any], float], mol: Any) -> float:
    try:
        return float(function(mol))
    except Exception:  # code of others, in Python: whatever it raises, it costs this entry alone
        return np.nan
