"""Tables and figures of the claims study, from results/: images.jsonl, molecules/*.json, molecules_batch.jsonl.

python benchmarks/claims/report.py      # writes results.md and the figures
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cells import read
from images import DEFAULT, KINDS

from molcmim.moleculenet.report import table

HERE = Path(__file__).parent
IMAGE_SCORES = ("knn_few", "mlp_few", "knn_all", "mlp_all")
SETS = {"esol": "ESOL", "freesolv": "FreeSolv", "lipo": "Lipo", "bace": "BACE", "bbbp": "BBBP"}
STUDIES = {  #: figure: what varies, what is compared
    "batch": ("batch size", ("cmim", "mim", "infonce")),
    "tau": ("temperature", ("cmim", "cvae", "infonce")),
    "latent": ("latent width", ("cmim", "mim", "infonce")),
}

Row = dict[str, Any]


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean and standard deviation; the latter only of several."""
    if not len(values):
        return "n/a"
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {np.std(values, ddof=1):.{digits}f}"


def reported(lines: Iterable[Row]) -> bool:
    """Whether there is any cell but those that learning rates are chosen by."""
    return any(line["cell"].get("seed") for line in lines)


def made(facts: Iterable[Mapping[str, Any]], command: str) -> str:
    """Where numbers come from: command, commits, machines."""
    facts = list(facts)
    commits = sorted({(f["commit"] or "?")[:7] + (" (modified)" if f["modified"] else "") for f in facts})
    machines = sorted({f"{f['machine']['cpu']}, torch {f['machine']['torch']}" for f in facts})
    return f"`{command}`; commit {', '.join(commits)}; {'; '.join(machines)}."


# ------------------------------------------------------------------------------------------ images


def finals(lines: Iterable[Row], **wanted: Any) -> list[Row]:
    """Results of the reported seeds of one setting."""
    setting = DEFAULT | wanted
    found = []
    for line in lines:
        cell = line["cell"]
        if cell.get("seed") and all(cell[name] == value for name, value in setting.items()):
            found.append(line["result"])
    return found


def image_values(results: Sequence[Row], kind: str, score: str) -> list[float]:
    return [result[kind][score] for result in results if kind in result]


def image_grid(lines: Sequence[Row]) -> list[str]:
    rows = []
    pixels = next((line["result"] for line in lines if line["cell"] == {"pixels": True}), None)
    if pixels:
        rows.append(["the pixels themselves", "", *(f"{pixels[score]:.3f}" for score in IMAGE_SCORES), "", "", ""])
    for name in ("ae", "dae", "vae", "mim", "cmim", "cvae", "infonce"):
        results = finals(lines, objective=name)
        if not results:
            rows.append([name, "", *["not run"] * len(IMAGE_SCORES), "", "", ""])
        for kind in KINDS:
            if any(kind in result for result in results):
                scores = [spread(image_values(results, kind, score)) for score in IMAGE_SCORES]
                shared = [spread([r[key] for r in results if key in r], 2) for key in ("nats", "uniformity")]
                rank = spread([r["effective_rank"] for r in results if "effective_rank" in r], 1)
                rows.append([name, kind, *scores, *([*shared, rank] if kind == "latent" else ["", "", ""])])
    head = ["objective", "embedding", "kNN, 10 labels a class", "MLP, 10 labels", "kNN, all labels", "MLP, all labels"]
    return table([*head, "nats (z = μ)", "uniformity", "effective rank"], rows).splitlines()


def image_series(lines: Sequence[Row], axis: str) -> list[str]:
    """One row a setting: scores of `latent` and `both` with few labels, and the learning rate."""
    rows = []
    values = sorted({line["cell"][axis] for line in lines if line["cell"].get("seed")})
    for value in values:
        for name in STUDIES[axis][1]:
            results = finals(lines, **{"objective": name, axis: value})
            if results:
                rates = {
                    line["cell"]["lr"]
                    for line in lines
                    if line["cell"].get("seed") and line["cell"]["objective"] == name and line["cell"][axis] == value
                    and all(line["cell"][k] == v for k, v in DEFAULT.items() if k not in ("objective", axis))
                }  # fmt: skip
                scores = [spread(image_values(results, kind, s)) for kind in KINDS for s in ("knn_few", "knn_all")]
                rank = spread([r["effective_rank"] for r in results if "effective_rank" in r], 1)
                rows.append([f"{value:g}", name, *scores, rank, ", ".join(f"{rate:g}" for rate in sorted(rates))])
    head = [STUDIES[axis][0], "objective", *(f"{kind}, {n}" for kind in KINDS for n in ("10 labels", "all labels"))]
    return table([*head, "effective rank", "learning rate"], rows).splitlines()


