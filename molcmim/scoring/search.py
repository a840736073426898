"""The molecules of a file of embeddings that are nearest to given ones.

>>> from molcmim.scoring.search import search                              # doctest: +SKIP
>>> result = search("library/", ["CC(=O)Oc1ccccc1C(=O)O"], k=20)           # doctest: +SKIP
>>> result.to_frame()                                                      # doctest: +SKIP
"""

# Axes: q queries, k neighbours, d features, n rows of a result.

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from molcmim.chem import MolBlock, Status, to_text_list
from molcmim.scoring.search_exact import Nearest, check_search, nearest
from molcmim.scoring.search_files import EmbeddingFiles
from molcmim.scoring.search_index import approximate, usearch
from molcmim.scoring.search_result import SearchResult

if TYPE_CHECKING:
    from molcmim.api import EmbedResult, MolCMIM

ENGINES = ("exact", "usearch")
__all__ = ["ENGINES", "SearchResult", "search"]


def search(
    embeddings: str | Path | EmbeddingFiles,
    queries: Iterable[object] | str,
    k: int = 20,
    metric: str = "cosine",
    engine: str = "exact",
    exclude_self: bool = False,
    model: MolCMIM | str | Path | None = None,
    batch_size: int = 256,
    workers: int | None = None,
    progress: bool = False,
    query_ids: Iterable[str | None] | None = None,
) -> SearchResult:
    """Find the molecules whose embeddings are nearest to those of the queries.

    Parameters
    ----------
    embeddings
        ``*.parquet`` as `molcmim embed` writes it, a folder of its shards, or either of them opened.
    queries
        q molecules: what `MolCMIM.embed` takes, or a single SMILES. They are embedded as the file says that its rows
        were: same kind and policy.
    k
        Neighbours of each query; fewer if the file has fewer.
    metric
        ``"cosine"``: similarity, the highest first. ``"euclidean"``: distance, the lowest first.
    engine
        ``"exact"``: reads all vectors, in constant memory. ``"usearch"``: an approximate index, which is built at the
        first search and saved beside the embeddings; needs the package usearch.
    exclude_self
        Leave out rows with the query's canonical SMILES.
    model
        The model that made the embeddings: loaded, or its name or directory; default: the shipped one.
    batch_size, workers
        As for `MolCMIM.embed`.
    progress
        Show a progress bar on stderr.
    query_ids
        q names, for the column `query_id` of the result.

    Returns
    -------
    SearchResult
        In the order of the queries; a bad query has one row, with its status.

    Raises
    ------
    ValueError
        If the embeddings come from another model, a file is damaged or isn't one of embeddings, or an option is wrong.
    ImportError
        If the engine's package isn't there.
    OSError
        If a file can't be read, or the index not written.

    Examples
    --------
    >>> search("out.parquet", ["CCO", "c1ccccc1"], k=5, metric="euclidean")        # doctest: +SKIP
    """
    check_search(k, metric)
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if engine == "usearch":
        usearch()  # before any work
    given: list[object] = [queries] if isinstance(queries, str) else to_text_list(queries)
    ids: list[str | None] = [None] * len(given) if query_ids is None else list(query_ids)
    if len(ids) != len(given):
        raise ValueError(f"query_ids: expected one for each of {len(given)} queries, got {len(ids)}")
    files = embeddings if isinstance(embeddings, EmbeddingFiles) else EmbeddingFiles(embeddings)
    embedded = embed_queries(files, given, load_model(files, model), batch_size, workers)
    found = find(files, embedded, k, metric, engine, exclude_self, progress)
    return tabulate(files, given, ids, embedded, found, metric)


