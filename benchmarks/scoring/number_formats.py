"""What float16 and int8 cost in accuracy: vectors and their nearest neighbours, beside float32.

    python benchmarks/scoring/number_formats.py --molecules MOLECULES

Embeds different molecules of each kind and rounds the vectors as `--dtype` does. Writes results/number_formats.json.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from rates import KINDS
from study import Study, options, read_molecules

from molcmim import MolCMIM
from molcmim.scoring.int8 import dequantise, quantise
from molcmim.scoring.search_exact import unit_rows

NEIGHBOURS = 10
BLOCK = 1024
Vectors = npt.NDArray[np.float64]  #: (n, d)
FORMATS: dict[str, Callable[[npt.NDArray[np.float32]], npt.NDArray[Any]]] = {
    "float16": lambda x: x.astype(np.float16),
    "int8": lambda x: dequantise(*quantise(x)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--rows", type=int, default=8192, help="different molecules")
    given = parser.parse_args(arguments)
    study = Study(given, "number_formats", {"rows": given.rows, "seed": given.seed})
    smiles = read_molecules(given.molecules, given.rows, given.seed)
    model = MolCMIM.from_pretrained(given.model, device="cpu")
    found = []
    for kind in KINDS:

        def make(kind: str = kind) -> dict[str, Any]:
            x = model.embed(smiles, kind=kind)
            x = x[~np.isnan(x).any(axis=1)]
            return {"rows": len(x), "width": x.shape[1], **{name: compare(x, to(x)) for name, to in FORMATS.items()}}

        found.append({"kind": kind, **study.measure(kind, make)})
    rows = [
        {"kind": each["kind"], "dtype": name, "rows": each["rows"], "width": each["width"], **each[name]}
        for each, name in product(found, FORMATS)
    ]
    study.write({"rows": given.rows, "seed": given.seed, "neighbours": NEIGHBOURS, "formats": rows})


def compare(x: npt.NDArray[np.float32], rounded: npt.NDArray[Any]) -> dict[str, float]:
    """1 - cosine of vectors and their rounded form; how the cosines between molecules and the nearest ones change."""
    exact, other = unit_rows(x.astype(np.float64)), unit_rows(rounded.astype(np.float64))
    errors = ((exact - other) ** 2).sum(axis=1) / 2  # 1 - cosine, without its cancellation
    change, kept = 0.0, 0.0
    for start in range(0, len(exact), BLOCK):
        rows = slice(start, start + BLOCK)
        one, two = exact[rows] @ exact.T, other[rows] @ other.T
        change = max(change, float(np.abs(one - two).max()))
        kept += sum(map(shared, nearest(one, start), nearest(two, start)))
    return {
        "largest_error": float(f"{errors.max():.3g}"),
        "median_error": float(f"{np.median(errors):.3g}"),
        "largest_change": round(change, 6),
        "neighbours_kept": round(kept / len(exact), 4),
    }


def nearest(similarities: Vectors, start: int) -> npt.NDArray[np.intp]:
    """The `NEIGHBOURS` most similar others of rows `start`, ... of all: (rows, NEIGHBOURS)."""
    scores = similarities.copy()
    own = np.arange(len(scores))
    scores[own, start + own] = -np.inf
    return np.argpartition(-scores, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]


def shared(one: npt.NDArray[np.intp], two: npt.NDArray[np.intp]) -> float:
    """Share of the neighbours in one list that are in the other."""
    return len(np.intersect1d(one, two)) / len(one)


if __name__ == "__main__":
    main()
