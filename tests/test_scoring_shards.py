"""Shards: their rows, footers and bytes; what counts as finished; parts; equal molecules; errors of the input."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scoring_tools import BAD, contents, facts_of, molecules, run_job, table_of, times_of, write_smi
from tiny import tiny_checkpoint

from molcmim import MolCMIM
from molcmim.chem import Prepared, Status
from molcmim.readers import Chunk
from molcmim.rows import tokenize_rows
from molcmim.scoring import feed
from molcmim.scoring.int8 import dequantise
from molcmim.scoring.manifest import JobOptions
from molcmim.scoring.part import part_of, rank_and_world
from molcmim.scoring.shard import Embedder, RecentVectors, embed_shard, finished
from molcmim.scoring.source import open_source
from molcmim.worker_pool import WorkerPool

BAD_STATUS = ["empty", "parse_error", "not_ascii", "parse_error", "too_many_tokens", "too_many_chars", "unknown_token"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> MolCMIM:
    return MolCMIM.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("shards") / "tiny"), device="cpu")


@pytest.fixture(scope="module")
def texts() -> list[str]:
    texts = molecules(250)
    texts[11:251:35] = BAD[:7]
    return texts


@pytest.fixture
def table(tmp_path: Path, texts: list[str]) -> Path:
    """A table with the texts, their numbers as ids, and a note."""
    path = tmp_path / "in.csv"
    path.write_text("id,note,smiles\n" + "".join(f'{i},"n{i}","{text}"\n' for i, text in enumerate(texts)))
    return path


def vectors(table: pa.Table) -> Any:
    """(n, d), NaN where there is none."""
    width = table.schema.field("embedding").type.list_size
    return np.array([row or [np.nan] * width for row in table["embedding"].to_pylist()], dtype=np.float32)


# ---------------------------------------------------------------------------------------------- rows and bytes


def test_rows_and_footers(model: MolCMIM, texts: list[str], table: Path, tmp_path: Path) -> None:
    manifest, summary = run_job(model, table, tmp_path / "out", JobOptions(exact=True), shard_rows=100)
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", *(f"part-0000{i}.parquet" for i in range(3))]
    rows = table_of(tmp_path / "out")
    assert rows.column_names == ["id", "note", "smiles", "canonical_smiles", "status", "embedding"]
    assert rows["id"].to_pylist() == [str(i) for i in range(250)]
    assert rows["note"].to_pylist() == [f"n{i}" for i in range(250)]
    assert rows["smiles"].to_pylist() == texts
    expected = ["ok"] * 250
    expected[11:251:35] = BAD_STATUS
    assert rows["status"].to_pylist() == expected
    assert np.array_equal(vectors(rows), model.embed(texts, exact=True, workers=0), equal_nan=True)
    assert [row is None for row in rows["embedding"].to_pylist()] == [status != "ok" for status in expected]
    assert (summary.n_rows, summary.statuses) == (250, Counter(expected))
    assert (summary.n_new, summary.n_finished, summary.n_shards, summary.complete) == (3, 3, 3, True)
    for number, (first, n) in enumerate([(0, 100), (100, 100), (200, 50)]):
        facts = facts_of(tmp_path / "out" / f"part-0000{number}.parquet")
        assert facts["fingerprint"] == manifest.fingerprint
        assert (facts["shard"], facts["first_row"], facts["n_rows"]) == (str(number), str(first), str(n))
        assert Counter(json.loads(facts["statuses"])) == Counter(expected[first : first + n])
        assert (facts["model_id"], facts["kind"], facts["policy"]) == (model.model_id, "both", "canonical")
        assert (facts["exact"], facts["dtype"], facts["compute_dtype"]) == ("true", "float32", "float32")


def test_exact_bits_do_not_depend_on_shards_workers_or_chunks(
    model: MolCMIM, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = JobOptions(exact=True)
    run_job(model, table, tmp_path / "a", options, shard_rows=250)
    reference = table_of(tmp_path / "a")
    for name, shard_rows, workers in [("b", 7, 0), ("c", 100, 2)]:
        run_job(model, table, tmp_path / name, options, shard_rows, workers=workers)
        assert table_of(tmp_path / name).equals(reference)
    run_job(model, table, tmp_path / "d", options, shard_rows=100)
    assert contents(tmp_path / "c") == contents(tmp_path / "d"), "the number of workers is in no file"
    monkeypatch.setattr(feed, "CHUNK_ROWS", 8)
    monkeypatch.setattr("molcmim.scoring.shard.range_chunks", lambda source, rows: feed.range_chunks(source, rows, 8))
    with open_source(table) as source:
        manifest, _ = run_job(model, table, tmp_path / "d", options, shard_rows=100)
        summary = embed_shard(model, source, manifest, 1, tmp_path)
    assert summary.n_rows == 100
    assert pq.ParquetFile(tmp_path / "part-00001.parquet").num_row_groups == 13
    assert pq.read_table(tmp_path / "part-00001.parquet").equals(reference.slice(100, 100))


def test_a_shard_is_the_same_made_alone_or_in_a_row(model: MolCMIM, table: Path, tmp_path: Path) -> None:
    """Not exact: so the bytes could depend on what else was embedded, were shards not independent."""
    manifest, _ = run_job(model, table, tmp_path / "a", shard_rows=60)
    (tmp_path / "b").mkdir()
    with open_source(table) as source, WorkerPool(1) as pool:
        for number in (4, 0, 2, 1, 3):
            embed_shard(model, source, manifest, number, tmp_path / "b", pool)
    shards = contents(tmp_path / "a")
    del shards["manifest.json"]
    assert contents(tmp_path / "b") == shards


def test_many_small_files_make_whole_row_groups(model: MolCMIM, texts: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for i in range(25):
        write_smi(tmp_path / "in" / f"{i:02d}.smi", texts[10 * i : 10 * i + 10])
    run_job(model, tmp_path / "in", tmp_path / "out", shard_rows=115)
    assert table_of(tmp_path / "out")["smiles"].to_pylist() == texts
    groups = [pq.ParquetFile(path).num_row_groups for path in sorted((tmp_path / "out").glob("part*"))]
    assert groups == [1, 1, 1]


def test_chunks_with_much_text_stay_apart() -> None:
    class Long:
        def read(self, rows: object, chunk_rows: int) -> Any:
            for i in range(4):
                yield Chunk(["C" * (6 << 20 if i == 1 else 1)], [str(i)], [["x"]])

    chunks = list(feed.range_chunks(Long(), None))  # type: ignore[arg-type]
    assert [chunk.id for chunk in chunks] == [["0", "1"], ["2", "3"]]
    assert chunks[1].extra == [["x", "x"]]


@pytest.mark.parametrize("kind", ["latent", "informative", "both"])
def test_dtypes(model: MolCMIM, texts: list[str], tmp_path: Path, kind: str) -> None:
    source, expected = write_smi(tmp_path / "in.smi", texts[:60]), model.embed(texts[:60], kind=kind, workers=0)
    for dtype in ("float16", "int8"):
        run_job(model, source, tmp_path / dtype, JobOptions(kind, dtype=dtype), shard_rows=40)
    half, whole = table_of(tmp_path / "float16"), table_of(tmp_path / "int8")
    assert half.schema.field("embedding").type == pa.list_(pa.float16(), expected.shape[1])
    np.testing.assert_allclose(vectors(half), expected, rtol=1e-3, atol=1e-3)
    assert whole.schema.field("embedding").type == pa.list_(pa.int8(), expected.shape[1])
    ok = [i for i, status in enumerate(whole["status"].to_pylist()) if status == "ok"]
    assert [value is None for value in whole["scale"].to_pylist()] == [i not in ok for i in range(60)]
    codes = np.array([whole["embedding"][i].as_py() for i in ok], dtype=np.int8)
    scale = np.array([whole["scale"][i].as_py() for i in ok], dtype=np.float32)
    assert (np.abs(dequantise(codes, scale) - expected[ok]) <= 0.51 * scale[:, None] + 1e-5).all()


# ---------------------------------------------------------------------------------------------- equal molecules


def test_equal_molecules_are_embedded_once_with_the_same_bits(model: MolCMIM, tmp_path: Path) -> None:
    texts = ["OCC", "CCO", "C(O)C", "bad", "CCN", "NCC", "CCO", ""] * 20
    rows = tokenize_rows(texts, model.tokenizer, 40, workers=0)
    manifest, summary = run_job(model, write_smi(tmp_path / "in.smi", texts), tmp_path / "a", JobOptions(exact=True))
    assert summary.statuses == Counter(ok=120, parse_error=20, empty=20)
    assert summary.n_embedded == 4, "two molecules in each of two shards"
    expected = model.embed(texts, exact=True, workers=0)
    assert np.array_equal(vectors(table_of(tmp_path / "a")), expected, equal_nan=True)
    for recent, n_embedded in [(0, 40), (1, 21), (2, 2), (100, 2)]:
        embedder = Embedder(model, manifest, recent=recent)
        parts = [type(rows)(*(column[at : at + 8] for column in rows)) for at in range(0, 160, 8)]
        got = np.concatenate([embedder.embed(part) for part in parts])
        assert np.array_equal(got, expected, equal_nan=True), recent
        assert embedder.n_embedded == n_embedded, recent


def test_policy_none_keeps_different_texts_of_a_molecule_apart(model: MolCMIM, tmp_path: Path) -> None:
    options = JobOptions(policy="none", exact=True)
    _, summary = run_job(model, write_smi(tmp_path / "in.smi", ["OCC", "CCO", "OCC"]), tmp_path / "a", options)
    assert summary.n_embedded == 2
    expected = model.embed(["OCC", "CCO", "OCC"], policy="none", exact=True)
    assert np.array_equal(vectors(table_of(tmp_path / "a")), expected)


def test_recent_vectors_forget_the_oldest() -> None:
    recent = RecentVectors(3, 2)
    for i in range(5):
        recent.put(str(i), np.full(2, i, dtype=np.float32))
    found = [recent.get(str(i)) for i in range(5)]
    assert [None if vector is None else vector.tolist() for vector in found] == [None, None, [2, 2], [3, 3], [4, 4]]


# ---------------------------------------------------------------------------------------------- resuming


def test_finished_shards_are_not_touched_and_others_made_again(model: MolCMIM, table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    manifest, _ = run_job(model, table, folder, shard_rows=30)
    reference, before = contents(folder), times_of(folder)
    parts = [folder / manifest.shard_name(number) for number in range(9)]
    whole = parts[2].read_bytes()
    parts[0].unlink()
    parts[1].write_bytes(b"")
    parts[2].write_bytes(whole[: len(whole) // 2])
    parts[3].write_bytes(whole)  # another shard of the same run
    foreign, _ = run_job(model, table, tmp_path / "foreign", JobOptions(kind="latent"), shard_rows=30)
    parts[4].write_bytes((tmp_path / "foreign" / parts[4].name).read_bytes())  # the same rows of another run
    parts[5].write_bytes(whole[:-300] + bytes(292) + whole[-8:])  # the end is there, the footer isn't
    pq.write_table(pq.read_table(parts[6]), parts[6])  # the rows, but not the footer: lost its statuses
    assert foreign.fingerprint != manifest.fingerprint
    said: list[str] = []
    _, summary = run_job(model, table, folder, shard_rows=30, say=said.append)
    assert contents(folder) == reference
    assert (summary.n_new, summary.n_finished, summary.n_rows, summary.n_new_rows) == (7, 9, 250, 210)
    assert summary.statuses.total() == 250
    assert {name: value for name, value in times_of(folder).items() if before[name] == value}.keys() == {
        *("manifest.json", parts[7].name, parts[8].name)
    }
    again = [f"part-0000{i}.parquet is damaged or of another run: it is made again" for i in range(1, 7)]
    assert said == [*again, "2 of 9 shards are finished already"]


def test_what_finished_reads(model: MolCMIM, table: Path, tmp_path: Path) -> None:
    manifest, _ = run_job(model, table, tmp_path / "out", shard_rows=100)
    summary = finished(manifest, 2, tmp_path / "out")
    assert summary is not None and (summary.number, summary.n_rows) == (2, 50)
    assert summary.statuses.total() == 50
    assert finished(manifest, 2, tmp_path) is None


def test_no_part_is_lost_or_made_twice() -> None:
    for n, world in [(10, 1), (10, 3), (2, 5), (7, 7)]:
        parts = [part_of(n, rank, world) for rank in range(world)]
        assert sorted(number for part in parts for number in part) == list(range(n))
    assert part_of(10, 2, 4) == [2, 6]
    for rank, world in [(3, 3), (-1, 2), (0, 0)]:
        with pytest.raises(ValueError, match="rank: expected 0 to world - 1"):
            part_of(10, rank, world)


def test_parts_make_the_same_files_as_one_run(model: MolCMIM, table: Path, tmp_path: Path) -> None:
    run_job(model, table, tmp_path / "one", shard_rows=30)
    for rank in (2, 0, 1):
        _, summary = run_job(model, table, tmp_path / "three", shard_rows=30, rank=rank, world=3)
        assert (summary.n_shards, summary.n_new, summary.complete) == (3, 3, True)
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


def test_rank_and_world_of_launchers() -> None:
    assert rank_and_world({}) == (0, 1)
    assert rank_and_world({"RANK": "3", "WORLD_SIZE": "8", "SLURM_ARRAY_TASK_ID": "1"}) == (3, 8)
    array = {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"}
    assert rank_and_world(array | {"SLURM_ARRAY_TASK_MAX": "8"}) == (2, 4)
    assert rank_and_world(array | {"SLURM_ARRAY_TASK_MAX": "11", "SLURM_ARRAY_TASK_STEP": "2"}) == (1, 4)
    with pytest.raises(ValueError, match="expected a job array like 0-9, got task 7 of 4 from 5 to 20"):
        rank_and_world(array | {"SLURM_ARRAY_TASK_MAX": "20"})


# ---------------------------------------------------------------------------------------------- the input


def test_an_input_that_shrinks_after_the_plan(model: MolCMIM, table: Path, tmp_path: Path) -> None:
    manifest, _ = run_job(model, table, tmp_path / "out", shard_rows=100)
    table.write_text("\n".join(table.read_text().split("\n")[:150]))
    with open_source(table) as source, pytest.raises(ValueError, match=r"expected (50|a row|100)"):
        embed_shard(model, source, manifest, 2, tmp_path)
    assert not list(tmp_path.glob("*part*"))


def test_chunks_that_are_not_the_shards(model: MolCMIM, table: Path, tmp_path: Path) -> None:
    manifest, _ = run_job(model, table, tmp_path / "out", shard_rows=100)
    one = (Chunk(["C"], ["0"], [["n"]]), [Prepared("C", Status.ok)])
    with (
        open_source(table) as source,
        pytest.raises(ValueError, match="shard 2: expected 50 rows from the input, got 1"),
    ):
        embed_shard(model, source, manifest, 2, tmp_path, prepared=[one])
    assert not list(tmp_path.glob("*part*"))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_row_group(model: MolCMIM, tmp_path: Path, workers: int) -> None:
    """The shards before it are finished first, although rows are read ahead."""
    texts = molecules(3 * 8192)
    table = pa.table({"smiles": texts})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=8192, compression="zstd", use_dictionary=False)
    place = pq.ParquetFile(tmp_path / "in.parquet").metadata.row_group(2).column(0)
    data = bytearray((tmp_path / "in.parquet").read_bytes())
    end = place.data_page_offset + place.total_compressed_size // 2
    data[place.data_page_offset : end] = bytes(end - place.data_page_offset)
    (tmp_path / "in.parquet").write_bytes(data)
    options = JobOptions(policy="none" if workers == 0 else "canonical", kind="latent")
    with pytest.raises((ValueError, OSError), match=r"in\.parquet: row group 2"):
        run_job(model, tmp_path / "in.parquet", tmp_path / "out", options, shard_rows=8192, workers=workers)
    there = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert there == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]
    assert table_of(tmp_path / "out")["smiles"].to_pylist() == texts[: 2 * 8192]


def test_a_gz_that_is_cut_off_after_the_plan(model: MolCMIM, tmp_path: Path) -> None:
    texts = molecules(3000, 3000)
    path = tmp_path / "in.smi.gz"
    path.write_bytes(gzip.compress("\n".join(texts).encode()))
    manifest, _ = run_job(model, path, tmp_path / "out", shard_rows=1000, rank=0, world=3)
    path.write_bytes(path.read_bytes()[:-100])
    with (
        open_source(path) as source,
        pytest.raises(ValueError, match=r"in\.smi\.gz: damaged or incomplete compressed data"),
    ):
        embed_shard(model, source, manifest, 2, tmp_path / "out")
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "part-00000.parquet"]


def test_float16_that_overflows_names_the_row(tmp_path: Path) -> None:
    directory = tiny_checkpoint(tmp_path / "x")
    config = json.loads((directory / "config.json").read_text())
    config["scales"]["latent"] = 1e6
    (directory / "config.json").write_text(json.dumps(config))
    model = MolCMIM.from_pretrained(directory, device="cpu")
    source = write_smi(tmp_path / "in.smi", ["bad"] * 25 + ["CCO"])
    with pytest.raises(ValueError, match="row 25: its vector doesn't fit into float16"):
        run_job(model, source, tmp_path / "out", JobOptions(dtype="float16"), shard_rows=10)
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "part-00000.parquet", "part-00001.parquet"]
