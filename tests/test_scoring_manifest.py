"""The work plan: what it holds, what it refuses (each by name), and that a refusal touches nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import rdkit
import torch
from scoring_tools import contents, molecules, run_job, times_of, write_smi
from tiny import tiny_checkpoint

import molcmim
from molcmim import MolCMIM
from molcmim.scoring import manifest as manifests
from molcmim.scoring.manifest import JobOptions, Manifest, ManifestError, open_job, read_manifest
from molcmim.scoring.shard import embed_shard
from molcmim.scoring.source import open_source


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("manifest") / "tiny")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_smi(tmp_path / "in.smi", molecules(25))


def test_content_of_the_file(checkpoint: Path, model: MolCMIM, source: Path, tmp_path: Path) -> None:
    manifest, _ = run_job(model, source, tmp_path / "out", JobOptions("latent", exact=True), shard_rows=10)
    values = json.loads((tmp_path / "out" / "manifest.json").read_text())
    settings = values["settings"]
    assert settings["model_id"] == model.model_id
    assert settings["weights_sha256"] == hashlib.sha256((checkpoint / "model.safetensors").read_bytes()).hexdigest()
    assert (settings["kind"], settings["policy"], settings["dtype"]) == ("latent", "canonical", "float32")
    assert (settings["exact"], settings["batch_size"], settings["compute_dtype"]) == (True, None, "float32")
    assert settings["version"] == molcmim.__version__
    assert (settings["rdkit_version"], settings["torch_version"]) == (rdkit.__version__, torch.__version__)
    assert settings["width"] == 24
    data = source.read_bytes()
    (file,) = values["input"]
    assert file["name"].endswith("in.smi")
    assert (file["size"], file["sha256"], file["n_rows"]) == (len(data), hashlib.sha256(data).hexdigest(), 25)
    assert (values["n_rows"], values["shard_rows"]) == (25, 10)
    offsets = [0, *(sum(len(line) for line in data.splitlines(True)[:n]) for n in (10, 20))]
    assert values["shards"] == [[0, 10, 0, 0, offsets[0]], [10, 10, 0, 10, offsets[1]], [20, 5, 0, 20, offsets[2]]]
    assert values["fingerprint"] == manifest.fingerprint
    assert read_manifest(tmp_path / "out") == manifest


def test_the_manifest_comes_before_any_shard(
    model: MolCMIM, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("molcmim.scoring.run.embed_shard", no)
    with pytest.raises(OSError, match="No space left"):
        run_job(model, source, tmp_path / "out")
    assert list(contents(tmp_path / "out")) == ["manifest.json"]


def refuse(model: MolCMIM, inputs: Any, folder: Path, match: str, *args: Any, **options: Any) -> None:
    before = times_of(folder)
    with pytest.raises(ManifestError, match=match):
        run_job(model, inputs, folder, *args, **options)
    assert times_of(folder) == before


def test_another_job_is_refused_by_the_name_of_what_differs(
    model: MolCMIM, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    run_job(model, source, folder, JobOptions(), shard_rows=10)
    both = r"says '?{}'?, but this run has '?{}'?".format
    for name, value, old in [
        ("kind", "latent", "both"),
        ("policy", "parent", "canonical"),
        ("dtype", "float16", "float32"),
        ("exact", True, False),
        ("batch_size", 64, 256),
    ]:
        match = f"^{name}: .*{both(old, value)}"
        refuse(model, source, folder, match, JobOptions()._replace(**{name: value}), shard_rows=10)
    refuse(model, source, folder, f"^shard_rows: .*{both(10, 11)}", shard_rows=11)
    refuse(model, source, folder, "^header: .*'yes'", shard_rows=10, header="yes")
    other = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "other", seed=1), device="cpu")
    refuse(other, source, folder, f"^model_id: .*{both(model.model_id, other.model_id)}", shard_rows=10)
    scales = tiny_checkpoint(tmp_path / "scales", name="tiny")
    config = json.loads((scales / "config.json").read_text())
    config["scales"]["latent"] = 0.125
    (scales / "config.json").write_text(json.dumps(config))
    refuse(MolCMIM.from_pretrained(scales, device="cpu"), source, folder, "^config_sha256: ", shard_rows=10)
    half = MolCMIM.from_pretrained(tmp_path / "scales", device="cpu", dtype="bfloat16")
    refuse(half, source, folder, "^compute_dtype: .*'bfloat16'", shard_rows=10)
    with monkeypatch.context() as patch:
        patch.setattr(rdkit, "__version__", "2030.03.1")
        refuse(model, source, folder, "^rdkit_version: .*'2030.03.1'", shard_rows=10)
    assert run_job(model, source, folder, shard_rows=None)[1].n_new == 0, "and the same job is not refused"


def test_another_input_is_refused(model: MolCMIM, source: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "out", source.read_bytes()
    run_job(model, source, folder, shard_rows=10)
    source.write_bytes(data + b"CCO\n")
    refuse(
        model,
        source,
        folder,
        rf"^size of input file .*in.smi: .*says {len(data)}, .*has {len(data) + 4}",
        shard_rows=10,
    )
    source.write_bytes(data.replace(b"m24", b"m42"))
    refuse(model, source, folder, "^sha256 of input file .*in.smi", shard_rows=10)
    source.write_bytes(data)
    second = write_smi(tmp_path / "second.smi", molecules(3))
    refuse(model, [source, second], folder, "^number of input files: .*says 1, but this run has 2", shard_rows=10)
    moved = source.rename(tmp_path / "moved.smi")
    assert run_job(model, moved, folder, shard_rows=10)[1].n_new == 0, "a file may be moved"


def test_other_columns_are_refused(model: MolCMIM, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("smiles,other,n\nCCO,CCN,1\n")
    run_job(model, tmp_path / "in.csv", tmp_path / "out", shard_rows=10)
    refuse(
        model, tmp_path / "in.csv", tmp_path / "out", "^smiles_column: .*'other'", smiles_column="other", shard_rows=10
    )
    refuse(model, tmp_path / "in.csv", tmp_path / "out", "^id_column: .*'n'", id_column="n", shard_rows=10)


def test_embed_shard_itself_refuses_another_model(model: MolCMIM, source: Path, tmp_path: Path) -> None:
    """Also in runs that don't come through `open_job`, as on other machines."""
    manifest, _ = run_job(model, source, tmp_path / "out", shard_rows=10)
    other = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "other", seed=1, name="tiny"), device="cpu")
    with open_source(source) as opened, pytest.raises(ManifestError, match=r"^model_id: "):
        embed_shard(other, opened, manifest, 0, tmp_path / "out")


