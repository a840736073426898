"""The command line: rows in = rows out, formats, errors in one line, nothing left behind."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rdkit
import yaml
from hostile import hostile_lines
from tiny import SMILES, tiny_checkpoint
from typer.testing import CliRunner, Result

import molcmim
from molcmim import MolCMIM, cli_run
from molcmim.cli import app, parse_value
from molcmim.cli_corpus import parse_source
from molcmim.corpus import CorpusInfo

# Lines of a .smi file, and their statuses with the tiny model.
LINES: list[tuple[bytes, str]] = [
    (b"", "empty"),
    (b"   ", "empty"),
    (b"\tno_smiles", "empty"),
    (b"  CCO leading_blanks", "ok"),
    (b"CCO", "ok"),
    (b"CCO ethanol, with blanks", "ok"),
    (b"CCO\r", "ok"),
    (b"CC\rO", "parse_error"),
    ("Cé accent".encode(), "not_ascii"),
    (b"CC\xff\xfe latin", "not_ascii"),
    (b"C1CC open_ring", "parse_error"),
    (b"CO(C)(C)C valence", "parse_error"),
    (b"\x00\x01\x02", "parse_error"),
    (b'"CCO"', "parse_error"),
    (b"[U] uranium", "unknown_token"),
    (b"C" * 41 + b" too_long_for_the_model", "too_many_tokens"),
    (b"C" * 40 + b" just_fits", "ok"),
    ("C\u00a0 no-break space".encode(), "not_ascii"),
    (b"C" * 1_000_000 + b" 1MB", "too_many_chars"),
    (b"C(" * 20_000 + b"C" + b")" * 20_000, "too_many_chars"),
    (b"=cmd|'/c calc'!A0", "parse_error"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("cli") / "tiny", card="# A tiny card\n\nFor tests.\n")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


def run(*arguments: object, code: int = 0, stdin: bytes | None = None) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=stdin)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def embed(source: object, output: Path, checkpoint: Path, *more: object, **options: Any) -> Result:
    return run("embed", source, "-o", output, "-m", checkpoint, "--workers", 0, *more, **options)


def vectors(table: pa.Table) -> list[Any]:
    return [
        None if row is None else np.array(row, dtype=np.float32) for row in table["embedding"].to_pylist()
    ]


# ---------------------------------------------------------------------------------------------- embed


def test_parquet_has_the_columns_statuses_and_vectors(
    checkpoint: Path, model: MolCMIM, tmp_path: Path
) -> None:
    source, output = tmp_path / "in.smi", tmp_path / "out.parquet"
    source.write_bytes(b"\xef\xbb\xbfOCC ethanol\n\nC1CC\tbroken ring\nClCBr")
    result = embed(source, output, checkpoint)
    table = pq.read_table(output)
    assert table.column_names == ["id", "smiles", "canonical_smiles", "status", "embedding"]
    assert table["id"].to_pylist() == ["ethanol", None, "broken ring", None]
    assert table["smiles"].to_pylist() == ["OCC", "", "C1CC", "ClCBr"]
    assert table["canonical_smiles"].to_pylist() == ["CCO", None, None, "ClCBr"]
    assert table["status"].to_pylist() == ["ok", "empty", "parse_error", "ok"]
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 56)
    got = vectors(table)
    assert got[1] is None and got[2] is None
    np.testing.assert_allclose([got[0], got[3]], model.embed(["CCO", "ClCBr"]), atol=1e-6)
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert facts["molcmim.model_id"] == model.model_id
    assert facts["molcmim.model"] == "tiny"
    assert facts["molcmim.version"] == molcmim.__version__
    assert facts["molcmim.rdkit_version"] == rdkit.__version__
    assert facts["molcmim.policy"] == "canonical"
    assert facts["molcmim.kind"] == "both"
    assert facts["molcmim.dtype"] == "float32"
    assert result.stdout.startswith(f"4 rows -> {output} in ")
    assert result.stdout.splitlines()[0].endswith("molecules/s)")
    assert [line.split() for line in result.stdout.splitlines()[1:]] == [
        ["ok", "2"],
        ["empty", "1"],
        ["parse_error", "1"],
    ]
    assert sorted(os.listdir(tmp_path)) == ["in.smi", "out.parquet"]


def test_3000_rows_of_a_table_with_every_hostile_row(
    checkpoint: Path, model: MolCMIM, tmp_path: Path
) -> None:
    """N rows in = N rows out, in order, with the right statuses, whatever a row holds."""
    texts: list[bytes] = [SMILES[i % 8].encode() for i in range(3000)]
    expected = ["ok"] * 3000
    attacks = hostile_lines()
    places = range(7, 3000, 3000 // len(attacks))[: len(attacks)]
    for i, (text, status) in zip(places, attacks, strict=True):
        texts[i], expected[i] = text, status.value
    quoted = [b'"' + text.replace(b'"', b'""') + b'"' for text in texts]
    source, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    source.write_bytes(b"number,smiles\n" + b"".join(b"%d,%s\n" % (i, text) for i, text in enumerate(quoted)))
    run("embed", source, "-o", output, "-m", checkpoint, "--workers", 2)
    table = pq.read_table(output)
    assert table["number"].to_pylist() == [str(i) for i in range(3000)]
    statuses = table["status"].to_pylist()
    beyond_model = ("unknown_token", "too_many_tokens")  # molecules to RDKit, but not to this model
    assert [
        "ok" if got in beyond_model and wanted == "ok" else got
        for got, wanted in zip(statuses, expected, strict=True)
    ] == expected
    assert set(beyond_model) <= {statuses[i] for i in places}
    assert [row is None for row in vectors(table)] == [status != "ok" for status in statuses]
    ordinary = [i for i in range(3000) if i not in set(places)]
    got = np.stack([row for row in vectors(table.take(ordinary[::10]))])
    np.testing.assert_allclose(got, model.embed(SMILES)[[i % 8 for i in ordinary[::10]]], atol=1e-6)


def test_lines_of_a_smi_file(checkpoint: Path, model: MolCMIM, tmp_path: Path) -> None:
    lines, expected = [], []
    for i in range(900):
        line, status = (
            LINES[i // 30 % len(LINES)] if i % 30 == 7 else (SMILES[i % 8].encode() + b" m%d" % i, "ok")
        )
        lines.append(line)
        expected.append(status)
    assert set(expected) == {status for _, status in LINES}
    source, output = tmp_path / "in.smi", tmp_path / "out.parquet"
    source.write_bytes(b"\n".join(lines) + b"\n")
    result = run("embed", source, "-o", output, "-m", checkpoint, "--workers", 2)
    table = pq.read_table(output)
    assert table["status"].to_pylist() == expected
    assert table["id"].to_pylist()[899] == "m899"
    got, reference = vectors(table), model.embed(SMILES)
    assert [row is None for row in got] == [status != "ok" for status in expected]
    for i in range(900):
        if i % 30 != 7:
            np.testing.assert_allclose(got[i], reference[i % 8], atol=1e-6)
    printed = {
        status: int(count.replace(",", ""))
        for status, count in map(str.split, result.stdout.splitlines()[1:])
    }
    assert printed == Counter(expected)


def test_chunks_join_without_a_seam(
    checkpoint: Path, model: MolCMIM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several chunks, with the worker pool reading ahead."""
    texts = ["C" * (1 + i % 37) for i in range(950)]
    (tmp_path / "in.csv").write_text(
        "name,smiles\n" + "".join(f"{i},{text}\n" for i, text in enumerate(texts))
    )
    with cli_run.MoleculeReader(tmp_path / "in.csv", id_column="name", chunk_rows=100) as reader:
        summary = cli_run.embed_file(model, reader, tmp_path / "out.parquet", kind="latent", workers=2)
    assert (summary.n_rows, summary.statuses) == (950, Counter(ok=950))
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["id"].to_pylist() == [str(i) for i in range(950)]
    np.testing.assert_allclose(np.stack(vectors(table)), model.embed(texts, kind="latent"), atol=1e-6)


