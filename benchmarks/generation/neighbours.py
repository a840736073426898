"""Sampling around 1,000 held-out molecules at several radii, by MolMIM's measures.

    python benchmarks/generation/neighbours.py --corpus CORPUS --known KNOWN.npy

z = mu + radius * noise, ten rows a seed, greedy decoding. Radii count in spreads of the model's codes, and, for the
formula of MolMIM as it stands, in the units of z (absolute). Radius 0 is reconstruction. Writes
samples/neighbours_UNIT_RADIUS.csv and results/neighbours.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from study import SAMPLES, Study, embeddable, held_out, options, sha256

from molcmim import MolCMIM
from molcmim.metrics.known import KnownSet
from molcmim.metrics.molmim import molmim_metrics, reconstruction_metrics
from molcmim.sampling import radius_in

RADII = {"spread": (0.1, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0), "absolute": (0.1, 0.3, 1.0, 2.0)}
PER_SEED = 10


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--known", type=Path, required=True, help="hashes of the training molecules (metrics/known.py)")
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--workers", type=int)
    given = parser.parse_args(arguments)
    model = MolCMIM.from_pretrained(given.model, dtype=given.dtype)
    study, known = Study(model), KnownSet.open(given.known)
    candidates = held_out(given.corpus, given.seed)
    usable = embeddable(model, candidates)
    seeds = usable[: given.seeds]
    SAMPLES.mkdir(exist_ok=True)
    itself = model.neighbours(seeds, radius=0.0, n=1, workers=given.workers)
    rows: list[dict[str, Any]] = []
    for unit, radius in ((unit, radius) for unit, radii in RADII.items() for radius in radii):
        table = model.neighbours(seeds, radius=radius, n=PER_SEED, seed=given.seed, unit=unit, workers=given.workers)
        path = table.write(SAMPLES / f"neighbours_{unit}_{radius}.csv")
        samples = [table.smiles[i : i + PER_SEED] for i in range(0, len(table), PER_SEED)]
        measures = molmim_metrics(seeds, samples, known, given.workers)
        row = {
            "unit": unit,
            "radius": radius,
            "absolute": radius_in(model, radius, unit),
            **measures,
            "tanimoto": float(np.nanmean(table.tanimoto)),
            "sha256": sha256(path),
        }
        rows.append(row)
        print({key: value if isinstance(value, str) else round(value, 3) for key, value in row.items()})
    results = {
        "seeds": len(seeds),
        "not_usable": len(candidates) - len(usable),
        "reconstruction": reconstruction_metrics(seeds, itself.smiles, given.workers),
        "radii": rows,
    }
    study.write(given.out / "neighbours.json", results, "neighbours.py")


if __name__ == "__main__":
    main()
