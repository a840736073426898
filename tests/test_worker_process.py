"""Worker processes: how they start and end, and where they can be used."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from worker_tools import REPOSITORY, children, linux, posix, script, wait_for

from molcmim.chem import Prepared, Status, WorkerPool, prepare_many

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
