"""Chunks on their way from the input through the chemistry to the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator
from typing import Any

from molcmim.chem import Prepared, prepare_many
from molcmim.readers import CHUNK_ROWS, Chunk, with_smiles
from molcmim.scoring.source import RowRange, Source
from molcmim.worker_pool import WorkerPool

SMALL_CHARS = 1 << 22  #: chunks with more text than this aren't put together with others


def range_chunks(source: Source, rows: RowRange | None, chunk_rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
    """The chunks of a range of rows, small ones (of many small files) put together: always the same ones."""
    if rows is not None and rows.n == 0:
        return
    waiting: Chunk | None = None
    for chunk in source.read(rows, chunk_rows):
        if waiting is None:
            waiting = chunk
        elif len(waiting.smiles) + len(chunk.smiles) <= chunk_rows and _n_chars(waiting) <= SMALL_CHARS:
            waiting = joined(waiting, chunk)
        else:
            yield waiting
            waiting = chunk
    if waiting is not None:
        yield waiting


def joined(first: Chunk, second: Chunk) -> Chunk:
    """One chunk of the rows of two; `extra` columns may be lists or Arrow arrays."""
    extra = [_joined_columns(a, b) for a, b in zip(first.extra, second.extra, strict=True)]
    return Chunk(first.smiles + second.smiles, first.id + second.id, extra)


def _joined_columns(first: Any, second: Any) -> Any:
    if isinstance(first, list) and isinstance(second, list):
        return first + second
    import pyarrow as pa

    return pa.concat_arrays([piece for column in (first, second) for piece in getattr(column, "chunks", [column])])


def _n_chars(chunk: Chunk) -> int:
    columns = [chunk.smiles, *(column for column in chunk.extra if isinstance(column, list))]
    return sum(len(text or "") for column in columns for text in column)


def prepared_chunks(
    chunks: Iterable[Chunk], policy: str, pool: WorkerPool | None
) -> Generator[tuple[Chunk, list[Prepared]], None, None]:
    """Chunks with what the chemistry made of their rows, in order; workers read ahead.

    Without a pool rows are prepared in this process, where one that crashes or hangs takes it along.
    """
    if pool is None:
        for chunk in chunks:
            prepared = prepare_many(chunk.smiles, policy=policy, workers=0)
            yield with_smiles(chunk, prepared), prepared
        return
    waiting: deque[Chunk] = deque()
    failed: list[Exception] = []

    def texts() -> Iterator[list[str]]:
        try:
            for chunk in chunks:
                waiting.append(chunk)
                yield chunk.smiles
        except Exception as error:  # an input that can't be read: not before what was read ahead is handed on
            failed.append(error)

    for prepared in pool.imap(texts()):
        yield with_smiles(waiting.popleft(), prepared), prepared
    if failed:
        raise failed[0]


def take_rows(stream: Iterator[tuple[Chunk, list[Prepared]]], n_rows: int) -> Iterator[tuple[Chunk, list[Prepared]]]:
    """The next chunks of a stream, up to so many rows, which must end with a chunk."""
    taken = 0
    while taken < n_rows:
        chunk, prepared = next(stream, (None, []))
        if chunk is None:
            return
        taken += len(prepared)
        yield chunk, prepared