def load_model(files: EmbeddingFiles, model: MolCMIM | str | Path | None, device: str | None = None) -> MolCMIM:
    """The model, checked to be the one that made the embeddings.

    Raises
    ------
    ValueError
        If it is another one, or the files don't say which it was.
    """
    from molcmim.api import MolCMIM

    made_by = files.facts.get("model_id")
    if made_by is None:
        raise ValueError(f"{files.path}: expected a file written by molcmim embed, but it doesn't say by which model")
    if not isinstance(model, MolCMIM):
        model = MolCMIM.from_pretrained(model, device, files.facts.get("compute_dtype", "float32"))
    if model.model_id != made_by:
        name = files.facts.get("model", "?")
        raise ValueError(
            f"{files.path}: its embeddings were made by model {made_by} ({name}), but the queries' model is "
            f"{model.model_id} ({model.config['name']}); give the model that made them"
        )
    return model


def embed_queries(
    files: EmbeddingFiles, given: list[object], model: MolCMIM, batch_size: int = 256, workers: int | None = None
) -> EmbedResult:
    """Embed q molecules as the rows of the files were: (q, d), NaN for a bad one."""
    kind, policy = files.facts.get("kind", ""), files.facts.get("policy", "")
    exact = files.facts.get("exact") == "true"
    embedded = model.embed_with_status(given, kind, batch_size, exact, policy=policy, workers=workers)
    if embedded.embedding.shape[1] != files.width:
        made = embedded.embedding.shape[1]
        raise ValueError(f"{files.path}: expected vectors of {made} numbers (kind {kind}), got {files.width}")
    return embedded


def find(
    files: EmbeddingFiles,
    embedded: EmbedResult,
    k: int,
    metric: str,
    engine: str,
    exclude_self: bool,
    progress: bool = False,
) -> Nearest:
    """The nearest rows of q embedded molecules; none for a bad one."""
    from molcmim.progress import row_bar

    ok = [i for i, status in enumerate(embedded.status) if status is Status.ok]
    exclude = [embedded.canonical_smiles[i] for i in ok] if exclude_self else None
    engine_of = nearest if engine == "exact" else approximate
    with row_bar(files.n_rows, progress) as advance:
        found = engine_of(files, embedded.embedding[ok], k, metric, exclude, advance)
    width = found.rows.shape[1]
    rows = np.full((len(embedded.status), width), -1, dtype=np.int64)
    values = np.full((len(embedded.status), width), np.nan)
    rows[ok], values[ok] = found.rows, found.values
    return Nearest(rows, values)


def tabulate(
    files: EmbeddingFiles,
    given: list[object],
    ids: list[str | None],
    embedded: EmbedResult,
    found: Nearest,
    metric: str,
) -> SearchResult:
    """Put together a table: the neighbours of each query, one row for a query without any."""
    queries, ranks = np.nonzero(found.rows >= 0)
    alone = np.setdiff1d(np.arange(len(given)), queries)
    looked_up = files.look_up(found.rows[queries, ranks])
    order = np.argsort(np.concatenate([queries, alone]), kind="stable")
    of_query = np.concatenate([queries, alone])[order]

    def filled(texts: list[str | None]) -> list[str | None]:
        longer = [*texts, *([None] * len(alone))]
        return [longer[i] for i in order.tolist()]

    return SearchResult(
        metric=metric,
        query_row=of_query,
        query=[query_text(given[i], embedded.canonical_smiles[i]) for i in of_query.tolist()],
        query_id=[ids[i] for i in of_query.tolist()],
        status=[embedded.status[i].value for i in of_query.tolist()],
        rank=np.concatenate([ranks + 1, np.zeros(len(alone), dtype=np.int64)])[order],
        id=filled(looked_up.texts["id"]),
        smiles=filled(looked_up.texts["smiles"]),
        canonical_smiles=filled(looked_up.texts["canonical_smiles"]),
        value=np.concatenate([found.values[queries, ranks], np.full(len(alone), np.nan)])[order],
        row=np.concatenate([found.rows[queries, ranks], np.full(len(alone), -1)])[order],
        file=filled([*looked_up.files]),
    )


def query_text(given: object, canonical_smiles: str | None) -> str:
    """A query as given; of a mol block or an RDKit molecule its SMILES."""
    if isinstance(given, str) and not isinstance(given, MolBlock):
        return given
    if isinstance(given, bytes):
        return given.decode(errors="replace")
    return canonical_smiles or ""
