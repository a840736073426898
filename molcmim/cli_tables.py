"""Tables of generated molecules on the command line: written or printed, a picture, one line that sums up."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from molcmim.api import MolCMIM
    from molcmim.generated import GeneratedTable

SHOWN_ROWS = 200  #: most rows of a table printed to the terminal
NOT_DECODED = ("no_vector", "seed_")  #: statuses of rows that had nothing to decode begin so


def check_outputs(output: Path | None, image: Path | None) -> None:
    """ValueError or OSError, before any work is done, if a file can't be the place for the results."""
    from molcmim.generated import check_suffix

    if output is not None:
        check_suffix(output)
    if image is not None:
        from molcmim.pictures.canvas import check_path

        check_path(image)
    for name, path in (("output", output), ("image", image)):
        if path is not None and path.is_dir():
            raise IsADirectoryError(f"{name}: expected a file name, got the directory {path}")
        if path is not None and not path.parent.is_dir():
            raise FileNotFoundError(f"{name}: no such directory: {path.parent}")


def read_molecules(
    given: str, smiles_column: str | None, id_column: str | None, format: Any
) -> tuple[list[str], list[str | None]]:
    """The molecule, or the molecules and names of the file of this name (``-``: standard input).

    Raises
    ------
    FileNotFoundError
        If it looks like the name of a file, and there is none.
    """
    from molcmim.readers import FORMATS, MoleculeReader

    plain = given.lower().removesuffix(".gz").removesuffix(".xz").removesuffix(".zst")
    if given != "-" and not Path(given).is_file():
        if not plain.endswith(tuple(FORMATS)):
            return [given], [None]
        raise FileNotFoundError(f"no such file: {given}")
    with MoleculeReader(given, smiles_column, id_column, format) as reader:
        chunks = list(reader.chunks())
    return [text for chunk in chunks for text in chunk.smiles], [name for chunk in chunks for name in chunk.id]


def finish(
    table: GeneratedTable,
    output: Path | None,
    image: Path | None,
    network: MolCMIM,
    title: str,
    ends: tuple[str, str] | None = None,
    n_drawn: int | None = None,
) -> None:
    """Write or print the table, draw the picture, and say what there is; `n_drawn`: rows before some were left out."""
    if output is None:
        print_table(table)
    else:
        from molcmim import __version__

        table.write(
            output, {"model_id": network.model_id, "model": str(network.config["name"]), "version": __version__}
        )
    if image is not None:
        from molcmim import pictures

        if ends is None:
            pictures.grid(table, image, title=title)
        else:
            pictures.path_picture(table, image, ends=ends, title=title)
    typer.echo(summary(table, output, n_drawn), err=output is None)


def summary(table: GeneratedTable, output: Path | None, n_drawn: int | None = None) -> str:
    """One line: rows, shares of valid and distinct molecules (or how many it took to get them), repaired rows."""
    molecules = [text for text in table.canonical_smiles if text is not None]
    text = f"{len(table):,} rows" + ("" if output is None else f" -> {output}")
    if n_drawn is not None:
        text += f" of {n_drawn:,} drawn"
    elif n_decoded := sum(not status.startswith(NOT_DECODED) for status in table.status):
        text += f"; valid {100 * len(molecules) / n_decoded:.1f} %"
        text += f" of {n_decoded:,} decoded" if n_decoded < len(table) else ""
    if molecules and n_drawn is None:
        text += f", of them distinct {100 * len(set(molecules)) / len(molecules):.1f} %"
    repaired = int(table.repaired.sum())
    return text + (f"; repaired {repaired:,}" if repaired else "")


def print_table(table: GeneratedTable) -> None:
    """A readable table: a heading for each seed, the molecules with their numbers under it."""
    from molcmim.cli import shortened
    from molcmim.generated import as_texts

    numbers = {name: as_texts(values) for name, values in table.properties.items()}
    seeded = any(table.seed)
    if seeded:
        numbers = {
            "tanimoto": as_texts(table.tanimoto.round(3)),
            "distance": as_texts(table.distance.round(3)),
            **numbers,
        }
    header = "  ".join(f"{name:>8}" for name in numbers)
    before = None
    for i in range(min(len(table), SHOWN_ROWS)):
        if i == 0 or (seeded and table.seed[i] != before):
            before = table.seed[i]
            typer.echo(line(header, f"around {shortened(before, 80)}" if seeded else "molecule"))
        cells = "  ".join(f"{cells[i][:8]:>8}" for cells in numbers.values())
        text = table.canonical_smiles[i]
        if text is None:
            text = f"({table.status[i]})" + ("" if table.smiles[i] is None else f" {table.smiles[i]}")
        typer.echo(line(cells, shortened(text, 120) + ("  [repaired]" if table.repaired[i] else "")))
    if len(table) > SHOWN_ROWS:
        typer.echo(f"... and {len(table) - SHOWN_ROWS:,} rows more; -o writes them to a file")


def line(cells: str, text: str) -> str:
    """Cells, if there are any, and a text behind them."""
    return f"{cells}  {text}" if cells else text


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Warnings as lines of their own instead of Python's form of them."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        yield
    for each in caught:
        typer.echo(f"warning: {each.message}", err=True)
