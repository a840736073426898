"""The processes of `corpus_build`: plain child processes that are asked over pipes.

So no `multiprocessing`: it works from notebooks and from scripts without a ``__main__`` guard. A message is
an 8-byte length and that many bytes; a question is the rows of a chunk as JSON, an answer one line of JSON
and then arrays in NumPy's .npy form.
"""
# n rows of a chunk that were kept, P properties

from __future__ import annotations

import io
import json
import os
import queue
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .tokenizer import Tokenizer, UnknownToken, count_tokens, tokenizer_from_json

Array = npt.NDArray[Any]
Rows = list[str]


class Answer(NamedTuple):
    """What a job makes of a chunk: counts or texts, and arrays."""

    data: dict[str, Any]
    arrays: Sequence[Array] = ()


class Encoded(NamedTuple):
    """The arrays of an `encode` job: the rows of a chunk that fit.

    Attributes
    ----------
    kept : ndarray (n,) int64
        Their positions in the chunk.
    tokens, lengths
        Token ids end to end (uint16), and how many each row has (n,).
    random_tokens, random_lengths
        The same of a random SMILES of each; empty if not asked for.
    properties : ndarray (n, P) float32
        Descriptors as RDKit gives them, NaN where it gives none; P = 0 if not asked for.
    """

    kept: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.uint16]
    lengths: npt.NDArray[np.int64]
    random_tokens: npt.NDArray[np.uint16]
    random_lengths: npt.NDArray[np.int64]
    properties: npt.NDArray[np.float32]


# ---- jobs: settings -> a function of the rows of a chunk ----


def _prepare_job() -> Callable[[Rows], Answer]:
    """Usable rows as lines, and a count of every status, under the policy that leaves the text as it is."""
    from . import chem

    return lambda rows: as_lines(chem.prepare(row, "none") for row in rows)


def as_lines(prepared: Iterable[tuple[str | None, str]]) -> Answer:
    """Of (SMILES, status) pairs: the usable SMILES as `lines`, and a count of every status."""
    lines: Rows = []
    statuses: Counter[str] = Counter()
    for smiles, status in prepared:
        statuses[str(status)] += 1
        if status == "ok" and smiles is not None:
            lines.append(smiles + "\n")
    return Answer({"lines": "".join(lines), "statuses": statuses})


def _count_job() -> Callable[[Rows], Answer]:
    return lambda rows: Answer(count_tokens(rows))


def _encode_job(
    vocabulary: dict[str, Any], max_tokens: int, random_smiles: bool, properties: str | None, seed: int
) -> Callable[[Rows], Answer]:
    return partial(_encode, tokenizer_from_json(vocabulary), max_tokens, random_smiles, properties, seed)


JOBS: dict[str, Callable[..., Callable[[Rows], Answer]]] = {
    "prepare": _prepare_job,
    "count": _count_job,
    "encode": _encode_job,
}


def _encode(
    tokenizer: Tokenizer, max_tokens: int, random_smiles: bool, properties: str | None, seed: int, rows: Rows
) -> Answer:
    statuses: Counter[str] = Counter()
    kept: list[int] = []
    ids: list[list[int]] = []
    for i, smiles in enumerate(rows):
        try:
            tokens = tokenizer.encode(smiles)
        except UnknownToken:
            statuses["unknown_token"] += 1
            continue
        if tokenizer.length(tokens) > max_tokens:
            statuses["too_many_tokens"] += 1
            continue
        kept.append(i)
        ids.append(tokens)
    random_ids, values = [], np.empty((len(kept), 0), np.float32)
    if random_smiles or properties:
        from . import corpus_chem

        molecules = [corpus_chem.parse(rows[i]) for i in kept]
        if random_smiles:
            given = [rows[i] for i in kept]
            texts = [corpus_chem.random_smiles(*pair, seed) for pair in zip(molecules, given, strict=True)]
            random_ids = [_encode_or(tokenizer, max_tokens, *pair) for pair in zip(texts, ids, strict=True)]
        if properties:
            values = corpus_chem.descriptors(molecules, properties)
    arrays = Encoded(np.asarray(kept, np.int64), *_flat(ids), *_flat(random_ids), values)
    return Answer({"statuses": statuses}, arrays)


