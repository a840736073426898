"""The killable worker pool: a crash, a hang or running out of memory costs exactly that row."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import HOSTILE
from worker_tools import children, linux, posix

from molcmim import worker_pool
from molcmim.chem import Prepared, Status, WorkerPool, prepare_many
from molcmim.worker_process import Worker

ROWS = [  # many molecules, every 11th row broken
    f"C{'C' * (i % 17)}({'N' * (i % 5)}{'O' * (i % 3)}C){'=' * (i % 2)}C{'F(' if i % 11 == 0 else ''}"
    for i in range(1500)
]
FAULTS = {"CCO": "exit", "CCN": "hang", "CCF": "memory", "CCS": "segv"}
EXPECTED = {"CCO": Status.crash, "CCN": Status.timeout, "CCF": Status.crash, "CCS": Status.crash}


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLCMIM_FAULTS", json.dumps(FAULTS))


@pytest.fixture(scope="module")
def reference() -> list[Prepared]:
    return prepare_many(ROWS, workers=0)


def with_faults(reference: list[Prepared], places: dict[int, str]) -> tuple[list[str], list[Prepared]]:
    """ROWS with faulty rows put at some places, and what must come out."""
    rows, expected = list(ROWS), list(reference)
    for place, smiles in places.items():
        rows[place], expected[place] = smiles, Prepared(None, EXPECTED[smiles])
    return rows, expected


def test_rows_are_a_mix_that_can_show_a_shift(reference: list[Prepared]) -> None:
    assert {row.status for row in reference} == {Status.ok, Status.parse_error}
    assert len({row.canonical_smiles for row in reference}) > 100


# --- equal to the plain way ---


@pytest.mark.parametrize("policy", ["none", "canonical", "parent"])
def test_pool_gives_what_this_process_gives(policy: str) -> None:
    hostile = [row for row, _ in HOSTILE if policy == "canonical" or not isinstance(row, str) or len(row) < 200]
    rows = [*ROWS[:300], *hostile, "[Na+].CC(=O)[O-]", *ROWS[300:400]]
    with WorkerPool(2, policy) as pool:
        assert pool.map(rows) == prepare_many(rows, policy, workers=0)
        assert pool.map([]) == []
        assert pool.map(iter(["OCC"])) == prepare_many(["OCC"], policy, workers=0)


def test_prepare_many_uses_workers_for_long_lists_only(
    monkeypatch: pytest.MonkeyPatch, reference: list[Prepared], faults: None
) -> None:
    made = []
    real = worker_pool.WorkerPool

    def counted(workers: int, *arguments: object) -> WorkerPool:
        made.append(workers)
        return real(workers, *arguments)

    monkeypatch.setattr(worker_pool, "WorkerPool", counted)
    assert prepare_many(ROWS[:199]) == reference[:199]
    assert prepare_many(["CCO"]) == [Prepared("CCO", Status.ok)]  # no worker, so no fault
    assert made == []
    assert prepare_many([*ROWS[:300], "CCO"]) == [*reference[:300], Prepared(None, Status.crash)]
    assert made == [1]
    assert prepare_many(["CCO"], workers=1) == [Prepared(None, Status.crash)]
    assert prepare_many(ROWS, "none")[0].canonical_smiles == ROWS[0]
    assert made == [1, 1]


def test_imap_gives_batches_in_order_and_holds_few(reference: list[Prepared]) -> None:
    read = 0

    def batches() -> Iterator[list[str]]:
        nonlocal read
        for start in range(0, 1500, 100):
            read += 1
            yield ROWS[start : start + 100]

    with WorkerPool(1) as pool:
        results = []
        for result in pool.imap(batches()):
            results += result
            assert len(result) == 100
        assert read == 15
        assert results == reference
        ahead = pool.imap([row] * 400 for row in ROWS[:40])  # 2,000 rows are four jobs for one worker
        assert len(next(ahead)) == 400
        read = 0
        endless = pool.imap(rows for rows in iter(lambda: next(counted), None))
        counted = iter_counting()
        for _ in range(10):
            next(endless)
        assert iter_counting.count - 10 <= 6  # type: ignore[attr-defined]
        ahead.close()
        endless.close()
        assert pool.map(ROWS[:60]) == reference[:60]  # what was dropped doesn't get in the way


def iter_counting() -> Iterator[list[str]]:
    iter_counting.count = 0  # type: ignore[attr-defined]
    while True:
        iter_counting.count += 1  # type: ignore[attr-defined]
        yield ROWS[:400]


def test_imap_takes_any_size_of_batch(reference: list[Prepared]) -> None:
    sizes = [0, 1, 2, 0, 700, 3, 49, 51, 0]
    batches, start = [], 0
    for size in sizes:
        batches.append(ROWS[start : start + size])
        start += size
    with WorkerPool(2) as pool:
        results = list(pool.imap(batches))
    assert [len(result) for result in results] == sizes
    assert [row for result in results for row in result] == reference[:start]


# --- faults ---


def test_faults_cost_exactly_their_rows(faults: None, reference: list[Prepared]) -> None:
    """Four kinds of fault, first, last, side by side, on both sides of job borders, with two workers."""
    places = {0: "CCO", 1: "CCS", 187: "CCF", 188: "CCO", 700: "CCN", 701: "CCS", 900: "CCF", 1499: "CCO"}
    rows, expected = with_faults(reference, places)
    with WorkerPool(2, timeout=2.0, memory_mb=512) as pool:
        assert pool.map(rows) == expected
        assert pool.map(ROWS[:200]) == reference[:200]  # the pool goes on
        batches = list(pool.imap(rows[start : start + 300] for start in (0, 900)))
    assert batches == [expected[:300], expected[900:1200]]


def test_a_job_of_faults_only(faults: None) -> None:
    with WorkerPool(1, timeout=1.0) as pool:
        assert pool.map(["CCO", "CCN", "CCS", "CCO"]) == [
            Prepared(None, status) for status in (Status.crash, Status.timeout, Status.crash, Status.crash)
        ]


def test_a_hang_is_timed(faults: None) -> None:
    with WorkerPool(1, timeout=2.0) as pool:
        pool.map(["C"])
        begun = time.monotonic()
        assert [row.status for row in pool.map(["C", "CCN", "O"])] == [Status.ok, Status.timeout, Status.ok]
        assert 2.0 <= time.monotonic() - begun < 10.0  # a second to notice, two to be sure, a start or two


def test_a_caller_that_stops_early_does_not_pay_for_what_is_left(faults: None) -> None:
    """Five batches with a hang would take 10 s; only the one begun may cost time."""
    with WorkerPool(1, timeout=1.0) as pool:
        results = pool.imap([["C"], *[["CCN"]] * 5])
        assert next(results) == [Prepared("C", Status.ok)]
        results.close()
        begun = time.monotonic()
        assert pool.map(["NC"]) == [Prepared("CN", Status.ok)]
        assert time.monotonic() - begun < 6.0


def test_slow_rows_that_make_progress_are_not_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row has its own time: ten rows of 0.15 s pass a limit of 1 s."""
    monkeypatch.setenv("MOLCMIM_FAULTS", json.dumps({"CCO": "slow"}))
    with WorkerPool(1, timeout=1.0) as pool:
        assert pool.map(["CCO"] * 10) == [Prepared("CCO", Status.ok)] * 10


