"""Optimisation from held-out molecules: CMA-ES in the latent space, and random search around the start as its control.

    python benchmarks/generation/optimization.py qed --method cma --corpus CORPUS
    python benchmarks/generation/optimization.py plogp --method random --corpus CORPUS --delta 0.4,0.6

qed: starts are molecules of the validation part with QED at most 0.8; one succeeds when a molecule of QED 0.9 or more
with a Tanimoto similarity of at least delta to it is found, and stops there.
plogp: starts are the molecules with the lowest penalised log P in the validation part of one source (MOSES, which is
ZINC, where the published protocols take theirs); what counts is the gain at similarity delta or more.
An oracle call is a distinct valid molecule, the start itself being the first. Several deltas: only for random search,
which doesn't look at them. Results go to optimization_TASK_METHOD_DELTA.json, one entry a start with its trace.
A run that was stopped goes on from its archive (samples/). --unfinished writes what such an archive holds so far.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from study import SAMPLES, Study, embeddable, held_out, options

from molcmim import MolCMIM
from molcmim.chem import Status
from molcmim.objectives import PROPERTIES, Objective
from molcmim.optimize import optimize
from molcmim.optimize.archive import ARCHIVE, Candidate, OptimizeResult

QED_START, QED_GOAL = 0.8, 0.9


def starts_of(task: str, model: MolCMIM, corpus: Path, n: int, seed: int) -> list[str]:
    """n molecules of the validation part that the model can embed, see the top of the file."""
    candidates = held_out(corpus, seed, source="moses" if task == "plogp" else None)
    chosen: list[str] = []
    if task == "plogp":
        values = PROPERTIES["plogp"](candidates)
        candidates = [candidates[i] for i in np.argsort(values, kind="stable")]  # NaN last
    for smiles in candidates:
        if not embeddable(model, [smiles]):
            continue
        if task == "qed" and not float(PROPERTIES["qed"]([smiles])[0]) <= QED_START:
            continue
        chosen.append(smiles)
        if len(chosen) == n:
            break
    return chosen


def summary(result: OptimizeResult, delta: float) -> dict[str, Any]:
    """One start at one delta: calls and best score at each improvement, from the molecules it spent calls on."""
    trace: list[list[float]] = []
    best: dict[str, Any] = {}
    for each in result.archive:
        feasible = not math.isnan(each.score) and each.similarity >= delta
        if feasible and (not trace or each.score > trace[-1][1]):
            trace.append([each.call, round(each.score, 5)])
            best = {"best_smiles": each.smiles, "best": each.score, "similarity": round(each.similarity, 4)}
    return {
        "start": result.start_smiles,
        "start_score": result.start_score,
        **best,
        "calls": result.calls,
        "decoded": result.decoded,
        "valid": result.valid,
        "restarts": result.restarts,
        "stopped": result.stopped,
        "trace": trace,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = options(__doc__)
    parser.add_argument("task", choices=("qed", "plogp"))
    parser.add_argument("--method", choices=("cma", "random"), default="cma")
    parser.add_argument("--starts", type=int, default=100)
    parser.add_argument("--budget", type=int, default=5000, help="oracle calls of each start")
    parser.add_argument("--delta", default="0.4", help="least Tanimoto similarity to the start")
    parser.add_argument("--unfinished", action="store_true", help="search no more: results of what the archive holds")
    given = parser.parse_args(arguments)
    deltas = [float(text) for text in given.delta.split(",")]
    if len(deltas) > 1 and given.method == "cma":
        parser.error("--delta: CMA-ES looks at it, so one at a time")
    model = MolCMIM.from_pretrained(given.model, dtype=given.dtype)
    study = Study(model)
    starts = starts_of(given.task, model, given.corpus, given.starts, given.seed)
    name = f"optimization_{given.task}_{given.method}"
    archive = SAMPLES / f"{name}_{deltas[0]}_{given.starts}x{given.budget}"
    if given.unfinished:
        results = from_archive(archive, starts, QED_GOAL if given.task == "qed" else math.inf)
    else:
        results = optimize(
            model,
            starts,
            Objective([given.task]),
            budget=given.budget,
            min_similarity=deltas[0],
            stop_at=QED_GOAL if given.task == "qed" else None,
            seed=given.seed,
            archive=archive,
            resume=True,
            progress=sys.stderr.isatty(),
            method=given.method,
        )
        if any(result.stopped == "interrupted" for result in results):
            raise SystemExit("stopped: the same command goes on")
    for delta in deltas:
        entries = [summary(result, delta) for result in results]
        about = {"task": given.task, "method": given.method, "delta": delta, "budget": given.budget}
        study.write(given.out / f"{name}_{delta}.json", {**about, "starts": entries}, "optimization.py")
        report(given.task, entries)


def from_archive(folder: Path, starts: Sequence[str], goal: float) -> list[OptimizeResult]:
    """Results of a run that hasn't ended; how many vectors it decoded isn't in the archive."""
    rows: dict[str, list[Candidate]] = {start: [] for start in starts}
    with (folder / ARCHIVE).open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            score, similarity, shortfall = (float(row[key] or "nan") for key in ("score", "similarity", "shortfall"))
            feasible, call = row["feasible"] == "1", int(row["call"])
            rows[row["start"]].append(Candidate(row["smiles"], score, similarity, shortfall, feasible, call))
    results = []
    for start, candidates in rows.items():
        reached = any(each.feasible and each.score >= goal for each in candidates)
        results.append(
            OptimizeResult(
                start,
                Status.ok,
                start_smiles=start,
                start_score=candidates[0].score,
                calls=len(candidates),
                stopped="stop_at" if reached else "interrupted",
                archive=candidates,
            )
        )
    return results


def report(task: str, entries: Sequence[dict[str, Any]]) -> None:
    """The main numbers, for the terminal."""
    best = np.array([entry.get("best", math.nan) for entry in entries])
    if task == "qed":
        reached = float(np.mean(best >= QED_GOAL))
        print(f"{len(best)} starts: {reached:.0%} reach {QED_GOAL}, mean of the best {best.mean():.3f}")
    else:
        gain = best - np.array([entry["start_score"] for entry in entries])
        print(f"{len(gain)} starts: mean gain {gain.mean():.2f} ± {gain.std(ddof=1):.2f}")


if __name__ == "__main__":
    main()
