"""What a picture of molecules consists of (cells in groups, perhaps a chart above them), and its layout on a canvas."""

# Coordinates are pixels at scale 1, y downwards.

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from molcmim.pictures.canvas import (
    BAD,
    LINE,
    PALE,
    REFERENCE,
    REFERENCE_PALE,
    SOFT,
    Canvas,
    PngCanvas,
    SvgCanvas,
    clean,
    cut,
)
from molcmim.pictures.molecules import INK, formula, parse

CELL, DRAWING = 190.0, (178.0, 124.0)  #: width of a cell; width and height of the molecule in it
TOP, LINE_HEIGHT = 21.0, 16.0  #: height of a cell's label, and of a line of its caption
NOTE, TEXT, SMALL = 13.0, 12.0, 11.0  #: font sizes
MARGIN, GAP, ARROW_GAP = 26.0, 12.0, 34.0
WORDS = (26, 3)  #: characters a line and lines of text in place of a molecule

COLOURS = {"ink": INK, "soft": SOFT, "start": REFERENCE, "end": BAD, "seed": REFERENCE}


#: How properties are called in a caption; others by their own name
LABELS = {"qed": "QED", "logp": "log P", "plogp": "pen. log P", "plogp-raw": "pen. log P (raw)", "sa": "SA", "mw": "MW",
          "tpsa": "TPSA", "hbd": "H donors", "hba": "H acceptors", "heavy": "heavy atoms"}  # fmt: skip
COUNTS = ("hbd", "hba", "heavy", "rings")
CAPTION = 29  #: characters a line


class Line(NamedTuple):
    """A line of a caption."""

    text: str
    kind: str = "soft"  #: key of COLOURS


@dataclass(frozen=True)
class Cell:
    """One molecule, or a text in place of one.

    Attributes
    ----------
    smiles
        What hovering shows and a click copies, in HTML.
    mol
        RDKit molecule with a layout; None: `words` are shown.
    kind
        ``"plain"``, ``"seed"``, ``"start"``, ``"end"`` (framed) or ``"invalid"`` (grey).
    tag, mark
        Labels at the left and at the right above the molecule.
    values
        Numbers to sort by, in HTML.
    """

    smiles: str
    mol: Any | None = None
    kind: str = "plain"
    tag: str = ""
    mark: str = ""
    caption: tuple[Line, ...] = ()
    words: str = ""
    values: dict[str, float] = field(default_factory=dict)


class Group(NamedTuple):
    """Cells that belong together: a seed and its molecules, a path, a start and what became of it."""

    cells: list[Cell]
    arrows: bool = False  #: from each cell to the next


class Chart(NamedTuple):
    """A plot above the cells."""

    height: float
    draw: Callable[[Canvas, float, float, float], None]  #: canvas, x, y and width


@dataclass(frozen=True)
class Page:
    """A picture before it is drawn."""

    title: str
    note: str  #: a few facts under the title
    groups: list[Group]
    columns: int
    chart: Chart | None = None

    @property
    def caption_lines(self) -> int:
        """Lines of the longest caption: all cells have the same height."""
        return max((len(cell.caption) for group in self.groups for cell in group.cells), default=0)


def molecule_cell(smiles: object, invalid: str = "not valid", **fields: Any) -> Cell:
    """A cell that shows a molecule, or says in grey why it doesn't; `fields` are those of `Cell`."""
    text = "" if smiles is None else str(smiles)
    mol = fields.pop("mol") if "mol" in fields else parse(smiles)
    if mol is None:
        fields = {**fields, "kind": "invalid", "mark": fields.get("mark") or invalid}
        return Cell(text, None, words=text, **fields)
    if mol.GetNumConformers() == 0:
        return Cell(text, None, words=f"{formula(mol)}, too large to be drawn", **fields)
    return Cell(text, mol, **fields)


def word_lines(words: str) -> list[str]:
    """A text in a few short lines; a missing end is an ellipsis."""
    text = clean(words)
    width, most = WORDS
    if len(text) > width * most:
        text = text[: width * most - 1] + "…"
    return textwrap.wrap(text, width, break_on_hyphens=False)


# ---------------------------------------------------------------------------------------- captions


def number_text(name: str, value: Any, digits: int | None = None) -> str:
    """A name and a number; "" without a number.

    >>> number_text("distance", 3.14159), number_text("TPSA", 123.456), number_text("Tanimoto", float("nan"))
    ('distance 3.14', 'TPSA 123.5', '')
    """
    number = float("nan") if value is None else float(value)
    if not math.isfinite(number):
        return ""
    text = f"{number:.{(2 if abs(number) < 100 else 1) if digits is None else digits}f}"
    return f"{name} {text.removeprefix('-') if float(text) == 0 else text.replace('-', '−')}"


def property_texts(properties: Mapping[str, float]) -> list[str]:
    """Properties of a molecule as a caption has them."""
    return [
        number_text(LABELS.get(name, name), value, 0 if name in COUNTS else None) for name, value in properties.items()
    ]


def caption_lines(texts: Sequence[str], kind: str = "soft") -> tuple[Line, ...]:
    """As many texts on a line as fit; empty ones are left out."""
    lines: list[str] = []
    for text in filter(None, texts):
        if lines and len(lines[-1]) + len(text) + 3 <= CAPTION:
            lines[-1] += f" · {text}"
        else:
            lines.append(text)
    return tuple(Line(text, kind) for text in lines)