def image_figure(lines: Sequence[Row], axis: str, path: Path) -> None:
    """Accuracy of nearest neighbours with ten labels a class against what varies."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn, panels = plt.subplots(1, 3, figsize=(12, 3.8), sharey=True)
    values = sorted({line["cell"][axis] for line in lines if line["cell"].get("seed")})
    for panel, kind in zip(panels, KINDS, strict=True):
        for name in STUDIES[axis][1]:
            points = [(v, image_values(finals(lines, **{"objective": name, axis: v}), kind, "knn_few")) for v in values]
            points = [(v, scores) for v, scores in points if scores]
            if points:
                x, means = [v for v, _ in points], [float(np.mean(scores)) for _, scores in points]
                errors = [float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0 for _, scores in points]
                panel.errorbar(x, means, errors, marker="o", capsize=3, label=name)
        panel.set(
            xscale="log", xlabel=STUDIES[axis][0], title=kind, xticks=values, xticklabels=[f"{v:g}" for v in values]
        )
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if panel.get_legend_handles_labels()[0]:
            panel.legend()
    panels[0].set_ylabel("accuracy, kNN, 10 labels a class")
    drawn.tight_layout()
    drawn.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(drawn)


# ------------------------------------------------------------------------------------------ molecules


def read_molecules(folder: Path) -> dict[str, list[Row]]:
    """Results by variant, the base under `cmim`."""
    found: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault({"base": "cmim"}.get(result["variant"], result["variant"]), []).append(result)
    return found


def molecule_values(results: Sequence[Row], **wanted: str) -> list[float]:
    """One mean over splits for each seed."""
    cells = (cell for r in results if r["status"] == "ok" for cell in r["yardstick"]["cells"])
    return [cell["mean"] for cell in cells if all(cell[name] == value for name, value in wanted.items())]


def molecule_grid(variants: Mapping[str, list[Row]], head: str) -> list[str]:
    columns = [(name, metric) for name in ("esol", "freesolv", "lipo") for metric in ("rmse", "r2")]
    columns += [(name, "roc_auc") for name in ("bace", "bbbp")]
    titles = {"rmse": "RMSE ↓", "r2": "R² ↑", "roc_auc": "AUC ↑"}
    rows = []
    for variant, results in variants.items():
        for kind in KINDS:
            scores = [
                molecule_values(results, set=name, metric=metric, head=head, kind=kind) for name, metric in columns
            ]
            rows.append([variant, kind, *(spread(values) for values in scores)])
    return table(["objective", "embedding", *(f"{SETS[name]} {titles[m]}" for name, m in columns)], rows).splitlines()


def molecule_facts(variants: Mapping[str, list[Row]]) -> list[str]:
    """Reconstruction and geometry."""
    rows = []
    for variant, results in variants.items():
        good = [r for r in results if r["status"] == "ok"]
        numbers = [[r.get(key) for r in good if r.get(key) is not None] for key in ("nats", "token_accuracy")]
        exact = [100 * r["exact_reconstruction"] for r in good if r.get("exact_reconstruction") is not None]
        geometry = [[r["yardstick"]["geometry"][key] for r in good] for key in GEOMETRY]
        texts = [spread(numbers[0], 2), spread(numbers[1]), spread(exact, 1)]
        rows.append([variant, str(len(good)), *texts, *(spread(values, 2) for values in geometry)])
    return table(["objective", "seeds", "nats", "tokens right", "exact, %", *GEOMETRY.values()], rows).splitlines()


def batch_values(lines: Iterable[Row], cell: Mapping[str, Any], kind: str, head: str) -> list[float]:
    """Mean over sets of R2 and ROC-AUC, one a reported seed, of the cells of this objective and batch."""
    found = []
    for line in lines:
        if line["cell"]["seed"] and "cells" in line["result"] and all(line["cell"][k] == v for k, v in cell.items()):
            rows = [c for c in line["result"]["cells"] if (c["kind"], c["head"]) == (kind, head)]
            scores = [c["mean"] for c in rows if c["metric"] in ("r2", "roc_auc")]
            if scores:
                found.append(float(np.mean(scores)))
    return found


def batch_settings(lines: Iterable[Row]) -> list[dict[str, Any]]:
    """Batches and objectives of the reported cells, in order."""
    pairs = {(line["cell"]["batch"], line["cell"]["objective"]) for line in lines if line["cell"]["seed"]}
    order = STUDIES["batch"][1]
    return [{"batch": b, "objective": o} for b, o in sorted(pairs, key=lambda pair: (pair[0], order.index(pair[1])))]


def molecule_batches(lines: Sequence[Row]) -> list[str]:
    """One row a batch and objective; n/a where there is no decoder."""
    rows = []
    for cell in batch_settings(lines):  # of both seeds that diverged there is no score
        mine = [x for x in lines if x["cell"]["seed"] and all(x["cell"][k] == v for k, v in cell.items())]
        rank = [x["result"]["geometry"]["effective_rank"] for x in mine if "geometry" in x["result"]]
        scores = [spread(batch_values(lines, cell, kind, head)) for kind in KINDS for head in ("knn", "svm")]
        if all("error" in x["result"] for x in mine):
            scores = ["diverged"] * len(scores)
        chosen = ", ".join(f"{rate:g}" for rate in sorted({x["cell"]["lr"] for x in mine}))
        rows.append([str(cell["batch"]), cell["objective"], *scores, spread(rank, 1), chosen])
    head = ["batch size", "objective", *(f"{kind}, {head}" for kind in KINDS for head in ("kNN", "SVM"))]
    return table([*head, "effective rank", "learning rate"], rows).splitlines()


def batch_figure(lines: Sequence[Row], path: Path) -> None:
    """Mean score against the batch size on molecules, nearest neighbours and SVM."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    drawn, panels = plt.subplots(1, 3, figsize=(12, 3.8), sharey=True)
    settings = batch_settings(lines)
    for panel, kind in zip(panels, KINDS, strict=True):
        for colour, name in enumerate(STUDIES["batch"][1]):
            for head, style in (("svm", "-"), ("knn", ":")):
                of = [(s["batch"], batch_values(lines, s, kind, head)) for s in settings if s["objective"] == name]
                of = [(batch, scores) for batch, scores in of if scores]
                if of:
                    x, means = [b for b, _ in of], [float(np.mean(v)) for _, v in of]
                    errors = [float(np.std(v, ddof=1)) if len(v) > 1 else 0.0 for _, v in of]
                    label = f"{name}, {'SVM' if head == 'svm' else 'kNN'}"
                    panel.errorbar(x, means, errors, fmt=f"o{style}", color=f"C{colour}", capsize=3, label=label)
        batches = sorted({s["batch"] for s in settings})
        panel.set(xscale="log", xlabel="batch size", title=kind, xticks=batches, xticklabels=list(map(str, batches)))
        panel.minorticks_off()
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize=8)
    panels[0].set_ylabel("mean of R² and ROC-AUC over four sets")
    drawn.tight_layout()
    drawn.savefig(path, dpi=110, metadata={"Software": None})
    plt.close(drawn)


