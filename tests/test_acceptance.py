"""The promise of the README on a file of the size that people have: 100,000 rows, 1 % of them hostile."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hostile import hostile_lines
from tiny import tiny_checkpoint
from training import small_smiles
from typer.testing import CliRunner

from molcmim.cli import app

N_ROWS, EVERY = 100_000, 100  # every 100th row is hostile


@pytest.mark.slow
def test_100_000_rows_with_1_percent_hostile_ones(tmp_path: Path) -> None:
    from molcmim.chem import Status, prepare

    ordinary = [text for text in small_smiles(500, longest=20) if prepare(text).status is Status.ok]
    attacks = hostile_lines()
    lines: list[bytes] = []
    expected: list[str] = []
    for i in range(N_ROWS):
        text, status = attacks[i // EVERY % len(attacks)] if i % EVERY == 7 else (b"", Status.ok)
        if i % EVERY == 7:
            lines.append(b'%d,"%s"' % (i, text.replace(b'"', b'""')))
        else:
            lines.append(b"%d,%s" % (i, ordinary[i % len(ordinary)].encode()))
        expected.append(status.value)
    (tmp_path / "in.csv").write_bytes(b"number,smiles\n" + b"\n".join(lines) + b"\n")
    checkpoint = tiny_checkpoint(tmp_path / "tiny")
    command = ["embed", str(tmp_path / "in.csv"), "-o", str(tmp_path / "out.parquet"), "-m", str(checkpoint)]
    result = CliRunner().invoke(app, [*command, "--kind", "latent", "--workers", "2"])
    assert result.exit_code == 0, result.output
    table = pq.read_table(tmp_path / "out.parquet")
    assert table["number"].to_pylist() == [str(i) for i in range(N_ROWS)]
    got = table["status"].to_pylist()
    beyond_model = ("unknown_token", "too_many_tokens")  # molecules to RDKit, but not to this tiny model
    differences = [
        (i, want, have)
        for i, (want, have) in enumerate(zip(expected, got, strict=True))
        if want != ("ok" if have in beyond_model and want == "ok" else have)
    ]
    assert differences == []
    assert sum(status == "ok" for status in got) > 0.9 * N_ROWS
    is_null = table["embedding"].is_null().to_pylist()
    assert is_null == [status != "ok" for status in got]