def test_tables_pass_their_columns_through(checkpoint: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.csv", tmp_path / "out.parquet"
    long = "x" * 1_500_000
    source.write_bytes(
        b'ID,Drug,status,"a,b",,a\r\n'
        b'7,CCO,known,"he said ""x""",,1\r\n'  # quotes inside
        b'8, CCC ,"two\r\nlines",2,,3\r\n'  # a quoted line end
        b"8b,CCC,short\r\n"  # fields missing
        b'9,"CCN,swallowed?\r\n'  # never closed: spoils this row only
        b"10,C\xe9C,latin,3,,4,surplus\r\n"
        b"\r\n"  # a blank line is a row
        b"11,CCCC," + long.encode() + b",5,,6"
    )
    result = embed(source, output, checkpoint, "--smiles-column", "drug")
    table = pq.read_table(output)
    assert table.column_names == [
        *("id", "input_status", "a,b", "unnamed", "a"),
        *("smiles", "canonical_smiles", "status", "embedding"),
    ]
    assert table["id"].to_pylist() == ["7", "8", "8b", "9", "10", "", "11"]
    assert table["smiles"].to_pylist() == ["CCO", " CCC ", "CCC", '"CCN', "C\ufffdC", "", "CCCC"]
    assert table["status"].to_pylist() == ["ok", "ok", "ok", "parse_error", "not_ascii", "empty", "ok"]
    assert table["input_status"].to_pylist() == [
        "known",
        "two\nlines",
        "short",
        "swallowed?",
        "latin",
        None,
        long,
    ]
    assert table["a,b"].to_pylist() == ['he said "x"', "2", None, None, "3", None, "5"]
    assert table["unnamed"].to_pylist() == ["", "", None, None, "", None, ""]
    assert table["a"].to_pylist() == ["1", "3", None, None, "4", None, "6"]
    assert "warning: 1 rows have more fields than the header" in result.stderr


@pytest.mark.parametrize(
    ("name", "encode", "options"),
    [
        ("in.txt", bytes, []),
        ("in.smi.gz", gzip.compress, []),
        ("in.smi.xz", lzma.compress, []),
        ("in.tsv", lambda text: b"SMILES\tid\n" + text.replace(b" ", b"\t"), []),
        ("in.CSV.GZ", lambda text: gzip.compress(b"id2,smiles\n,C1CC\nx,CCO\n"), ["--id-column", "id2"]),
        ("in.dat", bytes, ["--format", "smi"]),
    ],
)
def test_input_formats(
    checkpoint: Path, tmp_path: Path, name: str, encode: Callable[[bytes], bytes], options: list[str]
) -> None:
    (tmp_path / name).write_bytes(encode(b"C1CC\nCCO x\n"))
    embed(tmp_path / name, tmp_path / "out.parquet", checkpoint, *options)
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["smiles"].to_pylist() == ["C1CC", "CCO"]
    assert table["status"].to_pylist() == ["parse_error", "ok"]
    assert table["id"].to_pylist()[1] == "x"


def test_standard_input(checkpoint: Path, tmp_path: Path) -> None:
    embed("-", tmp_path / "out.parquet", checkpoint, stdin=b"CCO a\nC\xff b\n")
    assert pq.read_table(tmp_path / "out.parquet")["status"].to_pylist() == ["ok", "not_ascii"]
    embed("-", tmp_path / "out.parquet", checkpoint, "--format", "csv", stdin=b"x,smiles\n1,CCO\n")
    assert pq.read_table(tmp_path / "out.parquet")["x"].to_pylist() == ["1"]


def test_kinds_dtypes_and_policies(checkpoint: Path, model: MolCMIM, tmp_path: Path) -> None:
    (tmp_path / "in.smi").write_text("[Na+].[O-]C(C)=O\nOCC\n")
    output = tmp_path / "out.parquet"
    embed(
        tmp_path / "in.smi",
        output,
        checkpoint,
        "--kind",
        "latent",
        "--dtype",
        "float16",
        "--policy",
        "parent",
    )
    table = pq.read_table(output)
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 24)
    assert table["canonical_smiles"].to_pylist() == ["CC(=O)O", "CCO"]
    np.testing.assert_allclose(
        np.stack(vectors(table)), model.embed(["CC(=O)O", "CCO"], kind="latent"), atol=2e-2
    )
    assert table.schema.metadata[b"molcmim.policy"] == b"parent"
    embed(tmp_path / "in.smi", output, checkpoint, "--exact", "--policy", "none", "--kind", "informative")
    table = pq.read_table(output)
    assert table["canonical_smiles"].to_pylist() == ["[Na+].[O-]C(C)=O", "OCC"]
    expected = model.embed(["OCC"], kind="informative", exact=True, policy="none")
    assert np.array_equal(vectors(table)[1], expected[0])
    embed(tmp_path / "in.smi", output, checkpoint, "--compute", "bfloat16")
    assert pq.read_table(output).schema.metadata[b"molcmim.compute_dtype"] == b"bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_npy_with_csv_and_json(checkpoint: Path, model: MolCMIM, tmp_path: Path, dtype: str) -> None:
    (tmp_path / "in.csv").write_text('smiles,id,note\nCCO,1,"a, ""b"""\nbad,2,\n')
    embed(tmp_path / "in.csv", tmp_path / "out.npy", checkpoint, "--dtype", dtype)
    array = np.load(tmp_path / "out.npy")
    assert (array.dtype, array.shape) == (np.dtype(dtype), (2, 56))
    np.testing.assert_allclose(array[0], model.embed(["CCO"])[0], atol=1e-6 if dtype == "float32" else 1e-2)
    assert np.isnan(array[1]).all()
    with open(tmp_path / "out.csv", newline="") as file:
        assert list(csv.reader(file)) == [
            ["id", "note", "smiles", "canonical_smiles", "status"],
            ["1", 'a, "b"', "CCO", "CCO", "ok"],
            ["2", "", "bad", "", "parse_error"],
        ]
    facts = json.loads((tmp_path / "out.json").read_text())
    assert (facts["model_id"], facts["kind"]) == (model.model_id, "both")
    assert sorted(os.listdir(tmp_path)) == ["in.csv", "out.csv", "out.json", "out.npy"]


