"""The yardstick of the recipe study: how good are frozen embeddings on sets that are not in the final table?

    export MOLCMIM_DATA=...                            # with moleculenet/*.csv.gz below it
    python benchmarks/recipe/develop.py --corpus CORPORA/atom --reference          # once: floor and reference
    python benchmarks/recipe/develop.py --corpus CORPORA/atom --model RUN/export --out score.json
    python benchmarks/recipe/develop.py --corpus CORPORA/atom --features ecfp4-count --out score.json

Sets and folds are in development.py. Each task is scored by R2 (regression) or ROC-AUC with a linear head and an RBF
SVM, whose hyper-parameters are chosen once a set, on an inner 80/20 of the first fold's training part. The summary is

    mean over sets and embeddings (latent, both) of (score - floor) / (reference - floor)

with floor = 19 counts and reference = RDKit's 2D descriptors, both by the same code: 0 is counting atoms, 1 is RDKit.
"""

# Axes: n molecules, d features, t tasks.

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from development import COUNTED, NAMES, DevelopmentSet, development_group, digest
from textjump import text_jump

from molcmim.beside import written_beside
from molcmim.moleculenet.evaluate import evaluate
from molcmim.moleculenet.features_classical import classical
from molcmim.moleculenet.protocols import Protocol
from molcmim.moleculenet.types import REGRESSION
from molcmim.provenance import command_line, git_state, machine, now

HERE = Path(__file__).parent
REFERENCES = HERE / "references.json"
FLOOR, REFERENCE = "floor", "rdkit2d"
HEADS = ("ridge", "svm")  #: `ridge` is logistic regression for classes
NATS_MOLECULES = 1000  #: held-out molecules whose log p(x | z = mu) is averaged: the same for every tokenizer
SUMMARY_KINDS = ("latent", "both")
DEVELOP = Protocol("develop", 1, "development", "Three folds; one choice of hyper-parameters for a set.", "first")

Scores = dict[str, dict[str, float]]


def score_set(x: np.ndarray, part: DevelopmentSet, heads: Sequence[str] = HEADS) -> list[dict[str, Any]]:
    """Score of features (n, d) for every task and head: the mean over folds of R2 or ROC-AUC."""
    metric = "r2" if part.data.task == REGRESSION else "roc_auc"
    rows = []
    for head in heads:
        found = evaluate(x, part.data, DEVELOP, part.folds, head, part.groups)
        values: dict[str, list[float]] = {task: [] for task in part.data.targets}
        for record in found.records:
            if record["metric"] == metric and record["task"] in values:
                values[record["task"]].append(record["value"])
        params = json.loads(found.records[0]["params"])
        for task, of_folds in values.items():
            # a diverged model's R2 can be anything below 0: no worse than twice as bad as the mean
            score = float(np.nanmean(np.clip(of_folds, -1.0, 1.0)))
            rows.append({"set": part.data.name, "task": task, "head": head, "metric": metric, "score": score, **params})
    return rows


