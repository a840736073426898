"""Tables and figures of the claims on molecules, from results/molecules/*.json and lines of molecules_batch.jsonl."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from figures import Curve, draw_bars, draw_curves
from report_text import STUDIES, Row, reported_lines, spread

from molcmim.embed import KINDS
from molcmim.moleculenet.report import table
from molcmim.moleculenet.statistics import AHEAD, BEHIND, paired
from molcmim.objective import FACTORS

SETS = {"esol": "ESOL", "freesolv": "FreeSolv", "lipo": "Lipo", "bace": "BACE", "bbbp": "BBBP"}
HEADS = {"svm": "SVM", "knn": "kNN", "mlp": "MLP"}
METRICS = {"rmse": "RMSE ↓", "r2": "R² ↑", "roc_auc": "AUC ↑"}
COLUMNS = [(name, metric) for name in ("esol", "freesolv", "lipo") for metric in ("rmse", "r2")]
COLUMNS += [(name, "roc_auc") for name in ("bace", "bbbp")]
AVERAGED = ("r2", "roc_auc")  #: metrics whose mean over sets is taken
AVERAGE = "mean of R² and ROC-AUC over five sets"
TEST_SHARE = 0.2  #: of a split of `random5`
RIVALS = ("mim", "infonce", "infonce-slow", "ae", "cmim-tau1-x100", "untrained")  #: that cMIM is compared with
VARIED = {"tau": ("objective", "tau"), "latent": ("model", "latent")}  #: study: the field of molecules.yaml
GEOMETRY = {
    "uniformity": "uniformity",
    "effective_rank": "effective rank",
    "neighbour_tanimoto": "neighbours' Tanimoto",
    "neighbour_tanimoto_at_random": "of random pairs",
    "neighbour_same_scaffold": "neighbours with the same scaffold",
    "neighbour_same_scaffold_at_random": "random pairs",
}

Variants = Mapping[str, Sequence[Row]]


def read_molecules(folder: Path) -> dict[str, list[Row]]:
    """Results by variant, the base under `cmim`; in the order of molcmim's objectives (the name's first part)."""
    found: dict[str, list[Row]] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        found.setdefault({"base": "cmim"}.get(result["variant"], result["variant"]), []).append(result)
    order = list(FACTORS)
    parts = {name: name.partition("-")[0] for name in found}
    rank = {name: order.index(part) if part in order else len(order) for name, part in parts.items()}
    return {name: found[name] for name in sorted(found, key=lambda name: (rank[name], name))}


def of_objectives(variants: Variants) -> dict[str, Sequence[Row]]:
    """Without temperatures and widths, which have tables of their own."""
    return {name: results for name, results in variants.items() if results[0]["group"] in ("base", "objective")}


def good(results: Sequence[Row]) -> list[Row]:
    return [result for result in results if result["status"] == "ok"]


def cells_of(result: Row, **wanted: str) -> list[Row]:
    return [c for c in result["yardstick"]["cells"] if all(c[name] == value for name, value in wanted.items())]


def average(cells: Iterable[Row], kind: str, head: str) -> float | None:
    """Mean over sets of R2 and ROC-AUC; None if the objective has no such embedding."""
    mine = [c["mean"] for c in cells if (c["kind"], c["head"]) == (kind, head) and c["metric"] in AVERAGED]
    return float(np.mean(mine)) if mine else None


def averages(results: Sequence[Row], kind: str, head: str) -> dict[int, float]:
    """The `average` of each seed that has one."""
    found = ((result["seed"], average(result["yardstick"]["cells"], kind, head)) for result in good(results))
    return {seed: score for seed, score in found if score is not None}


def status(results: Sequence[Row]) -> str:
    """Why there is no number: that of the first run that came to nothing, or that it doesn't apply."""
    failed = [result["status"] for result in results if result["status"] != "ok"]
    return failed[0] if failed and not good(results) else "n/a"


# ------------------------------------------------------------------------------------------ objectives


def molecule_means(variants: Variants) -> list[str]:
    """One row an objective and embedding: the mean over sets for each head."""
    rows = []
    for name, results in variants.items():
        for kind in KINDS:
            values = [list(averages(results, kind, head).values()) for head in HEADS]
            rows.append([name, kind, *(spread(v) if v else status(results) for v in values)])
    return table(["objective", "embedding", *HEADS.values()], rows).splitlines()


def molecule_grid(variants: Variants, head: str) -> list[str]:
    """Raw scores of every set."""
    rows = []
    for name, results in variants.items():
        for kind in KINDS:
            cells = [
                [c["mean"] for r in good(results) for c in cells_of(r, set=which, metric=metric, head=head, kind=kind)]
                for which, metric in COLUMNS
            ]
            rows.append([name, kind, *(spread(values) if values else status(results) for values in cells)])
    titles = [f"{SETS[which]} {METRICS[metric]}" for which, metric in COLUMNS]
    return table(["objective", "embedding", *titles], rows).splitlines()


