"""Other models' frozen vectors: a ``.npz`` file with the arrays `smiles` (m,) and `emb` (m, d)."""

# Axes: n molecules of the data set, m molecules of the file, d features.

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from molcmim.moleculenet.types import Dataset

KEYS = ("smiles", "emb")
SAME = 1e-3  # relative to a vector's largest entry: float16 has three digits
_LOAD_ERRORS = (ValueError, OSError, EOFError, KeyError, MemoryError, zipfile.BadZipFile, zlib.error)


class Vectors(NamedTuple):
    """Content of a file of vectors."""

    smiles: list[str]  #: m
    emb: npt.NDArray[np.float32]  #: (m, d); rows of NaN where that model has no vector
    sha256: str  #: of the file
    path: Path


def read_vectors(path: Path) -> Vectors:
    """Read and check a file of vectors. Pickled content is refused, not opened.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it isn't a .npz file, lacks one of the arrays, or their shapes or types are other ones; it names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file of vectors")
    data = path.read_bytes()
    try:
        archive = np.load(io.BytesIO(data), allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array")
        found = sorted(archive.files)
        arrays = {key: archive[key] for key in KEYS if key in found}
    except _LOAD_ERRORS as error:
        raise ValueError(f"{path}: expected a .npz file of plain arrays 'smiles' and 'emb': {error}") from error
    if len(arrays) < len(KEYS):
        raise ValueError(f"{path}: expected the arrays 'smiles' and 'emb', got {found[:10]}")
    smiles, emb = arrays["smiles"], arrays["emb"]
    if smiles.ndim != 1 or smiles.dtype.kind not in "US":
        raise ValueError(f"{path}: smiles: expected texts of shape (m,), got {smiles.dtype} of shape {smiles.shape}")
    if emb.ndim != 2 or len(emb) != len(smiles) or not emb.shape[1] or emb.dtype.kind not in "fiu":
        expected = f"numbers of shape ({len(smiles)}, d)"
        raise ValueError(f"{path}: emb: expected {expected}, got {emb.dtype} of shape {emb.shape}")
    if smiles.dtype.kind == "S":
        smiles = np.char.decode(smiles, "utf-8", "replace")
    with np.errstate(over="ignore"):
        vectors = emb.astype(np.float32)
    vectors[~np.isfinite(vectors)] = np.nan
    return Vectors([str(text) for text in smiles], vectors, hashlib.sha256(data).hexdigest(), path)


def align(vectors: Vectors, dataset: Dataset, workers: int | None = None) -> npt.NDArray[np.float32]:
    """The vectors of a data set's rows.

    Rows are matched by position if file and data set hold the same texts in the same order. Otherwise by SMILES text
    in whatever order, and rows whose text the file lacks by canonical SMILES.

    Parameters
    ----------
    workers
        Processes that parse the file's SMILES, where that is needed; see `molcmim.chem.prepare_many`.

    Returns
    -------
    (n, d) float32
        NaN in rows that the file lacks.

    Raises
    ------
    ValueError
        If the file has vectors for fewer than half of the molecules; or has different vectors for one SMILES, and
        position can't tell which is meant.
    """
    if vectors.smiles == dataset.smiles:
        return vectors.emb
    at = _positions(vectors, vectors.smiles, dataset.smiles)
    found = [at.get(text) for text in dataset.smiles]
    lacking = [i for i, position in enumerate(found) if position is None]
    n_text = len(found) - len(lacking)
    if lacking:
        from molcmim.chem import prepare_many

        canonical = [row.canonical_smiles for row in prepare_many(vectors.smiles, workers=workers)]
        at = _positions(vectors, canonical, {dataset.canonical[i] for i in lacking})
        for i in lacking:
            found[i] = at.get(dataset.canonical[i])
    n_found = sum(position is not None for position in found)
    if 2 * n_found < len(found):
        raise ValueError(
            f"{vectors.path}: expected vectors of the {len(found)} molecules of {dataset.name}, but {n_text} match by "
            f"SMILES text and {n_found - n_text} more by canonical SMILES: fewer than half"
        )
    x = np.full((len(found), vectors.emb.shape[1]), np.nan, dtype=np.float32)
    for i, position in enumerate(found):
        if position is not None:
            x[i] = vectors.emb[position]
    return x


def _positions(vectors: Vectors, keys: Sequence[str | None], wanted: Collection[str]) -> dict[str, int]:
    """Position of each wanted key; ValueError if its vectors differ."""
    wanted = set(wanted)
    at: dict[str, int] = {}
    for position, key in enumerate(keys):
        if key is None or key not in wanted:
            continue
        first = at.setdefault(key, position)
        if first != position and not _same(vectors.emb[first], vectors.emb[position]):
            raise ValueError(
                f"{vectors.path}: expected one vector for {key!r}, got different ones in rows {first} and {position}, "
                "and the file's SMILES aren't the data set's in its order, so position can't tell them apart"
            )
    return at


def _same(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> bool:
    """Whether two vectors (d,) are equal but for rounding."""
    scale = np.abs(np.nan_to_num(a)).max()
    return bool(np.allclose(a, b, rtol=0.0, atol=SAME * scale, equal_nan=True))
