"""Jobs that are killed, interrupted or run out of disk: what is there is whole, and the same job finishes it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scoring_tools import BAD, contents, molecules, run_job, times_of, write_smi
from tiny import tiny_checkpoint

from molcmim import MolCMIM
from molcmim.scoring.durable import remove_leftovers
from molcmim.scoring.manifest import JobOptions

FAULTS = Path(__file__).with_name("scoring_faults.py")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("kill") / "tiny")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


def kill_and_finish(
    model: MolCMIM, checkpoint: Path, tmp_path: Path, n_rows: int, shard_rows: int, **spec: Any
) -> list[dict[str, Any]]:
    texts = molecules(n_rows)
    texts[3::97] = [BAD[i % len(BAD)] for i in range(len(texts[3::97]))]
    source = write_smi(tmp_path / "in.smi", texts)
    spec = {"workers": 0, "policy": "canonical"} | spec
    run_job(model, source, tmp_path / "reference", JobOptions(policy=spec["policy"]), shard_rows)
    names = {"input": source, "checkpoint": checkpoint, "folder": tmp_path / "out"}
    spec |= {name: str(path) for name, path in names.items()}
    spec |= {"shard_rows": shard_rows, "reference": contents(tmp_path / "reference")}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    command = [sys.executable, str(FAULTS), str(tmp_path / "spec.json")]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    results: list[dict[str, Any]] = json.loads(done.stdout)
    for result in results:
        assert result["whole"], f"a file that isn't hidden is not what it should be: {result}"
        assert result["finished"] == result["shards"], f"a file is taken for a shard and isn't one: {result}"
        assert (result["code"], result["same"]) == (0, True), f"the second run's files differ: {result}\n{done.stderr}"
    return results


def test_killed_before_and_after_every_sync_and_rename(model: MolCMIM, checkpoint: Path, tmp_path: Path) -> None:
    """The manifest and each of two shards sync the file, rename it and sync the folder."""
    results = kill_and_finish(model, checkpoint, tmp_path, 200, 100, calls=True)
    assert len(results) == 2 * 3 * 3
    assert {result["shards"] for result in results} == {0, 1, 2}
    assert any(result["hidden"] for result in results), "some were killed while a temporary file was there"


def test_killed_at_several_moments(model: MolCMIM, checkpoint: Path, tmp_path: Path) -> None:
    moments = [i / 6 for i in range(6)]
    results = kill_and_finish(model, checkpoint, tmp_path, 3000, 500, workers=1, moments=moments)
    assert len(results) == 6


@pytest.mark.slow
@pytest.mark.skipif("MOLCMIM_LONG" not in os.environ, reason="takes some minutes: set MOLCMIM_LONG=1")
def test_killed_at_20_moments_of_200_000_rows(model: MolCMIM, checkpoint: Path, tmp_path: Path) -> None:
    moments = [(i + 0.5) / 20 for i in range(20)]
    results = kill_and_finish(model, checkpoint, tmp_path, 200_000, 10_000, policy="none", moments=moments)
    assert len(results) == 20
    assert len({result["shards"] for result in results}) >= 5, "the moments should be spread over the job"


def test_temporary_files_of_dead_processes_go(model: MolCMIM, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    source = write_smi(tmp_path / "in.smi", molecules(25))
    run_job(model, source, folder, shard_rows=10)
    reference = contents(folder)
    whole = (folder / "part-00001.parquet").read_bytes()
    (folder / "part-00001.parquet").unlink()
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        dead.wait()
    alive = os.getppid()
    names = [f".part-00001.parquet.{dead.pid}.part", f".part-00001.parquet.{os.getpid()}.part"]
    kept = [f".part-00001.parquet.{alive}.part", f".part-99999.parquet.{dead.pid}.part", ".part-00001.parquet.x.part"]
    for name in [*names, *kept]:  # complete ones even: never taken for a result
        (folder / name).write_bytes(whole)
    assert remove_leftovers(folder, []) == []
    _, summary = run_job(model, source, folder, shard_rows=10)
    assert summary.n_new == 1
    assert {name: digest for name, digest in contents(folder).items() if name not in kept} == reference
    assert {name for name in kept if (folder / name).exists()} == set(kept)


# ---------------------------------------------------------------------------------------------- Ctrl-C


def start(checkpoint: Path, source: Path, folder: Path, root: Path, shard_rows: int) -> subprocess.Popen[str]:
    """The program, without workers."""
    command = [sys.executable, "-m", "molcmim", "embed", str(source), "-o", str(folder), "-m", str(checkpoint)]
    return subprocess.Popen(
        [*command, "--workers", "0", "--shard-rows", str(shard_rows)],
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def wait_for(folder: Path, pattern: str, process: subprocess.Popen[str], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not list(folder.glob(pattern)) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    assert list(folder.glob(pattern)), f"{pattern} should be there by now"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_shard_in_hand(
    model: MolCMIM, checkpoint: Path, tmp_path: Path, root: Path, number: signal.Signals
) -> None:
    source, folder = write_smi(tmp_path / "in.smi", molecules(60_000)), tmp_path / "out"
    with start(checkpoint, source, folder, root, 3000) as process:
        wait_for(folder, "part-00000.parquet", process)
        process.send_signal(number)
        out, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert "stopping when the shard in hand is finished; once more to stop at once" in err
    n_shards = len(list(folder.glob("part-*.parquet")))
    assert 1 <= n_shards < 20
    assert f"interrupted; {20 - n_shards} shards are left: the same command goes on from here" in err
    assert f"{n_shards * 3000:,} rows in {n_shards} of 20 shards" in out
    assert not list(folder.glob(".*")), "no temporary file is left"


def test_a_second_ctrl_c_stops_at_once(checkpoint: Path, tmp_path: Path, root: Path) -> None:
    source, folder = write_smi(tmp_path / "in.smi", molecules(200_000)), tmp_path / "out"
    with start(checkpoint, source, folder, root, 200_000) as process:
        wait_for(folder, ".part-*", process)
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)  # two signals at once count as one
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=240)
    assert process.returncode == 130, err
    assert list(contents(folder)) == ["manifest.json"]


# ---------------------------------------------------------------------------------------------- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if done.returncode:
        pytest.skip(f"can't mount a small file system: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk(model: MolCMIM, tmp_path: Path, small_disk: Path) -> None:
    source = write_smi(tmp_path / "in.smi", molecules(3000, 3000))
    run_job(model, source, tmp_path / "reference", shard_rows=500)
    with pytest.raises(OSError, match="No space left on device"):
        run_job(model, source, small_disk / "out", shard_rows=500)
    reference, there = contents(tmp_path / "reference"), contents(small_disk / "out")
    assert there == {name: reference[name] for name in there}, "what is there is whole, and nothing else is"
    assert 2 <= len(there) < len(reference)
    subprocess.run(["mount", "-o", "remount,size=20m", str(small_disk)], check=True)
    _, summary = run_job(model, source, small_disk / "out", shard_rows=500)
    assert summary.n_new == len(reference) - len(there)
    assert contents(small_disk / "out") == reference


def test_a_write_that_fails(model: MolCMIM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a full disk, where none can be made: the error comes out of the writer's thread."""
    import molcmim.writers

    source, folder = write_smi(tmp_path / "in.smi", molecules(300)), tmp_path / "out"
    append, n = molcmim.writers.ParquetWriter.append, [0]

    def failing(self: Any, *args: Any) -> None:
        n[0] += 1
        if n[0] == 3:
            raise OSError(28, "No space left on device")
        append(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(molcmim.writers.ParquetWriter, "append", failing)
        with pytest.raises(OSError, match="No space left on device"):
            run_job(model, source, folder, shard_rows=100)
    assert list(contents(folder)) == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]
    before = times_of(folder)
    _, summary = run_job(model, source, folder, shard_rows=100)
    assert (summary.n_new, summary.n_finished) == (1, 3)
    assert before.items() <= times_of(folder).items()


def test_a_read_only_folder(model: MolCMIM, tmp_path: Path, small_disk: Path) -> None:
    """Read-only as a file system, which holds for root as well."""
    source, folder = write_smi(tmp_path / "in.smi", molecules(300)), small_disk / "out"
    run_job(model, source, folder, shard_rows=100, rank=0, world=2)
    before = times_of(folder)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(OSError, match=r"Read-only file system.*part-00001\.parquet"):
        run_job(model, source, folder, shard_rows=100)
    with pytest.raises(OSError, match="Read-only file system"):
        run_job(model, source, small_disk / "new", shard_rows=100)
    assert times_of(folder) == before
    assert run_job(model, source, folder, shard_rows=100, rank=0, world=2)[1].n_new == 0, "reading is enough"
