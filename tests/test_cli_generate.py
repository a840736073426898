"""`molcmim decode`, `sample`, `neighbours`, `interpolate`: files in and out, printed tables, errors in one line."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from tiny import SMILES, tiny_checkpoint
from typer.testing import CliRunner, Result

from molcmim import MolCMIM, cli_generate, sampling
from molcmim.cli import OneLineErrors
from molcmim.cli_embed import embed
from molcmim.mixture import Mixture
from molcmim.pretrained import save_mixture

ASPIRIN, IBUPROFEN = "CC(=O)Oc1ccccc1C(=O)O", "CC(C)Cc1ccc(C(C)C(=O)O)cc1"
IBUPROFEN_OTHERWISE = "OC(=O)C(C)c1ccc(CC(C)C)cc1"
HEADER = ["smiles", "canonical_smiles", "valid", "status", "seed", "distance", "tanimoto", "repaired"]
LINES = f"{ASPIRIN} aspirin\nnonsense bad\n\n{IBUPROFEN} ibuprofen\n"

app = typer.Typer(cls=OneLineErrors, add_completion=False, pretty_exceptions_enable=False)
for command in (
    embed,
    cli_generate.decode,
    cli_generate.sample,
    cli_generate.neighbours,
    cli_generate.interpolate,
):
    app.command()(command)


def run(*arguments: object, code: int = 0, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("cli_generate") / "tiny")


@pytest.fixture(scope="module")
def around(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A mixture around two molecules of the shipped model."""
    model = MolCMIM.from_pretrained(device="cpu")
    codes = model.embed([ASPIRIN, IBUPROFEN], kind="latent")
    mixture = Mixture(np.array([0.5, 0.5]), codes, np.full(codes.shape, 0.05), {"model_id": model.model_id})
    return mixture.save(tmp_path_factory.mktemp("mixture") / "around.safetensors")


# ---------------------------------------------------------------------------------------------- decode


@pytest.mark.parametrize(
    ("name", "kind", "dtype"),
    [("x.parquet", "latent", "float32"), ("x.parquet", "both", "float16"), ("x.npy", "both", "float32")],
)
def test_decode_what_embed_wrote(tmp_path: Path, name: str, kind: str, dtype: str) -> None:
    (tmp_path / "in.smi").write_text(LINES)
    run("embed", tmp_path / "in.smi", "-o", tmp_path / name, "--kind", kind, "--dtype", dtype, "--workers", 0)
    result = run("decode", tmp_path / name, "-o", tmp_path / "out.csv", "--properties", "rings, heavy")
    rows = read(tmp_path / "out.csv")
    assert list(rows[0]) == ["id", *HEADER, "rings", "heavy"]
    assert [row["id"] for row in rows] == ["aspirin", "bad", "", "ibuprofen"]
    assert [row["seed"] for row in rows] == [ASPIRIN, "nonsense", "", IBUPROFEN]
    assert [row["tanimoto"] for row in rows] == ["1", "", "", "1"]
    assert [row["canonical_smiles"] for row in rows] == [ASPIRIN, "", "", IBUPROFEN]
    assert [row["status"] for row in rows] == ["ok", "no_vector", "no_vector", "ok"]
    assert [row["heavy"] for row in rows] == ["13", "", "", "15"]
    assert "4 rows -> " in result.stdout
    assert "valid 100.0 % of 2 decoded, of them distinct 100.0 %" in result.stdout


def test_decode_vectors_without_facts(tmp_path: Path, checkpoint: Path) -> None:
    z = np.random.default_rng(0).standard_normal((3, 24))
    np.save(tmp_path / "z.npy", z)
    run("decode", tmp_path / "z.npy", "-o", tmp_path / "out.tsv", "-m", checkpoint)
    assert (tmp_path / "out.tsv").read_text().splitlines()[0].split("\t") == HEADER
    pq.write_table(pa.table({"embedding": pa.array(z.tolist(), pa.list_(pa.float64(), 24))}), tmp_path / "z.parquet")
    run("decode", tmp_path / "z.parquet", "-o", tmp_path / "out.parquet", "-m", checkpoint)
    stored = pq.read_table(tmp_path / "out.parquet")
    assert stored.num_rows == 3
    assert stored.schema.metadata[b"molcmim.model"] == b"tiny"
    smiles = MolCMIM.from_pretrained(checkpoint, device="cpu").decode(z)
    assert stored["smiles"].to_pylist() == smiles


