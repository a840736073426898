"""The claim about batch sizes, on molecules: cMIM, MIM and InfoNCE with batches of 4, 32 and 256.

    export MOLCMIM_DATA=...                                                   # with moleculenet/*.csv.gz below it
    python benchmarks/claims/molecules_batch.py --corpus CORPORA/atom         # -> results/molecules_batch.jsonl
    python benchmarks/claims/molecules_batch.py --corpus CORPORA/atom --batches 4 --out FILE  # a part, beside another
    python benchmarks/claims/molecules_batch.py --corpus CORPORA/atom --again 2

The model of molecules.yaml, trained by AdamW (one learning rate to choose; Muon's own work would be most of a step of
4 molecules); every run sees equally many molecules. Learning rates are chosen for each objective and batch by held-out
molecules: R2 of ridge regression from the latents to computed properties that no objective is trained on, at seed 0.
The first three tried are those of `RATES` in the middle, which grow with the square root of the batch; while the best
is the lowest or the highest tried, the next is tried too. The other seeds are what is reported.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from cells import Cell, best_rate, compute, read, tune

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "recipe"))
from develop import model_features, score_set  # noqa: E402
from development import held_out, make_folds, probe_sets  # noqa: E402
from score import geometry, score_sets  # noqa: E402
from variants import Variant, configuration, load_plan  # noqa: E402

from molcmim import MolCMIM  # noqa: E402
from molcmim.train import train  # noqa: E402

EXAMPLES = 16_000  #: molecules seen in a run
RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  #: learning rates at a batch of 128
SEEDS = (1, 2)
BATCHES = (4, 32, 256)
OBJECTIVES = ("cmim", "mim", "infonce")
SETS = ("esol", "freesolv", "bace", "bbbp")
HEADS = ("knn", "svm")
WARMUP = 0.06  #: share of the steps


def run(cell: Cell, corpus: Path) -> tuple[MolCMIM, dict[str, Any]]:
    """The trained model, and what the trainer measured on held-out molecules; KeyboardInterrupt if it didn't finish."""
    plan, steps = load_plan(HERE / "molecules.yaml"), EXAMPLES // cell["batch"]
    fields = {
        "objective.name": cell["objective"],
        "batch_size": cell["batch"],
        "optimizer.name": "adamw",
        "optimizer.lr": cell["lr"],
        "schedule.warmup_steps": max(1, round(WARMUP * steps)),
        "ema_decay": 0.98 ** (cell["batch"] / 128),  # averages over equally many molecules
        "checkpoint_minutes": 1e9,
    }
    variant = Variant("batch", "batch", fields, corpus.name)
    with tempfile.TemporaryDirectory() as folder:
        config = configuration(plan, variant, {"max_steps": steps}, corpus.parent, Path(folder), cell["seed"])
        numbers = train(config)  # takes Ctrl-C as a wish to end, and then gives what it has
        if numbers["step"] < steps:
            raise KeyboardInterrupt
        return MolCMIM.from_pretrained(Path(folder) / "export", device="cpu"), numbers


def measure(cell: Cell, corpus: Path) -> dict[str, Any]:
    """Train one cell; its probes with seed 0, its scores on the sets with others."""
    try:
        model, numbers = run(cell, corpus)
        result: dict[str, Any] = {name: numbers[name] for name in ("loss", "reconstruction_nats") if name in numbers}
        if not cell["seed"]:
            return result | {"probes": probe_score(model, corpus)}
        return result | {"cells": score_sets(model, SETS, HEADS), "geometry": geometry(model, corpus)}
    except (FloatingPointError, RuntimeError, ValueError) as error:  # of the loss, the vectors, the weights
        if isinstance(error, FloatingPointError) or "NaN or infinity" in str(error):
            return {"error": f"diverged: {error}"}
        raise


@cache
def probes(corpus: Path) -> Any:
    return make_folds(probe_sets(held_out(corpus))[0])


def probe_score(model: MolCMIM, corpus: Path) -> float:
    """Mean R2 over the computed properties, from the latents by ridge regression."""
    part = probes(corpus)
    rows = score_set(model_features(model, part.data.smiles)["latent"], part, heads=("ridge",))
    return float(np.mean([row["score"] for row in rows]))


def probe_of(result: dict[str, Any]) -> float:
    """What learning rates are chosen by."""
    return result.get("probes", -np.inf)


def rates(setting: Cell) -> list[float]:
    """Learning rates to choose from, in ascending order."""
    return [round(rate * (setting["batch"] / 128) ** 0.5, 6) for rate in RATES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True, help="corpus of atom tokens with random SMILES")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "molecules_batch.jsonl")
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, choices=BATCHES, help="only these")
    parser.add_argument("--again", type=int, help="compute so many finished cells again, chosen at random")
    arguments = parser.parse_args()
    corpus, out = arguments.corpus.resolve(), arguments.out

    def work(cell: Cell) -> dict[str, Any]:
        return measure(cell, corpus)

    if arguments.again:
        done = [line["cell"] for line in read(out)]
        compute(out, random.Random().sample(done, arguments.again), work, again=True)
        return
    wanted = [{"objective": name, "batch": batch} for batch in arguments.batches for name in OBJECTIVES]
    if not tune(out, wanted, rates, probe_of, work):
        sys.exit(130)
    lines = read(out)
    finals = [s | {"lr": best_rate(lines, s, probe_of), "seed": seed} for seed in SEEDS for s in wanted]
    if not compute(out, finals, work):
        sys.exit(130)


if __name__ == "__main__":
    main()
