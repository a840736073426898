"""What `molcmim embed` and `molcmim check` do: streams of chunks through the worker pool."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tqdm import tqdm

from molcmim import __version__
from molcmim.chem import Prepared, Status
from molcmim.readers import Chunk, MoleculeReader
from molcmim.rows import tokenize_prepared
from molcmim.scoring import feed
from molcmim.tokenizer import Tokenizer
from molcmim.worker_pool import WorkerPool
from molcmim.writers import EmbeddingWriter, output_paths

if TYPE_CHECKING:
    from molcmim.api import MolCMIM


class Summary(NamedTuple):
    """What a run over a file came to."""

    n_rows: int
    statuses: Counter[str]
    seconds: float
    n_surplus: int  #: rows of a table with more fields than its header


class Example(NamedTuple):
    """A row that isn't ok."""

    row: int  #: from 0, the header of a table not counted
    status: str
    smiles: str  #: as given
    unknown: str | None  #: its first piece without a token, if that is what is wrong


class CheckReport(NamedTuple):
    """What `check_file` found."""

    summary: Summary
    unknown: Counter[str]  #: pieces without a token, each row's first one
    examples: list[Example]
    longest: int  #: most tokens of a row that has a status of ok


def prepared_chunks(reader: MoleculeReader, policy: str, workers: int | None) -> Iterator[tuple[Chunk, list[Prepared]]]:
    """Chunks of the reader with their prepared rows, in order; `workers` 0 prepares in this process."""
    if workers == 0:
        yield from feed.prepared_chunks(reader.chunks(), policy, None)
        return
    with WorkerPool(workers, policy) as pool:
        yield from feed.prepared_chunks(reader.chunks(), policy, pool)


def facts_of(model: MolCMIM, kind: str, policy: str, exact: bool, dtype: str) -> dict[str, str]:
    """What an output file says about how it was made."""
    import rdkit
    import torch

    return {
        "model_id": model.model_id,
        "model": str(model.config["name"]),
        "version": __version__,
        "rdkit_version": rdkit.__version__,
        "torch_version": torch.__version__,
        "policy": policy,
        "kind": kind,
        "exact": str(exact).lower(),
        "dtype": dtype,
        "compute_dtype": model.dtype,
        "device": model.device.type,
    }


def embed_file(
    model: MolCMIM,
    reader: MoleculeReader,
    output: Path,
    kind: str = "both",
    policy: str = "canonical",
    batch_size: int = 256,
    exact: bool = False,
    dtype: str = "float32",
    workers: int | None = None,
) -> Summary:
    """Embed all rows of `reader` into `output`; N rows in, N rows out, in order.

    An error or Ctrl-C leaves neither `output` nor a temporary file.

    Raises
    ------
    ValueError, OSError
        If the input turns out unreadable, the output unwritable, or an option is not one of those there are.
    """
    from molcmim.embed import EmbedOptions, check_kind, embed_rows, embedding_width

    check_kind(kind, model.objective)
    check_output(reader, output)
    width = embedding_width(model.network, kind, model.objective)
    facts = facts_of(model, kind, policy, exact, dtype)
    options = EmbedOptions(batch_size, exact, model.dtype)
    statuses: Counter[str] = Counter()
    start, n_rows = time.perf_counter(), 0
    with (
        terminate_as_interrupt(),
        EmbeddingWriter(output, reader.extra, width, dtype, facts) as writer,
        progress_bar(reader) as bar,
    ):
        for chunk, prepared in prepared_chunks(reader, policy, workers):
            rows = tokenize_prepared(prepared, model.tokenizer, model.network.config.max_tokens)
            scales = model.config["scales"]
            vectors = embed_rows(model.network, rows, kind, scales, options, model.objective, n_rows)
            writer.write(chunk, rows, vectors)
            statuses.update(status.value for status in rows.status)
            n_rows += len(chunk.smiles)
            advance(bar, reader, n_rows)
    return Summary(n_rows, statuses, time.perf_counter() - start, reader.n_surplus)


def check_file(
    reader: MoleculeReader,
    tokenizer: Tokenizer,
    max_tokens: int,
    policy: str = "canonical",
    workers: int | None = None,
    n_examples: int = 10,
) -> CheckReport:
    """Statuses of all rows and what the vocabulary lacks for them; up to `n_examples` rows that aren't ok.

    Examples are spread over the statuses: each status gives its first rows, as many as there is room for.
    """
    statuses: Counter[str] = Counter()
    unknown: Counter[str] = Counter()
    first: dict[str, list[Example]] = {}
    start, n_rows, longest = time.perf_counter(), 0, 0
    with progress_bar(reader) as bar:
        for chunk, prepared in prepared_chunks(reader, policy, workers):
            rows = tokenize_prepared(prepared, tokenizer, max_tokens)
            for i, (tokens, status, piece) in enumerate(zip(rows.tokens, rows.status, rows.unknown, strict=True)):
                longest = max(longest, tokenizer.length(tokens or ()))
                if piece is not None:
                    unknown[piece] += 1
                found = first.setdefault(status.value, [])
                if status is not Status.ok and len(found) < n_examples:
                    found.append(Example(n_rows + i, status.value, chunk.smiles[i], piece))
            statuses.update(status.value for status in rows.status)
            n_rows += len(chunk.smiles)
            advance(bar, reader, n_rows)
    turns = sorted((turn, example) for found in first.values() for turn, example in enumerate(found))
    examples = sorted(example for _, example in turns[:n_examples])
    summary = Summary(n_rows, statuses, time.perf_counter() - start, reader.n_surplus)
    return CheckReport(summary, unknown, examples, longest)


def check_output(reader: MoleculeReader, output: Path) -> None:
    """ValueError or OSError, before any work is done, if `output` can't be the place for the results."""
    for path in output_paths(output):
        if reader.name != "-" and path.exists() and path.samefile(reader.name):
            raise ValueError(f"output: {path} would replace the input")
        if path.is_dir():
            raise IsADirectoryError(f"output: expected a file name, got the directory {path}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"output: no such directory: {output.parent}")


@contextmanager
def progress_bar(reader: MoleculeReader) -> Iterator[tqdm[Any]]:
    """Bar over the bytes of the input on stderr, or a count of rows where its size isn't known."""
    if reader.size is None:
        bar = tqdm(unit="mol", disable=None)
    else:
        bar = tqdm(total=reader.size, unit="B", unit_scale=True, disable=None)
    with bar:
        yield bar


def advance(bar: tqdm[Any], reader: MoleculeReader, n_rows: int) -> None:
    """Bring the bar to where the reader is."""
    if reader.size is None:
        bar.update(n_rows - bar.n)
    else:
        bar.set_postfix_str(f"{n_rows} rows", refresh=False)
        bar.update(reader.position - bar.n)


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """While in the block, SIGTERM ends the program as Ctrl-C does, so that temporary files go."""

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
