"""`molcmim embed` into shards, and from the newer inputs: options, exit codes, what is printed."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from scoring_tools import BAD, contents, facts_of, molecules, table_of, write_smi
from tiny import tiny_checkpoint
from typer.testing import CliRunner, Result

from molcmim import MolCMIM
from molcmim.cli import app
from molcmim.cli_embed import Threshold, choose_part, is_folder, parse_threshold, share_of


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("scoring_cli") / "tiny")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    texts = molecules(100)
    texts[5:97:13] = BAD
    return write_smi(tmp_path / "in.smi", texts)


def embed(checkpoint: Path, *arguments: object, code: int = 0, workers: int = 0) -> Result:
    line = ["embed", *arguments, "-m", checkpoint, "--workers", workers]
    result = CliRunner().invoke(app, [str(argument) for argument in line])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    if code == 1:
        assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
    return result


def test_shards_resumed_and_merged(checkpoint: Path, source: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    result = embed(checkpoint, source, "-o", f"{folder}/", "--shard-rows", 40, workers=1)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert result.stdout.startswith(f"100 rows in 3 of 3 shards -> {folder}; 100 of them now, in ")
    assert lines[1] == ["ok", "92", "92.0000", "%"]
    assert ["parse_error", "3", "3.0000", "%"] in lines
    assert [line[0] for line in lines[-5:]] == ["through", "waiting", "model", "writing", "chemistry"]
    before = contents(folder)
    result = embed(checkpoint, source, "-o", folder, "--merge", tmp_path / "all.parquet")
    assert result.stderr == "3 of 3 shards are finished already\n"
    assert result.stdout.startswith(f"100 rows in 3 of 3 shards -> {folder}; 0 of them now")
    assert f"100 rows -> {tmp_path / 'all.parquet'}" in result.stdout
    assert contents(folder) == before
    assert pq.read_table(tmp_path / "all.parquet")["id"].to_pylist() == [f"m{i}" for i in range(100)]
    assert facts_of(tmp_path / "all.parquet")["n_rows"] == "100"


def test_errors_and_usage(checkpoint: Path, source: Path, tmp_path: Path) -> None:
    folder, single = tmp_path / "out", tmp_path / "out.parquet"
    embed(checkpoint, source, "-o", folder, "--shard-rows", 40)
    before = contents(folder)
    error = embed(checkpoint, source, "-o", folder, "--kind", "latent", code=1).stderr
    assert "kind: the manifest.json of the output folder says 'both', but this run has 'latent'" in error
    assert "got standard input or a pipe" in embed(checkpoint, "-", "-o", folder, code=1).stderr
    assert "folder other than that of the input" in embed(checkpoint, source, "-o", tmp_path, code=1).stderr
    assert "no such directory" in embed(checkpoint, source, "-o", tmp_path / "a" / "b", code=1).stderr
    error = embed(checkpoint, source, "-o", folder, "--merge", folder / "x.parquet", code=1).stderr
    assert "outside the folder of shards" in error
    for option in (["--shard-rows", 5], ["--merge", tmp_path / "m.parquet"], ["--rank", 0, "--world", 2]):
        assert "only if the output is a folder" in embed(checkpoint, source, "-o", single, *option, code=2).stderr
    embed(checkpoint, source, "-o", folder, "--rank", 2, "--world", 2, code=2)
    embed(checkpoint, source, "-o", folder, "--rank", 1, code=2)
    embed(checkpoint, source, "-o", folder, "--rank", 0, "--world", 2, "--merge", tmp_path / "m.parquet", code=2)
    embed(checkpoint, source, "-o", folder, "--fail-on", "parse_error", code=2)
    embed(checkpoint, source, "-o", folder, "--fail-on", "nonsense>1%", code=2)
    assert contents(folder) == before
    assert sorted(os.listdir(tmp_path)) == ["in.smi", "out"]


def test_fail_on_is_exit_code_3_with_a_complete_output(checkpoint: Path, source: Path, tmp_path: Path) -> None:
    folder, single = tmp_path / "out", tmp_path / "out.parquet"
    for output in (folder, single):
        result = embed(checkpoint, source, "-o", output, "--fail-on", "parse_error>2.9%", "--fail-on", "bad>8%", code=3)
        assert "--fail-on parse_error>2.9%: 3 % of the rows are parse_error" in result.stderr
        assert "--fail-on bad>8%" not in result.stderr, "8 % are bad, which is not more"
        embed(checkpoint, source, "-o", output, "--fail-on", "parse_error>0.03", "--fail-on", "crash>0")
    assert table_of(folder).num_rows == pq.read_table(single).num_rows == 100
    embed(checkpoint, source, "-o", folder, "--fail-on", "not_ascii>0", code=3)


def test_thresholds() -> None:
    assert parse_threshold("parse_error>1%") == Threshold("parse_error", 0.01, "parse_error>1%")
    assert parse_threshold(" crash > 0 ") == Threshold("crash", 0.0, "crash > 0")
    assert parse_threshold("bad>.25").share == 0.25
    for text in ("ok>1%", "crash>1", "crash>100%", "crash<1%", "crash>-1", "crash>x", ">1%", ""):
        with pytest.raises(typer.BadParameter, match="expected"):
            parse_threshold(text)
    statuses = Counter(ok=90, crash=4, timeout=6)
    shares = [share_of(statuses, parse_threshold(f"{name}>0")) for name in ("crash", "bad", "empty")]
    assert shares == [0.04, 0.1, 0.0]
    assert share_of(Counter(), parse_threshold("bad>0")) == 0.0


def test_what_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "there.parquet").mkdir()
    for name, expected in [
        ("out", True),
        ("out.d/", True),
        ("there.parquet", True),
        ("out.parquet", False),
        ("o.h5", False),
    ]:
        assert is_folder(f"{tmp_path}/{name}") is expected, name


def test_parts_by_option_and_environment(
    checkpoint: Path, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "out"
    assert (
        "part 1 of 2" in embed(checkpoint, source, "-o", folder, "--shard-rows", 30, "--rank", 1, "--world", 2).stdout
    )
    assert sorted(contents(folder)) == ["manifest.json", "part-00001.parquet", "part-00003.parquet"]
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "0")
    for name, value in [("COUNT", "2"), ("MIN", "0"), ("MAX", "1")]:
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", value)
    result = embed(checkpoint, source, "-o", folder)
    assert result.stdout.splitlines()[0] == "part 0 of 2"
    assert "60 rows in 2 of 2 shards" in result.stdout
    assert table_of(folder)["id"].to_pylist() == [f"m{i}" for i in range(100)]
    assert choose_part(None, None) == (0, 2)
    assert choose_part(0, 1) == (0, 1)
    embed(checkpoint, source, "-o", folder, "--merge", tmp_path / "m.parquet", "--rank", 0, "--world", 1)
    embed(checkpoint, source, "-o", tmp_path / "single.parquet")


@pytest.mark.slow
def test_torchrun_makes_the_files_of_one_process(checkpoint: Path, source: Path, tmp_path: Path) -> None:
    job = [
        "-m",
        "molcmim",
        "embed",
        source,
        "-m",
        checkpoint,
        "--shard-rows",
        "30",
        "--workers",
        "1",
        "--device",
        "cpu",
    ]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for name, words in (("two", [*launcher, *job]), ("one", job)):
        line = [sys.executable, *map(str, words), "-o", str(tmp_path / name)]
        done = subprocess.run(line, env=environment, text=True, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert sorted(part for part in done.stdout.splitlines() if part.startswith("part ")) == (
            ["part 0 of 2", "part 1 of 2"] if name == "two" else []
        )
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert len(contents(tmp_path / "two")) == 5


def test_newer_inputs_into_one_file(checkpoint: Path, model: MolCMIM, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("smiles,id,x\nCCO,1,\nCCN,2,b\n")
    (tmp_path / "b.csv.gz").write_bytes(gzip.compress(b"smiles,id,x\nbad,3,c\n"))
    embed(checkpoint, tmp_path / "a.csv", tmp_path / "b.csv.gz", "-o", tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == ["id", "x", "smiles", "canonical_smiles", "status", "embedding"]
    assert table["id"].to_pylist() == ["1", "2", "3"]
    assert table["status"].to_pylist() == ["ok", "ok", "parse_error"]
    np.testing.assert_allclose(table["embedding"][1].as_py(), model.embed(["CCN"])[0], atol=1e-6)
    pq.write_table(pa.table({"smiles": ["CCO"], "n": [7]}), tmp_path / "in.parquet")
    embed(checkpoint, tmp_path / "in.parquet", "-o", tmp_path / "out.npy", "--dtype", "int8")
    assert np.load(tmp_path / "out.npy").dtype == np.int8
    head, row = (tmp_path / "out.csv").read_text().splitlines()
    assert head == "id,n,smiles,canonical_smiles,status,scale"
    assert row.startswith(",7,CCO,CCO,ok,")
    error = embed(checkpoint, tmp_path / "in.parquet", "-o", tmp_path / "in.parquet", code=1).stderr
    assert "would replace the input" in error


def test_sdf_gets_its_smiles(checkpoint: Path, tmp_path: Path) -> None:
    from rdkit import Chem

    blocks = [Chem.MolToMolBlock(Chem.MolFromSmiles(text)) + "$$$$\n" for text in ("OCC", "CCN")]
    (tmp_path / "in.sdf").write_text("broken\n\n\n" + "nonsense\nM  END\n$$$$\n" + "".join(blocks))
    for output, workers in [("out", 1), ("out.parquet", 0)]:
        embed(checkpoint, tmp_path / "in.sdf", "-o", tmp_path / output, workers=workers)
    for table in (table_of(tmp_path / "out"), pq.read_table(tmp_path / "out.parquet")):
        assert table["smiles"].to_pylist() == ["", "CCO", "CCN"]
        assert table["status"].to_pylist() == ["parse_error", "ok", "ok"]
        assert table["canonical_smiles"].to_pylist() == [None, "CCO", "CCN"]


def test_header_options(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("CCO,first\nCCN,second\n")
    embed(checkpoint, tmp_path / "in.csv", "-o", tmp_path / "out.parquet", "--header", "no", "--smiles-column", 1)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["smiles"].to_pylist() == ["CCO", "CCN"]
    assert table["c2"].to_pylist() == ["first", "second"]


def test_the_command_imports_nothing_heavy(root: Path) -> None:
    code = "import sys, molcmim.cli_embed; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert not {"torch", "rdkit", "pyarrow", "numpy", "molcmim.scoring.shard"} & set(done.stdout.split())
