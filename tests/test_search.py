"""Searches in embedding files: against brute force, whatever the layout of the files; errors that say why."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from rdkit import Chem
from tiny import SMILES, tiny_checkpoint
from typer.testing import CliRunner, Result

from molcmim import MolCMIM, cli_search
from molcmim.cli import OneLineErrors
from molcmim.scoring import search_exact, search_files, search_index
from molcmim.scoring.int8 import quantise
from molcmim.scoring.search import search
from molcmim.scoring.search_exact import nearest
from molcmim.scoring.search_files import EmbeddingFiles
from molcmim.scoring.search_index import approximate, index_path

Floats = npt.NDArray[Any]

MOLECULES = ["CCO", "C", "c1ccccc1", "CC(C)O", "CCC", "CCCO", "CC(=O)O", "CCCl", "CCBr", "CCCCC", "OCCO", "CC(N)C"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("search") / "tiny")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> MolCMIM:
    return MolCMIM.from_pretrained(checkpoint, device="cpu")


def write(
    path: Path,
    vectors: Floats,
    null: Sequence[int] = (),
    dtype: str = "float32",
    group: int = 1000,
    texts: dict[str, list[Any]] | None = None,
    facts: dict[str, str] | None = None,
) -> Path:
    """A file of embeddings; `null`: rows without vector."""
    mask = np.zeros(len(vectors), dtype=bool)
    mask[list(null)] = True
    columns: dict[str, Any] = {} if texts is None else {name: pa.array(values) for name, values in texts.items()}
    if dtype == "int8":
        values, scale = quantise(vectors)
        columns["scale"] = pa.array(scale, mask=mask)
    else:
        values = vectors.astype(dtype)
    columns["embedding"] = pa.FixedSizeListArray.from_arrays(
        pa.array(values.ravel()), vectors.shape[1], mask=pa.array(mask)
    )
    table = pa.table(columns).replace_schema_metadata(
        {f"molcmim.{name}": value for name, value in (facts or {}).items()}
    )
    pq.write_table(table, path, row_group_size=group)
    return path


def shards(folder: Path, vectors: Floats, sizes: Sequence[int], **more: Any) -> Path:
    """A folder of shards without manifest; the facts are those of molcmim's shards."""
    folder.mkdir()
    texts, first = more.pop("texts", None), 0
    null = more.pop("null", ())
    for number, size in enumerate(sizes):
        end = first + size
        write(
            folder / f"part-{number:05d}.parquet",
            vectors[first:end],
            [i - first for i in null if first <= i < end],
            texts=None if texts is None else {name: column[first:end] for name, column in texts.items()},
            facts={"fingerprint": "f", "shard": str(number), "first_row": str(first), **more.get("facts", {})},
            **{name: value for name, value in more.items() if name != "facts"},
        )
        first = end
    return folder


def brute_force(vectors: Floats, queries: Floats, k: int, metric: str, digits: int = 12) -> tuple[Floats, Floats]:
    """Rows and values (q, k), by float64 arithmetic of everything; NaN rows of `vectors` don't count."""
    rows = np.flatnonzero(~np.isnan(vectors).any(axis=1))
    x, y = vectors[rows].astype(float), queries.astype(float)
    scores = np.empty((len(y), len(x)))
    for i, query in enumerate(y):
        if metric == "euclidean":
            scores[i] = -np.sqrt(((x - query) ** 2).sum(axis=1))
        else:
            lengths = np.sqrt((x**2).sum(axis=1)) * np.sqrt((query**2).sum())
            scores[i] = (x * query).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    # a float64 sum may differ in its last digits, which would order equal rows at random
    order = np.stack([np.lexsort((rows, -np.round(line, digits)))[:k] for line in scores])
    values = np.take_along_axis(scores, order, axis=1)
    return rows[order], -values if metric == "euclidean" else values


