"""What the processes of a Ray cluster do with a shard: chemistry in a task, then the model in an actor.

Between the stages a shard is one row, so nothing that Ray Data does to its blocks can cut one or mix two:

    report   JSON of a `Report`
    chunks   the shard's chunks with what the chemistry made of them, each an Arrow stream (see `pack`)

An error doesn't leave a stage as an exception, which Ray would wrap, print or try again, but in the report.
Processes and machines that are lost are Ray's to deal with: it does the work again, and would do so for ever. So
a stage has a temporary file while it works on a shard, and gives up if there are several of other processes.
"""

from __future__ import annotations

import copy
import json
import socket
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from molcmim.chem import Prepared, Status
from molcmim.readers import Chunk
from molcmim.scoring.durable import part_path
from molcmim.scoring.feed import prepared_chunks, range_chunks
from molcmim.scoring.manifest import Manifest
from molcmim.scoring.run import children_seconds
from molcmim.scoring.shard import ShardSummary, Times, embed_shard
from molcmim.scoring.source import Source
from molcmim.worker_pool import WorkerPool

#: kinds of errors that are told apart on the way to the driver; anything else arrives as a RuntimeError
KINDS: tuple[type[Exception], ...] = (OSError, ValueError, ArithmeticError, ImportError, RuntimeError)
ATTEMPTS = 5  #: processes that may be lost at a stage of a shard
ROW = pa.schema([("report", pa.string()), ("chunks", pa.list_(pa.large_binary()))])
REPORT = pa.schema([("report", pa.string())])


class RayJob(NamedTuple):
    """What every process must know. Paths are absolute, and the same on all machines."""

    source: Source
    manifest: Manifest
    folder: Path
    checkpoint: str | None  #: as for `MolCMIM.from_pretrained`
    threads: int  #: of torch, in an actor
    stop_file: Path  #: where there is a file of this name, no shard is begun any more


class Report(NamedTuple):
    """What became of a shard; the fields from `n_rows` on are those of `ShardSummary`."""

    shard: int
    stopped: bool = False  #: not made, because the run is to end
    failure: tuple[str, str, str] | None = None  #: not made, because of an error: its kind, text and traceback
    chemistry_seconds: float = 0.0
    n_surplus: int = 0
    n_rows: int = 0
    statuses: dict[str, int] = {}  # noqa: RUF012  never changed
    n_embedded: int = 0
    times: tuple[float, ...] = Times()

    def to_json(self) -> str:
        """The report as text."""
        return json.dumps(self._asdict())

    @classmethod
    def from_json(cls, text: str) -> Report:
        """What `to_json` wrote."""
        return cls(**json.loads(text))

    def summary(self) -> ShardSummary:
        """Of a shard that was made."""
        return ShardSummary(self.shard, self.n_rows, Counter(self.statuses), self.n_embedded, Times(*self.times))

    def error(self) -> Exception:
        """The failure as an exception of the same kind, with the traceback as a note."""
        if self.failure is None:
            raise ValueError(f"shard {self.shard}: expected a report of a failure, got {self}")
        name, text, trace = self.failure
        error = {kind.__name__: kind for kind in KINDS}[name](text)
        error.add_note(trace)
        return error


def failure_of(error: Exception) -> tuple[str, str, str]:
    """An exception for `Report.failure`; the text says on which machine it happened."""
    kind = next((kind for kind in KINDS if isinstance(error, kind)), None)
    text = str(error) if kind is not None and str(error) else f"{type(error).__name__}: {error}".rstrip(": ")
    name = RuntimeError.__name__ if kind is None else kind.__name__
    return name, f"{text} (on {socket.gethostname()})", "".join(traceback.format_exception(error))


def chemistry_mark(name: str) -> str:
    """What the temporary file of a shard's first stage is for; that of the second is the shard in the making."""
    return f"{name}.chemistry"


def check_attempts(folder: Path, name: str) -> None:
    """RuntimeError if too many processes have left a temporary file for this target."""
    lost = len(list(folder.glob(f".{name}.*.part")))
    if lost >= ATTEMPTS:
        raise RuntimeError(f"{name}: {lost} processes were lost while they made it; was there enough memory?")


@contextmanager
def marked(folder: Path, name: str) -> Iterator[None]:
    """While in the block, there is a temporary file for `name`; it stays if this process is killed."""
    check_attempts(folder, name)
    mark = part_path(folder / name)
    mark.touch()
    try:
        yield
    finally:
        mark.unlink(missing_ok=True)


# -------------------------------------------------------------------------------------------- chunks as bytes


