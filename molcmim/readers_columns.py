"""Which columns of a table hold the SMILES and the id, what the others are called, and whether it has a header."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from molcmim.corpus_input import COLUMNS

OUTPUT_COLUMNS = ("id", "smiles", "canonical_smiles", "status", "embedding")
HEADERS = ("auto", "yes", "no")
LOOK_AHEAD = 20  #: records after the first one that are looked at to tell whether there is a header

Column = str | int | None  #: name of a column, or its position from 1; None: to be found


class Columns(NamedTuple):
    """Positions of the columns, from 0, and what the pass-through columns are called in the output."""

    smiles: int
    id: int | None
    extra: list[int]
    names: list[str]  #: of `extra`


def find_columns(name: str, header: Sequence[str], smiles_column: Column, id_column: Column) -> Columns:
    """Columns of the file called `name`; ValueError if one isn't there, or there is none for the SMILES."""
    header = [text.strip() for text in header]
    lower = [text.lower() for text in header]
    if smiles_column is not None:
        smiles = find_column(name, header, smiles_column)
    else:
        found = [lower.index(text) for text in COLUMNS if text in lower]
        if not found:
            raise ValueError(
                f"{name}: expected a column called smiles, got the columns {listed(header)}; "
                "name the one with the SMILES (--smiles-column)"
            )
        smiles = found[0]
    id_at = find_column(name, header, id_column) if id_column is not None else None
    if id_column is None and "id" in lower and lower.index("id") != smiles:
        id_at = lower.index("id")
    extra = [i for i in range(len(header)) if i not in (smiles, id_at)]
    return Columns(smiles, id_at, extra, unique_names([header[i] for i in extra]))


def find_column(name: str, header: Sequence[str], column: str | int) -> int:
    """Position from 0 of a column given by name (case doesn't matter, unless it does) or by position from 1."""
    text = str(column)
    lower = [title.lower() for title in header]
    if text in header:
        return header.index(text)
    if text.lower() in lower:
        return lower.index(text.lower())
    position = _position(column)
    if position is not None and 1 <= position <= len(header):
        return position - 1
    raise ValueError(f"{name}: expected a column {column!r}, got the columns {listed(header)}")


def has_header(
    first: Sequence[str], following: Sequence[Sequence[str]], smiles_column: Column, id_column: Column
) -> bool:
    """Whether the first record of a table looks like a header.

    It doesn't if it has none of the known names, and in some column (that of the SMILES, if it is given by
    position) a SMILES, as have some of the following records. A column given by name means a header.
    """
    lower = [text.strip().lower() for text in first]
    named = [column for column in (smiles_column, id_column) if column is not None and _position(column) is None]
    if named or any(text in lower for text in (*COLUMNS, "id")):
        return True
    position = _position(smiles_column)
    candidates = range(len(first)) if position is None else range(max(0, position - 1), position)
    return _smiles_like_column(first, following, candidates) is None


def without_header(
    first: Sequence[str], following: Sequence[Sequence[str]], smiles_column: Column
) -> tuple[list[str], Column]:
    """Names for columns that have none (c1, c2, ...), and which of them holds the SMILES, None if it isn't clear."""
    header = [f"c{i + 1}" for i in range(len(first))]
    if smiles_column is None and first:
        found = 0 if len(first) == 1 else _smiles_like_column(first, following, range(len(first)))
        smiles_column = None if found is None else header[found]
    return header, smiles_column


def _smiles_like_column(
    first: Sequence[str], following: Sequence[Sequence[str]], candidates: Sequence[int]
) -> int | None:
    """The column whose first field is a SMILES, and most of the fields below it, or the longest if several."""
    best, best_score = None, (0, 0)
    for i in candidates:
        if i >= len(first) or not _is_smiles(first[i]):
            continue
        below = [record[i] for record in following if len(record) > i]
        texts = [first[i], *(text for text in below if _is_smiles(text))]
        score = (len(texts), sum(map(len, texts)))
        if (len(texts) > 1 or not below) and score > best_score:
            best, best_score = i, score
    return best


def _is_smiles(text: str) -> bool:
    from molcmim.chem import Status, prepare

    return not text.strip().isdigit() and prepare(text).status is Status.ok


def _position(column: Column) -> int | None:
    if isinstance(column, int):
        return column
    return int(column) if column is not None and column.isascii() and column.isdigit() else None


def unique_names(names: Sequence[str]) -> list[str]:
    """Names for the output: ``input_...`` where it has such a column itself, a number where one comes again."""
    taken: set[str] = set()
    result = []
    for name in names:
        base = f"input_{name}" if name in OUTPUT_COLUMNS else name or "unnamed"
        new, number = base, 2
        while new in taken or new in OUTPUT_COLUMNS:
            new, number = f"{base}_{number}", number + 1
        taken.add(new)
        result.append(new)
    return result


def listed(names: Sequence[str], limit: int = 10) -> str:
    """Names for an error message."""
    shown = ", ".join(repr(name[:40]) for name in names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or "(none)"
