"""Scores a model of the claims study: the final sets with three heads, and the geometry of its latent space.

    export MOLCMIM_DATA=...                                 # with moleculenet/*.csv.gz below it
    python benchmarks/claims/score.py --model RUN/export --corpus CORPORA/atom --out score.json

ESOL, FreeSolv and Lipophilicity (RMSE, R2), BACE and BBBP (ROC-AUC) by the protocol `random5` of molcmim.moleculenet,
with nearest neighbours, SVM and MLP, for each embedding that the objective has. Geometry: 2,000 held-out molecules.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from geometry import effective_rank, neighbour_chemistry, uniformity

from molcmim import MolCMIM
from molcmim.beside import written_beside
from molcmim.corpus import TokenStore
from molcmim.moleculenet.datasets import load_dataset
from molcmim.moleculenet.evaluate import evaluate
from molcmim.moleculenet.protocols import get_protocol
from molcmim.tokenizer import load_tokenizer

sys.path.append(str(Path(__file__).parents[1] / "recipe"))
from develop import model_features

SETS = ("esol", "freesolv", "lipo", "bace", "bbbp")
HEADS = ("knn", "svm", "mlp")
METRICS = ("rmse", "r2", "roc_auc")
GEOMETRY_MOLECULES = 2000


def score_sets(model: MolCMIM, sets: Sequence[str] = SETS, heads: Sequence[str] = HEADS) -> list[dict[str, Any]]:
    """Means over the five splits, and the values themselves: a row for each set, embedding, head and metric."""
    protocol = get_protocol("random5")
    rows = []
    for name in sets:
        data = load_dataset(name, Path(os.environ["MOLCMIM_DATA"]) / "moleculenet", workers=0)
        splits, groups = protocol.make_splits(data), protocol.inner_groups(data)
        for kind, x in model_features(model, data.smiles).items():
            for head in heads:
                records = evaluate(x, data, protocol, splits, head, groups).records
                for metric in METRICS:
                    values = [record["value"] for record in records if record["metric"] == metric]
                    if values:
                        row = {"set": name, "kind": kind, "head": head, "metric": metric}
                        rows.append(row | {"mean": float(np.mean(values)), "values": [round(v, 4) for v in values]})
    return rows


def geometry(model: MolCMIM, corpus: Path) -> dict[str, float]:
    """Of mu of held-out molecules, drawn with a fixed seed."""
    tokenizer, store = load_tokenizer(corpus / "vocab.json"), TokenStore.open(corpus, "valid")
    chosen = np.random.RandomState(0).permutation(len(store))[:GEOMETRY_MOLECULES]
    smiles = [tokenizer.decode(row.tolist()) for row in store.rows(np.sort(chosen))]
    mu = model.embed(smiles, kind="latent", workers=0)
    found = {"uniformity": uniformity(mu), "effective_rank": effective_rank(mu)}
    return found | {f"neighbour_{name}": value for name, value in neighbour_chemistry(mu, smiles).items()}


def summary(rows: list[dict[str, Any]]) -> float:
    """One number to print: the mean over sets and embeddings of R2 or AUC with the SVM."""
    return float(np.mean([row["mean"] for row in rows if row["head"] == "svm" and row["metric"] != "rmse"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="name or directory of a model")
    parser.add_argument("--corpus", type=Path, required=True, help="corpus of atom tokens, for its validation part")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--cache", type=Path, help="not used: tables of these sets are small")
    arguments = parser.parse_args()
    started = time.process_time()
    model = MolCMIM.from_pretrained(arguments.model, device="cpu", dtype=arguments.dtype)
    rows = score_sets(model)
    result = {"summary": summary(rows), "cells": rows, "geometry": geometry(model, arguments.corpus)}
    result |= {"model_id": model.model_id, "cpu_seconds": round(time.process_time() - started, 1)}
    with written_beside(arguments.out) as part:
        part.write_text(json.dumps(result) + "\n", encoding="utf-8")
    print(json.dumps({"summary": result["summary"], "geometry": result["geometry"]}))


if __name__ == "__main__":
    main()
