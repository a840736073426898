"""Approximate nearest neighbours with usearch: a graph (HNSW), built once, saved beside the embeddings.

The index finds candidates; their similarities are computed from the vectors in the files, as the exact scan does. So
the numbers are exact, and only a row that the graph doesn't lead to can be missing.
"""

# Axes: n rows, d features, q queries, k neighbours, c candidates.

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.beside import part_path
from molcmim.scoring.durable import publish, write_durably
from molcmim.scoring.search_exact import Best, Nearest, check_search, check_vectors, score_pairs, unit_rows
from molcmim.scoring.search_files import EmbeddingFiles, FloatArray

FORMAT = 1
CONNECTIVITY, EXPANSION_ADD, EXPANSION_SEARCH = 16, 128, 256  #: of the graph: neighbours, breadth of the two searches
MORE = 16  #: candidates beyond k
SMALL = 1000  #: an index of no more vectors is searched in full, and so many are added one after another
EDGE_BYTES = 1 << 16  #: of a file's beginning and end that are hashed
LOOK_UP = 1 << 27  #: bytes of candidates' vectors held at once


def index_path(files: EmbeddingFiles, metric: str) -> Path:
    """Where the index of these embeddings is: beside a file, or in the folder."""
    name = "usearch" if metric == "cosine" else f"{metric}.usearch"
    if files.path.is_dir():
        return files.path / f"index.{name}"
    return files.path.with_name(f"{files.path.name}.{name}")


def fingerprint(files: EmbeddingFiles) -> str:
    """Sha256 of what tells apart embeddings without reading all of them: sizes, beginnings and ends of the files.

    The end of a Parquet file says where each column of each row group lies, and the range of its values.
    """
    digest = hashlib.sha256(f"{files.n_rows} {files.width} {files.dtype}".encode())
    for part in files.parts:
        size = part.path.stat().st_size
        with part.path.open("rb") as file:
            digest.update(f" {part.first} {size} ".encode() + file.read(EDGE_BYTES))
            file.seek(max(0, size - EDGE_BYTES))
            digest.update(file.read(EDGE_BYTES))
    return digest.hexdigest()


def usearch() -> Any:
    """The module usearch.index; ImportError that says how to get it."""
    importlib.import_module("rdkit.Chem")  # first: imported after usearch 2.26, rdkit 2026.9 ends the process (SIGSEGV)
    try:
        return importlib.import_module("usearch.index")
    except ImportError as error:
        raise ImportError("engine usearch: needs the package usearch: pip install 'molcmim[search]'") from error


def open_index(files: EmbeddingFiles, metric: str = "cosine", advance: Callable[[int], object] | None = None) -> Any:
    """The saved index if it is one of these embeddings, else a new one, built and saved.

    Parameters
    ----------
    metric
        ``"cosine"`` (vectors are kept as float16 of unit norm) or ``"euclidean"`` (as float32); each has its own file.
    advance
        Called with the number of rows just added.

    Returns
    -------
    usearch.index.Index
        Keys are numbers of rows. A saved one stays on the disk and is mapped into memory; a new one is in memory.

    Raises
    ------
    ImportError
        Without the package usearch.
    ValueError, OSError
        If a file is damaged, or the index can't be written.
    """
    path, module = index_path(files, metric), usearch()
    facts = {
        "format": FORMAT,
        "usearch": importlib.import_module("usearch").__version__,
        "metric": metric,
        "connectivity": CONNECTIVITY,
        "expansion_add": EXPANSION_ADD,
        "embeddings": fingerprint(files),
    }
    found = read_facts(path)
    if path.is_file() and found == {**facts, "bytes": path.stat().st_size}:
        index = new_index(module, files.width, metric)
        index.view(os.fspath(path))
        return index
    return build_index(files, metric, path, facts, advance)


def facts_path(path: Path) -> Path:
    """The file that says what the index was made of."""
    return path.with_name(f"{path.name}.json")