def test_decode_refuses_what_it_cannot_decode(tmp_path: Path, checkpoint: Path) -> None:
    def error(name: str) -> str:
        return run("decode", tmp_path / name, "-o", tmp_path / "out.csv", "-m", checkpoint, code=1).stderr

    np.save(tmp_path / "z.npy", np.zeros((3, 24)))
    for facts, message in (
        ({"kind": "informative"}, "expected embeddings of kind latent or both, got informative"),
        ({"kind": "latent", "model_id": "abc", "model": "other"}, "got those of abc (other)"),
        ({"kind": "both"}, "expected vectors of 56 numbers, got shape (3, 24)"),
    ):
        (tmp_path / "z.json").write_text(json.dumps(facts))
        assert message in error("z.npy")
    (tmp_path / "z.json").write_text("{")
    assert "not JSON" in error("z.npy")
    np.save(tmp_path / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "not a .npy file of numbers" in error("object.npy")
    np.save(tmp_path / "whole.npy", np.zeros((3, 24), dtype=int))
    assert "expected floating-point numbers, got int64" in error("whole.npy")
    (tmp_path / "bad.parquet").write_text("no")
    assert "not a Parquet file of embeddings" in error("bad.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "x.parquet")
    assert "expected a column 'embedding', got x" in error("x.parquet")
    assert "no such file" in error("missing.npy")
    assert "ending in .parquet or .npy" in error("z.json")
    assert not (tmp_path / "out.csv").exists()


# ---------------------------------------------------------------------------------------------- sample


def test_sample_from_a_mixture(tmp_path: Path, around: Path) -> None:
    out = tmp_path / "s.csv"
    result = run("sample", "-n", 6, "-o", out, "--source", around, "--seed", 3, "--properties", "qed")
    assert "source: mixture of 2 Gaussians" in result.stderr
    rows = read(out)
    assert list(rows[0]) == [*HEADER, "qed"]
    assert {row["canonical_smiles"] for row in rows} == {ASPIRIN, IBUPROFEN}
    assert all(row["seed"] == row["distance"] == row["tanimoto"] == "" for row in rows)
    run("sample", "-n", 6, "-o", tmp_path / "again.csv", "--source", around, "--seed", 3, "--properties", "qed")
    assert (tmp_path / "again.csv").read_bytes() == out.read_bytes()
    few = run("sample", "-n", 2, "-o", out, "--source", around, "--unique", "--valid-only")
    assert sorted(row["canonical_smiles"] for row in read(out)) == [ASPIRIN, IBUPROFEN]
    assert few.stdout.startswith(f"2 rows -> {out} of ")
    assert few.stdout.endswith(" drawn\n")
    printed = run("sample", "-n", 1, "--source", around)
    assert printed.stdout.splitlines()[0] == "molecule"
    assert printed.stdout.splitlines()[1] in (ASPIRIN, IBUPROFEN)


def test_sample_options(tmp_path: Path, around: Path) -> None:
    texts = []
    for name, more in (("a", ["--seed", 1]), ("b", ["--seed", 1]), ("c", ["--seed", 2])):
        arguments = ["-n", 5, "-o", tmp_path / f"{name}.csv", "--source", around, "--temperature", 2, *more]
        run("sample", *arguments, "--top-p", 0.99, "--repair", 1)
        texts.append((tmp_path / f"{name}.csv").read_bytes())
    assert texts[0] == texts[1] != texts[2]


def test_sources_of_a_sample(tmp_path: Path, checkpoint: Path) -> None:
    out = tmp_path / "s.csv"
    by_default = run("sample", "-n", 2, "-o", out, "-m", checkpoint)
    assert "source: prior N(0, I), for tiny holds no mixture" in by_default.stderr
    first = out.read_bytes()
    run("sample", "-n", 2, "-o", out, "-m", checkpoint, "--source", "prior")
    assert out.read_bytes() == first
    for source, message in (("mixture", "tiny holds no mixture"), ("moon", "expected mixture, prior or the name of")):
        assert message in run("sample", "-n", 2, "-m", checkpoint, "--source", source, code=1).stderr
    Mixture.prior(3).save(tmp_path / "small.safetensors")
    small = run("sample", "-n", 2, "-m", checkpoint, "--source", tmp_path / "small.safetensors", code=1)
    assert small.stderr == "error: source: expected a mixture in 24 dimensions, got 3\n"
    run("sample", "-n", 2, "--source", "prior", "--fit", "x.smi", code=2)
    run("sample", "-n", 2, "--save-mixture", "x.safetensors", code=2)


def test_fit_a_mixture_and_use_it(tmp_path: Path, checkpoint: Path) -> None:
    (tmp_path / "corpus.smi").write_text("\n".join([*SMILES * 4, "nonsense"]) + "\n")
    kept = tmp_path / "m.safetensors"
    arguments = ["-n", 3, "-m", checkpoint, "--fit", tmp_path / "corpus.smi", "--save-mixture", kept, "--workers", 0]
    result = run("sample", *arguments, "-o", tmp_path / "a.csv")
    assert "Gaussians fitted to 32 molecules of" in result.stderr
    assert Mixture.load(kept).facts["corpus"] == "corpus.smi"
    run("sample", "-n", 3, "-m", checkpoint, "--source", kept, "-o", tmp_path / "b.csv")
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    save_mixture(checkpoint, Mixture.load(kept))
    default = run("sample", "-n", 3, "-m", checkpoint, "-o", tmp_path / "c.csv")
    assert "that comes with tiny" in default.stderr
    assert (tmp_path / "c.csv").read_bytes() == (tmp_path / "a.csv").read_bytes()


def test_rows_drawn_from_a_corpus(tmp_path: Path) -> None:
    path = tmp_path / "corpus.smi"
    texts = [f"{'C' * i}" for i in range(1, 301)]
    path.write_text("\n".join(texts) + "\n")
    assert cli_generate.read_some(str(path), 1000, 0) == texts
    some = cli_generate.read_some(str(path), 100, 0)
    assert len(set(some)) == 100
    assert some == sorted(some, key=len), "in the order of the file"
    assert some == cli_generate.read_some(str(path), 100, 0) != cli_generate.read_some(str(path), 100, 1)
    assert 130 < np.mean([len(text) for text in some]) < 170, "from all of it"


# ---------------------------------------------------------------------------------------------- neighbours


def test_neighbours_printed(around: Path) -> None:
    result = run(
        "neighbours", IBUPROFEN_OTHERWISE, "--radius", 0.01, "-n", 3, "--unit", "absolute", "--properties", "heavy"
    )
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["tanimoto", "distance", "heavy", "around", IBUPROFEN_OTHERWISE]
    assert len(lines) == 4
    for line in lines[1:]:
        similarity, distance, heavy, molecule = line.split()
        assert (similarity, heavy, molecule) == ("1", "15", IBUPROFEN)
        assert 0.1 < float(distance) < 0.2
    assert result.stderr == "3 rows; valid 100.0 %, of them distinct 33.3 %\n"


def test_neighbours_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "seeds.csv").write_text(f"id,structure\n1,{IBUPROFEN}\n2,C1CC\n3,\n")
    arguments = ["neighbours", tmp_path / "seeds.csv", "--smiles-column", "structure", "-n", 2, "--radius", 0]
    result = run(*arguments, "-o", tmp_path / "out.csv")
    rows = read(tmp_path / "out.csv")
    assert [row["id"] for row in rows] == ["1", "1", "2", "2", "3", "3"]
    assert [row["seed"] for row in rows] == [IBUPROFEN, IBUPROFEN, "C1CC", "C1CC", "", ""]
    assert [row["status"] for row in rows] == ["ok"] * 2 + ["seed_parse_error"] * 2 + ["seed_empty"] * 2
    assert [row["canonical_smiles"] for row in rows] == [IBUPROFEN, IBUPROFEN, "", "", "", ""]
    assert "warning: 2 of 3 seeds can't be used" in result.stderr
    stdin = f"{IBUPROFEN}\n{IBUPROFEN_OTHERWISE} x\n".encode()
    piped = run("neighbours", "-", "-n", 1, "--radius", 0, "-o", tmp_path / "p.csv", stdin=stdin)
    assert [row["canonical_smiles"] for row in read(tmp_path / "p.csv")] == [IBUPROFEN, IBUPROFEN], piped.output
    assert [row["id"] for row in read(tmp_path / "p.csv")] == ["", "x"]
    (tmp_path / "named.csv").write_text("smiles,name\nCCO,ethanol\n")
    run("neighbours", tmp_path / "named.csv", "--id-column", "name", "-n", 1, "-o", tmp_path / "n.csv")
    assert [row["id"] for row in read(tmp_path / "n.csv")] == ["ethanol"]


def test_no_seed_that_can_be_used(checkpoint: Path) -> None:
    result = run("neighbours", "C1CC", "-n", 1, "-m", checkpoint, code=1)
    assert "(seed_parse_error)" in result.stdout
    assert "warning: 1 of 1 seeds" in result.stderr
    assert "valid" not in result.stderr, "nothing was decoded"


def test_unit_of_the_radius_is_that_of_python() -> None:
    assert cli_generate.DEFAULT_UNIT == sampling.RADIUS_UNIT
    assert [unit.value for unit in cli_generate.Unit] == list(sampling.UNITS)


# ---------------------------------------------------------------------------------------------- interpolate


def test_interpolate(tmp_path: Path) -> None:
    run("interpolate", ASPIRIN, IBUPROFEN, "--steps", 3, "-o", tmp_path / "path.csv")
    rows = read(tmp_path / "path.csv")
    assert [rows[0]["canonical_smiles"], rows[2]["canonical_smiles"]] == [ASPIRIN, IBUPROFEN]
    assert [row["seed"] for row in rows] == [ASPIRIN] * 3
    distances = [float(row["distance"]) for row in rows]
    assert distances[0] == 0
    assert distances[2] == pytest.approx(2 * distances[1], rel=1e-4)
    bad = run("interpolate", "CCO", "C1C", code=1)
    assert bad.stderr == "error: b: expected a molecule that the model can embed, got 'C1C' (parse_error)\n"


# ---------------------------------------------------------------------------------------------- shared


def test_pictures(tmp_path: Path, around: Path) -> None:
    from PIL import Image

    run("sample", "-n", 3, "--source", around, "--image", tmp_path / "s.png")
    with Image.open(tmp_path / "s.png") as picture:
        assert min(picture.size) > 50
    run("interpolate", "CCO", ASPIRIN, "--steps", 2, "--image", tmp_path / "p.svg")
    assert (tmp_path / "p.svg").read_text().startswith(("<svg", "<?xml"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "x.xlsx"], "output: expected a file name ending in .csv, .tsv, .parquet, got 'x.xlsx'"),
        (["-o", "nowhere/x.csv"], "output: no such directory: nowhere"),
        (["--properties", "beauty"], "properties: expected some of qed, "),
        (["--mode", "greedy", "--top-k", "3"], "top_k: expected only with mode 'sample'"),
        (["--image", "x.jpeg"], "image: expected a file name ending in .png, .svg or .html, got 'x.jpeg'"),
    ],
)
def test_errors_in_one_line(checkpoint: Path, arguments: list[str], message: str) -> None:
    result = run("neighbours", "CCO", "-m", checkpoint, *arguments, code=1)
    assert result.stderr.count("\n") == 1
    assert message in result.stderr


