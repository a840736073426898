"""A flat map of a data set's molecules by their features, with a compact drawing of each, for the report."""

# Axes: n molecules of the data set, m molecules on the map, d features.

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.beside import written_beside
from molcmim.moleculenet.types import REGRESSION, Array, Dataset, Rows

WIDTH, HEIGHT = 320, 240  #: of a drawing; whole numbers are exact enough at half that size on the screen
BOND = 30.0
NEIGHBOURS = 5
SMALLEST = 10  #: molecules without which there is no map

#: Elements with a colour in a drawing: an index into the page's list (0: black)
COLOURS = {"N": 1, "O": 2, "S": 3, "P": 3, "F": 4, "Cl": 4, "Br": 4, "I": 4}

_PATH = re.compile(r"<path class='bond[^']*' d='([^']*)' style='([^']*)'")
_TEXT = re.compile(r"<text x='([-\d.]+)' y='([-\d.]+)' class='atom-(\d+)' style='font-size:([\d.]+)px[^']*' >([^<]*)<")
_NUMBER = re.compile(r"-?\d+\.?\d*")


def make_map(
    dataset: Dataset,
    x: npt.NDArray[Any],
    out: Path,
    n: int = 600,
    *,
    features: str = "",
    seed: int = 0,
) -> Path:
    """Lay molecules out by t-SNE of their standardised features and write ``maps/<dataset>.json``.

    Parameters
    ----------
    x
        (n, d) features of the data set's rows; rows of NaN are left out.
    out
        The output folder.
    n
        At most so many molecules, drawn with `seed`.
    features
        What the features are called.

    Returns
    -------
    Path
        The file: for each molecule its place (0 to 1), measured value, SMILES, nearest neighbours among those shown
        (in all d dimensions), and a drawing as bond paths, filled paths and labels. It also says how far
        measured values of nearest neighbours lie apart, and those of any two molecules: t-SNE pictures mislead,
        these numbers don't.

    Raises
    ------
    ValueError
        If `x` has other than one row a molecule, or fewer than 10 rows have features and a measured value.

    Notes
    -----
    t-SNE: van der Maaten & Hinton 2008, as in scikit-learn, from the first two principal components.
    """
    if x.ndim != 2 or len(x) != len(dataset):
        raise ValueError(f"x: expected shape ({len(dataset)}, d), got {x.shape}")
    usable = np.flatnonzero(np.isfinite(x).all(axis=1) & np.isfinite(dataset.y[:, 0]))
    if len(usable) < SMALLEST:
        raise ValueError(f"x: expected at least {SMALLEST} rows with features and a value, got {len(usable)}")
    rows = np.sort(np.random.default_rng(seed).permutation(usable)[:n])
    standard = _standardised(np.asarray(x, dtype=np.float64)[rows])
    places, near = _places(standard, seed), _neighbours(standard)
    value = dataset.y[rows, 0]
    points = [
        {
            "x": round(float(place[0]), 4),
            "y": round(float(place[1]), 4),
            "value": round(float(v), 4),
            "row": int(dataset.row[row]),
            "smiles": dataset.smiles[row].strip(),
            "near": [int(i) for i in others],
            "drawing": draw(dataset.canonical[row]),
        }
        for row, place, v, others in zip(rows, places, value, near, strict=True)
    ]
    content = {
        "dataset": dataset.name,
        "title": dataset.title,
        "features": features,
        "task": dataset.task,
        "target": dataset.targets[0],
        "unit": dataset.unit,
        "n_total": len(dataset),
        "seed": seed,
        "width": WIDTH,
        "height": HEIGHT,
        **_likeness(value, near, dataset.task),
        "points": points,
    }
    path = out / "maps" / f"{dataset.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as part:
        part.write_text(json.dumps(content, separators=(",", ":")), encoding="utf-8")
    return path


def _standardised(x: Array) -> Array:
    """(m, d) with mean 0 and standard deviation 1, clipped at 10; constant columns dropped."""
    spread = x.std(axis=0)
    keep = spread > 1e-9
    if not keep.any():
        return np.zeros((len(x), 1))
    return np.clip((x[:, keep] - x[:, keep].mean(axis=0)) / spread[keep], -10, 10)


