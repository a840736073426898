"""Tables and figures of the claims on images, from lines of results/images.jsonl."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from figures import Curve, draw_curves
from images import DEFAULT, UNTRAINED
from report_text import STUDIES, Row, reported_lines, spread

from molcmim.embed import KINDS
from molcmim.moleculenet.report import table

IMAGE_SCORES = ("knn_few", "mlp_few", "knn_all", "mlp_all")


def final_lines(lines: Iterable[Row], **wanted: Any) -> list[Row]:
    """Lines of the reported seeds of one setting."""
    return reported_lines(lines, DEFAULT | wanted)


def finals(lines: Iterable[Row], **wanted: Any) -> list[Row]:
    """Their results."""
    return [line["result"] for line in final_lines(lines, **wanted)]


def image_values(results: Sequence[Row], kind: str, score: str) -> list[float]:
    return [result[kind][score] for result in results if kind in result]


def image_grid(lines: Sequence[Row]) -> list[str]:
    rows = []
    pixels = next((line["result"] for line in lines if line["cell"] == {"pixels": True}), None)
    if pixels:
        rows.append(["the pixels themselves", "", *(f"{pixels[score]:.3f}" for score in IMAGE_SCORES), "", "", ""])
    for name in ("ae", "dae", "vae", "mim", "cmim", "cvae", "infonce", UNTRAINED):
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
            mine = final_lines(lines, **{"objective": name, axis: value})
            if mine:
                results, rates = [line["result"] for line in mine], {line["cell"]["lr"] for line in mine}
                scores = [spread(image_values(results, kind, s)) for kind in KINDS for s in ("knn_few", "knn_all")]
                rank = spread([r["effective_rank"] for r in results if "effective_rank" in r], 1)
                rows.append([f"{value:g}", name, *scores, rank, ", ".join(f"{rate:g}" for rate in sorted(rates))])
    head = [STUDIES[axis][0], "objective", *(f"{kind}, {n}" for kind in KINDS for n in ("10 labels", "all labels"))]
    return table([*head, "effective rank", "learning rate"], rows).splitlines()


def image_figure(lines: Sequence[Row], axis: str, path: Path) -> None:
    """Accuracy of nearest neighbours with ten labels a class against what varies."""
    title, objectives = STUDIES[axis]
    values = sorted({line["cell"][axis] for line in lines if line["cell"].get("seed")})
    panels = {}
    for kind in KINDS:
        found = {name: [finals(lines, **{"objective": name, axis: v}) for v in values] for name in objectives}
        panels[kind] = [
            Curve(name, [(v, image_values(r, kind, "knn_few")) for v, r in zip(values, results, strict=True)])
            for name, results in found.items()
        ]
    draw_curves(path, panels, title, "accuracy, kNN, 10 labels a class")