def random_vectors(n: int, width: int = 24, seed: int = 0) -> Floats:
    """Rows of different lengths, some of them equal, one of zeros."""
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(n, width)) * np.exp(generator.normal(size=(n, 1)))
    vectors[n // 2 : n // 2 + n // 4] = vectors[: n // 4]
    vectors[n // 3] = 0
    return vectors.astype(np.float32)


# ---------------------------------------------------------------------------------------------- exact


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("layout", ["file", "groups", "shards"])
def test_equals_brute_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str, dtype: str, layout: str
) -> None:
    monkeypatch.setattr(search_files, "BLOCK_NUMBERS", 24 * 100)
    monkeypatch.setattr(search_exact, "QUERY_GROUP", 7)
    monkeypatch.setattr(search_exact, "PAIRS", 50)
    vectors, null = random_vectors(1000), [0, 1, 99, 100, 500, 998, 999]
    if layout == "shards":
        path = shards(tmp_path / "x", vectors, [300, 1, 0, 650, 49], null=null, dtype=dtype, group=70)
    else:
        path = write(tmp_path / "x.parquet", vectors, null, dtype, 1000 if layout == "file" else 33)
    kept = vectors.astype(dtype).astype(np.float32) if dtype != "int8" else vectors
    if dtype == "int8":
        values, scale = quantise(vectors)
        kept = values.astype(np.float32) * scale[:, None]
    kept[null] = np.nan
    queries = np.concatenate([random_vectors(17, seed=1), vectors[[5, 6, 700]]])
    files = EmbeddingFiles(path)
    assert (files.n_rows, files.width, files.dtype) == (1000, 24, dtype)
    steps: list[int] = []
    found = nearest(files, queries, 30, metric, advance=steps.append)
    rows, expected = brute_force(kept, queries, 30, metric)
    assert found.rows.tolist() == rows.tolist()
    np.testing.assert_allclose(found.values, expected, rtol=1e-12, atol=1e-12)
    assert sum(steps) == 1000


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_ties_come_in_the_order_of_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metric: str) -> None:
    """A float32 product gives equal rows different last digits, depending on their place in a block."""
    monkeypatch.setattr(search_files, "BLOCK_NUMBERS", 512 * 100)
    generator = np.random.default_rng(2)
    one, other = generator.normal(size=(2, 512)).astype(np.float32)
    vectors = np.tile(one, (1003, 1))
    vectors[::10] = other
    found = nearest(
        EmbeddingFiles(write(tmp_path / "x.parquet", vectors)), np.stack([other, one + other, one]), 150, metric
    )
    others = list(range(0, 1003, 10))
    ones = [i for i in range(1003) if i % 10]
    assert found.rows[0].tolist() == others + ones[: 150 - len(others)]
    assert found.rows[2].tolist() == ones[:150]
    assert len(set(found.values[2].tolist())) == 1
    assert found.values[2, 0] == pytest.approx(1 if metric == "cosine" else 0, abs=1e-12)


def test_neighbours_closer_than_float32_can_tell(tmp_path: Path) -> None:
    """Similarities that differ by less than 1e-9 are in the right order."""
    generator = np.random.default_rng(3)
    query = generator.normal(size=400)
    vectors = (query + 1e-4 * generator.normal(size=(500, 400))).astype(np.float32)
    query = query.astype(np.float32)[None]
    for metric in ("cosine", "euclidean"):
        rows, values = brute_force(vectors, query, 20, metric, digits=14)
        found = nearest(EmbeddingFiles(write(tmp_path / "x.parquet", vectors)), query, 20, metric)
        assert found.rows.tolist() == rows.tolist(), metric
        np.testing.assert_allclose(found.values, values, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-30, 1e25])
def test_vectors_at_the_ends_of_float32(tmp_path: Path, scale: float) -> None:
    """Their squares overflow or vanish; only directions count for the cosine."""
    vectors = random_vectors(200)
    queries = random_vectors(3, seed=4)
    rows, values = brute_force(vectors, queries, 10, "cosine")
    mixed = vectors.copy()
    mixed[::2] *= np.float32(scale)
    files = EmbeddingFiles(write(tmp_path / "x.parquet", mixed))
    found = nearest(files, queries * np.float32(scale), 10)
    np.testing.assert_allclose(found.values, values, atol=1e-6)
    assert sorted(found.rows[0].tolist()) == sorted(rows[0].tolist())
    if scale > 1:
        with pytest.raises(ValueError, match=r"row \d+: its vector is too long for float32 distances"):
            nearest(files, queries, 10, "euclidean")