# ---------------------------------------------------------------------------------------- layout


class Place(NamedTuple):
    """Where a cell goes."""

    cell: Cell
    row: int
    column: int
    arrow: bool  #: from the cell before it


def placed(groups: Sequence[Group], columns: int) -> Iterator[Place]:
    """Cells in rows; a group starts a new row unless all of it fits into what is left of the last one."""
    row = column = 0
    for group in groups:
        if column and column + len(group.cells) > columns:
            row, column = row + 1, 0
        for i, cell in enumerate(group.cells):
            if column == columns:
                row, column = row + 1, 0
            yield Place(cell, row, column, group.arrows and i > 0)
            column += 1


def to_svg(page: Page) -> str:
    """The picture as the text of an SVG image."""
    width, height = _size(page)
    canvas = SvgCanvas(width, height, page.title or "molecules")
    _draw_page(canvas, page, width)
    return canvas.render()


def to_png(page: Page) -> bytes:
    """The picture as the bytes of a PNG image, two pixels for each of the SVG's."""
    width, height = _size(page)
    canvas = PngCanvas(width, height)
    _draw_page(canvas, page, width)
    return canvas.render()


def _gap(page: Page) -> float:
    return ARROW_GAP if any(group.arrows for group in page.groups) else GAP


def _cell_height(page: Page) -> float:
    lines = page.caption_lines
    return TOP + DRAWING[1] + (LINE_HEIGHT * lines + 11 if lines else 6)


def _note_lines(page: Page, width: float) -> list[str]:
    return textwrap.wrap(clean(page.note), int(width / (0.51 * NOTE)), break_long_words=True)


def _header_height(page: Page, width: float) -> float:
    lines = len(_note_lines(page, width))
    return (30 if page.title else 0) + 19 * lines + (12 if page.title or lines else 0)


def _size(page: Page) -> tuple[float, float]:
    rows = max((place.row + 1 for place in placed(page.groups, page.columns)), default=0)
    chart = page.chart.height + 16 if page.chart else 0
    gap = _gap(page)
    width = 2 * MARGIN + page.columns * CELL + (page.columns - 1) * gap
    height = (
        2 * MARGIN
        - 4
        + _header_height(page, width - 2 * MARGIN)
        + chart
        + rows * (_cell_height(page) + GAP)
        - (GAP if rows else 0)
    )
    return width, height


def _draw_page(canvas: Canvas, page: Page, width: float) -> None:
    inner = width - 2 * MARGIN
    y = MARGIN
    if page.title:
        canvas.text(MARGIN, y + 18, cut(page.title, 20, inner), 20, INK, True)
        y += 30
    for line in _note_lines(page, inner):
        canvas.text(MARGIN, y + 12, line, NOTE, SOFT)
        y += 19
    y = MARGIN + _header_height(page, inner)
    if page.chart:
        page.chart.draw(canvas, MARGIN, y, inner)
        y += page.chart.height + 16
    height, gap = _cell_height(page), _gap(page)
    for place in placed(page.groups, page.columns):
        left, top = MARGIN + place.column * (CELL + gap), y + place.row * (height + GAP)
        if place.arrow:
            _arrow(canvas, left, top + TOP + DRAWING[1] / 2, place.column > 0)
        draw_cell(canvas, place.cell, left, top, height)


def _arrow(canvas: Canvas, x: float, y: float, whole: bool) -> None:
    """An arrow whose head is left of x; the first of a row comes in from the margin."""
    start = x - ARROW_GAP + 7 if whole else x - MARGIN + 6
    canvas.lines([(start, y), (x - 11, y)], SOFT, 1.4)
    canvas.area([(x - 12, y - 4), (x - 5, y), (x - 12, y + 4)], SOFT)


def draw_cell(canvas: Canvas, cell: Cell, x: float, y: float, height: float) -> None:
    """One cell with its frame."""
    framed = cell.kind in COLOURS
    fill = {"seed": REFERENCE_PALE, "start": REFERENCE_PALE, "end": "#fdf3ec", "invalid": PALE}
    stroke = COLOURS.get(cell.kind, LINE)
    canvas.rect(x, y, CELL, height, fill.get(cell.kind, "#ffffff"), stroke, 1.5 if framed else 1.0, 5.0)
    if cell.tag:
        canvas.text(x + 9, y + 16, cell.tag, SMALL, COLOURS.get(cell.kind, SOFT), framed)
    if cell.mark:
        canvas.text(x + CELL - 9, y + 16, cell.mark, SMALL, SOFT, anchor="end")
    inset = (CELL - DRAWING[0]) / 2
    if cell.mol is not None:
        canvas.molecule(x + inset, y + TOP, *DRAWING, cell.mol)
    else:
        lines = word_lines(cell.words)
        first = y + TOP + DRAWING[1] / 2 - 7.5 * (len(lines) - 1)
        for i, text in enumerate(lines):
            canvas.text(x + CELL / 2, first + 15 * i + 4, text, SMALL, SOFT, anchor="middle")
    for i, line in enumerate(cell.caption):
        base = y + TOP + DRAWING[1] + LINE_HEIGHT * (i + 1)
        canvas.text(x + CELL / 2, base, cut(line.text, TEXT, CELL), TEXT, COLOURS[line.kind], anchor="middle")
