"""The killable worker pool: a crash, a hang or running out of memory costs exactly that row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hostile import HOSTILE

from molcmim import worker_pool
from molcmim.chem import Prepared, Status, WorkerPool, prepare_many
from molcmim.worker_process import Worker

REPOSITORY = Path(__file__).resolve().parent.parent
ROWS = [  # many molecules, every 11th row broken
    f"C{'C' * (i % 17)}({'N' * (i % 5)}{'O' * (i % 3)}C){'=' * (i % 2)}C{'F(' if i % 11 == 0 else ''}"
    for i in range(1500)
]
FAULTS = {"CCO": "exit", "CCN": "hang", "CCF": "memory", "CCS": "segv"}
EXPECTED = {"CCO": Status.crash, "CCN": Status.timeout, "CCF": Status.crash, "CCS": Status.crash}

posix = pytest.mark.skipif(os.name != "posix", reason="signals and process groups as on POSIX")
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


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


def children(parent: int) -> list[int]:
    """Process ids of the living workers of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes()
            fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if b"molcmim.chem_worker" in command and f'"parent": {parent}}}'.encode() in command and fields[0] != "Z":
            found.append(int(entry.name))
    return found


def wait_for(condition, seconds: float = 20.0) -> bool:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_rows_are_a_mix_that_can_show_a_shift(reference: list[Prepared]) -> None:
    assert {row.status for row in reference} == {Status.ok, Status.parse_error}
    assert len({row.canonical_smiles for row in reference}) > 100


# --- equal to the plain way ---


@pytest.mark.parametrize("policy", ["none", "canonical", "parent"])
def test_pool_gives_what_this_process_gives(policy: str) -> None:
    rows = [*ROWS[:300], *(row for row, _ in HOSTILE), "[Na+].CC(=O)[O-]", *ROWS[300:400]]
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


# --- starting and ending ---


def test_a_worker_that_cannot_start_is_an_error_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rdkit").mkdir()
    (tmp_path / "rdkit" / "__init__.py").write_text("raise ImportError('no rdkit in here')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with (
        WorkerPool(2) as pool,
        pytest.raises(RuntimeError, match=r"(?s)could not start.*exit code 1.*ImportError: no rdkit in here"),
    ):
        pool.map(["CCO"] * 1000)
    with pytest.raises(RuntimeError, match="could not start"):
        prepare_many(["CCO"], workers=1)


def test_no_interpreter_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with WorkerPool(1) as pool, pytest.raises(RuntimeError, match="could not start"):
        pool.map(["CCO"])


def test_printing_at_start_up_does_no_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sitecustomize.py").write_text("print('hello from the site'); print('[[\"C\",\"ok\"]]')")
    monkeypatch.syspath_prepend(str(tmp_path))
    with WorkerPool(1) as pool:
        assert pool.map(["OCC"]) == [Prepared("CCO", Status.ok)]


def test_printing_from_inside_the_worker_does_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MOLCMIM_FAULTS", json.dumps({"CCO": "print"}))
    with WorkerPool(1) as pool:
        assert pool.map(["CCO", "OC", "CCO"]) == [Prepared(text, Status.ok) for text in ("CCO", "CO", "CCO")]


@posix
def test_a_reply_cut_off_in_the_middle_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "python"
    fake.write_text("""#!/bin/sh\nprintf '{"ready":true}\\n'; read request; printf '[["CO","ok"]]\\n[["CC'\n""")
    fake.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(fake))
    with WorkerPool(1) as pool:
        assert pool.map(["OC", "CCO", "CCN"])[0] == Prepared("CO", Status.ok)