def test_fewer_rows_than_neighbours(tmp_path: Path) -> None:
    vectors = random_vectors(5)
    files = EmbeddingFiles(write(tmp_path / "x.parquet", vectors, null=[1, 3]))
    found = nearest(files, vectors[:1], 20)
    assert found.rows.shape == (1, 5)
    assert sorted(found.rows[0, :3].tolist()) == [0, 2, 4]
    assert found.rows[0, 3:].tolist() == [-1, -1] and np.isnan(found.values[0, 3:]).all()
    empty = EmbeddingFiles(write(tmp_path / "empty.parquet", vectors[:0]))
    assert nearest(empty, vectors[:2]).rows.tolist() == [[-1], [-1]]
    assert nearest(files, vectors[:0]).rows.shape == (0, 5)


def test_a_vector_that_is_not_finite_does_not_count(tmp_path: Path) -> None:
    vectors = random_vectors(6)
    vectors[2, 3], vectors[4, 0] = np.nan, np.inf
    found = nearest(EmbeddingFiles(write(tmp_path / "x.parquet", vectors)), vectors[:1], 6)
    assert sorted(found.rows[0, :4].tolist()) == [0, 1, 3, 5]


def test_rows_are_looked_up_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_files, "BLOCK_NUMBERS", 24 * 64)
    vectors = random_vectors(400)
    texts = {"id": list(range(400)), "smiles": [f"s{i}" for i in range(400)]}
    path = shards(tmp_path / "x", vectors, [150, 250], null=[7], texts=texts, group=100)
    wanted = [399, 7, 0, 149, 150, 399, 249, 250, 120]
    found = EmbeddingFiles(path).look_up(wanted, vectors=True)
    assert found.texts["id"] == [str(i) for i in wanted], "ids of a foreign file may be numbers"
    assert found.texts["smiles"] == [f"s{i}" for i in wanted]
    assert found.texts["canonical_smiles"] == [None] * 9, "a column that isn't there"
    assert found.files == [f"part-0000{int(i >= 150)}.parquet" for i in wanted]
    assert found.vectors is not None
    assert np.isnan(found.vectors[1]).all()
    keep = [i for i in range(9) if i != 1]
    assert np.array_equal(found.vectors[keep], vectors[[wanted[i] for i in keep]])
    assert EmbeddingFiles(path).look_up([]).files == []


def test_memory_does_not_grow_with_the_file(tmp_path: Path, root: Path) -> None:
    """A row group of 100 MB is read in pieces."""
    generator = np.random.default_rng(5)
    write(tmp_path / "x.parquet", generator.normal(size=(50_000, 512)).astype(np.float32), group=50_000)
    code = (
        "import resource, numpy as np, pyarrow.parquet, pyarrow.compute\n"
        "from molcmim.scoring.search_exact import nearest\n"
        "from molcmim.scoring.search_files import EmbeddingFiles\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        f"nearest(EmbeddingFiles({str(tmp_path / 'x.parquet')!r}), np.ones((1, 512)), 20)\n"
        "print((peak() - before) // 1024)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert int(done.stdout) < (90 if sys.platform == "linux" else 90 * 1024), "MB; the vectors alone are 102"


# ---------------------------------------------------------------------------------------------- files


def test_what_is_no_file_of_embeddings(tmp_path: Path) -> None:
    def fails(path: Path, text: str, kind: type[Exception] = ValueError) -> None:
        with pytest.raises(kind, match=text):
            EmbeddingFiles(path)

    vectors = random_vectors(20)
    fails(tmp_path / "x.npy", "no such file or folder", FileNotFoundError)
    (tmp_path / "x.npy").write_bytes(b"")
    fails(tmp_path / "x.npy", r"expected a \*.parquet file or a folder")
    fails(tmp_path / "x.parquet", "no such file", FileNotFoundError)
    fails(tmp_path, "which has none")
    (tmp_path / "text.parquet").write_text("CCO")
    fails(tmp_path / "text.parquet", "text.parquet: its footer can't be read: not Parquet, or damaged")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "a.parquet")
    fails(tmp_path / "a.parquet", "expected a column 'embedding', got a")
    pq.write_table(pa.table({"embedding": [[1.0]]}), tmp_path / "a.parquet")
    fails(tmp_path / "a.parquet", "expected lists of float32, float16 or int8 of one length, got list<")
    write(tmp_path / "i.parquet", vectors, dtype="int8")
    pq.write_table(pq.read_table(tmp_path / "i.parquet").drop_columns("scale"), tmp_path / "i.parquet")
    fails(tmp_path / "i.parquet", "expected a column 'scale' beside int8 vectors")


