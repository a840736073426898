"""Preparation of rows in child processes that may crash, hang or run out of memory at the cost of one row.

The children are plain subprocesses (`molcmim.chem_worker`) spoken to over pipes, not multiprocessing: so this
works from notebooks, from scripts without a __main__ guard, from threads, and inside multiprocessing's own
children.

In this process each worker has two threads: a driver, which takes jobs from one common queue, sends their
rows and replaces a worker that died or hung; and a reader, which empties the worker's output pipe. To find
the row that killed a worker, the job's unanswered rows are sent again to a fresh worker that answers them one
by one: the first without an answer is the one. A death that doesn't happen again costs no row.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from molcmim.chem import (
    MAX_CHARS,
    MEMORY_MB,
    TIMEOUT_SECONDS,
    MolBlock,
    Prepared,
    PreparedBlock,
    Status,
    check_options,
    cpu_count,
    must_parse,
    screen,
    to_text_list,
)
from molcmim.worker_process import Closing, Worker

JOB_ROWS = 500  # most rows sent to a worker at once
JOB_ROWS_LEAST = 50
FLUSH_SECONDS = 0.02  # how often a worker hands over what it has done
START_ATTEMPTS = 3
ALARM_GRACE_SECONDS = 5.0  # how much later than we would a worker ends itself

# SimpleQueue, because a pool may be collected, and so closed, while its thread is inside a queue.
_Replies: TypeAlias = "queue.SimpleQueue[tuple[_Job, list[Prepared] | Exception]]"

_STATUS = {str(status): status for status in Status}


class WorkerPool:
    """Child processes that prepare rows; see `molcmim.chem.prepare` for what is done to each.

    Use it as a context manager, or call `close`. It is meant for one thread at a time, and only for the
    process that made it. Workers start at once, in the background; if they can't, the first `map` or `imap`
    says so.

    Parameters
    ----------
    workers
        Number of child processes, at least 1; None: one per CPU.
    policy, max_chars
        See `molcmim.chem.prepare`. Policy `none` parses nothing but mol blocks, and starts no
        processes before the first one.
    timeout
        Seconds that a row may take before its worker is killed (status `timeout`). Finding a row that hangs
        takes up to `timeout` and a fifth, counted only while this process is running.
    memory_mb
        MiB that a worker may take on top of what it needs to start, None for no limit. Enforced on Linux;
        a row that needs more gets the status `crash`.

    Raises
    ------
    ValueError
        If an option is out of range.

    Examples
    --------
    >>> with WorkerPool(workers=1) as pool:
    ...     [row.canonical_smiles for row in pool.map(["C(C)O", "c1ccccc1"])]
    ['CCO', 'c1ccccc1']
    """

    def __init__(
        self,
        workers: int | None = None,
        policy: str = "canonical",
        max_chars: int = MAX_CHARS,
        timeout: float = TIMEOUT_SECONDS,
        memory_mb: int | None = MEMORY_MB,
    ) -> None:
        check_options(policy, max_chars)
        workers = cpu_count() if workers is None else workers
        if workers < 1:
            raise ValueError(f"workers: expected at least 1, got {workers}")
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout: expected a positive number of seconds, got {timeout}")
        if memory_mb is not None and memory_mb < 1:
            raise ValueError(f"memory_mb: expected None or at least 1, got {memory_mb}")
        self.workers, self.policy, self.max_chars = workers, policy, max_chars
        settings: dict[str, Any] = {"policy": policy, "max_chars": max_chars, "memory_mb": memory_mb}
        settings["alarm"] = timeout + ALARM_GRACE_SECONDS
        jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._jobs = jobs
        self._settings, self._timeout = settings, timeout
        self._drivers: list[_Driver] = []
        if policy != "none":
            self._start()
        self._process_id = os.getpid()
        # Also runs when the pool is collected and at interpreter exit; runs once.
        self._finalizer = weakref.finalize(self, _shut_down, self._drivers, jobs, self._process_id)

    def _start(self) -> None:
        for _ in range(self.workers):
            self._drivers.append(_Driver(self._jobs, self._settings, self._timeout))
            self._drivers[-1].start()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kill the workers and wait until they are gone. Closing twice is fine."""
        self._finalizer()

    def map(self, smiles: Iterable[object]) -> list[Prepared]:
        """Prepare N rows.

        Parameters
        ----------
        smiles
            Rows, as for `molcmim.chem.prepare_many`.

        Returns
        -------
        list of Prepared, length N, in the order given

        Raises
        ------
        TypeError
            If `smiles` is not a sequence of rows.
        RuntimeError
            If workers can't be started, or the pool is closed or belongs to another process.
        """
        return next(self.imap([smiles]))

    def imap(self, batches: Iterable[Iterable[object]]) -> Iterator[list[Prepared]]:
        """Prepare batches of rows as they come, in order, reading ahead.

        Workers go on while the caller uses a result. At most two batches, or as many small ones as make up
        four jobs (2,000 rows) per worker, are held at a time, so memory stays bounded however many batches
        there are.

        Parameters
        ----------
        batches
            Iterable of sequences of rows; best of a few thousand rows each. A few rows each is slow.

        Yields
        ------
        list of Prepared
            For each batch, as long as the batch.

        Raises
        ------
        TypeError, RuntimeError
            See `map`.
        """
        cancelled = threading.Event()
        pending: collections.deque[_Batch] = collections.deque()
        rows_held, most_rows = 0, 4 * JOB_ROWS * self.workers
        try:
            for rows in batches:
                pending.append(self._submit(to_text_list(rows), cancelled))
                rows_held += len(pending[-1].answers)
                while len(pending) >= 2 and rows_held > most_rows:
                    rows_held -= len(pending[0].answers)
                    yield self._wait(pending.popleft())
            while pending:
                yield self._wait(pending.popleft())
        finally:  # an error, Ctrl-C or a caller that stopped early: drop the jobs not begun
            cancelled.set()

    def _submit(self, rows: list[object], cancelled: threading.Event) -> _Batch:
        self._check_usable()
        batch = _Batch([screen(row, self.max_chars) for row in rows])
        to_parse = [i for i, row in enumerate(batch.answers) if must_parse(row.canonical_smiles, self.policy)]
        if to_parse and not self._drivers:
            self._start()
        job_rows = min(JOB_ROWS, max(JOB_ROWS_LEAST, -(-len(to_parse) // (4 * self.workers))))
        for start in range(0, len(to_parse), job_rows):
            positions = to_parse[start : start + job_rows]
            texts = [batch.answers[i].canonical_smiles or "" for i in positions]
            batch.jobs += 1
            self._jobs.put(_Job(texts, positions, batch.replies, cancelled))
        return batch

    def _wait(self, batch: _Batch) -> list[Prepared]:
        while batch.jobs:
            try:
                job, result = batch.replies.get(timeout=1.0)  # with a timeout, Ctrl-C works on Windows too
            except queue.Empty:
                self._check_usable()
                continue
            if isinstance(result, Exception):
                raise result
            for position, answer in zip(job.positions, result, strict=True):
                batch.answers[position] = answer
            batch.jobs -= 1
        return batch.answers

    def _check_usable(self) -> None:
        if os.getpid() != self._process_id:
            raise RuntimeError("this WorkerPool was made by another process; make one in this process")
        if not self._finalizer.alive:
            raise RuntimeError("this WorkerPool is closed")


@dataclass(frozen=True)
class _Job:
    """Rows for one worker, and where the answers go."""

    rows: list[str]
    positions: list[int]  # of the rows in their batch
    replies: _Replies
    cancelled: threading.Event


@dataclass
class _Batch:
    """One batch on its way: the screened rows, replaced by the answers as jobs come back."""

    answers: list[Prepared]
    replies: _Replies = field(default_factory=queue.SimpleQueue)
    jobs: int = 0  # not yet answered


class _Driver(threading.Thread):
    """Feeds one worker from the common queue, and replaces it when it dies or hangs."""

    def __init__(self, jobs: queue.SimpleQueue[_Job | None], settings: dict[str, Any], timeout: float) -> None:
        super().__init__(name="molcmim-worker-driver", daemon=True)
        self.closing = threading.Event()
        self._jobs = jobs
        self._settings = settings
        self._patience = timeout
        self._worker: Worker | None = None

    def run(self) -> None:
        try:
            self._warm_up()
            while (job := self._jobs.get()) is not None and not self.closing.is_set():
                if job.cancelled.is_set():
                    continue
                try:
                    job.replies.put((job, self._prepare(job.rows)))
                except Closing:
                    raise
                except Exception as error:  # whatever it is, the caller must hear of it, not wait for ever
                    job.replies.put((job, error))
        except Closing:
            pass
        finally:
            self._replace_worker()

    def _warm_up(self) -> None:
        with contextlib.suppress(RuntimeError):  # the first job tries again, and reports it
            self._ready_worker()

    def _prepare(self, rows: list[str]) -> list[Prepared]:
        answers: list[Prepared] = []
        one_by_one = False
        while len(answers) < len(rows):
            worker = self._ready_worker()
            to_send = [{"block": row} if isinstance(row, MolBlock) else row for row in rows[len(answers) :]]
            worker.send({"rows": to_send, "flush_seconds": 0.0 if one_by_one else FLUSH_SECONDS})
            failure = self._collect(worker, answers, len(rows), one_by_one)
            if failure is None:
                break
            self._replace_worker()
            if one_by_one:
                answers.append(Prepared(None, failure))
            one_by_one = True
        return answers

    def _collect(self, worker: Worker, answers: list[Prepared], n_rows: int, one_by_one: bool) -> Status | None:
        """Append answers until all have come (None) or the worker dies or hangs (the status of the row)."""
        # The first silence only starts the search, so it may be short: a slow row loses nothing but time.
        patience = self._patience if one_by_one else min(self._patience, max(1.0, self._patience / 5))
        while len(answers) < n_rows:
            try:
                line = worker.receive(patience, self.closing)
            except TimeoutError:
                return Status.timeout
            if line is None:
                return Status.timeout if worker.killed_by_alarm() else Status.crash
            answers.extend(_answer(*fields) for fields in json.loads(line))
        return None

    def _ready_worker(self) -> Worker:
        """The running worker, or a new one that has said it is ready."""
        problem = ""
        for attempt in range(START_ATTEMPTS):
            if self.closing.is_set():
                raise Closing
            if self._worker is not None and self._worker.is_alive():
                return self._worker
            self._replace_worker()
            if attempt:
                time.sleep(0.2 * attempt)  # a machine short of memory or processes may recover
            try:
                worker = self._worker = Worker(self._settings)
            except OSError as error:
                problem = str(error)
                continue
            if worker.wait_until_ready(self.closing):
                return worker
            problem = worker.describe_failure()
            self._replace_worker()
        raise RuntimeError(f"a worker process could not start ({START_ATTEMPTS} attempts): {problem}")

    def _replace_worker(self) -> None:
        if self._worker is not None:
            self._worker.kill()
            self._worker = None


def _answer(text: str | None, status: str, written: str | None = None) -> Prepared:
    if written is None:
        return Prepared(text, _STATUS[status])
    answer = PreparedBlock(text, _STATUS[status])
    answer.smiles = written
    return answer


def _shut_down(drivers: Sequence[_Driver], jobs: queue.SimpleQueue[_Job | None], process_id: int) -> None:
    if os.getpid() != process_id:  # a forked child: the workers belong to its parent
        return
    for driver in drivers:
        driver.closing.set()
        jobs.put(None)
    for driver in drivers:
        if driver is not threading.current_thread():  # a collected pool may be finalised on any thread
            driver.join()
