"""What computing buys: scores of the models that a training run left on its way, against its FLOPs.

    export MOLCMIM_DATA=...                                                   # with moleculenet/*.csv.gz below it
    python benchmarks/flagship/curve.py --name base-chem RUN/kept/* RUN/export # adds to curve.json; skips what is there
    python benchmarks/flagship/curve.py                                        # the tables and the figure anew

Frozen embeddings with the SVM under `random5` on five sets, by the code and on the splits of the committed table
(benchmarks/moleculenet). The standardised score places a model among that table's feature sets: its distance to their
mean in their standard deviations, averaged over the sets; higher is better. FLOPs are those of all legs up to there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from standings import SETS, Table, collect

from molcmim import MolCMIM
from molcmim.beside import written_beside
from molcmim.checkpoint_files import model_id, read_config
from molcmim.moleculenet.datasets import load_dataset
from molcmim.moleculenet.evaluate import evaluate
from molcmim.moleculenet.protocols import get_protocol
from molcmim.moleculenet.report import table
from molcmim.moleculenet.report_data import read_scores
from molcmim.provenance import git_state, machine, now

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "recipe"))
from develop import model_features  # noqa: E402

COMMITTED = HERE.parent / "moleculenet" / "results"
KINDS = ("latent", "both")
LANDMARKS = {"minimol": "MiniMol", "rdkit2d": "RDKit 2D", "chemnet": "ChemNet", "molcmim-tiny:both": "molcmim-tiny"}
PROTOCOL, HEAD = "random5", "svm"

Record = dict[str, Any]


def spent(training: Mapping[str, Any]) -> dict[str, float]:
    """FLOPs, molecules and seconds of all legs of a checkpoint."""
    legs = [*training.get("earlier_legs", []), training]
    return {name: sum(leg[name] for leg in legs) for name in ("flops", "molecules", "seconds")}


def measure(directory: Path, name: str) -> Record:
    """Scores of one checkpoint: mean over splits of each set and embedding, errors with their sign turned."""
    model, protocol = MolCMIM.from_pretrained(directory, device="cpu"), get_protocol(PROTOCOL)
    training = model.config["training"]
    scores: dict[str, dict[str, float]] = {kind: {} for kind in KINDS}
    for dataset, metric in SETS.items():
        data = load_dataset(dataset, Path(os.environ["MOLCMIM_DATA"]) / "moleculenet")
        splits, groups = protocol.make_splits(data), protocol.inner_groups(data)
        features = model_features(model, data.smiles)
        for kind in KINDS:
            results = evaluate(features[kind], data, protocol, splits, HEAD, groups).records
            found = [result["value"] for result in results if result["metric"] == metric]
            scores[kind][dataset] = float(np.mean(found)) * (-1 if metric == "rmse" else 1)
    kept = ("reconstruction_nats", "token_accuracy", "exact_reconstruction")
    return {
        "name": name,
        "model_id": model.model_id,
        "step": training["step"],
        "leg": 1 + len(training.get("earlier_legs", [])),
        **spent(training),
        **{key: training["validation"].get(key) for key in kept},
        "scores": scores,
        "date": now(),
        **git_state(HERE.parent),
        "machine": machine(),
    }


def standardised(scores: Mapping[str, float], committed: Table) -> float:
    """Mean over sets of the distance to the committed feature sets' mean, in their standard deviations."""
    means = committed.scores.mean(axis=2)  # (5 sets, m)
    values = np.array([scores[name] for name in SETS])
    return float(np.mean((values - means.mean(axis=1)) / means.std(axis=1)))