def test_a_damaged_row_group_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.parquet", random_vectors(500), group=100)
    data = bytearray(path.read_bytes())
    data[4:400] = b"\xff" * 396
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"x\.parquet: its vectors can't be read"):
        nearest(EmbeddingFiles(path), np.ones((1, 24)))


def test_missing_shards(tmp_path: Path) -> None:
    vectors = random_vectors(90)
    folder = shards(tmp_path / "x", vectors, [30, 30, 30])
    (folder / ".part-00003.parquet.1234.part").write_text("somebody is writing this")
    assert nearest(EmbeddingFiles(folder), vectors[70:71], 1).rows.tolist() == [[70]]
    (folder / "part-00001.parquet").unlink()
    with pytest.raises(ValueError, match="expected 3 shards, but 1 are missing, the first of them number 1"):
        EmbeddingFiles(folder)
    files = EmbeddingFiles(folder, partial=True)
    assert files.n_rows == 60
    assert nearest(files, vectors[70:71], 1).rows.tolist() == [[70]], "rows keep their numbers"
    assert files.look_up([70, 3]).files == ["part-00002.parquet", "part-00000.parquet"]


def test_shards_that_the_manifest_plans(tmp_path: Path) -> None:
    from molcmim.scoring.manifest import MANIFEST, Manifest
    from molcmim.scoring.source import RowRange

    vectors = random_vectors(90)
    folder = shards(tmp_path / "x", vectors, [30, 30])
    ranges = [RowRange(first, 30, 0, first, None) for first in (0, 30, 60)]
    (folder / MANIFEST).write_bytes(Manifest({}, [], [], {}, 30, 90, ranges).to_bytes())
    with pytest.raises(ValueError, match="expected 3 shards, but 1 are missing, the first of them number 2"):
        EmbeddingFiles(folder)
    assert EmbeddingFiles(folder, partial=True).n_rows == 60


@pytest.mark.parametrize("name", ["model_id", "kind", "policy", "fingerprint", "width"])
def test_shards_that_contradict_each_other(tmp_path: Path, name: str) -> None:
    vectors = random_vectors(20)
    facts = {"fingerprint": "f", "model_id": "m", "kind": "both", "policy": "canonical"}
    folder = shards(tmp_path / "x", vectors, [10], facts=facts)
    other = {**facts, "first_row": "10", **({} if name == "width" else {name: "another"})}
    write(folder / "part-00001.parquet", vectors[10:, : 23 if name == "width" else 24], facts=other)
    with pytest.raises(ValueError, match=rf"part-00001\.parquet: expected {name} .* as in part-00000\.parquet, got"):
        EmbeddingFiles(folder)


def test_wrong_options(tmp_path: Path, model: MolCMIM) -> None:
    files = EmbeddingFiles(write(tmp_path / "x.parquet", random_vectors(20)))
    for options, text in [
        ({"k": 0}, "k: expected an integer of at least 1, got 0"),
        ({"k": 1.5}, "k: expected an integer"),
        ({"metric": "dot"}, "metric: expected one of cosine, euclidean, got 'dot'"),
    ]:
        with pytest.raises(ValueError, match=text):
            nearest(files, np.ones((1, 24)), **options)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"vectors: expected shape \(n, 24\), got \(1, 23\)"):
        nearest(files, np.ones((1, 23)))
    with pytest.raises(ValueError, match="vectors: expected finite numbers, got others in row 1"):
        nearest(files, [[1.0] * 24, [np.nan] * 24])
    with pytest.raises(ValueError, match="engine: expected one of exact, usearch, got 'faiss'"):
        search(files, "CCO", engine="faiss", model=model)
    with pytest.raises(ValueError, match="query_ids: expected one for each of 1 queries, got 2"):
        search(files, "CCO", model=model, query_ids=["a", "b"])
    with pytest.raises(ValueError, match="it doesn't say by which model"):
        search(files, "CCO", model=model)


# ---------------------------------------------------------------------------------------------- molecules