def molecule_facts(variants: Variants) -> list[str]:
    """Reconstruction and geometry."""
    rows = []
    for name, results in variants.items():
        there = good(results)
        keys = ("nats", "token_accuracy", "exact_reconstruction", "sigma_at_floor")
        nats, tokens, exact, floor = ([r[key] for r in there if r.get(key) is not None] for key in keys)
        geometry = [spread([r["yardstick"]["geometry"][key] for r in there]) for key in GEOMETRY]
        shares = [spread([100 * value for value in values], 1) for values in (exact, floor)]
        rows.append([name, str(len(there)), spread(nats, 2), spread(tokens), *shares, *geometry])
    head = ["objective", "seeds", "nats", "tokens right", "exact, %", "σ at its floor, %", *GEOMETRY.values()]
    return table(head, rows).splitlines()


# ------------------------------------------------------------------------------------------ contrasts


def verdict(ours: Sequence[Row], theirs: Sequence[Row], kinds: tuple[str, str], which: str, head: str) -> str:
    """Of one set by its main metric: the paired interval over splits, of means over seeds."""
    metric = "rmse" if (which, "rmse") in COLUMNS else "roc_auc"
    wanted = {"set": which, "head": head, "metric": metric}
    a, b = (
        np.mean([cells_of(r, kind=kind, **wanted)[0]["values"] for r in results], axis=0)
        for results, kind in zip((ours, theirs), kinds, strict=True)
    )
    return paired(a, b, 1 - TEST_SHARE, TEST_SHARE, metric == "roc_auc").verdict


def contrast(ours: Sequence[Row], theirs: Sequence[Row], kinds: tuple[str, str], head: str) -> str:
    """Difference of the means over sets, and on how many sets ours is ahead and behind, over the seeds both have."""
    a, b = averages(ours, kinds[0], head), averages(theirs, kinds[1], head)
    seeds = sorted(set(a) & set(b))
    if not seeds:
        return "n/a"
    pair = [[result for result in good(results) if result["seed"] in seeds] for results in (ours, theirs)]
    found = Counter(verdict(pair[0], pair[1], kinds, which, head) for which in SETS)
    difference = spread([a[seed] - b[seed] for seed in seeds])
    return f"{difference}; {found[AHEAD]} / {found[BEHIND]}"


def rival_contrasts(variants: Variants) -> list[str]:
    """cMIM against each rival: the same embedding, or the rival's latent if it has no other."""
    rows = []
    for rival in (name for name in RIVALS if name in variants):
        for kind in KINDS:
            theirs = kind if averages(variants[rival], kind, "svm") else "latent"
            found = [contrast(variants["cmim"], variants[rival], (kind, theirs), head) for head in HEADS]
            rows.append([f"cmim, {kind}", f"{rival}, {theirs}", *found])
    return table(["", "against", *HEADS.values()], rows).splitlines()


def embedding_contrasts(variants: Variants) -> list[str]:
    """`informative` and `both` against `latent` of the same model."""
    rows = []
    for name, results in variants.items():
        for kind in KINDS[1:]:
            if averages(results, kind, "svm"):
                found = [contrast(results, results, (kind, "latent"), head) for head in HEADS]
                rows.append([name, f"{kind} against latent", *found])
    return table(["objective", "", *HEADS.values()], rows).splitlines()


# ------------------------------------------------------------------------------------------ temperature, latent width


def varied(variants: Variants, study: str) -> list[tuple[float, Sequence[Row]]]:
    """Value and results, by value; the base among them."""
    section, field = VARIED[study]
    base = yaml.safe_load((Path(__file__).parent / "molecules.yaml").read_text(encoding="utf-8"))["base"]
    found = []
    for name, results in variants.items():
        overrides = results[0]["overrides"]
        if name == "cmim":
            found.append((base[section][field], results))
        elif set(overrides) == {f"{section}.{field}"}:
            found.append((overrides[f"{section}.{field}"], results))
    return sorted(found, key=lambda pair: pair[0])


def molecule_series(variants: Variants, study: str) -> list[str]:
    """One row a value."""
    rows = []
    for value, results in varied(variants, study):
        scores = [spread(list(averages(results, kind, head).values())) for kind in KINDS for head in ("svm", "knn")]
        there = good(results)
        nats = spread([r["nats"] for r in there], 2)
        rank, even = (
            spread([r["yardstick"]["geometry"][key] for r in there], 2) for key in ("effective_rank", "uniformity")
        )
        rows.append([f"{value:g}", str(len(there)), *scores, nats, rank, even])
    head = [f"{kind}, {HEADS[head]}" for kind in KINDS for head in ("svm", "knn")]
    return table([STUDIES[study][0], "seeds", *head, "nats", "effective rank", "uniformity"], rows).splitlines()