def rows(records: Sequence[Record], committed: Table) -> list[list[str]]:
    made = []
    for record in sorted(records, key=lambda r: (r["name"], r["flops"])):
        head = [record["name"], str(record["leg"]), f"{record['flops'] / 1e12:.0f}", f"{record['molecules'] / 1e3:.0f}"]
        exact = record["exact_reconstruction"]
        head += [f"{record['reconstruction_nats']:.2f}", "n/a" if exact is None else f"{100 * exact:.1f} %"]
        for kind in KINDS:
            scores = record["scores"][kind]
            numbers = [f"{abs(scores[s]):.3f}" for s in SETS]
            made.append([*head, kind, *numbers, f"{standardised(scores, committed):+.2f}"])
    return made


def text(records: Sequence[Record], committed: Table) -> str:
    """The whole of curve.md."""
    titles = ("model", "leg", "TFLOP", "thousand molecules", "nats", "exact", "embedding")
    sets = [f"{name} {'RMSE ↓' if metric == 'rmse' else 'AUC ↑'}" for name, metric in SETS.items()]
    commits = sorted({r["commit"][:7] for r in records})
    machines = sorted({f"{r['machine']['cpu']}, torch {r['machine']['torch']}" for r in records})
    lines = ["# Score against computing", "", table([*titles, *sets, "standardised ↑"], rows(records, committed)), ""]
    lines += [f"`random5`, SVM. Commit {', '.join(commits)}; {'; '.join(machines)}.", ""]
    return "\n".join([*lines, "![standardised score against FLOPs](curve.png)", ""])


def figure(records: Sequence[Record], committed: Table, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, ScalarFormatter

    drawn, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2))
    for colour, name in enumerate(sorted({r["name"] for r in records})):
        mine = sorted((r for r in records if r["name"] == name), key=lambda r: r["flops"])
        x = [r["flops"] / 1e12 for r in mine]
        for kind, style in zip(KINDS, ("o:", "o-"), strict=True):
            y = [standardised(r["scores"][kind], committed) for r in mine]
            fill = f"C{colour}" if kind == "both" else "white"
            left.plot(x, y, style, color=f"C{colour}", markerfacecolor=fill, label=f"{name}, {kind}")
        right.plot(x, [r["reconstruction_nats"] for r in mine], "o-", color=f"C{colour}", label=name)
    means = committed.scores.mean(axis=2)
    for peer, title in LANDMARKS.items():
        if peer in committed.features:
            scores = dict(zip(SETS, means[:, committed.features.index(peer)], strict=True))
            level = standardised(scores, committed)
            left.axhline(level, color="grey", lw=0.8)
            left.annotate(
                title, (0.01, level), xycoords=("axes fraction", "data"), fontsize=8, va="bottom", color="grey"
            )
    left.set(ylabel="standardised score, five sets, SVM")
    right.set(ylabel="reconstruction, nats a molecule", yscale="log")
    for panel in (left, right):
        panel.set(xlabel="training, TFLOP of matrix products", xscale="log")
        for axis in (panel.xaxis, *([panel.yaxis] if panel is right else [])):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
            axis.set_major_formatter(ScalarFormatter())
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    drawn.tight_layout()
    drawn.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(drawn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path, help="directories of models, in any order")
    parser.add_argument("--name", help="what the run is called in the figure")
    parser.add_argument("--out", type=Path, default=HERE)
    arguments = parser.parse_args()
    path = arguments.out / "curve.json"
    records: list[Record] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if arguments.checkpoints and not arguments.name:
        parser.error("--name says what the run of these checkpoints is called")
    for directory in arguments.checkpoints:
        if model_id(read_config(directory)) in {record["model_id"] for record in records}:
            continue
        records.append(measure(directory, arguments.name))
        print(json.dumps({key: records[-1][key] for key in ("name", "step", "flops", "scores")}), flush=True)
        with written_beside(path) as part:
            part.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    if records:
        committed = collect(read_scores(COMMITTED / "results.csv"), PROTOCOL, HEAD)
        (arguments.out / "curve.md").write_text(text(records, committed), encoding="utf-8")
        figure(records, committed, arguments.out / "curve.png")


if __name__ == "__main__":
    main()
