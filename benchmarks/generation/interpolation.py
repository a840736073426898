"""Straight lines between the codes of 200 pairs of held-out molecules: validity and smoothness along the way.

    python benchmarks/generation/interpolation.py --corpus CORPUS

Eleven points a pair, both ends included; greedy decoding. Writes samples/interpolation.csv and
results/interpolation.json:

    valid          share of molecules at each point of the way, and over the nine inner points together
    distinct       different molecules on a path, of eleven points
    step           Tanimoto similarity of consecutive different molecules of a path, mean; beside that of the two ends
    order          Spearman's rank correlation, along a path, of the position with (similarity to the far end less
                   similarity to the near one); 1: every step leads nearer to the far end
    detour         weight and log P: sum of the steps' changes over the change from end to end, median over the paths
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import Crippen, Descriptors, rdFingerprintGenerator
from scipy.stats import spearmanr
from study import SAMPLES, Study, embeddable, held_out, options, sha256

from molcmim import MolCMIM
from molcmim.generated import GeneratedTable

STEPS = 11


def path_measures(smiles: Sequence[str | None], ends: tuple[str, str]) -> dict[str, Any]:
    """Measures of one path; NaN where there are too few molecules."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(text) if text else None for text in smiles]
    prints = [generator.GetFingerprint(m) if m is not None else None for m in molecules]
    far, near = (generator.GetFingerprint(Chem.MolFromSmiles(end)) for end in reversed(ends))
    present = [i for i, m in enumerate(molecules) if m is not None]
    run = [i for k, i in enumerate(present) if k == 0 or smiles[i] != smiles[present[k - 1]]]
    steps = [DataStructs.TanimotoSimilarity(prints[i], prints[j]) for i, j in pairwise(run)]
    towards = [
        DataStructs.TanimotoSimilarity(prints[i], far) - DataStructs.TanimotoSimilarity(prints[i], near)
        for i in present
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a path of one molecule has no order
        order = float(spearmanr(present, towards).statistic) if len(present) > 2 else np.nan
    measures: dict[str, Any] = {
        "distinct": len({smiles[i] for i in present}),
        "step": float(np.mean(steps)) if steps else np.nan,
        "order": order,
        "ends": DataStructs.TanimotoSimilarity(near, far),
    }
    for name, function in (("weight", Descriptors.MolWt), ("logp", Crippen.MolLogP)):
        values = np.array([function(molecules[i]) for i in run])
        change = abs(values[-1] - values[0]) if len(values) > 1 else 0.0
        measures[f"detour_{name}"] = float(np.abs(np.diff(values)).sum() / change) if change > 0 else np.nan
    return measures


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("--pairs", type=int, default=200)
    given = parser.parse_args(arguments)
    model = MolCMIM.from_pretrained(given.model, dtype=given.dtype)
    study = Study(model)
    candidates = held_out(given.corpus, given.seed)[: 3 * given.pairs]
    usable = embeddable(model, candidates)
    pairs = [(usable[2 * i], usable[2 * i + 1]) for i in range(given.pairs)]
    tables = [model.interpolate(a, b, steps=STEPS, seed=given.seed, workers=0) for a, b in pairs]
    whole = GeneratedTable.concatenated(tables)
    SAMPLES.mkdir(exist_ok=True)
    path = whole.write(SAMPLES / "interpolation.csv")
    valid = whole.valid.reshape(given.pairs, STEPS)
    paths = [path_measures(table.canonical_smiles, pair) for table, pair in zip(tables, pairs, strict=True)]
    columns = {name: np.array([p[name] for p in paths], dtype=float) for name in paths[0]}
    ends = [(table.canonical_smiles[0], table.canonical_smiles[-1]) for table in tables]
    back = [end == pair for end, pair in zip(ends, pairs, strict=True)]
    results = {
        "pairs": given.pairs,
        "points": STEPS,
        "valid_by_point": valid.mean(0).round(4).tolist(),
        "valid_inner": float(valid[:, 1:-1].mean()),
        "all_valid": float(valid.all(1).mean()),
        "both_ends_back": float(np.mean(back)),
        "distinct": float(columns["distinct"].mean()),
        "step": float(np.nanmean(columns["step"])),
        "ends": float(columns["ends"].mean()),
        "order": float(np.nanmean(columns["order"])),
        "detour_weight": float(np.nanmedian(columns["detour_weight"])),
        "detour_logp": float(np.nanmedian(columns["detour_logp"])),
        "sha256": sha256(path),
    }
    study.write(given.out / "interpolation.json", results, "interpolation.py")
    print({key: value for key, value in results.items() if key != "valid_by_point"})


if __name__ == "__main__":
    main()