def read_facts(path: Path) -> object:
    """Content of the file beside an index; None if there is none, or it isn't JSON."""
    try:
        return json.loads(facts_path(path).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None


def new_index(module: Any, width: int, metric: str) -> Any:
    """An empty index."""
    return module.Index(
        ndim=width,
        metric="cos" if metric == "cosine" else "l2sq",
        dtype="f16" if metric == "cosine" else "f32",
        connectivity=CONNECTIVITY,
        expansion_add=EXPANSION_ADD,
        expansion_search=EXPANSION_SEARCH,
    )


def build_index(
    files: EmbeddingFiles,
    metric: str,
    path: Path,
    facts: dict[str, Any],
    advance: Callable[[int], object] | None = None,
) -> Any:
    """Build an index of all vectors and save it with its facts; the whole index is in memory meanwhile."""
    index, part = new_index(usearch(), files.width, metric), part_path(path)
    try:
        part.touch()  # before hours of work
        for block in files.blocks():
            keys, vectors = block.rows.astype(np.uint64), indexed(block.vectors, metric)
            first = max(0, SMALL - len(index))  # threads that begin a graph together leave parts of it unconnected
            for part_of, threads in ((slice(0, first), 1), (slice(first, None), 0)):
                if len(keys[part_of]):
                    index.add(keys[part_of], vectors[part_of], threads=threads)
            if advance is not None:
                advance(block.n_read)
        index.save(os.fspath(part))
        facts_path(path).unlink(missing_ok=True)  # a kill between the two leaves an index that is built again
        publish(part, path)
        write_durably(facts_path(path), json.dumps({**facts, "bytes": path.stat().st_size}, indent=1).encode())
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return index


def indexed(vectors: FloatArray, metric: str) -> FloatArray:
    """Vectors as they go into the index: of unit norm for the cosine, so that float16 can hold them."""
    if metric == "euclidean":
        return vectors
    return unit_rows(vectors.astype(np.float64)).astype(np.float32)


def approximate(
    files: EmbeddingFiles,
    vectors: npt.ArrayLike,
    k: int = 20,
    metric: str = "cosine",
    exclude: Sequence[str | None] | None = None,
    advance: Callable[[int], object] | None = None,
) -> Nearest:
    """The k rows nearest to each query, as the index finds them.

    Parameters and errors as for `molcmim.scoring.search_exact.nearest` and `open_index`; `advance` is for building.

    Returns
    -------
    Nearest
        Values are exact; a row that the index missed isn't there.
    """
    check_search(k, metric)
    queries = check_vectors(vectors, files.width)
    k = min(k, max(1, files.n_rows))
    best = Best(len(queries), k)
    if not len(queries):
        return best.nearest(metric)
    index = open_index(files, metric, advance)
    step = max(1, LOOK_UP // (4 * files.width * (k + MORE)))
    for start in range(0, len(queries), step):
        todo = np.arange(start, min(start + step, len(queries)))
        n_candidates = min(k + MORE, len(index))
        while len(todo) and n_candidates:
            rows = candidates(index, indexed(queries[todo], metric), n_candidates)
            best.scores[todo], best.rows[todo] = decide(files, queries, todo, rows, k, metric, exclude)
            # molecules to leave out may have taken all the places
            todo = todo[~np.isfinite(best.scores[todo, -1])] if exclude is not None else todo[:0]
            n_candidates = min(4 * n_candidates, len(index)) if n_candidates < len(index) else 0
    return best.nearest(metric)


def candidates(index: Any, queries: FloatArray, n: int) -> npt.NDArray[np.int64]:
    """Numbers of the n rows that the index finds for each query, -1 where it finds fewer: (q, n)."""
    found = index.search(queries, n, exact=len(index) <= SMALL)
    keys = np.asarray(found.keys).reshape(len(queries), -1)
    counts = np.asarray(getattr(found, "counts", [len(found)])).reshape(-1, 1)
    rows = np.full((len(queries), n), -1, dtype=np.int64)
    there = np.arange(keys.shape[1]) < counts
    rows[:, : keys.shape[1]][there] = keys[there].astype(np.int64)
    return rows


def decide(
    files: EmbeddingFiles,
    queries: FloatArray,
    todo: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    k: int,
    metric: str,
    exclude: Sequence[str | None] | None,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Scores and rows (q, k) of the best of candidate rows (q, c), by the vectors in the files."""
    cosine = metric == "cosine"
    pairs = rows >= 0
    of_query = np.nonzero(pairs)[0]
    looked_up = files.look_up(rows[pairs], vectors=True)
    if looked_up.vectors is None:
        raise ValueError("vectors: expected those of the candidates, got none")
    wide = queries[todo].astype(np.float64)
    wide = unit_rows(wide) if cosine else wide
    scores = score_pairs(looked_up.vectors, wide[of_query], cosine)
    keep = np.isfinite(scores)
    if exclude is not None:
        own = [exclude[query] for query in todo.tolist()]
        texts = looked_up.texts["canonical_smiles"]
        same = [text is not None and text == own[q] for text, q in zip(texts, of_query.tolist(), strict=True)]
        keep &= ~np.array(same, dtype=bool)
    best = Best(len(todo), k)
    best.add(of_query[keep], rows[pairs][keep], scores[keep])
    return best.scores, best.rows
