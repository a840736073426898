"""Tables and figures of the claims study, from results/: images.jsonl, molecules/*.json, molecules_batch.jsonl.

python benchmarks/claims/report.py      # writes results.md and the figures
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cells import read, without_superseded
from images import validation_score
from molecules_batch import SETS as BATCH_SETS
from molecules_batch import probe_of
from report_images import image_figure, image_grid, image_series
from report_molecules import (
    VARIED,
    batch_figure,
    molecule_batches,
    objective_sections,
    objectives_figure,
    read_molecules,
    series_figure,
    untrained_note,
)
from report_text import STUDIES, Row, made, reported

HERE = Path(__file__).parent


def text(lines: Sequence[Row], variants: Mapping[str, Sequence[Row]], batches: Sequence[Row]) -> str:
    """The whole of results.md."""
    parts = ["# The paper's claims: results", ""]
    if reported(lines):
        parts += ["## Images: objectives and embeddings", "", *image_grid(lines), ""]
        for axis, (title, _) in STUDIES.items():
            parts += [f"## Images: {title}", "", *image_series(lines, axis), "", f"![{title}](images_{axis}.png)", ""]
        parts += [made(lines, "python benchmarks/claims/images.py"), ""]
    if variants:
        command = "python benchmarks/recipe/study.py --variants benchmarks/claims/molecules.yaml ..."
        parts += [
            *objective_sections(variants),
            made((r for results in variants.values() for r in results), command),
            "",
        ]
    if reported(batches):
        sets = "Means over ESOL, FreeSolv (R²), BACE and BBBP (ROC-AUC) and over seeds."
        sets += " " + untrained_note(variants, BATCH_SETS)
        parts += ["## Molecules: batch size", "", sets, "", *molecule_batches(batches), ""]
        parts += ["![batch size on molecules](molecules_batch.png)", ""]
        parts += [made(batches, "python benchmarks/claims/molecules_batch.py --corpus CORPORA/atom"), ""]
    if not reported(lines) and not variants and not reported(batches):
        parts += ["No results yet: see README.md for the commands that make them.", ""]
    return "\n".join(parts)


def read_results() -> tuple[list[Row], dict[str, list[Row]], list[Row]]:
    """Of images, of molecules by variant, of batch sizes on molecules."""
    folder = HERE / "results"
    lines = without_superseded(read(folder / "images.jsonl"), validation_score)
    batches = without_superseded(read(folder / "molecules_batch.jsonl"), probe_of)
    return lines, read_molecules(folder / "molecules"), batches


def main() -> None:
    lines, variants, batches = read_results()
    if reported(lines):
        for axis in STUDIES:
            image_figure(lines, axis, HERE / f"images_{axis}.png")
    if variants:
        objectives_figure(variants, HERE / "molecules_objectives.png")
        for study in VARIED:
            series_figure(variants, study, HERE / f"molecules_{study}.png")
    if reported(batches):
        batch_figure(batches, HERE / "molecules_batch.png")
    (HERE / "results.md").write_text(text(lines, variants, batches), encoding="utf-8")


if __name__ == "__main__":
    main()
