"""The Ray engine on a real cluster of two nodes: the plain engine's bytes, also when processes and a node are lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from ray_tools import CHEMISTRY, MODEL, add_node, processes, ray_cluster
from scoring_tools import BAD, contents, molecules, run_job, times_of, write_smi
from tiny import tiny_checkpoint
from typer.testing import CliRunner
from worker_tools import wait_for

pytest.importorskip("ray")

from molcmim import MolCMIM
from molcmim.cli import app
from molcmim.scoring import ray_cluster as cluster_module
from molcmim.scoring import ray_run
from molcmim.scoring.manifest import JobOptions, ManifestError, open_job
from molcmim.scoring.ray_cluster import Places
from molcmim.scoring.ray_run import run_ray
from molcmim.scoring.run import RunSummary
from molcmim.scoring.source import open_source

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")]

DEADLY = "CCCCCCCCCCCCCCCCCCCCCCCN"  #: ends the process that parses it, here
SHARD_ROWS = 60
SECONDS = 600  #: patience with a busy machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster_module, "NO_PROGRESS_SECONDS", SECONDS)  # rather than a day
        patch.setenv("MOLCMIM_FAULTS", f'{{"{DEADLY}": "exit"}}')  # for the cluster's processes, and for ours
        with ray_cluster(2) as cluster:
            yield cluster


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("ray") / "tiny")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = molecules(8 * SHARD_ROWS - 7)
    texts[5::37] = [(*BAD, DEADLY)[i % 9] for i in range(len(texts[5::37]))]
    return write_smi(tmp_path_factory.mktemp("ray_input") / "in.smi", texts)


@pytest.fixture(scope="module")
def plain(cluster: Any, model: MolCMIM, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Folder and summary of the plain engine's run."""
    folder = tmp_path_factory.mktemp("plain") / "out"
    _, summary = run_job(model, source, folder, shard_rows=SHARD_ROWS, workers=1)
    return folder, summary


def ray_job(
    model: MolCMIM,
    checkpoint: Path,
    inputs: Path,
    folder: Path,
    say: Callable[[str], object] = lambda text: None,
    before: Callable[[], object] = lambda: None,
    actors: int | None = None,
) -> RunSummary:
    """What `molcmim embed INPUTS -o FOLDER --engine ray` does; `before` is called when the plan is made."""
    with open_source(inputs) as source:
        manifest = open_job(folder, model, source, JobOptions(), SHARD_ROWS, {})
        before()
        return run_ray(checkpoint, source, manifest, folder, actors, show_progress=False, say=say)


@contextmanager
def meanwhile(action: Callable[[], object]) -> Iterator[None]:
    """Do something in another thread while the block runs; what goes wrong in it is raised at the end."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join()
    if errors:
        raise errors[0]


def kill_one(cluster: Any, title: str) -> None:
    """SIGKILL for a process of this title, as soon as there is one."""
    nodes = cluster.list_all_nodes()
    assert wait_for(lambda: bool(processes(nodes, title)), SECONDS), title
    os.kill(processes(nodes, title)[0], signal.SIGKILL)


def test_same_bytes_and_summary(model: MolCMIM, checkpoint: Path, source: Path, plain: Any, tmp_path: Path) -> None:
    folder, expected = plain
    got = ray_job(model, checkpoint, source, tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)
    assert got.statuses == expected.statuses and got.statuses["crash"] > 0
    for name in ("n_rows", "n_new_rows", "n_embedded", "n_shards", "n_finished", "n_new", "n_surplus", "interrupted"):
        assert getattr(got, name) == getattr(expected, name), name
    assert got.times.model > 0 and got.chemistry_seconds > 0


def test_lost_processes(
    cluster: Any, model: MolCMIM, checkpoint: Path, source: Path, plain: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "out"

    def kill() -> None:
        kill_one(cluster, CHEMISTRY)
        assert wait_for(lambda: bool(list(folder.glob("part-*"))), SECONDS)
        kill_one(cluster, MODEL)

    with meanwhile(kill):
        summary = ray_job(model, checkpoint, source, folder)
    assert contents(folder) == contents(plain[0]), "the same files, and no others"
    assert summary.complete and summary.statuses == plain[1].statuses


def test_a_lost_node(cluster: Any, model: MolCMIM, checkpoint: Path, source: Path, plain: Any, tmp_path: Path) -> None:
    folder, node = tmp_path / "out", add_node(cluster, 1)

    def lose() -> None:
        at_work = lambda: bool(processes([node], "ray::Map")) and any(folder.glob("part-*"))  # noqa: E731
        assert wait_for(at_work, SECONDS), "a process on that node, and a shard"
        cluster.remove_node(node, allow_graceful=False)
        assert len(list(folder.glob("part-*"))) < 8, "not the end yet"

    with meanwhile(lose):
        summary = ray_job(model, checkpoint, source, folder, actors=2)
    assert contents(folder) == contents(plain[0])
    assert summary.complete


def test_a_lost_node_that_still_counted(
    model: MolCMIM, checkpoint: Path, source: Path, plain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planned for three CPUs where there are two, which the models take: the chemistry goes on nevertheless."""
    monkeypatch.setattr(ray_run, "choose_places", lambda *a: Places(models=2, cpus=1, gpus=0, tasks=1))
    assert ray_job(model, checkpoint, source, tmp_path / "out").complete
    assert contents(tmp_path / "out") == contents(plain[0])


