"""One shard: a range of rows in, part-00042.parquet out. `embed_shard` is what every kind of run calls.

A shard's bytes depend on the manifest and its number alone: not on the time, the process, the number of
workers, or on whether other shards were made before it by the same process.
"""

# n rows of a chunk, d embedding

from __future__ import annotations

import json
import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from molcmim.chem import Prepared
from molcmim.readers import Chunk
from molcmim.rows import TokenRows, tokenize_prepared
from molcmim.scoring.feed import prepared_chunks, range_chunks
from molcmim.scoring.manifest import Manifest
from molcmim.scoring.source import Source
from molcmim.worker_pool import WorkerPool
from molcmim.writers import EmbeddingWriter, FloatArray

if TYPE_CHECKING:
    from molcmim.api import MolCMIM

RECENT = 65_536  #: vectors of different molecules that are remembered within a shard
WAITING = 2  #: chunks between the model and the writer


class Times(NamedTuple):
    """Seconds of wall time by stage; the stages overlap."""

    waiting: float = 0.0  #: for rows: reading the input, and chemistry where it is slower than the model
    model: float = 0.0  #: tokens, and the model
    writing: float = 0.0  #: in the writer's thread

    def __add__(self, other: object) -> Times:
        if not isinstance(other, Times):
            return NotImplemented
        return Times(*(a + b for a, b in zip(self, other, strict=True)))


class ShardSummary(NamedTuple):
    """What became of a shard's rows."""

    number: int
    n_rows: int
    statuses: Counter[str]
    n_embedded: int  #: molecules that went through the model: fewer than `ok` rows where some are equal
    times: Times = Times()


def embed_shard(
    model: MolCMIM,
    source: Source,
    manifest: Manifest,
    number: int,
    folder: Path,
    pool: WorkerPool | None = None,
    progress: Callable[[Counter[str]], object] | None = None,
    prepared: Iterable[tuple[Chunk, list[Prepared]]] | None = None,
) -> ShardSummary:
    """Make one shard: read, prepare, embed, write beside, rename. An existing file of its name is replaced.

    Parameters
    ----------
    model
        The manifest's.
    source
        The manifest's input; not read if `prepared` is given.
    manifest, number
        The plan, and which of its shards.
    folder
        Where the shard goes.
    pool
        Workers for the chemistry, with the manifest's policy; default: some of its own, one a CPU.
    progress
        Called with the statuses of every chunk that has been embedded.
    prepared
        The shard's chunks (as `range_chunks` cuts them) with what the chemistry made of them, for callers that
        read ahead.

    Returns
    -------
    ShardSummary

    Raises
    ------
    ManifestError
        If the model isn't the manifest's.
    ValueError, OSError
        If the input turns out unreadable or changed, or the folder can't be written to; then there is no file.
    """
    manifest.check_model(model)
    own_pool = None
    if prepared is None:
        if pool is None:
            own_pool = pool = WorkerPool(policy=manifest.options.policy)
        prepared = prepared_chunks(range_chunks(source, manifest.shards[number]), manifest.options.policy, pool)
    try:
        return _embed_chunks(model, manifest, number, folder, source.extra, prepared, progress)
    finally:
        if own_pool is not None:
            own_pool.close()


def _embed_chunks(
    model: MolCMIM,
    manifest: Manifest,
    number: int,
    folder: Path,
    extra: list[tuple[str, Any]],
    prepared: Iterable[tuple[Chunk, list[Prepared]]],
    progress: Callable[[Counter[str]], object] | None,
) -> ShardSummary:
    rows = manifest.shards[number]
    embedder = Embedder(model, manifest, rows.first)
    writer = shard_writer(manifest, number, folder, extra)
    statuses: Counter[str] = Counter()
    waiting = in_model = 0.0
    with writer, WriterThread(writer) as thread:
        before = time.perf_counter()
        for chunk, answers in prepared:
            now = time.perf_counter()
            waiting, before = waiting + now - before, now
            tokens = tokenize_prepared(answers, model.tokenizer, model.network.config.max_tokens)
            vectors = embedder.embed(tokens)
            now = time.perf_counter()
            in_model, before = in_model + now - before, now
            thread.write(chunk, tokens, vectors)
            found = Counter(status.value for status in tokens.status)
            statuses.update(found)
            if progress is not None:
                progress(found)
            before = time.perf_counter()
        thread.finish()
        if writer.n_rows != rows.n:
            raise ValueError(f"shard {number}: expected {rows.n} rows from the input, got {writer.n_rows}")
        writer.facts["statuses"] = json.dumps(statuses, sort_keys=True)
    times = Times(waiting, in_model, thread.seconds)
    return ShardSummary(number, rows.n, statuses, embedder.n_embedded, times)


def shard_facts(manifest: Manifest, number: int) -> dict[str, str]:
    """What a shard's footer says about it, but for the statuses."""
    rows = manifest.shards[number]
    return {
        **footer_facts(manifest),
        "fingerprint": manifest.fingerprint,
        "shard": str(number),
        "first_row": str(rows.first),
        "n_rows": str(rows.n),
    }


def footer_facts(manifest: Manifest) -> dict[str, str]:
    """The settings as text, as in the footer of any embedding file."""
    return {
        name: str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in manifest.settings.items()
        if value is not None
    }