def test_wrong_usage(checkpoint: Path) -> None:
    for arguments in (
        ["sample", "-n", 0],
        ["neighbours", "C", "--radius", -1],
        ["interpolate", "C", "CC", "--steps", 1],
    ):
        run(*arguments, "-m", checkpoint, code=2)


def test_model_without_decoder(tmp_path: Path) -> None:
    model = tiny_checkpoint(tmp_path / "x", objective="infonce")
    np.save(tmp_path / "z.npy", np.zeros((1, 24)))
    for arguments in (
        ["decode", tmp_path / "z.npy", "-o", tmp_path / "o.csv"],
        ["sample", "-n", 1],
        ["neighbours", "C"],
        ["interpolate", "C", "CC"],
    ):
        result = run(*arguments, "-m", model, code=1)
        assert result.stderr.startswith(f"error: {arguments[0]}: expected a model with a decoder")


def test_long_tables_are_cut_in_the_terminal(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from molcmim import cli_tables

    monkeypatch.setattr(cli_tables, "SHOWN_ROWS", 4)
    result = run("neighbours", "CCO", "-n", 6, "-m", checkpoint)
    assert result.stdout.splitlines()[-1] == "... and 2 rows more; -o writes them to a file"
    assert len(result.stdout.splitlines()) == 6


def test_help_needs_no_torch(root: Path) -> None:
    code = "import sys, molcmim.cli_generate; print('torch' in sys.modules, 'rdkit' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