@pytest.mark.parametrize("name", ["out.parquet", "out.npy"])
def test_no_rows(checkpoint: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "in.smi").write_bytes(b"")
    assert "0 rows -> " in embed(tmp_path / "in.smi", tmp_path / name, checkpoint).stdout
    if name == "out.npy":
        assert np.load(tmp_path / name).shape == (0, 56)
    else:
        assert pq.read_table(tmp_path / name).num_rows == 0


# ---------------------------------------------------------------------------------------------- errors


def failing(tmp_path: Path, checkpoint: Path, *arguments: object, code: int = 1) -> str:
    """Run a command that must fail; its stderr, which must be one line; no output files may be there."""
    before = sorted(os.listdir(tmp_path))
    result = run(*arguments, code=code)
    assert sorted(os.listdir(tmp_path)) == before
    if code == 1:
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert result.stderr.startswith("error: ")
    return str(result.stderr)


def test_errors_are_one_line_and_leave_nothing(checkpoint: Path, tmp_path: Path) -> None:
    source, output = tmp_path / "in.smi", tmp_path / "out.parquet"
    source.write_text("CCO\n")
    (tmp_path / "in.csv").write_text("a,b\nCCO,1\n")
    (tmp_path / "in.pdf").write_text("")
    (tmp_path / "cut.smi.gz").write_bytes(gzip.compress(b"CCO\n" * 1000)[:-20])
    (tmp_path / "not.smi.xz").write_bytes(b"CCO\n")

    def fail(*arguments: object, code: int = 1) -> str:
        return failing(tmp_path, checkpoint, *arguments, code=code)

    at = ("-m", checkpoint, "--workers", 0)
    assert "missing.smi" in fail("embed", tmp_path / "missing.smi", "-o", output, *at)
    assert "expected a file name ending in .smi" in fail("embed", tmp_path / "in.pdf", "-o", output, *at)
    assert "the columns 'a', 'b'; name the one" in fail("embed", tmp_path / "in.csv", "-o", output, *at)
    assert "expected a column 'x'" in fail(
        "embed", tmp_path / "in.csv", "-o", output, "--smiles-column", "x", *at
    )
    assert "only for tables" in fail("embed", source, "-o", output, "--id-column", "x", *at)
    assert "damaged or incomplete compressed" in fail("embed", tmp_path / "cut.smi.gz", "-o", output, *at)
    assert "damaged or incomplete compressed" in fail("embed", tmp_path / "not.smi.xz", "-o", output, *at)
    assert "ending in .parquet or .npy, got 'out.h5'" in fail("embed", source, "-o", tmp_path / "out.h5", *at)
    assert "no such directory" in fail("embed", source, "-o", tmp_path / "no" / "out.parquet", *at)
    assert "no checkpoint 'nothing'" in fail("embed", source, "-o", output, "-m", "nothing")
    assert "device: expected" in fail("embed", source, "-o", output, "--device", "gpu", *at)
    assert "it has no config.json" in fail("info", tmp_path)
    assert "would replace the input" in fail(
        "embed", tmp_path / "in.csv", "-o", tmp_path / "in.npy", "--smiles-column", "a", *at
    )
    assert "No such file" in fail("check", source, "--vocab", tmp_path / "vocab.json")
    assert "No such file" in fail("train", tmp_path / "config.yaml")
    assert "corpus.json" in fail("corpus", "info", tmp_path)
    assert "would replace the input" not in fail("embed", source, code=2), "usage: --output is missing"
    fail("embed", source, "-o", output, "--kind", "mean", code=2)
    fail("embed", source, "-o", output, "--batch-size", 0, code=2)
    fail("train", "x.yaml", "lr", code=2)
    fail("nonsense", code=2)