def shard_writer(manifest: Manifest, number: int, folder: Path, extra: list[tuple[str, Any]]) -> EmbeddingWriter:
    """The writer of a shard's file; `extra` are the pass-through columns with their Arrow types."""
    settings = manifest.settings
    path = folder / manifest.shard_name(number)
    facts = shard_facts(manifest, number)
    writer = EmbeddingWriter(path, extra, settings["width"], settings["dtype"], facts)
    writer.first_row = manifest.shards[number].first
    return writer


def finished(manifest: Manifest, number: int, folder: Path) -> ShardSummary | None:
    """What the footer of a finished shard says; None if the file isn't there, or isn't this shard, complete."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        metadata = pq.read_metadata(folder / manifest.shard_name(number))
    except (FileNotFoundError, pa.ArrowInvalid):
        return None
    except OSError as error:
        if error.errno is None:  # a damaged footer; the system's own errors have a number
            return None
        raise
    footer = {key.decode(errors="replace"): value for key, value in (metadata.metadata or {}).items()}
    for name, value in shard_facts(manifest, number).items():
        if footer.get(f"molcmim.{name}") != value.encode():
            return None
    try:
        statuses = Counter({str(key): int(n) for key, n in json.loads(footer["molcmim.statuses"]).items()})
    except (KeyError, ValueError, AttributeError, TypeError):
        return None
    n_rows = manifest.shards[number].n
    if metadata.num_rows != n_rows or statuses.total() != n_rows:
        return None
    return ShardSummary(number, n_rows, statuses, 0)


class Embedder:
    """Vectors of a shard's chunks; molecules that have been embedded lately are not embedded again."""

    def __init__(self, model: MolCMIM, manifest: Manifest, first_row: int = 0, recent: int = RECENT) -> None:
        from molcmim.embed import EmbedOptions

        self._model, self._kind = model, manifest.options.kind
        batch_size = manifest.options.batch_size or EmbedOptions().batch_size
        self._options = EmbedOptions(batch_size, manifest.options.exact, model.dtype)
        self._width = manifest.settings["width"]
        self._row = first_row
        self._recent = RecentVectors(recent, self._width)
        self.n_embedded = 0

    def embed(self, rows: TokenRows) -> FloatArray:
        """Embeddings (n, d) of the shard's next rows, NaN where the status isn't ok."""
        from molcmim.embed import embed_tokens

        result = np.full((len(rows.status), self._width), np.nan, dtype=np.float32)
        first: dict[str, int] = {}  # where each molecule stands that has to be embedded
        again: list[tuple[int, int]] = []  # rows that are equal to one of those
        for i in rows.ok:
            text = rows.canonical_smiles[i] or ""
            vector = self._recent.get(text)
            if vector is not None:
                result[i] = vector
            elif text in first:
                again.append((i, first[text]))
            else:
                first[text] = i
        chosen = list(first.values())
        result[chosen] = embed_tokens(
            self._model.network,
            [rows.tokens[i] or [] for i in chosen],
            self._kind,
            self._model.config["scales"],
            self._options,
            self._model.objective,
            [self._row + i for i in chosen],
        )
        for i, other in again:
            result[i] = result[other]
        for text, i in first.items():
            self._recent.put(text, result[i])
        self.n_embedded += len(chosen)
        self._row += len(rows.status)
        return result


class RecentVectors:
    """The vectors of the last so many different molecules, in constant memory: the oldest makes room."""

    def __init__(self, size: int, width: int) -> None:
        self._vectors = np.empty((size, width), dtype=np.float32)  # takes memory as it fills
        self._names: list[str | None] = [None] * size
        self._places: dict[str, int] = {}
        self._next = 0

    def get(self, name: str) -> FloatArray | None:
        """The vector (d,) of this molecule, if it is remembered."""
        place = self._places.get(name)
        return None if place is None else self._vectors[place]

    def put(self, name: str, vector: FloatArray) -> None:
        """Remember a molecule that isn't remembered yet."""
        if not self._names:
            return
        oldest = self._names[self._next]
        if oldest is not None:
            del self._places[oldest]
        self._names[self._next], self._places[name] = name, self._next
        self._vectors[self._next] = vector
        self._next = (self._next + 1) % len(self._names)


class WriterThread:
    """Gives rows to a writer in a thread of its own, at most `WAITING` chunks late."""

    def __init__(self, writer: EmbeddingWriter) -> None:
        self.seconds = 0.0  #: spent writing
        self._writer = writer
        self._queue: queue.Queue[tuple[Chunk, TokenRows, FloatArray] | None] = queue.Queue(WAITING)
        self._error: BaseException | None = None
        self._dropping = False
        self._thread = threading.Thread(target=self._run, name="molcmim-writer", daemon=True)

    def __enter__(self) -> WriterThread:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._dropping = True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()

    def write(self, chunk: Chunk, rows: TokenRows, vectors: FloatArray) -> None:
        """Hand over the next rows; raises what went wrong with earlier ones."""
        if self._error is not None:
            raise self._error
        self._queue.put((chunk, rows, vectors))

    def finish(self) -> None:
        """Wait until all rows are written; raises what went wrong."""
        self._queue.put(None)
        self._thread.join()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:  # goes on after an error, so that nobody waits for ever
            if self._error is not None or self._dropping:
                continue
            start = time.perf_counter()
            try:
                self._writer.write(*item)
            except BaseException as error:  # raised again in the thread that hands over rows
                self._error = error
            self.seconds += time.perf_counter() - start