def test_a_folder_of_other_things_is_refused(model: MolCMIM, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "part-00000.parquet").write_text("mine")
    refuse(model, source, folder, r"expected an empty folder, or one with a manifest\.json, got part-00000\.parquet")
    (folder / "part-00000.parquet").unlink()
    (folder / ".hidden").write_text("a file system's own")
    run_job(model, source, folder)
    with pytest.raises(NotADirectoryError, match="expected a folder, got the file"):
        run_job(model, source, source)
    with pytest.raises(FileNotFoundError, match="no such directory"):
        run_job(model, source, tmp_path / "a" / "b")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda text: text[:-20], "manifest.json: damaged"),
        (lambda text: "[]", "format_version: expected 1, got None"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 2'), "expected 1, got 2"),
        (lambda text: text.replace('"kind": "both"', '"kind": "latent"'), "fingerprint: expected"),
        (lambda text: text.replace('"shards"', '"pieces"'), "damaged: KeyError: 'shards'"),
        (lambda text: text.replace('"size"', '"length"'), "damaged: TypeError"),
    ],
)
def test_a_damaged_manifest_is_refused(model: MolCMIM, source: Path, tmp_path: Path, change: Any, match: str) -> None:
    run_job(model, source, tmp_path / "out", shard_rows=10)
    path = tmp_path / "out" / "manifest.json"
    path.write_text(change(path.read_text()))
    refuse(model, source, tmp_path / "out", match, shard_rows=10)


def test_a_damaged_input_leaves_no_manifest(model: MolCMIM, tmp_path: Path) -> None:
    (tmp_path / "in.smi.gz").write_bytes(gzip.compress(b"CCO\n" * 1000)[:-20])
    with pytest.raises(ValueError, match=r"in.smi.gz: damaged or incomplete compressed data"):
        run_job(model, tmp_path / "in.smi.gz", tmp_path / "out")
    assert contents(tmp_path / "out") == {}


def test_standard_input_is_refused(model: MolCMIM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="got standard input or a pipe, which can't be read twice"):
        run_job(model, "-", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_rank_that_comes_second_takes_the_plan_of_the_first(
    model: MolCMIM, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both began before there was a manifest; the second must not replace it, and must agree with it."""
    folder = tmp_path / "out"

    def slow(*args: Any, **kwargs: Any) -> Manifest:
        monkeypatch.undo()
        run_job(model, source, folder, JobOptions(kind=first), shard_rows=10)
        written.update(times_of(folder))
        return manifests.make_manifest(*args, **kwargs)

    for first in ("both", "latent"):
        written: dict[str, Any] = {}
        monkeypatch.setattr(manifests, "make_manifest", slow)
        with open_source(source) as opened:
            if first == "both":
                open_job(folder, model, opened, JobOptions(), 10)
            else:
                with pytest.raises(ManifestError, match=r"^kind: "):
                    open_job(folder, model, opened, JobOptions(), 10)
        assert times_of(folder) == written
        folder = tmp_path / "out2"