def test_modules_in_the_current_folder_do_not_get_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "json.py").write_text("raise RuntimeError('wrong json')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with WorkerPool(1) as pool:
        assert pool.map(["OCC"]) == [Prepared("CCO", Status.ok)]


@linux
def test_closing_ends_the_workers_and_twice_is_fine() -> None:
    pool = WorkerPool(2)
    pool.map(["C"])
    unfinished = pool.imap([["C"] * 600] * 50)
    next(unfinished)
    assert len(children(os.getpid())) == 2
    pool.close()
    assert children(os.getpid()) == []
    pool.close()
    with pytest.raises(RuntimeError, match="this WorkerPool is closed"):
        pool.map(["C"])
    with pytest.raises(RuntimeError, match="this WorkerPool is closed"):
        list(unfinished)
    WorkerPool(1).close()  # before it has started
    forgotten = WorkerPool(1)
    forgotten.map(["C"])
    del forgotten
    assert children(os.getpid()) == []


@posix
def test_a_forked_child_leaves_its_parents_workers_alone() -> None:
    code = """
import os
from molcmim.chem import WorkerPool
pool = WorkerPool(1)
print(pool.map(["OCC"])[0].canonical_smiles, flush=True)
child = os.fork()
if child == 0:
    try:
        pool.map(["C"])
    except RuntimeError as error:
        print(error, flush=True)
    pool.close()
    raise SystemExit(7)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
print(pool.map(["C"])[0].status)
"""
    done = script(code)
    assert done.stdout.splitlines() == [
        "CCO",
        "this WorkerPool was made by another process; make one in this process",
        "7",
        "ok",
    ], done.stderr


def test_options_out_of_range_are_refused() -> None:
    for options, message in [
        ({"workers": 0}, "workers: expected at least 1, got 0"),
        ({"timeout": 0}, "timeout: expected a positive number of seconds, got 0"),
        ({"timeout": float("nan")}, "timeout: expected"),
        ({"memory_mb": 0}, "memory_mb: expected None or at least 1, got 0"),
        ({"policy": "best"}, "policy: expected one of"),
        ({"max_chars": 0}, "max_chars: expected"),
    ]:
        with pytest.raises(ValueError, match=message):
            WorkerPool(**{"workers": 1, **options})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="workers: expected None, 0 or more, got -1"):
        prepare_many(["C"], workers=-1)


@linux
def test_workers_import_neither_torch_nor_numpy() -> None:
    with WorkerPool(1) as pool:
        pool.map(["C"])
        (process,) = children(os.getpid())
        maps = Path(f"/proc/{process}/maps").read_text()
    assert "rdkit" in maps
    assert "torch" not in maps
    assert "/numpy/" not in maps


# --- where it runs ---


def script(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code as `python -` does: no file, no __main__ guard."""
    variables = os.environ | {"PYTHONPATH": str(REPOSITORY), **environment}
    return subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, timeout=120, env=variables)


def test_in_a_thread(faults: None, reference: list[Prepared]) -> None:
    rows, expected = with_faults(reference, {100: "CCO"})
    results: list[list[Prepared]] = []
    thread = threading.Thread(target=lambda: results.append(prepare_many(rows, workers=1)))
    thread.start()
    thread.join(60)
    assert results == [expected]


def test_in_a_script_without_a_guard() -> None:
    code = """
from molcmim.chem import prepare_many
rows = ["OCC", "CCO", "é", *["N"] * 97] * 3
print(*(row.status for row in prepare_many(rows, workers=2)))
"""
    done = script(code, MOLCMIM_FAULTS=json.dumps({"CCO": "exit"}))
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ok", "crash", "not_ascii", *["ok"] * 97] * 3
    assert done.stderr == ""


def test_in_a_spawned_child_of_multiprocessing(tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text(
        "from molcmim.chem import prepare_many\n"
        "def work(rows):\n"
        "    return [row.canonical_smiles for row in prepare_many(rows, workers=1)]\n"
    )
    code = """
import multiprocessing, sys
import job
context = multiprocessing.get_context("spawn")
with context.Pool(1) as pool:
    print(pool.map(job.work, [["OCC"] * 300 + ["[Xx]"]])[0][-2:])
"""
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    file = tmp_path / "main.py"
    file.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.splitlines()))
    done = subprocess.run(
        [sys.executable, str(file)],
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert done.stdout == "['CCO', None]\n", done.stderr


@linux
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(ending: signal.Signals) -> None:
    """Also one that hangs inside C when the parent has no chance to clean up: then its alarm ends it."""
    code = """
from molcmim import worker_pool
worker_pool.ALARM_GRACE_SECONDS = 0.5
with worker_pool.WorkerPool(2, timeout=4.0) as pool:
    pool.map(["C"])
    print("ready", flush=True)
    pool.map(["C"] * 100 + ["CCO"])
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "MOLCMIM_FAULTS": json.dumps({"CCO": "hang"})},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert wait_for(lambda: len(children(process.pid)) == 2)
    time.sleep(0.3)  # into the hang
    process.send_signal(ending)
    _, errors = process.communicate(timeout=30)
    if ending is signal.SIGINT:
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert children(process.pid) == []  # gone before the parent ended
    else:
        assert process.returncode == -ending
    assert wait_for(lambda: not children(process.pid))


@posix
def test_the_alarm_of_a_stalled_parent_is_still_a_timeout(faults: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may end itself before its parent comes to it; the row is timed out all the same."""
    monkeypatch.setattr(Worker, "receive", lambda self, patience, closing: self._lines.get())
    monkeypatch.setattr(worker_pool, "ALARM_GRACE_SECONDS", 0.0)
    with WorkerPool(1, timeout=0.2) as pool:
        assert [row.status for row in pool.map(["C", "CCN"])] == [Status.ok, Status.timeout]
