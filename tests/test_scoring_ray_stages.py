"""The stages of the Ray engine without Ray: the plain engine's bytes, errors as reports; room on a cluster."""

from __future__ import annotations

import importlib.util
import os
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scoring_tools import BAD, contents, molecules, run_job, write_smi
from tiny import tiny_checkpoint
from typer.testing import CliRunner

from molcmim import MolCMIM
from molcmim.chem import Prepared, Status
from molcmim.cli import app
from molcmim.readers import Chunk
from molcmim.scoring.manifest import JobOptions, Manifest, open_job
from molcmim.scoring.ray_cluster import Places, choose_places
from molcmim.scoring.ray_run import job_of
from molcmim.scoring.ray_stages import ATTEMPTS, EmbedStage, RayJob, Report, failure_of, pack, prepare_shard, unpack
from molcmim.scoring.run import targets
from molcmim.scoring.source import Source, open_source


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("ray_stages") / "tiny")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


def typed_table(n: int) -> pa.Table:
    """Columns of many types, with nulls."""
    texts = molecules(n)
    texts[3:n:11] = [BAD[i % len(BAD)] for i in range(len(texts[3:n:11]))]
    some = [None if i % 7 == 0 else i for i in range(n)]
    return pa.table(
        {
            "id": pa.array(range(n), pa.int32()),
            "smiles": pa.array(texts),
            "whole": pa.array(some, pa.int64()),
            "half": pa.array([None if i is None else i / 2 for i in some], pa.float64()),
            "word": pa.array([f"w{i % 5}" for i in range(n)]).dictionary_encode(),
            "when": pa.array([datetime(2026, 1, 1 + i % 28, tzinfo=UTC) for i in range(n)], pa.timestamp("us", "UTC")),
            "list": pa.array([None if i is None else [i, i + 1] for i in some], pa.list_(pa.int16())),
            "raw": pa.array([bytes([i % 256]) for i in range(n)]),
            "flag": pa.array([i if i is None else i % 2 == 0 for i in some], pa.bool_()),
            "nothing": pa.nulls(n),
            "record": pa.array([{"a": i, "b": str(i)} for i in range(n)]),
        }
    )


def staged(checkpoint: Path, source: Source, manifest: Manifest, folder: Path) -> list[Report]:
    """What Ray does with all shards: one stage, then the other."""
    job = job_of(checkpoint, source, manifest, folder, 1)
    stage = EmbedStage(job)
    numbers = pa.table({"shard": list(range(len(manifest.shards)))})
    rows = [stage(prepare_shard(numbers.slice(i, 1), job))["report"][0].as_py() for i in range(numbers.num_rows)]
    return [Report.from_json(row) for row in rows]


def test_same_bytes(model: MolCMIM, checkpoint: Path, tmp_path: Path) -> None:
    pq.write_table(typed_table(250), tmp_path / "typed.parquet", row_group_size=70)
    texts = [*BAD, *molecules(120)]
    (tmp_path / "text.csv").write_text("id,note,smiles\n" + "".join(f'{i},"n,{i}",{t}\n' for i, t in enumerate(texts)))
    write_smi(tmp_path / "empty.smi", [])
    for name, options in [
        ("typed.parquet", JobOptions()),
        ("typed.parquet", JobOptions(dtype="int8", exact=True, policy="none")),
        ("text.csv", JobOptions(kind="latent", dtype="float16", policy="parent")),
        ("empty.smi", JobOptions()),
    ]:
        plain, ray = tmp_path / "plain" / name / options.dtype, tmp_path / "ray" / name / options.dtype
        for folder in (plain, ray):
            folder.parent.mkdir(parents=True, exist_ok=True)
        _, expected = run_job(model, tmp_path / name, plain, options, shard_rows=90)
        with open_source(tmp_path / name) as source:
            manifest = open_job(ray, model, source, options, 90, {})
            reports = staged(checkpoint, source, manifest, ray)
        assert contents(ray) == contents(plain), name
        assert [report.shard for report in reports] == list(range(len(manifest.shards)))
        assert sum((report.summary().statuses for report in reports), Counter[str]()) == expected.statuses
        assert sum(report.n_embedded for report in reports) == expected.n_embedded