def test_resumed(model: MolCMIM, checkpoint: Path, source: Path, plain: Any, tmp_path: Path) -> None:
    folder, said = tmp_path / "out", []
    folder.mkdir()
    for path in plain[0].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    before = times_of(folder)
    (folder / "part-00002.parquet").unlink()
    (folder / "part-00003.parquet").write_bytes(b"PAR1")
    (folder / ".part-00002.parquet.1.part").touch()  # of a process on another machine, for all we know
    summary = ray_job(model, checkpoint, source, folder, said.append)
    assert contents(folder) == contents(plain[0])
    assert {name for name, value in times_of(folder).items() if before[name] != value} == {
        "part-00002.parquet",
        "part-00003.parquet",
    }
    assert (summary.n_new, summary.n_finished, summary.statuses) == (2, 8, plain[1].statuses)
    again = "part-00003.parquet is damaged or of another run: it is made again"
    assert said == [again, "6 of 8 shards are finished already"]
    with open_source(source) as opened, pytest.raises(ManifestError, match="policy: the manifest"):
        open_job(folder, model, opened, JobOptions(policy="parent"), None, {})


def test_an_input_that_shrinks(
    cluster: Any, model: MolCMIM, checkpoint: Path, source: Path, plain: Any, tmp_path: Path
) -> None:
    path, folder = tmp_path / "in.smi", tmp_path / "out"
    path.write_text(source.read_text())

    def shrink() -> None:
        path.write_text("\n".join(path.read_text().split("\n")[:150]))

    with pytest.raises(ValueError, match=r"expected \d+ rows from row \d+ on, got|expected a row"):
        ray_job(model, checkpoint, path, folder, before=shrink)
    reference, there = contents(plain[0]), contents(folder)
    del there["manifest.json"]
    assert there == {name: reference[name] for name in there}, "what is there is whole, and nothing is hidden"
    assert set(there) <= {"part-00000.parquet", "part-00001.parquet"}


def run_program(cluster: Any, root: Path, *arguments: object) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "molcmim", "embed", *map(str, arguments), "--engine", "ray", "--device", "cpu"]
    environment = os.environ | {"RAY_ADDRESS": cluster.address, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(line, cwd=root, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_program(cluster: Any, checkpoint: Path, source: Path, tmp_path: Path, root: Path) -> None:
    """Interrupted, gone on with, and with a checkpoint that isn't there any more."""
    folder = tmp_path / "out"
    job = (source, "-o", folder, "-m", checkpoint, "--shard-rows", SHARD_ROWS)
    with run_program(cluster, root, *job) as process:
        assert wait_for(lambda: bool(list(folder.glob("part-*"))) or process.poll() is not None, SECONDS)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    n_shards = len(list(folder.glob("part-*")))
    assert process.returncode == 130, out + err
    assert err.strip().splitlines() == [
        "stopping when the shards in hand are finished; once more to stop at once",
        f"interrupted; {8 - n_shards} shards are left: the same command goes on from here",
    ]
    assert not list(folder.glob(".*"))
    merged = ("--merge", tmp_path / "all.parquet", "--fail-on", "crash>0")
    with run_program(cluster, root, *job, *merged) as process:
        out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 3, out + err
    assert err.splitlines()[0] == f"{n_shards} of 8 shards are finished already"
    assert err.splitlines()[1].startswith("--fail-on crash>0: ") and len(err.splitlines()) == 2
    assert f"473 rows in 8 of 8 shards -> {folder}" in out and f"473 rows -> {tmp_path / 'all.parquet'}" in out
    line = [*map(str, job[:2]), str(tmp_path / "plain"), *map(str, job[3:]), "--workers", "1", "--device", "cpu"]
    assert CliRunner().invoke(app, ["embed", *line]).exit_code == 0
    assert contents(folder) == contents(tmp_path / "plain")


def test_a_cluster_that_is_not_there(checkpoint: Path, source: Path, tmp_path: Path, root: Path) -> None:
    class Nowhere:
        address = "127.0.0.1:1"

    with run_program(Nowhere(), root, source, "-o", tmp_path / "out", "-m", checkpoint) as process:
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1, err
    assert err.startswith("error: Ray can't be reached at 127.0.0.1:1 (RAY_ADDRESS): ConnectionRefusedError: ")
    assert len(err.splitlines()) == 1
