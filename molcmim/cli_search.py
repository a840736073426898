"""`molcmim neighbours-in`: the molecules of a file of embeddings that are nearest to given ones."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from molcmim.cli_options import FormatOption, ModelOption, SmilesColumn, Workers

if TYPE_CHECKING:
    from molcmim.scoring.search_files import EmbeddingFiles
    from molcmim.scoring.search_result import SearchResult

BAR_ROWS = 500_000  #: rows from which on a progress bar is worth showing


class Metric(StrEnum):
    """What "near" means."""

    cosine = "cosine"
    euclidean = "euclidean"


class Engine(StrEnum):
    """Ways of searching."""

    exact = "exact"
    usearch = "usearch"


def neighbours_in(
    embeddings: Annotated[
        Path,
        typer.Argument(
            metavar="EMB", help="*.parquet as `molcmim embed` writes, or a folder of its shards.", show_default=False
        ),
    ],
    smiles: Annotated[
        list[str] | None, typer.Argument(metavar="[SMILES]...", help="Molecules to look for.", show_default=False)
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Neighbours of each molecule.", min=1)] = 20,
    queries: Annotated[
        Path | None, typer.Option(help="File of molecules to look for, after those given.", show_default=False)
    ] = None,
    metric: Annotated[
        Metric, typer.Option(help="cosine: similarity, highest first; euclidean: distance, lowest first.")
    ] = Metric.cosine,
    engine: Annotated[
        Engine,
        typer.Option(help="exact: reads all vectors; usearch: approximate index, built once and saved beside EMB."),
    ] = Engine.exact,
    exclude_self: Annotated[
        bool, typer.Option("--exclude-self", help="Leave out rows with the canonical SMILES that is looked for.")
    ] = False,
    partial: Annotated[
        bool, typer.Option("--partial", help="Search the shards that are there, if the run isn't finished.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="OUT", help="*.csv, *.tsv or *.parquet.", show_default="print a table"),
    ] = None,
    model: ModelOption = None,
    smiles_column: SmilesColumn = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of --queries that names the rows.", show_default="id")
    ] = None,
    format: FormatOption = None,
    batch_size: Annotated[int, typer.Option(help="Most molecules in the model at once.", min=1)] = 256,
    workers: Workers = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1.", show_default="cuda if there is one")] = None,
    progress: Annotated[
        bool | None, typer.Option(help="Progress bar on stderr.", show_default="for long work, in a terminal")
    ] = None,
) -> None:
    """Find the molecules of a file of embeddings that are nearest to given ones.

    The molecules to look for are embedded as the file's rows were (kind, policy), by the model that made them. One that
    can't be embedded has one row, with its status.
    """
    if not smiles and queries is None:
        raise typer.BadParameter("expected at least one SMILES, or --queries FILE", param_hint="SMILES")
    check_places(embeddings, queries, output)
    texts, ids = read_queries(smiles or [], queries, smiles_column, id_column, format)
    if engine is Engine.usearch:
        from molcmim.scoring.search_index import usearch

        usearch()  # before the model is loaded
    from molcmim.scoring.search_files import EmbeddingFiles

    files = EmbeddingFiles(embeddings, partial)
    if progress is None:
        progress = files.n_rows >= BAR_ROWS and sys.stderr.isatty()
    from molcmim.scoring.search import load_model, search

    network = load_model(files, model, device)
    result = search(
        files, texts, k, metric.value, engine.value, exclude_self, network, batch_size, workers, progress, ids
    )
    if output is None:
        print_result(result)
    else:
        result.write(output, facts_of(files, engine.value, metric.value, k))
    typer.echo(summary(result, files, output), err=output is None)


def check_places(embeddings: Path, queries: Path | None, output: Path | None) -> None:
    """ValueError or OSError, before any work is done, if the results can't go to `output`."""
    from molcmim.cli_tables import check_outputs

    check_outputs(output, None)
    if output is None or not output.exists():
        return
    for name, path in (("embeddings", embeddings), ("queries", queries)):
        inside = path is not None and path.is_dir() and output.resolve().parent == path.resolve()
        if path is not None and path.exists() and (output.samefile(path) or (inside and is_shard(output))):
            raise ValueError(f"output: {output} would replace the {name}")


def is_shard(path: Path) -> bool:
    """Whether the name is that of a shard."""
    from molcmim.scoring.search_files import SHARDS

    return path.match(SHARDS)


def read_queries(
    smiles: list[str],
    queries: Path | None,
    smiles_column: str | None,
    id_column: str | None,
    format: str | None,
) -> tuple[list[str], list[str | None]]:
    """Texts and names of the molecules to look for: those given, and those of the file."""
    texts: list[str] = list(smiles)
    ids: list[str | None] = [None] * len(texts)
    if queries is None:
        return texts, ids
    from molcmim.scoring.source import open_source

    source = open_source(queries, smiles_column, id_column, format)
    try:
        for chunk in source.read():
            texts += chunk.smiles
            ids += chunk.id
    finally:
        source.close()
    return texts, ids


def facts_of(files: EmbeddingFiles, engine: str, metric: str, k: int) -> dict[str, str]:
    """What a result's footer says about how it was made."""
    from molcmim import __version__

    made_by = {name: files.facts[name] for name in ("model_id", "model", "policy", "kind") if name in files.facts}
    searched = {"embeddings": files.path.name, "n_rows": str(files.n_rows)}
    return {**made_by, **searched, "version": __version__, "engine": engine, "metric": metric, "k": str(k)}


def summary(result: SearchResult, files: EmbeddingFiles, output: Path | None) -> str:
    """One line: queries, those that couldn't be embedded, neighbours found, rows searched."""
    bad = sum(status != "ok" for status in result.status)
    n_queries = len(set(result.query_row.tolist()))
    found = int((result.rank > 0).sum())
    text = f"{counted(n_queries, 'query', 'queries')}, {counted(found, 'neighbour', 'neighbours')}"
    text += f" among {counted(files.n_rows, 'row', 'rows')}"
    text += f"; {counted(bad, 'query', 'queries')} can't be embedded" if bad else ""
    return text + ("" if output is None else f" -> {output}")


def counted(n: int, one: str, many: str) -> str:
    """A number with its noun."""
    return f"{n:,} {one if n == 1 else many}"


def print_result(result: SearchResult) -> None:
    """A readable table: a heading for each query, its neighbours under it."""
    from molcmim.cli import shortened
    from molcmim.cli_tables import SHOWN_ROWS
    from molcmim.scoring.search_result import VALUE_NAMES

    before = -1
    header = f"{VALUE_NAMES[result.metric]:>10}  {'row':>10}  "
    for i in range(min(len(result), SHOWN_ROWS)):
        if result.query_row[i] != before:
            before = int(result.query_row[i])
            name = result.query_id[i]
            near = f"near {shortened(result.query[i], 80)}" + (f" ({shortened(name, 40)})" if name else "")
            if result.status[i] != "ok":
                typer.echo(f"{near}: {result.status[i]}")
                continue
            typer.echo(f"{header}{near}")
        if result.rank[i] == 0:
            typer.echo("(no rows with a vector)")
            continue
        text = shortened(result.canonical_smiles[i] or result.smiles[i] or "", 120)
        name = result.id[i]
        typer.echo(
            f"{result.value[i]:>10.6f}  {result.row[i]:>10}  {text}" + (f"  {shortened(name, 40)}" if name else "")
        )
    if len(result) > SHOWN_ROWS:
        typer.echo(f"... and {len(result) - SHOWN_ROWS:,} rows more; -o writes them to a file")