def test_sdf_and_surplus_fields(model: MolCMIM, checkpoint: Path, tmp_path: Path) -> None:
    from rdkit import Chem

    blocks = [Chem.MolToMolBlock(Chem.MolFromSmiles(text)) + "$$$$\n" for text in ("OCC", "CCN", "CO")]
    (tmp_path / "in.sdf").write_text("broken\n\n\n" + "nonsense\nM  END\n$$$$\n" + "".join(blocks))
    (tmp_path / "in.csv").write_text("smiles,x\nCCO,1,2\nCCN,2\nCCC,1,2,3\n")
    for name, surplus in [("in.sdf", [0, 0]), ("in.csv", [1, 1])]:
        _, expected = run_job(model, tmp_path / name, tmp_path / f"plain-{name}", shard_rows=2)
        with open_source(tmp_path / name) as source:
            manifest = open_job(tmp_path / f"ray-{name}", model, source, JobOptions(), 2, {})
            reports = staged(checkpoint, source, manifest, tmp_path / f"ray-{name}")
        assert contents(tmp_path / f"ray-{name}") == contents(tmp_path / f"plain-{name}")
        assert [report.n_surplus for report in reports] == surplus
        assert sum(surplus) == expected.n_surplus


def test_chunks_survive_packing() -> None:
    extra = pa.array([1, None, 3], pa.uint8())[1:]
    chunk = Chunk(["C", "x"], [None, "b"], [["", None], extra])
    prepared = [Prepared("C", Status.ok), Prepared(None, Status.parse_error)]
    got, rows = unpack(pack(chunk, prepared))
    assert (got.smiles, got.id, rows) == (chunk.smiles, chunk.id, prepared)
    assert [column.to_pylist() for column in got.extra] == [["", None], [None, 3]]
    assert [column.type for column in got.extra] == [pa.string(), pa.uint8()]


# ---------------------------------------------------------------------------------------------- errors, stopping


def test_errors_are_reports(model: MolCMIM, checkpoint: Path, tmp_path: Path) -> None:
    path, folder = write_smi(tmp_path / "in.smi", molecules(250)), tmp_path / "out"
    with open_source(path) as source:
        manifest = open_job(folder, model, source, JobOptions(), 100, {})
        path.write_text("\n".join(path.read_text().split("\n")[:150]))
        reports = staged(checkpoint, source, manifest, folder)
        assert [report.failure is None for report in reports] == [True, False, False]
        error = reports[1].error()
        assert isinstance(error, ValueError) and "expected 100 rows from row 100 on, got 50 (on " in str(error)
        assert "Traceback" in error.__notes__[0]
        assert sorted(contents(folder)) == ["manifest.json", "part-00000.parquet"]
        (gone,) = staged(tmp_path / "gone", source, manifest, folder)[:1]
        assert "no checkpoint" in str(gone.error()) and isinstance(gone.error(), ValueError)
        other = tiny_checkpoint(tmp_path / "other", width=64)
        (changed,) = staged(other, source, manifest, folder)[:1]
        assert "the manifest.json of the output folder says" in str(changed.error())
        (nowhere,) = staged(checkpoint, source, manifest, tmp_path / "nowhere")[:1]
        assert isinstance(nowhere.error(), OSError) and "nowhere" in str(nowhere.error())


def test_failures_keep_their_kind() -> None:
    for error, kind, text in [
        (OSError(28, "No space left on device"), OSError, "[Errno 28] No space left on device (on "),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "bad"), ValueError, "'utf-8' codec can't decode"),
        (KeyError("x"), RuntimeError, "KeyError: 'x' (on "),
        (MemoryError(), RuntimeError, "MemoryError (on "),
    ]:
        again = Report.from_json(Report(3, failure=failure_of(error)).to_json()).error()
        assert type(again) is kind and str(again).startswith(text)


def test_nothing_is_begun_after_a_request_to_stop(model: MolCMIM, checkpoint: Path, tmp_path: Path) -> None:
    path, folder = write_smi(tmp_path / "in.smi", molecules(20)), tmp_path / "out"
    with open_source(path) as source:
        manifest = open_job(folder, model, source, JobOptions(), 10, {})
        job: RayJob = job_of(checkpoint, source, manifest, folder, 1)
        prepared = prepare_shard(pa.table({"shard": [0]}), job)
        job.stop_file.touch()
        late = prepare_shard(pa.table({"shard": [1]}), job)
        stage = EmbedStage(job)
        for rows in (prepared, late):
            assert Report.from_json(stage(rows)["report"][0].as_py()).stopped
        job.stop_file.unlink()
    assert list(contents(folder)) == ["manifest.json"]