def pack(chunk: Chunk, prepared: Sequence[Prepared]) -> bytes:
    """A chunk and its prepared rows as one compressed Arrow stream; columns keep their types."""
    texts = [chunk.id, chunk.smiles, [row[0] for row in prepared], [row[1].value for row in prepared]]
    columns = [pa.array(column, pa.string()) for column in texts]
    columns += [pa.array(column, pa.string()) if isinstance(column, list) else column for column in chunk.extra]
    batch = pa.RecordBatch.from_arrays(columns, names=[str(i) for i in range(len(columns))])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)
    packed: bytes = sink.getvalue().to_pybytes()
    return packed


def unpack(packed: Any) -> tuple[Chunk, list[Prepared]]:
    """What `pack` was given; texts of pass-through columns come back as Arrow arrays."""
    with pa.ipc.open_stream(packed) as reader:
        columns = reader.read_next_batch().columns
    names, smiles, canonical, status = (column.to_pylist() for column in columns[:4])
    prepared = [Prepared(text, Status(value)) for text, value in zip(canonical, status, strict=True)]
    return Chunk(smiles, names, columns[4:]), prepared


# -------------------------------------------------------------------------------------------- the two stages


def prepare_shard(batch: Any, job: RayJob) -> Any:
    """First stage: rows with a shard's number (``shard``) to rows as above. Runs as a task that keeps one CPU busy."""
    made = [_prepare(number, job) for number in batch["shard"].to_pylist()]
    rows = {"report": [report.to_json() for report, _ in made], "chunks": [chunks for _, chunks in made]}
    return pa.table(rows, schema=ROW)


def _prepare(number: int, job: RayJob) -> tuple[Report, list[bytes]]:
    if job.stop_file.exists():
        return Report(number, stopped=True), []
    # RDKit may end the process it runs in. It must not be Ray's, which would try the same again and again.
    before, policy, source = children_seconds(), job.manifest.options.policy, copy.copy(job.source)
    try:
        mark = chemistry_mark(job.manifest.shard_name(number))
        with marked(job.folder, mark), source, WorkerPool(1, policy) as pool:
            chunks = range_chunks(source, job.manifest.shards[number])
            with closing(prepared_chunks(chunks, policy, pool)) as stream:
                packed = [pack(chunk, prepared) for chunk, prepared in stream]
    except Exception as error:  # whatever it is, the user is to get it in one line
        return Report(number, failure=failure_of(error)), []
    surplus = source.n_surplus - job.source.n_surplus
    return Report(number, chemistry_seconds=children_seconds() - before, n_surplus=surplus), packed


class EmbedStage:
    """Second stage, an actor: loads the model once, then makes a file of each shard that comes prepared."""

    def __init__(self, job: RayJob) -> None:
        self._job = job
        self._failure: tuple[str, str, str] | None = None
        try:
            import torch

            from molcmim.api import MolCMIM

            torch.set_num_threads(job.threads)
            settings = job.manifest.settings
            self._model = MolCMIM.from_pretrained(job.checkpoint, settings["device"], settings["compute_dtype"])
        except Exception as error:
            self._failure = failure_of(error)
        self._idle_since = time.perf_counter()

    def __call__(self, batch: Any) -> Any:
        """Rows of the first stage to rows with their `Report`."""
        rows = zip(batch["report"].to_pylist(), batch["chunks"], strict=True)
        reports = [self._embed(Report.from_json(text), chunks.values) for text, chunks in rows]
        return pa.table({"report": [report.to_json() for report in reports]}, schema=REPORT)

    def _embed(self, report: Report, chunks: Any) -> Report:
        if report.stopped or report.failure is not None:
            return report
        if self._failure is not None:
            return report._replace(failure=self._failure)
        job = self._job
        if job.stop_file.exists():
            return report._replace(stopped=True)
        idle = time.perf_counter() - self._idle_since
        try:
            check_attempts(job.folder, job.manifest.shard_name(report.shard))
            made = embed_shard(
                self._model, job.source, job.manifest, report.shard, job.folder, prepared=_unpacked(chunks)
            )
        except Exception as error:
            return report._replace(failure=failure_of(error))
        finally:
            self._idle_since = time.perf_counter()
        times = made.times._replace(waiting=made.times.waiting + idle)
        return report._replace(n_rows=made.n_rows, statuses=made.statuses, n_embedded=made.n_embedded, times=times)


def _unpacked(chunks: Any) -> Iterator[tuple[Chunk, list[Prepared]]]:
    for chunk in chunks:
        yield unpack(chunk.as_buffer())