def embedded(path: Path, model: MolCMIM, molecules: Sequence[str], kind: str = "both", **options: Any) -> Path:
    """The molecules' embeddings, written by `molcmim embed`'s own functions."""
    from molcmim.cli_run import embed_file
    from molcmim.readers import MoleculeReader

    source = path.with_suffix(".smi")
    source.write_text("".join(f"{text} m{i}\n" for i, text in enumerate(molecules)))
    with MoleculeReader(source) as reader:
        embed_file(model, reader, path, kind, workers=0, **options)
    source.unlink()
    return path


@pytest.mark.parametrize("kind", ["latent", "informative", "both"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_search_finds_molecules(tmp_path: Path, model: MolCMIM, kind: str, dtype: str) -> None:
    path = embedded(tmp_path / "x.parquet", model, [*MOLECULES, "bad", "OCC"], kind, dtype=dtype, exact=True)
    result = search(path, ["OCC", "C1CC", "[U]", "c1ccccc1"], k=3, model=model)
    assert result.query == ["OCC"] * 3 + ["C1CC", "[U]"] + ["c1ccccc1"] * 3
    assert result.query_row.tolist() == [0, 0, 0, 1, 2, 3, 3, 3]
    assert result.status == ["ok"] * 3 + ["parse_error", "unknown_token"] + ["ok"] * 3
    assert result.rank.tolist() == [1, 2, 3, 0, 0, 1, 2, 3]
    assert result.row[:2].tolist() == [0, 13], "the same molecule twice, in the order of the file"
    assert (result.id[1], result.smiles[1], result.canonical_smiles[1]) == ("m13", "OCC", "CCO")
    assert result.row[3:6].tolist() == [-1, -1, 2]
    assert result.id[3] is None and result.file[3] is None and np.isnan(result.value[3])
    assert result.file[0] == "x.parquet"
    assert result.value[0] == pytest.approx(1, abs=1e-6 if dtype == "float32" else 1e-3)
    vectors = model.embed([*MOLECULES, "OCC"], kind).astype(dtype)
    rows, values = brute_force(vectors, model.embed(["OCC"], kind, exact=True), 3, "cosine")
    assert [13 if row == 12 else row for row in rows[0].tolist()] == result.row[:3].tolist()
    np.testing.assert_allclose(result.value[:3], values[0], atol=1e-5)
    one = result.of(3)
    assert (one.query, one.rank.tolist(), one.smiles[0]) == (["c1ccccc1"] * 3, [1, 2, 3], "c1ccccc1")


def test_queries_are_prepared_as_the_file_was(tmp_path: Path, model: MolCMIM) -> None:
    salt = "[Na+].[O-]C(C)=O"
    parent = embedded(tmp_path / "x.parquet", model, ["CC(=O)O", "CCO"], policy="parent")
    found = search(parent, salt, k=1, metric="euclidean", model=model)
    assert (found.canonical_smiles[0], found.columns()["distance"][0] < 1e-5) == ("CC(=O)O", True)
    as_given = embedded(tmp_path / "x.parquet", model, ["CCO", "OCC"], policy="none")
    assert search(as_given, "OCC", k=1, model=model).row.tolist() == [1]


def test_exclude_self(tmp_path: Path, model: MolCMIM) -> None:
    path = embedded(tmp_path / "x.parquet", model, ["CCO", "C", "OCC", "CCC", "C(C)O"])
    result = search(path, ["OCC", "C", "bad", "OCC"], k=5, exclude_self=True, model=model)
    assert [sorted(result.of(i).row.tolist()) for i in range(4)] == [[1, 3], [0, 2, 3, 4], [-1], [1, 3]]


def test_queries_of_any_kind(tmp_path: Path, model: MolCMIM) -> None:
    path = embedded(tmp_path / "x.parquet", model, ["CCO", "C"])
    result = search(path, [Chem.MolFromSmiles("OCC"), None, b"C"], k=1, model=model)
    assert result.query == ["CCO", "", "C"]
    assert result.status == ["ok", "empty", "ok"]
    assert len(search(path, [], model=model)) == 0
    with pytest.raises(TypeError, match="no row order"):
        search(path, {"CCO"}, model=model)


def test_a_file_without_vectors(tmp_path: Path, model: MolCMIM) -> None:
    path = embedded(tmp_path / "x.parquet", model, ["bad", ""])
    result = search(path, "CCO", model=model)
    assert (result.status, result.rank.tolist(), result.row.tolist()) == (["ok"], [0], [-1])


def test_another_model_is_refused(tmp_path: Path, model: MolCMIM) -> None:
    path = embedded(tmp_path / "x.parquet", model, ["CCO"])
    other = MolCMIM.from_pretrained(tiny_checkpoint(tmp_path / "other", seed=1, name="other"), device="cpu")
    with pytest.raises(ValueError, match="made by model") as caught:
        search(path, "CCO", model=other)
    for text in (model.model_id, "(tiny)", other.model_id, "(other)"):
        assert text in str(caught.value)


def test_result_files(tmp_path: Path, model: MolCMIM) -> None:
    path = embedded(tmp_path / "x.parquet", model, ["CCO", "bad", "C"])
    result = search(path, ["CCO", "C1CC"], k=1, model=model, query_ids=["a", None])
    result.write(tmp_path / "out.csv")
    with open(tmp_path / "out.csv", newline="") as file:
        head, *rows = list(csv.reader(file))
    assert head == [
        *("query", "query_id", "status", "rank", "id", "smiles", "canonical_smiles", "similarity", "row", "file")
    ]
    assert rows[0] == ["CCO", "a", "ok", "1", "m0", "CCO", "CCO", "1", "0", "x.parquet"]
    assert rows[1] == ["C1CC", "", "parse_error", *[""] * 7]
    result.write(tmp_path / "out.parquet", {"k": "1"})
    table = pq.read_table(tmp_path / "out.parquet")
    assert table.column_names == head
    assert table["rank"].to_pylist() == [1, None] and table["row"].to_pylist() == [0, None]
    assert table["similarity"].to_pylist() == [result.value[0], None]
    assert table.schema.metadata == {b"molcmim.k": b"1"}
    frame = result.to_frame()
    assert list(frame.columns) == head and frame["row"].isna().tolist() == [False, True]
    with pytest.raises(ValueError, match="expected a file name ending in"):
        result.write(tmp_path / "out.txt")
    assert sorted(place.name for place in tmp_path.iterdir()) == ["out.csv", "out.parquet", "x.parquet"]


# ---------------------------------------------------------------------------------------------- usearch


@pytest.fixture
def usearch() -> Any:
    return pytest.importorskip("usearch.index", reason="needs the package usearch")


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_index_finds_nearly_what_the_scan_finds(tmp_path: Path, usearch: Any, metric: str, dtype: str) -> None:
    vectors = random_vectors(2000)
    path = shards(tmp_path / "x", vectors, [900, 1100], null=[3, 1500], dtype=dtype, group=300)
    queries = random_vectors(30, seed=1)
    files = EmbeddingFiles(path)
    exact, found = nearest(files, queries, 20, metric), approximate(files, queries, 20, metric)
    hits = [len(set(a) & set(b)) for a, b in zip(exact.rows.tolist(), found.rows.tolist(), strict=True)]
    assert sum(hits) / 600 > 0.95
    same = exact.rows == found.rows
    assert np.array_equal(exact.values[same], found.values[same]), "values are computed from the files"
    single = approximate(files, queries[:1], 20, metric)
    assert single.rows.tolist() == found.rows[:1].tolist()
    few = approximate(EmbeddingFiles(write(tmp_path / "few.parquet", vectors[:4], [1])), vectors[:2], 20, metric)
    assert sorted(few.rows[0].tolist()) == [-1, 0, 2, 3]


def test_index_is_saved_and_used_again(tmp_path: Path, usearch: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = random_vectors(300)
    path = write(tmp_path / "x.parquet", vectors)
    files = EmbeddingFiles(path)
    first = approximate(files, vectors[:2], 5)
    assert index_path(files, "cosine") == tmp_path / "x.parquet.usearch"
    assert sorted(place.name for place in tmp_path.iterdir()) == [
        *("x.parquet", "x.parquet.usearch", "x.parquet.usearch.json")
    ]
    built: list[str] = []
    build = search_index.build_index

    def counted(*arguments: Any) -> Any:
        built.append("again")
        return build(*arguments)

    monkeypatch.setattr(search_index, "build_index", counted)
    again = approximate(EmbeddingFiles(path), vectors[:2], 5)
    assert again.rows.tolist() == first.rows.tolist() and built == []
    approximate(files, vectors[:2], 5, "euclidean")
    assert (tmp_path / "x.parquet.euclidean.usearch").is_file() and len(built) == 1, "each metric has its own"

    write(path, vectors[::-1])  # other embeddings
    changed = approximate(EmbeddingFiles(path), vectors[:2], 5)
    assert changed.rows[:, 0].tolist() == [149, 148] and len(built) == 2
    index = index_path(files, "cosine")
    index.write_bytes(index.read_bytes()[:-100])  # a damaged index
    assert approximate(EmbeddingFiles(path), vectors[:2], 5).rows.tolist() == changed.rows.tolist()
    assert len(built) == 3
    facts = index.with_name(f"{index.name}.json")
    assert json.loads(facts.read_text())["metric"] == "cosine"
    facts.unlink()  # killed between the index and its facts
    approximate(EmbeddingFiles(path), vectors[:2], 5)
    assert len(built) == 4


def test_index_without_the_query_itself(tmp_path: Path, usearch: Any, model: MolCMIM) -> None:
    """More rows of the molecule than candidates are asked for at first."""
    path = embedded(tmp_path / "x.parquet", model, ["CCO"] * 60 + MOLECULES)
    for exclude_self in (False, True):
        options: dict[str, Any] = {"k": 5, "exclude_self": exclude_self, "model": model}
        exact = search(path, ["OCC", "bad", "C"], **options)
        found = search(path, ["OCC", "bad", "C"], engine="usearch", **options)
        assert found.status == exact.status
        assert list(found.canonical_smiles) == list(exact.canonical_smiles)
        assert ("CCO" in found.canonical_smiles[:5]) is not exclude_self
        assert np.array_equal(found.value, exact.value, equal_nan=True)


def test_without_the_package(tmp_path: Path, model: MolCMIM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "usearch", None)
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    path = embedded(tmp_path / "x.parquet", model, ["CCO"])
    with pytest.raises(ImportError, match=r"pip install 'molcmim\[search\]'"):
        search(path, "CCO", engine="usearch", model=model)
    assert [place.name for place in tmp_path.iterdir()] == ["x.parquet"]


# ---------------------------------------------------------------------------------------------- command


def run(*arguments: object, code: int = 0) -> Result:
    app = typer.Typer(cls=OneLineErrors, pretty_exceptions_enable=False)
    app.command(name="neighbours-in")(cli_search.neighbours_in)
    app.callback()(lambda: None)
    result = CliRunner().invoke(app, ["neighbours-in", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_command_prints_a_table(tmp_path: Path, model: MolCMIM, checkpoint: Path) -> None:
    path = embedded(tmp_path / "x.parquet", model, [*MOLECULES, "bad"])
    result = run(path, "OCC", "C1CC", "C", "-k", 2, "-m", checkpoint)
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["similarity", "row", "near", "OCC"]
    assert lines[1] == ["1.000000", "0", "CCO", "m0"]
    assert lines[3:5] == [["near", "C1CC:", "parse_error"], ["similarity", "row", "near", "C"]]
    assert lines[5] == ["1.000000", "1", "C", "m1"]
    assert len(lines) == 7
    assert result.stderr == "3 queries, 4 neighbours among 13 rows; 1 query can't be embedded\n"
    excluded = run(path, "OCC", "-k", 1, "-m", checkpoint, "--exclude-self", "--metric", "euclidean")
    assert excluded.stdout.splitlines()[0].split() == ["distance", "row", "near", "OCC"]
    assert excluded.stdout.splitlines()[1].split()[2] != "CCO"


def test_command_reads_queries_and_writes_a_file(tmp_path: Path, model: MolCMIM, checkpoint: Path) -> None:
    path = embedded(tmp_path / "x.parquet", model, MOLECULES)
    (tmp_path / "q.csv").write_text("name,drug\nq1,CCO\nq2,\nq3,C\n")
    options = ("--queries", tmp_path / "q.csv", "--smiles-column", "drug", "--id-column", "name", "-m", checkpoint)
    output = tmp_path / "out.parquet"
    result = run(path, "c1ccccc1", *options, "-k", 2, "-o", output)
    assert result.stdout == (f"4 queries, 6 neighbours among 12 rows; 1 query can't be embedded -> {output}\n")
    table = pq.read_table(output)
    assert table["query"].to_pylist() == ["c1ccccc1"] * 2 + ["CCO"] * 2 + ["", "C", "C"]
    assert table["query_id"].to_pylist() == [None, None, "q1", "q1", "q2", "q3", "q3"]
    assert table["status"].to_pylist() == ["ok"] * 4 + ["empty", "ok", "ok"]
    assert [table["row"].to_pylist()[i] for i in (0, 2, 4, 5)] == [2, 0, None, 1]
    facts = {key.decode(): value.decode() for key, value in table.schema.metadata.items()}
    assert (facts["molcmim.model_id"], facts["molcmim.engine"], facts["molcmim.k"]) == (model.model_id, "exact", "2")


def test_queries_of_sdf_are_shown_as_smiles(tmp_path: Path, model: MolCMIM, checkpoint: Path) -> None:
    path = embedded(tmp_path / "x.parquet", model, MOLECULES)
    block = Chem.MolToMolBlock(Chem.MolFromSmiles("OCC"))
    (tmp_path / "q.sdf").write_text(f"ethanol\n{block.split(chr(10), 1)[1]}$$$$\nbad\n\n\nnonsense\nM  END\n$$$$\n")
    output = tmp_path / "out.csv"
    result = run(path, "--queries", tmp_path / "q.sdf", "-k", 1, "-m", checkpoint, "-o", output)
    assert result.stdout == f"2 queries, 1 neighbour among 12 rows; 1 query can't be embedded -> {output}\n"
    rows = [line.split(",")[:4] for line in output.read_text().splitlines()]
    assert rows[1:] == [["CCO", "ethanol", "ok", "1"], ["", "bad", "parse_error", ""]]


def test_command_errors(tmp_path: Path, model: MolCMIM, checkpoint: Path) -> None:
    path = embedded(tmp_path / "x.parquet", model, MOLECULES)
    content = path.read_bytes()

    def fail(*arguments: object, code: int = 1) -> str:
        result = run(*arguments, "-m", checkpoint, code=code)
        assert code != 1 or (len(result.stderr.splitlines()) == 1 and result.stderr.startswith("error: "))
        return str(result.stderr)

    assert "no such file" in fail(tmp_path / "y.parquet", "CCO")
    assert "would replace the embeddings" in fail(path, "CCO", "-o", path)
    folder = tmp_path / "x"
    folder.mkdir()
    (folder / "part-00000.parquet").write_bytes(content)
    assert "would replace the embeddings" in fail(folder, "CCO", "-o", folder / "part-00000.parquet")
    assert "expected a file name ending in" in fail(path, "CCO", "-o", tmp_path / "out.txt")
    assert "no such directory" in fail(path, "CCO", "-o", tmp_path / "no" / "out.csv")
    assert "missing.smi" in fail(path, "--queries", tmp_path / "missing.smi")
    (folder / "part-00000.parquet").rename(folder / "part-00001.parquet")
    assert "expected 2 shards, but 1 are missing" in fail(folder, "CCO")
    run(folder, "CCO", "--partial", "-m", checkpoint)
    fail(path, code=2)
    fail(path, "CCO", "-k", 0, code=2)
    fail(path, "CCO", "--metric", "dot", code=2)
    other = tiny_checkpoint(tmp_path / "other", seed=1)
    result = run(path, "CCO", "-m", other, code=1)
    assert model.model_id in result.stderr and "give the model that made them" in result.stderr
    assert path.read_bytes() == content
    assert SMILES[0] == MOLECULES[0], "both models know it"


def test_the_command_imports_nothing_heavy(root: Path) -> None:
    code = "import sys, molcmim.cli_search; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert not {"torch", "rdkit", "pyarrow", "numpy", "pandas"} & set(done.stdout.split())


def test_usearch_and_rdkit_live_in_one_process() -> None:
    """Imported the other way round, rdkit ends the process: the index has to bring it in first."""
    pytest.importorskip("usearch")
    code = "from molcmim.scoring.search_index import usearch; usearch(); import rdkit.Chem; print('alive')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "alive\n")