def set_means(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """Mean over tasks and heads: {set: {kind: score}}."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        values.setdefault(row["set"], {}).setdefault(row["kind"], []).append(row["score"])
    return {name: {kind: float(np.mean(v)) for kind, v in kinds.items()} for name, kinds in values.items()}


def standardised(means: Scores, floor: Mapping[str, float], reference: Mapping[str, float]) -> Scores:
    """{set: {kind: share of the way from the floor to the reference}}."""
    return {
        name: {kind: (score - floor[name]) / (reference[name] - floor[name]) for kind, score in kinds.items()}
        for name, kinds in means.items()
    }


def summary(shares: Scores, kinds: Sequence[str]) -> float:
    """Mean over the sets that count and over these embeddings."""
    return float(np.mean([shares[name][kind] for name in COUNTED for kind in kinds]))


# ------------------------------------------------------------------------------------------ features


def model_features(model: Any, smiles: list[str]) -> dict[str, np.ndarray]:
    """`latent`, `informative` and `both`, (n, d) each, from one pass; `latent` alone where there is no decoder."""
    from molcmim.embed import has_decoder

    if not has_decoder(model.objective):
        return {"latent": model.embed(smiles, kind="latent", workers=0)}
    both = model.embed(smiles, kind="both", workers=0)
    latent = model.network.config.latent
    return {"latent": both[:, :latent], "informative": both[:, latent:], "both": both}


def features_of(
    group: Mapping[str, DevelopmentSet], compute: Callable[[list[str]], dict[str, np.ndarray]]
) -> dict[str, dict[str, np.ndarray]]:
    """{set: {kind: features}}; sets of the same molecules share them."""
    known: dict[tuple[str, ...], dict[str, np.ndarray]] = {}
    for part in group.values():
        key = tuple(part.data.smiles)
        if key not in known:
            known[key] = compute(part.data.smiles)
    return {name: known[tuple(part.data.smiles)] for name, part in group.items()}


def score_features(features: Mapping[str, Mapping[str, np.ndarray]], group: Mapping[str, DevelopmentSet]) -> list[dict]:
    """Rows of `score_set` for {set: {kind: features}}."""
    return [
        {**row, "kind": kind}
        for name, part in group.items()
        for kind, x in features[name].items()
        for row in score_set(x, part)
    ]


def develop(model: Any, group: Mapping[str, DevelopmentSet], references: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that is reported of a model: scores, summary, text jump, times in CPU seconds."""
    started = time.process_time()
    features = features_of(group, lambda smiles: model_features(model, smiles))
    embedded = time.process_time()
    rows = score_features(features, group)
    scored = time.process_time()
    kinds = tuple(kind for kind in SUMMARY_KINDS if kind in features["probes"])
    smiles = group["probes"].data.smiles
    jump = text_jump(model, smiles, {kind: features["probes"][kind] for kind in kinds})
    nats = -model.log_prob(smiles[:NATS_MOLECULES], workers=0) if "both" in kinds else np.full(1, np.nan)
    ended = time.process_time()
    return {
        **conclude(rows, references, kinds),
        "nats": float(np.nanmean(nats)) if np.isfinite(nats).any() else None,
        "text_jump": jump,
        "not_embedded": sum(int(np.isnan(x["latent"]).all(axis=1).sum()) for x in features.values()),
        "cpu_seconds": {
            "embedding": round(embedded - started, 1),
            "scoring": round(scored - embedded, 1),
            "text jump and nats": round(ended - scored, 1),
        },
        "scores": rows,
    }


def conclude(rows: list[dict[str, Any]], references: Mapping[str, Any], kinds: Sequence[str]) -> dict[str, Any]:
    """Summary, its parts and the means of scored rows."""
    means = set_means(rows)
    shares = standardised(means, references[FLOOR], references[REFERENCE])
    return {
        "summary": summary(shares, kinds),
        "summary_by_kind": {kind: summary(shares, (kind,)) for kind in means["probes"]},
        "standardised": shares,
        "means": means,
    }


def read_references(group: Mapping[str, DevelopmentSet], path: Path = REFERENCES) -> dict[str, Any]:
    """Floor and reference: {name: {set: score}}, with the digest of what they were measured on.

    Raises
    ------
    ValueError
        If they were measured on other molecules, labels or folds.
    """
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if found["digest"] != digest(dict(group)):
        raise ValueError(
            f"{path.name}: measured on other data (digest {found['digest']}, here {digest(dict(group))}): "
            "the corpus or the benchmark files differ; make it again with --reference"
        )
    return found


def about() -> dict[str, Any]:
    return {
        "command": command_line("python benchmarks/recipe/develop.py"),
        "date": now(),
        **git_state(HERE.parent),
        "machine": machine(),
    }


def classical_rows(name: str, group: Mapping[str, DevelopmentSet]) -> list[dict[str, Any]]:
    """Scored rows of a classical feature set, its kind being its name."""
    return score_features(features_of(group, lambda smiles: {name: classical(name, smiles, 0)}), group)


def write(path: Path, result: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path) as part:
        part.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="corpus of atom tokens, for its validation part")
    parser.add_argument("--model", help="name or directory of a model")
    parser.add_argument("--features", help="a classical feature set instead")
    parser.add_argument("--reference", action="store_true", help="measure floor and reference")
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="of the embedding's products"
    )
    parser.add_argument("--cache", type=Path, default=HERE / "cache", help="for the tables of the benchmark files")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if sum(map(bool, (arguments.model, arguments.features, arguments.reference))) != 1:
        parser.error("expected one of --model, --features and --reference")
    if "MOLCMIM_DATA" not in os.environ:
        parser.error("MOLCMIM_DATA must name the directory that holds moleculenet/*.csv.gz")
    group = development_group(Path(os.environ["MOLCMIM_DATA"]), arguments.corpus, arguments.cache)
    if arguments.reference:
        rows = {name: classical_rows(name, group) for name in (FLOOR, REFERENCE)}
        means = {name: {key: kinds[name] for key, kinds in set_means(found).items()} for name, found in rows.items()}
        write(REFERENCES, {"about": about(), "digest": digest(group), **means, "scores": rows})
        for key in NAMES:
            print(f"{key:13} floor {means[FLOOR][key]:.4f}  reference {means[REFERENCE][key]:.4f}")
        return
    references = read_references(group)
    if arguments.features:
        started = time.process_time()
        rows = classical_rows(arguments.features, group)
        result = conclude(rows, references, (arguments.features,))
        result |= {"cpu_seconds": {"all": round(time.process_time() - started, 1)}, "scores": rows}
    else:
        from molcmim import MolCMIM

        model = MolCMIM.from_pretrained(arguments.model, device="cpu", dtype=arguments.dtype)
        result = {"model_id": model.model_id, **develop(model, group, references)}
    if arguments.out:
        write(arguments.out, {"about": about(), "digest": digest(group), **result})
    print(json.dumps({key: value for key, value in result.items() if key not in ("scores", "means")}, indent=1))


if __name__ == "__main__":
    main()