def series_figure(variants: Variants, study: str, path: Path) -> None:
    """Mean over sets against a temperature or width."""
    found = varied(variants, study)
    panels = {
        kind: [
            Curve(label, [(x, list(averages(results, kind, head).values())) for x, results in found])
            for head, label in HEADS.items()
        ]
        for kind in KINDS
    }
    draw_curves(path, panels, STUDIES[study][0], AVERAGE)


def objectives_figure(variants: Variants, path: Path) -> None:
    """Mean over sets of every objective and embedding, a panel a head."""
    panels = {
        label: {
            name: {kind: list(averages(results, kind, head).values()) for kind in KINDS}
            for name, results in of_objectives(variants).items()
        }
        for head, label in HEADS.items()
    }
    draw_bars(path, panels, "mean of R² and AUC")


# ------------------------------------------------------------------------------------------ batch size


def batch_values(lines: Iterable[Row], cell: Mapping[str, Any], kind: str, head: str) -> list[float]:
    """The `average` of each reported seed of this objective and batch."""
    found = (average(x["result"].get("cells", ()), kind, head) for x in reported_lines(lines, cell))
    return [score for score in found if score is not None]


def batch_settings(lines: Iterable[Row]) -> list[dict[str, Any]]:
    """Batches and objectives of the reported cells, in order."""
    pairs = {(line["cell"]["batch"], line["cell"]["objective"]) for line in lines if line["cell"]["seed"]}
    order = STUDIES["batch"][1]
    return [{"batch": b, "objective": o} for b, o in sorted(pairs, key=lambda pair: (pair[0], order.index(pair[1])))]


def molecule_batches(lines: Sequence[Row]) -> list[str]:
    """One row a batch and objective; n/a where there is no decoder."""
    rows = []
    for cell in batch_settings(lines):  # of both seeds that diverged there is no score
        mine = reported_lines(lines, cell)
        rank = [x["result"]["geometry"]["effective_rank"] for x in mine if "geometry" in x["result"]]
        scores = [spread(batch_values(lines, cell, kind, head)) for kind in KINDS for head in ("knn", "svm")]
        if all("error" in x["result"] for x in mine):
            scores = ["diverged"] * len(scores)
        chosen = ", ".join(f"{rate:g}" for rate in sorted({x["cell"]["lr"] for x in mine}))
        rows.append([str(cell["batch"]), cell["objective"], *scores, spread(rank, 1), chosen])
    head = ["batch size", "objective", *(f"{kind}, {head}" for kind in KINDS for head in ("kNN", "SVM"))]
    return table([*head, "effective rank", "learning rate"], rows).splitlines()


def untrained_note(variants: Variants, sets: Sequence[str]) -> str:
    """What the grid's untrained model has on these sets, on average."""
    cells = [c for r in good(variants.get("untrained", ())) for c in r["yardstick"]["cells"] if c["set"] in sets]
    scores = [f"{label} {score:.3f}" for head, label in HEADS.items() if (score := average(cells, "latent", head))]
    return f"The grid's untrained model has, in `latent`: {', '.join(scores)}." if scores else ""


def batch_figure(lines: Sequence[Row], path: Path) -> None:
    """Mean over sets against the batch size, nearest neighbours and SVM."""
    settings = batch_settings(lines)
    panels = {
        kind: [
            Curve(
                f"{name}, {HEADS[head]}",
                [(s["batch"], batch_values(lines, s, kind, head)) for s in settings if s["objective"] == name],
                style,
                colour,
            )
            for colour, name in enumerate(STUDIES["batch"][1])
            for head, style in (("svm", "o-"), ("knn", "o:"))
        ]
        for kind in KINDS
    }
    draw_curves(path, panels, "batch size", "mean of R² and ROC-AUC over four sets")


# ------------------------------------------------------------------------------------------ all


def objective_sections(variants: Variants) -> list[str]:
    """Lines of results.md about the grid, temperature and width."""
    shown = of_objectives(variants)
    several = "± is the standard deviation over seeds (data order and initial weights), where there are three."
    means = ["", f"The {AVERAGE}; {several}", "", *molecule_means(shown), ""]
    parts = ["## Molecules: objectives and embeddings", *means, "![objectives](molecules_objectives.png)", ""]
    how = "Difference of the same mean; then the number of sets, of five, on which the first is ahead / behind"
    how += " beyond the 95 % interval over splits."
    parts += ["## Molecules: contrasts", "", how, "", *rival_contrasts(shown), "", *embedding_contrasts(shown), ""]
    for head, label in HEADS.items():
        parts += [f"## Molecules: raw scores, {label}", "", *molecule_grid(shown, head), ""]
    parts += ["## Molecules: reconstruction and geometry", "", *molecule_facts(shown), ""]
    for study in VARIED:
        title = STUDIES[study][0]
        parts += [f"## Molecules: {title} (cMIM)", "", *molecule_series(variants, study), ""]
        parts += [f"![{title} on molecules](molecules_{study}.png)", ""]
    return parts