def test_a_shard_at_which_processes_are_lost_is_given_up(model: MolCMIM, checkpoint: Path, tmp_path: Path) -> None:
    path, folder = write_smi(tmp_path / "in.smi", molecules(10)), tmp_path / "out"
    with open_source(path) as source:
        manifest = open_job(folder, model, source, JobOptions(), 10, {})
        for name in ("part-00000.parquet", "part-00000.parquet.chemistry"):
            for pid in range(ATTEMPTS - 1):
                (folder / f".{name}.{pid}.part").touch()
            (folder / f".part-00001.parquet.{pid}.part").touch()
            (report,) = staged(checkpoint, source, manifest, folder)
            assert report.failure is None
            (folder / f".{name}.99.part").touch()
            (report,) = staged(checkpoint, source, manifest, folder)
            assert f"{name}: 5 processes were lost while they made it" in str(report.error())
            for left in folder.glob(".*"):
                left.unlink()


def test_paths_of_a_job_are_absolute(
    model: MolCMIM, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_smi(tmp_path / "in.smi", ["CCO"])
    monkeypatch.chdir(tmp_path)
    with open_source("in.smi") as source:
        manifest = open_job(Path("out"), model, source, JobOptions(), 10, {})
        job = job_of(os.path.relpath(checkpoint), source, manifest, Path("out").absolute(), 1)
        assert (job.source.paths, source.paths) == ([tmp_path / "in.smi"], [Path("in.smi")])
        assert job.checkpoint == str(checkpoint)
        assert job.stop_file.parent == tmp_path / "out"
        assert job_of("molcmim-tiny", source, manifest, tmp_path, 1).checkpoint == "molcmim-tiny"
        assert job_of(None, source, manifest, tmp_path, 1).checkpoint is None
    assert targets(manifest, [0]) == ["manifest.json", "part-00000.parquet"]


# ---------------------------------------------------------------------------------------------- room, usage


@pytest.mark.parametrize(
    ("nodes", "device", "n_shards", "actors", "threads", "expected"),
    [
        ([{"CPU": 2.0}], "cpu", 9, None, 1, Places(1, 1, 0, 1)),
        ([{"CPU": 16.0}], "cpu", 99, None, 1, Places(12, 1, 0, 4)),
        ([{"CPU": 16.0}], "cpu", 5, None, 1, Places(5, 1, 0, 11)),
        ([{"CPU": 16.0}], "cpu", 99, 15, 1, Places(15, 1, 0, 1)),
        ([{"CPU": 3.0}, {"CPU": 3.0}, {}], "cpu", 99, None, 2, Places(2, 2, 0, 2)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 64.0}], "cuda", 99, None, 1, Places(2, 1, 1, 70)),
        ([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 8.0, "GPU": 1.0}], "cuda", 99, None, 4, Places(3, 4, 1, 4)),
    ],
)
def test_models_for_a_cluster(
    nodes: Any, device: str, n_shards: int, actors: int | None, threads: int, expected: Places
) -> None:
    assert choose_places(nodes, device, n_shards, actors, threads) == expected


def test_no_room_for_a_model() -> None:
    for nodes, device, actors, threads, text in [
        ([{"CPU": 1.0}], "cpu", None, 1, "a cluster of 1 nodes, 1 CPUs, 0 GPUs; it takes 1 CPUs for each model and"),
        ([{"CPU": 8.0}], "cuda", None, 1, "device cuda: expected room for a model"),
        ([{"CPU": 4.0}], "cpu", 4, 1, "actors: expected at most 3, got 4"),
        ([{"CPU": 4.0}, {"CPU": 4.0}], "cpu", None, 5, "expected room for a model"),
        ([{"CPU": 4.0}], "cpu", 0, 1, "expected at least 1"),
    ]:
        with pytest.raises(ValueError, match=text):
            choose_places(nodes, device, 9, actors, threads)


def test_usage(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_smi(tmp_path / "in.smi", ["CCO"])
    start = ["embed", str(tmp_path / "in.smi"), "-m", str(checkpoint), "-o"]
    out = str(tmp_path / "out")
    for line, text in [
        ([str(tmp_path / "x.parquet"), "--engine", "ray"], "only if the output is a folder"),
        ([out, "--engine", "ray", "--rank", "0", "--world", "2"], "only with --engine plain"),
        ([out, "--engine", "ray", "--workers", "2"], "only with --engine plain"),
        ([out, "--engine", "ray", "--device", "cuda:1"], "expected cpu or cuda"),
        ([out, "--actors", "2"], "only with --engine ray"),
        ([out, "--threads", "2"], "only with --engine ray"),
    ]:
        result = CliRunner().invoke(app, [*start, *line])
        assert result.exit_code == 2 and text in " ".join(result.stderr.replace("│", " ").split()), line
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else found(name, *rest))
    result = CliRunner().invoke(app, [*start, out, "--engine", "ray"])
    assert result.exit_code == 1
    assert result.stderr == "error: engine ray: needs the package ray: pip install 'molcmim[ray]'\n"
    assert sorted(os.listdir(tmp_path)) == ["in.smi"]
