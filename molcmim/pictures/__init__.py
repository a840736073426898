"""Pictures of generated molecules: a grid, an interpolation path, an optimisation; as .png, .svg or .html.

>>> from molcmim import MolCMIM, pictures                                          # doctest: +SKIP
>>> table = MolCMIM.from_pretrained().neighbours("CC(=O)Oc1ccccc1C(=O)O", n=20)    # doctest: +SKIP
>>> pictures.grid(table, "neighbours.png", title="Around aspirin")                 # doctest: +SKIP

A .html page is self-contained; in it, hovering over a molecule shows its SMILES and a click copies it. A .svg can be
edited. A .png has two pixels for each of the .svg's and needs Pillow, which RDKit's packages bring along. The same
input gives the same bytes with the same versions of RDKit and Pillow. Only texts that `molcmim.chem` accepts are
shown to RDKit; others are a grey cell with the text cut short.
"""

# Axes: n rows of a table, r starts.

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from molcmim.chem import prepare
from molcmim.generated import GeneratedTable, tanimoto
from molcmim.pictures.canvas import check_path, write
from molcmim.pictures.html import to_html
from molcmim.pictures.molecules import align, parse
from molcmim.pictures.page import (
    LABELS,
    Cell,
    Chart,
    Group,
    Line,
    Page,
    caption_lines,
    molecule_cell,
    number_text,
    property_texts,
    to_png,
    to_svg,
)
from molcmim.pictures.trace import HEIGHT, curves, draw_chart

if TYPE_CHECKING:
    from molcmim.optimize import OptimizeResult

__all__ = ["check_path", "draw", "grid", "path_picture", "trace_picture"]

LONGEST_NAME = 12  #: of a score, in a caption
SIMILARITY = "Tanimoto: Morgan fingerprints, radius 2, 2,048 bits"


def draw(results: GeneratedTable | Sequence[OptimizeResult], path: str | os.PathLike[str], **options: Any) -> Path:
    """The picture that fits: `trace_picture` of optimisation results; of a table, `path_picture` if `ends` are given,
    else `grid`.

    Parameters
    ----------
    results
        A table of generated molecules, or what `optimize` returned.
    path
        ``*.png``, ``*.svg`` or ``*.html``.
    options
        Those of the function.

    Raises
    ------
    TypeError
        If `results` is neither.
    ValueError, FileNotFoundError, ImportError
        As the functions.
    """
    if isinstance(results, GeneratedTable):
        ends = options.pop("ends", None)
        return path_picture(results, path, ends, **options) if ends else grid(results, path, **options)
    if isinstance(results, Sequence) and all(hasattr(each, "trace") for each in results):
        return trace_picture(results, path, **options)
    raise TypeError(f"results: expected a GeneratedTable or a list of OptimizeResult, got {type(results).__name__}")


# ---------------------------------------------------------------------------------------- grid


def grid(
    table: GeneratedTable, path: str | os.PathLike[str], columns: int = 5, title: str = "", limit: int = 60
) -> Path:
    """Molecules in rows, each seed first and framed, with similarity, distance and properties as captions.

    Molecules that share a part with their seed are turned so that it lies as in the seed.

    Parameters
    ----------
    table
        n rows. A row of the same seed as the row before belongs to the same block.
    path
        ``*.png``, ``*.svg`` or ``*.html``; replaced if it is there.
    columns
        Cells in a row (HTML: as many as the window has room for).
    limit
        Show at most so many rows of the table: as many of each block, and at least a row of cells of each. The picture
        says how many there are.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If `path` has another ending, or `columns` or `limit` is less than 1.
    FileNotFoundError
        If the folder doesn't exist.
    ImportError
        If a .png is asked for without Pillow.
    """
    target = check_path(path)
    _at_least_one(columns=columns, limit=limit)
    blocks = [(seed, [i for i, _ in rows]) for seed, rows in groupby(enumerate(table.seed), key=lambda item: item[1])]
    shown = _shared_out([rows for _, rows in blocks], columns, limit)
    missing = "(no SMILES)" if any(table.seed) else ""
    groups = [_block(table, seed or missing, rows) for (seed, _), rows in zip(blocks, shown, strict=False)]
    valid = [text for text, ok in zip(table.canonical_smiles, table.valid.tolist(), strict=True) if ok]
    n_shown = sum(map(len, shown))
    count = f"{n_shown:,} of {len(table):,} shown" if n_shown < len(table) else f"{len(table):,} molecules"
    if len(shown) < len(blocks):
        count += f", around {len(shown):,} of {len(blocks):,} seeds"
    note = f"{count}  ·  {len(valid):,} valid, {len(set(valid)):,} distinct"
    if any(table.seed):
        note += f"  ·  distance in latent space, {SIMILARITY}"
    return _save(Page(title, note, groups, columns), target)