def test_an_objective_without_decoder_has_no_both(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "x", "infonce")
    (tmp_path / "in.smi").write_text("CCO\n")
    arguments = (
        "embed",
        tmp_path / "in.smi",
        "-o",
        tmp_path / "out.parquet",
        "-m",
        directory,
        "--workers",
        0,
    )
    assert "'infonce', which trains no decoder" in failing(tmp_path, directory, *arguments)
    run(*arguments, "--kind", "latent")


def test_traceback_on_request(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkpoint 'nothing'"):
        run("--traceback", "info", "nothing")


def test_float16_that_overflows_is_an_error(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "x")
    config = json.loads((directory / "config.json").read_text())
    config["scales"]["latent"] = 1e6
    (directory / "config.json").write_text(json.dumps(config))
    (tmp_path / "in.smi").write_text("bad\nCCO\n")
    arguments = (
        "embed",
        tmp_path / "in.smi",
        "-o",
        tmp_path / "out.parquet",
        "-m",
        directory,
        "--workers",
        0,
    )
    assert "row 1: its vector doesn't fit into float16" in failing(
        tmp_path, directory, *arguments, "--dtype", "float16"
    )
    run(*arguments)


def test_a_failure_midway_keeps_the_old_output(
    checkpoint: Path, model: MolCMIM, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out.parquet"
    output.write_text("old")
    (tmp_path / "in.smi").write_text("CCO\n" * 50)

    def interrupted(bar: object, reader: object, n_rows: int) -> None:
        if n_rows == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(cli_run, "advance", interrupted)
    with (
        pytest.raises(KeyboardInterrupt),
        cli_run.MoleculeReader(tmp_path / "in.smi", chunk_rows=10) as reader,
    ):
        cli_run.embed_file(model, reader, output, workers=0)
    assert output.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["in.smi", "out.parquet"]


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGINT, 1), (signal.SIGTERM, 0)])
def test_signals_leave_no_files(
    checkpoint: Path, tmp_path: Path, root: Path, number: signal.Signals, workers: int
) -> None:
    """Rows come from a pipe that stays open, so the program is waiting in the middle of its work."""
    command = [
        sys.executable,
        "-m",
        "molcmim",
        "embed",
        "-",
        "-o",
        str(tmp_path / "out.parquet"),
        "-m",
        str(checkpoint),
    ]
    with subprocess.Popen(
        [*command, "--workers", str(workers)],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        process.stdin.write(b"CCO\n" * 9000)
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while not os.listdir(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert os.listdir(tmp_path), "the temporary file should be there while it works"
        process.send_signal(number)
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        assert process.wait(timeout=60) not in (0, None)
    assert os.listdir(tmp_path) == []


# ---------------------------------------------------------------------------------------------- the others


def test_check_counts_and_shows(checkpoint: Path, tmp_path: Path) -> None:
    lines = [b"CCO", b"[U]", b"[U].[Pu]", b"", b"C1CC", b"C" * 41, b"C\x1b[31mC"]
    (tmp_path / "in.smi").write_bytes(b"\n".join(lines) + b"\n")
    out = run("check", tmp_path / "in.smi", "-m", checkpoint, "--workers", 0).stdout
    head, _, rest = out.partition("vocabulary")
    assert head.startswith("7 rows, 1 of them ok (14.29 %)")
    counts = dict(line.split() for line in head.splitlines()[1:])
    assert counts == {
        "ok": "1",
        "unknown_token": "2",
        "empty": "1",
        "parse_error": "2",
        "too_many_tokens": "1",
    }
    assert "covers 50.00 % of molecules" in rest
    assert "longest molecule: 3 tokens (limit 40)" in rest
    examples = [line.split(None, 2) for line in rest.partition("count from 0):\n")[2].splitlines()]
    assert [(row, status) for row, status, *_ in examples] == [
        ("1", "unknown_token"),
        ("2", "unknown_token"),
        ("3", "empty"),
        ("4", "parse_error"),
        ("5", "too_many_tokens"),
        ("6", "parse_error"),
    ]
    assert "\x1b" not in out, "control characters of a file never reach the terminal"


def test_check_with_a_vocabulary_needs_no_model_and_no_torch(
    checkpoint: Path, tmp_path: Path, root: Path
) -> None:
    (tmp_path / "in.smi").write_text("CCO\n" + "C" * 60 + "\n")
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from molcmim.cli import app\n"
        f"app(['check', {str(tmp_path / 'in.smi')!r}, '--vocab', {str(checkpoint / 'vocab.json')!r}])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 rows, 2 of them ok (100.00 %)" in done.stdout
    assert "limit 200" in done.stdout
    result = run(
        "check", tmp_path / "in.smi", "-m", checkpoint, "--max-tokens", 100, "--workers", 0, "--examples", 0
    )
    assert "2 of them ok" in result.stdout
    run("check", tmp_path / "in.smi", "-m", checkpoint, "--vocab", checkpoint / "vocab.json", code=2)


def test_info_prints_card_and_facts(checkpoint: Path, model: MolCMIM) -> None:
    out = run("info", checkpoint).stdout
    assert out.startswith("# A tiny card\n\nFor tests.\n\n")
    assert f"model id          {model.model_id}" in out
    assert f"parameters        {sum(p.numel() for p in model.network.parameters()):,}" in out
    assert "embedding         latent 24, informative 32" in out


def test_info_checks_the_files(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "x")
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "model.safetensors: damaged or incomplete" in failing(tmp_path, directory, "info", directory)


def test_version_and_help() -> None:
    assert run("--version").stdout == f"molcmim {molcmim.__version__}\n"
    out = run("--help").stdout
    for command in ("embed", "check", "info", "train", "corpus"):
        assert command in out


def test_cli_starts_without_heavy_imports(root: Path) -> None:
    code = "import sys, molcmim.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert not {"torch", "rdkit", "pyarrow", "numpy", "pandas"} & set(done.stdout.split())


def test_corpus_build_pack_unpack_train(tmp_path: Path) -> None:
    """The commands in a row: text -> corpus -> packed -> unpacked -> a trained model that embeds."""
    alkanols = [f"{'C' * i}{'O' * j}" for i in range(1, 30) for j in range(2)]
    (tmp_path / "a.smi").write_text("\n".join([*SMILES * 3, *alkanols, "bad", ""]))
    corpus = tmp_path / "corpus"
    out = run(
        "corpus",
        "build",
        f"{tmp_path / 'a.smi'}=0.5",
        "-o",
        corpus,
        "--workers",
        1,
        "--min-count",
        1,
        "--valid-fraction",
        0.3,
    ).stdout
    assert ": 63 molecules, 0.5 passes an epoch" in out
    assert "duplicates    19 left out" in out
    assert [line.split() for line in out.splitlines()[-2:]] == [["ok", "63"], ["parse_error", "1"]]
    assert "already" in failing(tmp_path, corpus, "corpus", "build", tmp_path / "a.smi", "-o", corpus)
    assert "MB" in run("corpus", "pack", corpus, tmp_path / "packed.xz").stdout
    assert "63 molecules" in run("corpus", "unpack", tmp_path / "packed.xz", tmp_path / "again").stdout
    facts = run("corpus", "info", corpus).stdout.splitlines()[1:]
    assert facts == run("corpus", "info", tmp_path / "again").stdout.splitlines()[1:]
    config = {
        "corpus": str(tmp_path / "again"),
        "output": str(tmp_path / "run"),
        "name": "mine",
        "model": {
            "width": 32,
            "heads": 2,
            "mlp_width": 64,
            "encoder_layers": 1,
            "decoder_layers": 1,
            "latent": 16,
        },
        "schedule": {"max_steps": 9, "warmup_steps": 2},
        "batch_size": 2,
        "precision": "float32",
        "peak_tflops": 0.1,
        "threads": 1,
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    result = run("train", tmp_path / "config.yaml", "schedule.max_steps=4", "optimizer.lr=1e-3")
    assert json.loads(result.stdout.splitlines()[-1])["step"] == 4
    assert "unknown fields ['colour']" in failing(
        tmp_path, corpus, "train", tmp_path / "config.yaml", "colour=red"
    )
    (tmp_path / "in.smi").write_text("CCO\nCCCCCO\n")
    embed(tmp_path / "in.smi", tmp_path / "out.parquet", tmp_path / "run" / "export")
    assert pq.read_table(tmp_path / "out.parquet")["status"].to_pylist() == ["ok", "ok"]
    assert "mine" in run("info", tmp_path / "run" / "export").stdout


def test_values_of_overrides() -> None:
    assert [parse_value(text) for text in ("1e-3", "2", "0.5", "true", "null", "muon", "[1, 2]")] == [
        *(1e-3, 2, 0.5, True, None, "muon", [1, 2])
    ]


def test_sources_with_weights() -> None:
    assert parse_source("a.smi") == ("a.smi", 1.0)
    assert parse_source("a.smi=0.25") == ("a.smi", 0.25)
    assert parse_source("a=b.smi") == ("a=b.smi", 1.0)
    assert parse_source("a=b.smi=2") == ("a=b.smi", 2.0)


def test_corpus_build_with_a_marking_source(tmp_path: Path) -> None:
    (tmp_path / "marks.smi").write_text("CCO\nCCCCCCCl\n")
    (tmp_path / "all.smi").write_text("\n".join(["CCO", "CCN", "c1ccccc1", "CCCCCO"]) + "\n")
    arguments = ("--mark", f"{tmp_path / 'marks.smi'}=0.5", tmp_path / "all.smi", "-o", tmp_path / "corpus")
    run("corpus", "build", *arguments, "--valid-fraction", 0, "--min-count", 1)
    sources = CorpusInfo.load(tmp_path / "corpus").sources
    assert [(source.weight, source.n) for source in sources] == [(0.5, 1), (1.0, 3)]