def _encode_or(tokenizer: Tokenizer, max_tokens: int, smiles: str, otherwise: list[int]) -> list[int]:
    try:
        ids = tokenizer.encode(smiles)
    except UnknownToken:
        return otherwise
    return ids if tokenizer.length(ids) <= max_tokens else otherwise


def _flat(rows: list[list[int]]) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    lengths = np.asarray([len(row) for row in rows], np.int64)
    return np.asarray([token for row in rows for token in row], np.uint16), lengths


# ---- asking ----


def run_job(settings: dict[str, Any], chunks: Iterable[Rows], workers: int) -> Generator[Answer]:
    """Answers to chunks of rows, in order, from several processes (from this one if `workers` is below 2).

    Only a few chunks are read ahead. Close the iterator (`contextlib.closing`) to end the processes at once.

    Parameters
    ----------
    settings
        ``{"job": a key of JOBS, ...}`` with that job's arguments.

    Raises
    ------
    RuntimeError
        If a process ends; its own error is on standard error.
    """
    if workers < 2:
        job = _job(settings)
        yield from (job(chunk) for chunk in chunks)
        return
    processes = [_Process(settings) for _ in range(workers)]
    idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def ask(rows: Rows) -> Answer:
        process = idle.get()
        try:
            return process.ask(rows)
        finally:
            idle.put(process)

    threads = ThreadPoolExecutor(workers)  # a thread only waits for its process
    waiting: deque[Future[Answer]] = deque()
    try:
        for chunk in chunks:
            waiting.append(threads.submit(ask, chunk))
            if len(waiting) > 3 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for process in processes:
            process.kill()
        threads.shutdown(cancel_futures=True)


def _job(settings: dict[str, Any]) -> Callable[[Rows], Answer]:
    return JOBS[settings["job"]](**{key: value for key, value in settings.items() if key != "job"})


class _Process:
    """One child process with its settings."""

    def __init__(self, settings: dict[str, Any]) -> None:
        root = str(Path(__file__).resolve().parents[1])
        program = f"import sys; sys.path.insert(0, {root!r}); from molcmim.corpus_worker import main; main()"
        # A session of its own: Ctrl-C reaches the parent only, which ends its children; so does its death, by
        # the end of their standard input.
        self._process = subprocess.Popen(
            [sys.executable, "-c", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self._send(settings)

    def ask(self, rows: Rows) -> Answer:
        self._send(rows)
        stdout = self._process.stdout
        payload = _receive(stdout) if stdout else None
        if payload is None:
            raise RuntimeError(f"a corpus worker process ended, exit code {self._process.wait()}")
        stream = io.BytesIO(payload)
        header = json.loads(stream.readline())
        arrays = [np.load(stream, allow_pickle=False) for _ in range(header["arrays"])]
        return Answer(header["data"], arrays)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def _send(self, message: object) -> None:
        try:
            if self._process.stdin:
                _send(self._process.stdin, json.dumps(message).encode("ascii"))
        except BrokenPipeError:
            raise RuntimeError(f"a corpus worker process ended, exit code {self._process.wait()}") from None


def _send(stream: IO[bytes], payload: bytes) -> None:
    stream.write(len(payload).to_bytes(8, "little") + payload)
    stream.flush()


def _receive(stream: IO[bytes]) -> bytes | None:
    """The next message; None if the other side is gone."""
    size = int.from_bytes(header, "little") if len(header := stream.read(8)) == 8 else -1
    payload = stream.read(size) if size >= 0 else b""
    return payload if len(payload) == size else None


def main() -> None:
    """Child process: settings first, then chunk after chunk until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not get among the answers
    settings = _receive(sys.stdin.buffer)
    if settings is None:
        return
    job = _job(json.loads(settings))
    while (question := _receive(sys.stdin.buffer)) is not None:
        answer = job(json.loads(question))
        stream = io.BytesIO()
        stream.write(json.dumps({"data": answer.data, "arrays": len(answer.arrays)}).encode("ascii") + b"\n")
        for array in answer.arrays:
            np.save(stream, array, allow_pickle=False)
        _send(out, stream.getvalue())