def test_a_stall_of_this_process_is_not_held_against_the_rows(reference: list[Prepared]) -> None:
    """A caller that holds the interpreter lock for longer than the limit must not cause timeouts."""
    with WorkerPool(1, timeout=0.8) as pool:
        results = pool.imap([ROWS[:500], ROWS[500:1000], ROWS[1000:1500]])
        first = next(results)
        begun = time.monotonic()
        while time.monotonic() - begun < 1.5:
            sorted(range(3_000_000), key=int.bit_count)  # one call into C of about 0.3 s
        assert [*first, *next(results), *next(results)] == reference


@linux
def test_memory_limit_is_enforced_and_leaves_room_for_real_rows() -> None:
    macrocycle = "C1" + "C" * 1996 + "1"  # takes 0.3 GiB with RDKit 2026.09
    with WorkerPool(1, memory_mb=1024) as pool:
        assert pool.map([macrocycle])[0].status is Status.ok
    with WorkerPool(1, memory_mb=2) as pool:
        statuses = [row.status for row in pool.map(["C", macrocycle, "CCO"])]
    assert statuses == [Status.ok, Status.crash, Status.ok]


@linux
def test_a_worker_killed_from_outside_costs_no_row(reference: list[Prepared]) -> None:
    with WorkerPool(2) as pool:
        results = pool.imap(ROWS[start : start + 50] for start in range(0, 1500, 50))
        answers = list(next(results))
        for process in children(os.getpid()):
            os.kill(process, signal.SIGKILL)
        for result in results:
            answers += result
    assert answers == reference


def test_deaths_leave_neither_files_nor_threads_nor_zombies(faults: None) -> None:
    with WorkerPool(1) as pool:
        pool.map(["CCO", "C"])
        threads = threading.active_count()
        files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
        assert pool.map(["CCO", "C"] * 5) == [Prepared(None, Status.crash), Prepared("C", Status.ok)] * 5
        assert threading.active_count() == threads
        if files:
            assert len(list(Path("/proc/self/fd").iterdir())) == files
    if Path("/proc").exists():
        stats = [entry / "stat" for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        ours = [s.read_text().rsplit(")", 1)[1].split()[:2] for s in stats if s.exists()]
        assert ["Z", str(os.getpid())] not in ours


def test_in_a_thread(faults: None, reference: list[Prepared]) -> None:
    rows, expected = with_faults(reference, {100: "CCO"})
    results: list[list[Prepared]] = []
    thread = threading.Thread(target=lambda: results.append(prepare_many(rows, workers=1)))
    thread.start()
    thread.join(60)
    assert results == [expected]


@posix
def test_the_alarm_of_a_stalled_parent_is_still_a_timeout(faults: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may end itself before its parent comes to it; the row is timed out all the same."""
    monkeypatch.setattr(Worker, "receive", lambda self, patience, closing: self._lines.get())
    monkeypatch.setattr(worker_pool, "ALARM_GRACE_SECONDS", 0.0)
    with WorkerPool(1, timeout=0.2) as pool:
        assert [row.status for row in pool.map(["C", "CCN"])] == [Status.ok, Status.timeout]