GEOMETRY = {
    "uniformity": "uniformity",
    "effective_rank": "effective rank",
    "neighbour_tanimoto": "neighbours' Tanimoto",
    "neighbour_tanimoto_at_random": "at random",
    "neighbour_same_scaffold": "same scaffold",
    "neighbour_same_scaffold_at_random": "at random ",
}


def text(lines: Sequence[Row], variants: Mapping[str, list[Row]], batches: Sequence[Row]) -> str:
    """The whole of results.md."""
    parts = ["# The paper's claims: results", ""]
    if reported(lines):
        parts += ["## Images: objectives and embeddings", "", *image_grid(lines), ""]
        for axis, (title, _) in STUDIES.items():
            parts += [f"## Images: {title}", "", *image_series(lines, axis), "", f"![{title}](images_{axis}.png)", ""]
        parts += [made(lines, "python benchmarks/claims/images.py"), ""]
    if variants:
        for head in ("svm", "knn", "mlp"):
            parts += [f"## Molecules: frozen embeddings, {head}", "", *molecule_grid(variants, head), ""]
        parts += ["## Molecules: reconstruction and geometry", "", *molecule_facts(variants), ""]
        command = "python benchmarks/recipe/study.py --variants benchmarks/claims/molecules.yaml ..."
        parts += [made((r for results in variants.values() for r in results), command), ""]
    if reported(batches):
        sets = "Means over ESOL, FreeSolv (R²), BACE and BBBP (ROC-AUC) and over seeds."
        parts += ["## Molecules: batch size", "", sets, "", *molecule_batches(batches), ""]
        parts += ["![batch size on molecules](molecules_batch.png)", ""]
        parts += [made(batches, "python benchmarks/claims/molecules_batch.py --corpus CORPORA/atom"), ""]
    if not reported(lines) and not variants and not reported(batches):
        parts += ["No results yet: see README.md for the commands that make them.", ""]
    return "\n".join(parts)


def main() -> None:
    lines = read(HERE / "results" / "images.jsonl")
    if reported(lines):
        for axis in STUDIES:
            image_figure(lines, axis, HERE / f"images_{axis}.png")
    batches = read(HERE / "results" / "molecules_batch.jsonl")
    if reported(batches):
        batch_figure(batches, HERE / "molecules_batch.png")
    variants = read_molecules(HERE / "results" / "molecules")
    (HERE / "results.md").write_text(text(lines, variants, batches), encoding="utf-8")


if __name__ == "__main__":
    main()