def _places(x: Array, seed: int) -> Array:
    """(m, 2) places from 0 to 1."""
    from sklearn.manifold import TSNE  # lazy: scikit-learn
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if not x.any():
        return np.full((len(x), 2), 0.5)
    start = "pca" if x.shape[1] > 1 else "random"
    perplexity = min(30.0, (len(x) - 1) / 3)
    with threadpool_limits(1):  # its threads wait for each other: on a busy machine one is 10 times as fast as two
        places = TSNE(2, perplexity=perplexity, init=start, random_state=seed).fit_transform(x)
    span = np.maximum(np.ptp(places, axis=0), 1e-9)
    return np.asarray((places - places.min(axis=0)) / span, dtype=np.float64)


def _neighbours(x: Array) -> Rows:
    """(m, 5) nearest other rows, Euclidean, the nearest first."""
    from sklearn.neighbors import NearestNeighbors  # lazy: scikit-learn

    model = NearestNeighbors(n_neighbors=min(NEIGHBOURS, len(x) - 1)).fit(x)
    return np.asarray(model.kneighbors(return_distance=False), dtype=np.int64)


def _likeness(value: Array, near: Rows, task: str) -> dict[str, float]:
    """How alike the values of neighbours are, and of any two molecules.

    Regression: mean absolute difference. Classification: share of pairs in the same class.
    """
    apart = np.abs(value[:, None] - value[None, :])  # (m, m)
    if task != REGRESSION:
        apart = (apart == 0).astype(np.float64)
    m = len(value)
    others = (apart.sum() - np.trace(apart)) / (m * (m - 1))
    return {"neighbours": round(float(apart[np.arange(m), near[:, 0]].mean()), 4), "any_two": round(float(others), 4)}


# ---------------------------------------------------------------------------------------- drawings


def draw(smiles: str) -> dict[str, Any]:
    """A molecule as paths and labels on a canvas of 320 x 240, a few hundred bytes; empty if it can't be drawn.

    Returns
    -------
    dict
        ``lines``: a path of bonds to stroke. ``fills``: a path of wedges to fill. ``labels``: x, y (baseline, left),
        font size, text, colour (see `COLOURS`).
    """
    from rdkit import Chem, rdBase
    from rdkit.Chem.Draw import rdMolDraw2D

    with rdBase.BlockLogs():
        mol = Chem.MolFromSmiles(smiles)
    if mol is None or mol.GetNumAtoms() == 0:
        return {}
    drawer = rdMolDraw2D.MolDraw2DSVG(WIDTH, HEIGHT, -1, -1, True)  # the last: labels as text, not as outlines
    options: Any = drawer.drawOptions()
    options.useBWAtomPalette()
    options.fixedBondLength = BOND
    options.padding = 0.06
    options.addStereoAnnotation = False
    try:
        rdMolDraw2D.PrepareAndDrawMolecule(drawer, mol)
    except (ValueError, RuntimeError):
        return {}
    drawer.FinishDrawing()
    text = drawer.GetDrawingText()
    lines, fills = list[str](), list[str]()
    for path, style in _PATH.findall(text):
        (lines if "fill:none" in style else fills).append(_rounded(path))
    symbols = [atom.GetSymbol() for atom in mol.GetAtoms()]
    drawing: dict[str, Any] = {"lines": "".join(lines), "labels": _labels(_TEXT.findall(text), symbols)}
    if fills:
        drawing["fills"] = "".join(fills)
    return drawing


def _rounded(path: str) -> str:
    """A path in whole numbers and without blanks that aren't needed."""
    whole = _NUMBER.sub(lambda match: str(round(float(match.group()))), path)
    return re.sub(r"\s*([MLZQC])\s*", r"\1", whole).replace(",", " ").strip()


def _labels(found: list[tuple[str, ...]], symbols: list[str]) -> list[list[Any]]:
    """Labels; RDKit writes them letter by letter, and a small letter joins the capital before it."""
    labels: list[list[Any]] = []
    last = ""
    for x, y, atom, size, letter in found:
        if labels and letter.islower() and atom == last:
            labels[-1][3] += letter
        else:
            colour = COLOURS.get(symbols[int(atom)], 0) if int(atom) < len(symbols) else 0
            labels.append([round(float(x)), round(float(y)), round(float(size)), letter, colour])
        last = atom
    return labels