def _shared_out(blocks: list[list[int]], columns: int, limit: int) -> list[list[int]]:
    """The rows to show of each block, blocks without any left out."""
    if sum(map(len, blocks)) > limit and len(blocks) > 1:
        each = max(columns - 1, limit // len(blocks))
        blocks = [rows[:each] for rows in blocks]
    shown: list[list[int]] = []
    for rows in blocks:
        if limit <= 0:
            break
        shown.append(rows[:limit])
        limit -= len(rows)
    return shown


def _block(table: GeneratedTable, seed: str, rows: list[int]) -> Group:
    """A seed, if there is one, and its molecules."""
    cells: list[Cell] = []
    seed_mol = seed_smiles = None
    if seed:
        seed_mol, seed_smiles = parse(seed), prepare(seed).canonical_smiles
        own = _seed_properties(table, seed_smiles)
        caption = caption_lines(property_texts(own))
        cells.append(molecule_cell(seed, mol=seed_mol, kind="seed", tag="seed", caption=caption, values=own))
    for i in rows:
        fields: dict[str, Any] = {"tag": str(i + 1), "mark": "repaired" if table.repaired[i] else ""}
        if table.valid[i]:
            properties = _properties(table, i)
            same = seed_smiles is not None and table.canonical_smiles[i] == seed_smiles
            similar = "same as seed" if same else number_text("Tanimoto", table.tanimoto[i])
            texts = [similar, number_text("distance", table.distance[i])]
            fields["caption"] = (*caption_lines(texts, "ink"), *caption_lines(property_texts(properties)))
            fields["values"] = {"Tanimoto": table.tanimoto[i], "distance": table.distance[i], **properties}
        cells.append(_row_cell(table, i, seed_mol, **fields))
    return Group(cells)


def _row_cell(table: GeneratedTable, i: int, reference: Any | None, **fields: Any) -> Cell:
    """The cell of a row, its molecule laid out like the reference."""
    if not table.valid[i]:
        status = str(table.status[i]).replace("_", " ")
        fields["mark"] = "not valid" if status in ("invalid", "parse error") else status
        return molecule_cell(table.smiles[i], mol=None, **fields)
    mol = parse(table.canonical_smiles[i])
    if mol is not None and reference is not None:
        align(mol, reference)
    return molecule_cell(table.canonical_smiles[i], mol=mol, **fields)


def _properties(table: GeneratedTable, i: int) -> dict[str, float]:
    return {name: float(values[i]) for name, values in table.properties.items()}


def _seed_properties(table: GeneratedTable, smiles: str | None) -> dict[str, float]:
    """The table's properties for its seed; those that aren't molcmim's own are left out."""
    if smiles is None or not table.properties:
        return {}
    from molcmim.objectives import PROPERTIES

    return {name: float(PROPERTIES[name]([smiles])[0]) for name in table.properties if name in PROPERTIES}


# ---------------------------------------------------------------------------------------- path


def path_picture(
    table: GeneratedTable,
    path: str | os.PathLike[str],
    ends: tuple[str, str] | None = None,
    columns: int = 5,
    title: str = "",
    limit: int = 60,
) -> Path:
    """An interpolation: molecules in the table's order with arrows, equal ones that follow each other only once.

    Parameters
    ----------
    table
        n rows from one end to the other.
    path
        ``*.png``, ``*.svg`` or ``*.html``; replaced if it is there.
    ends
        SMILES of the two ends. They are shown before the first and after the last row, unless these hold the same
        molecules. Default: the first and the last valid row.
    columns
        Cells in a row.
    limit
        Show at most so many molecules; those left out are in the middle, and the picture says how many.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If `path` has another ending, or `columns` or `limit` is less than 1.
    FileNotFoundError
        If the folder doesn't exist.
    ImportError
        If a .png is asked for without Pillow.

    Notes
    -----
    Each molecule is turned like the one before it, as far as they share a part.
    """
    target = check_path(path)
    _at_least_one(columns=columns, limit=limit)
    stops = list(_stops(table, ends))
    keep = stops if len(stops) <= limit else stops[: (limit + 1) // 2] + stops[len(stops) - limit // 2 :]
    cells = _path_cells(table, keep, _end_smiles(stops, ends))
    distinct = {text for text in table.canonical_smiles if text}
    note = f"{len(table):,} steps, {int(table.valid.sum()):,} valid, {len(distinct):,} distinct molecules"
    if len(keep) < len(stops):
        note += f"  ·  {len(keep):,} of {len(stops):,} shown, the middle is left out"
    return _save(Page(title, f"{note}  ·  {SIMILARITY}", [Group(cells, arrows=True)], columns), target)


class Stop(NamedTuple):
    """Rows of the table that follow each other and hold the same molecule, or an end that no row holds."""

    smiles: str | None  #: canonical; None if not valid
    rows: list[int]


def _stops(table: GeneratedTable, ends: tuple[str, str] | None) -> Iterator[Stop]:
    texts = [text if ok else None for text, ok in zip(table.canonical_smiles, table.valid.tolist(), strict=True)]
    given = [None, None] if ends is None else [prepare(end).canonical_smiles for end in ends]
    if given[0] is not None and texts[:1] != given[:1]:
        yield Stop(given[0], [])
    for text, run in groupby(range(len(table)), key=lambda i: texts[i]):
        yield Stop(text, list(run))
    if given[1] is not None and texts[-1:] != given[1:]:
        yield Stop(given[1], [])


def _path_cells(table: GeneratedTable, stops: list[Stop], ends: tuple[str | None, str | None]) -> list[Cell]:
    """Cells of a path; each molecule is laid out like the one before it."""
    texts = [stop.smiles for stop in stops]
    to_start, to_end = (tanimoto(texts, [end] * len(stops)) for end in ends)
    kinds = {len(stops) - 1: "end", 0: "start"}
    cells: list[Cell] = []
    before = None
    for k, (smiles, rows) in enumerate(stops):
        kind = kinds.get(k, "plain") if smiles is not None and smiles in ends else "plain"
        steps = f"steps {rows[0] + 1}–{rows[-1] + 1}" if len(rows) > 1 else f"step {rows[0] + 1}" if rows else ""
        tag = " · ".join(text for text in (kind.replace("plain", ""), steps) if text)
        count = f"×{len(rows)}" if len(rows) > 1 else ""
        if smiles is None:
            cell = _row_cell(table, rows[0], None, tag=tag)
            cells.append(replace(cell, mark=f"{cell.mark} {count}".strip()))
            continue
        mol = parse(smiles)
        if mol is not None and before is not None:
            align(mol, before)
        before = mol if mol is not None else before
        caption = (
            Line(f"Tanimoto {to_start[k]:.2f} to the start", "start"),
            Line(f"Tanimoto {to_end[k]:.2f} to the end", "end"),
        )
        more = caption_lines(property_texts(_properties(table, rows[0]))) if rows else ()
        cells.append(molecule_cell(smiles, mol=mol, kind=kind, tag=tag, mark=count, caption=(*caption, *more)))
    return cells


def _end_smiles(stops: list[Stop], ends: tuple[str, str] | None) -> tuple[str | None, str | None]:
    """Canonical SMILES of the two ends, None if there is no such molecule."""
    if ends is not None:
        return prepare(ends[0]).canonical_smiles, prepare(ends[1]).canonical_smiles
    valid = [stop.smiles for stop in stops if stop.smiles is not None]
    return (valid[0], valid[-1]) if valid else (None, None)


# ---------------------------------------------------------------------------------------- optimisation


def trace_picture(
    results: Sequence[OptimizeResult],
    path: str | os.PathLike[str],
    threshold: float | None = None,
    name: str = "score",
    columns: int = 4,
    title: str = "",
    limit: int = 12,
) -> Path:
    """Optimisations: best score so far against oracle calls, and each start beside the best molecule found from it.

    Parameters
    ----------
    results
        r of them. The thin lines are starts, the bold one is their median, the band their middle half; a start that
        ended early keeps its last score.
    path
        ``*.png``, ``*.svg`` or ``*.html``; replaced if it is there.
    threshold
        A score to be reached: a line, and how many starts reach it.
    name
        What the score is called, ``"qed"`` for example.
    columns
        Cells in a row, at least 4, for the chart; a start and its best molecule are two.
    limit
        Draw molecules of at most so many starts, the first ones; all are in the chart.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If `path` has another ending, `columns` is less than 4 or `limit` less than 1, or a trace isn't one.
    FileNotFoundError
        If the folder doesn't exist.
    ImportError
        If a .png is asked for without Pillow.
    """
    target = check_path(path)
    name = LABELS.get(name, name)
    _at_least_one(limit=limit)
    if columns < 4:
        raise ValueError(f"columns: expected at least 4, got {columns}")
    shown = curves([result.trace for result in results], [result.calls for result in results])
    short = name if len(name) <= LONGEST_NAME else "score"
    groups = [_pair(result, k, short) for k, result in enumerate(results[:limit], 1)]
    calls = sum(result.calls for result in results)
    note = f"{len(results):,} start{'s' * (len(results) != 1)}, {calls:,} oracle calls"
    if threshold is not None:
        reached = sum(result.best_score >= threshold for result in results)
        note += f"  ·  {reached:,} of {len(results):,} reach {short} {threshold:g}"
    if len(results) > limit:
        note += f"  ·  molecules of the first {limit:,} starts"
    chart = Chart(HEIGHT, lambda canvas, x, y, width: draw_chart(canvas, x, y, width, shown, threshold, name))
    return _save(Page(title, note, groups, columns, chart), target)


def _pair(result: OptimizeResult, number: int, name: str) -> Group:
    """A start and the best molecule found from it."""
    start, best = parse(result.start), parse(result.best_smiles)
    if start is not None and best is not None:
        align(best, start)
    before = caption_lines([number_text(name, result.start_score)])
    after = caption_lines([number_text(name, result.best_score), number_text("Tanimoto", result.similarity)], "ink")
    refused = str(result.status).replace("_", " ")
    return Group(
        [
            molecule_cell(result.start, refused, mol=start, tag=f"start {number}", caption=before),
            molecule_cell(result.best_smiles, "nothing found", mol=best, tag="best", kind="seed", caption=after),
        ],
        arrows=True,
    )


# ---------------------------------------------------------------------------------------- shared


def _at_least_one(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")


def _save(page: Page, target: Path) -> Path:
    render = {".png": to_png, ".svg": lambda page: to_svg(page).encode(), ".html": lambda page: to_html(page).encode()}
    write(target, render[target.suffix.lower()](page))
    return target
