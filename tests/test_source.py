"""Molecules out of files: every format, ranges of rows, several files, headers, and every error."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from molcmim.chem import MolBlock
from molcmim.readers import Chunk
from molcmim.scoring.source import FileFacts, RowRange, Source, open_source

zstandard = pytest.importorskip("zstandard")

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor(write_checksum=True).compress,
}
SMI = b"CCO ethanol\n\nC1CC\tring, open\r\n  CCN  two  words \nC\xe9\n\tnameless\nCCCC"
SMI_ROWS = [
    ("CCO", "ethanol"),
    ("", None),
    ("C1CC", "ring, open"),
    ("CCN", "two  words"),
    ("C\ufffd", None),
    ("", "nameless"),
    ("CCCC", None),
]
TABLE = [  # lines of a table and the rows they are
    (b"CCO,1,a", ("CCO", "1", "a")),
    (b'"CCN",2,"two\nlines, ""quoted"""', ("CCN", "2", 'two\nlines, "quoted"')),
    (b"", ("", None, None)),
    (b'"CCC,3,never closed', ('"CCC', "3", "never closed")),
    (b"CC\rC,4,b", ("CC\rC", "4", "b")),
    (b"CCCl,5", ("CCCl", "5", None)),
    (b"CCBr,6,c,surplus", ("CCBr", "6", "c")),
    (b"C\xff,7,\xc3\xa9", ("C\ufffd", "7", "\u00e9")),
    (b"CCF,8,", ("CCF", "8", "")),
]
TABLE_ROWS = [row for _, row in TABLE]


def table(delimiter: bytes = b",", end: bytes = b"\n") -> bytes:
    return end.join([b"smiles,id,note", *(line for line, _ in TABLE)]).replace(b",", delimiter)


def rows_of(chunks: Iterable[Chunk]) -> list[tuple[Any, ...]]:
    """All rows: SMILES, id, and the pass-through columns as Python objects."""
    rows: list[tuple[Any, ...]] = []
    for chunk in chunks:
        extra = [column.to_pylist() if isinstance(column, pa.Array) else column for column in chunk.extra]
        rows.extend(zip(chunk.smiles, chunk.id, *extra, strict=True))
    return rows


def read_all(*inputs: Path, **options: Any) -> list[tuple[Any, ...]]:
    with open_source(list(inputs), **options) as source:
        return rows_of(source.read())


def check_ranges(source: Source, shard_rows: int) -> None:
    """The ranges of a scan, read in any order and by any copy of the source, are the whole input in pieces."""
    whole = rows_of(source.read(chunk_rows=3))
    scan = source.scan(shard_rows)
    assert [file.n_rows for file in scan.files] == [len(read_all(path, **options_of(source))) for path in source.paths]
    assert scan.n_rows == len(whole)
    assert [r.first for r in scan.ranges] == list(range(0, len(whole), shard_rows))
    assert [r.n for r in scan.ranges] == [min(shard_rows, len(whole) - r.first) for r in scan.ranges]
    assert [RowRange(*json.loads(json.dumps(r))) for r in scan.ranges] == scan.ranges
    again = pickle.loads(pickle.dumps(source))
    for reader, ranges in ((source, scan.ranges), (again, scan.ranges[::-1]), (again, scan.ranges[::2])):
        for part in ranges:
            chunks = list(reader.read(part, chunk_rows=4))
            assert all(len(chunk.smiles) <= 4 for chunk in chunks)
            assert rows_of(chunks) == whole[part.first : part.first + part.n]
    again.close()


def options_of(source: Source) -> dict[str, Any]:
    settings = source._settings
    return {"smiles_column": settings.smiles_column, "id_column": settings.id_column, "format": settings.format}


# --- text ---


@pytest.mark.parametrize("ending", COMPRESS)
def test_smi(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"in.smi{ending}"
    path.write_bytes(COMPRESS[ending](b"\xef\xbb\xbf" + SMI))
    with open_source(path) as source:
        assert (source.format, source.extra, source.seekable, source.size) == ("smi", [], True, path.stat().st_size)
        assert rows_of(source.read()) == SMI_ROWS
        for shard_rows in (1, 2, 7, 1000):
            check_ranges(source, shard_rows)
        assert [r.offset for r in source.scan(2).ranges] == ([None] * 4 if ending else [0, 16, 52, 65])


@pytest.mark.parametrize("ending", COMPRESS)
@pytest.mark.parametrize(("kind", "delimiter"), [("csv", b","), ("TSV", b"\t")])
def test_tables(tmp_path: Path, kind: str, delimiter: bytes, ending: str) -> None:
    path = tmp_path / f"in.{kind}{ending}"
    path.write_bytes(COMPRESS[ending](table(delimiter)))
    expected = [tuple(text and text.replace(",", delimiter.decode()) for text in row) for row in TABLE_ROWS]
    with open_source(path) as source:
        assert source.extra == [("note", "string")]
        assert source.arrow_fields() == [pa.field("note", pa.string())]
        assert rows_of(source.read()) == expected
        assert source.n_surplus == 1
        assert source.position == source.size
        for shard_rows in (1, 4, 7, 1000):
            check_ranges(source, shard_rows)


def test_a_range_is_read_from_its_offset(tmp_path: Path) -> None:
    """What stands before is not looked at: it may even have become something else."""
    path = tmp_path / "in.csv"
    path.write_bytes(table())
    with open_source(path) as source:
        ranges = source.scan(4).ranges
        assert [r.offset for r in ranges] == [15, table().index(b"CC\rC"), table().index(b"CCF")]
        path.write_bytes(path.read_bytes().replace(b"\nCCO,1,a\n", b"\nxxxxxxx\n").replace(b"CCN", b"xxx"))
        assert rows_of(source.read(ranges[1])) == TABLE_ROWS[4:8]


def test_many_lines_with_and_without_quotes(tmp_path: Path) -> None:
    """Counting goes over lines without quotes at once, and over the others one by one: across all seams."""
    path = tmp_path / "in.csv"
    lines = ["smiles,note"]
    for i in range(5000):
        lines.append(f'C,"{i}\nmore"' if i % 1501 == 7 else f"CC,{i}" if i % 1024 else 'CCC,"closed" not')
    path.write_text("\n".join(lines) + "\n")
    with open_source(path) as source:
        assert len(rows_of(source.read())) == 5000
        for shard_rows in (999, 1024, 4999):
            check_ranges(source, shard_rows)


def test_the_same_reader_serves_ranges_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compressed file is decompressed once, not once a range, even if some are left out in between."""
    from molcmim.scoring import source as module

    path = tmp_path / "in.smi.gz"
    path.write_bytes(gzip.compress(b"".join(b"C %d\n" % i for i in range(100))))
    opened: list[str] = []
    real = module._open_reader
    monkeypatch.setattr(module, "_open_reader", lambda name, *rest: opened.append(name) or real(name, *rest))
    with open_source(path) as source:
        ranges = source.scan(7).ranges
        opened.clear()
        for part in ranges[::3]:
            assert [row[1] for row in rows_of(source.read(part))] == [str(part.first + i) for i in range(part.n)]
        assert opened == []  # the one from the beginning
        chunks = source.read(ranges[0], chunk_rows=2)
        assert next(chunks).id == ["0", "1"]
        chunks.close()
        assert len(opened) == 1
        assert next(source.read(RowRange(2, 1, 0, 2, None))).id == ["2"]  # goes on where the caller stopped
        assert len(opened) == 1


def test_a_scan_counts_hashes_and_reports(tmp_path: Path) -> None:
    plain, packed = tmp_path / "a.smi", tmp_path / "b.smi.gz"
    plain.write_bytes(SMI)
    packed.write_bytes(gzip.compress(SMI) + b"\0" * 100)  # padding, as tapes and some tools leave it
    seen: list[tuple[int, int]] = []
    with open_source([plain, packed]) as source:
        scan = source.scan(3, lambda n_bytes, n_rows: seen.append((n_bytes, n_rows)))
    hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (plain, packed)]
    assert scan.files == [
        FileFacts(str(plain), len(SMI), hashes[0], 7),
        FileFacts(str(packed), packed.stat().st_size, hashes[1], 7),
    ]
    assert scan.sha256 == hashlib.sha256("".join(text + "\n" for text in hashes).encode()).hexdigest()
    assert seen == sorted(seen)
    assert seen[-1] == (plain.stat().st_size + packed.stat().st_size, 14)


MEMORY = """
import resource, sys
from molcmim.scoring.source import open_source
peaks = []
for path in sys.argv[1:]:
    with open_source(path) as source:
        n = sum(r.n for r in source.scan(100_000).ranges)
        assert n == sum(len(chunk.smiles) for chunk in source.read())
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(*peaks)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ru_maxrss in KiB, as on Linux")
@pytest.mark.parametrize("kind", ["smi", "csv.gz", "parquet"])
def test_memory_is_flat(tmp_path: Path, kind: str) -> None:
    paths = []
    for n in (100_000, 1_000_000):
        path = tmp_path / f"{n}.{kind}"
        if kind == "parquet":  # all in one row group
            columns = {
                "smiles": ["CCOC(=O)c1ccccc1"] * n,
                "x": pa.array(range(n)),
                "note": [f"note {i}" for i in range(n)],
            }
            pq.write_table(pa.table(columns), path, row_group_size=n)
        elif kind == "smi":
            path.write_bytes(b"".join(b"CCOC(=O)c1ccccc1 %d\n" % i for i in range(n)))
        else:
            path.write_bytes(gzip.compress(b"smiles,x\n" + b"".join(b"CCOC(=O)c1ccccc1,%d\n" % i for i in range(n)), 1))
        paths.append(path)
    run = subprocess.run([sys.executable, "-c", MEMORY, *paths], capture_output=True, text=True, check=True)
    small, large = map(int, run.stdout.split())
    assert large < 1.1 * small + 4096


# --- headers and columns ---


@pytest.mark.parametrize(
    ("text", "options", "extra", "rows"),
    [
        ("CCO,1\nCCN,2\n", {}, ["c2"], [("CCO", None, "1"), ("CCN", None, "2")]),
        ("1,CCO\n2,CCN\n", {}, ["c1"], [("CCO", None, "1"), ("CCN", None, "2")]),
        ("N,CCO\nF,CCN\n", {}, ["c1"], [("CCO", None, "N"), ("CCN", None, "F")]),  # the longer ones of two
        ("CCO,a\nnot one,b\nCCN,c\n", {}, ["c2"], [("CCO", None, "a"), ("not one", None, "b"), ("CCN", None, "c")]),
        ("CCO\n", {}, [], [("CCO", None)]),
        ('CCO,"a\nb"\nCCN,c\n', {}, ["c2"], [("CCO", None, "a\nb"), ("CCN", None, "c")]),
        ("\ufeffCCO,1\nCCN,2\n", {}, ["c2"], [("CCO", None, "1"), ("CCN", None, "2")]),
        ("CCO,1\nCCN,2\n", {"id_column": "2"}, [], [("CCO", "1"), ("CCN", "2")]),
        ("x,CCO\ny,CCN\n", {"smiles_column": 2, "id_column": 1}, [], [("CCO", "x"), ("CCN", "y")]),
        ("CCO,1\nCCN,0\n", {"smiles_column": "1"}, ["c2"], [("CCO", None, "1"), ("CCN", None, "0")]),
        ("drug,n\nCCO,1\n", {"smiles_column": "1"}, ["n"], [("CCO", None, "1")]),  # a word is no SMILES
        ("CCS,1\nCCN,2\n", {"header": "yes", "smiles_column": "ccs"}, ["1"], [("CCN", None, "2")]),
        ("CCS,mass\n185.2,3\n", {"smiles_column": "CCS"}, ["mass"], [("185.2", None, "3")]),
        ("smiles,1\nCCO,x\n", {"smiles_column": "smiles"}, ["1"], [("CCO", None, "x")]),
        ("n,1\nx,CCO\n", {"smiles_column": "1"}, ["n"], [("CCO", None, "x")]),  # a name goes before a position
        (
            "smiles,n\nbad,x\n",
            {"header": "no", "smiles_column": "c1"},
            ["c2"],
            [("smiles", None, "n"), ("bad", None, "x")],
        ),
        ("bad\nCCO\n", {"header": "no"}, [], [("bad", None), ("CCO", None)]),
        ("SMILES,smiles,id,embedding\nC,N,3,4\n", {}, ["input_smiles", "input_embedding"], [("C", "3", "N", "4")]),
        ("smiles,id\n", {}, [], []),
    ],
)
def test_headers(tmp_path: Path, text: str, options: dict[str, Any], extra: list[str], rows: list[Any]) -> None:
    path = tmp_path / "in.csv"
    path.write_text(text, encoding="utf-8")
    with open_source(path, **options) as source:
        assert [name for name, _ in source.extra] == extra
        assert rows_of(source.read()) == rows
        scan = source.scan(1)
        assert [rows_of(source.read(part)) for part in scan.ranges[::-1]] == [[row] for row in rows[::-1]]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("CCS,mass\n185.2,3\n", {}, "expected a column called smiles, got the columns 'CCS', 'mass'"),
        ("IC50,no\n1,2\n", {}, "got the columns 'IC50', 'no'; name the one"),
        ("bad,x\nCCO,y\n", {"header": "no"}, "got the columns 'c1', 'c2'; name the one"),
        ("a,b\nCCO,1\n", {"smiles_column": 3}, "expected a column 3, got the columns 'a', 'b'"),
        ("a,b\nCCO,1\n", {"smiles_column": "0"}, "expected a column '0'"),
        ("smiles\nCCO\n", {"id_column": "name"}, "expected a column 'name', got the columns 'smiles'"),
        ("", {}, r"got the columns \(none\)"),
        ("smiles\n", {"header": "maybe"}, "header: expected one of auto, yes, no, got 'maybe'"),
        ("smiles\n", {"format": "xlsx"}, "format: expected one of csv, parquet, sdf, smi, tsv, got 'xlsx'"),
        ("smiles\n", {"format": "smi", "id_column": "x"}, "a .smi file has none"),
    ],
)
def test_bad_headers_and_options(tmp_path: Path, text: str, options: dict[str, Any], message: str) -> None:
    path = tmp_path / "in.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        open_source(path, **options)


def test_a_smi_file_has_a_header_only_if_one_says_so(tmp_path: Path) -> None:
    path = tmp_path / "in.smi"
    path.write_text("smiles name\nCCO a\n")
    assert read_all(path) == [("smiles", "name"), ("CCO", "a")]
    assert read_all(path, header="yes") == [("CCO", "a")]
    with open_source(path, header="yes") as source:
        assert source.scan(5).ranges == [RowRange(0, 1, 0, 0, 12)]


# --- several files ---


def test_ranges_cross_files(tmp_path: Path) -> None:
    sizes = {"a.smi": 5, "b.smi.gz": 0, "c.smi.xz": 3, "d.txt": 4, "e.smi": 0, "f.smi.zst": 1}
    for number, (name, size) in enumerate(sizes.items()):
        text = b"".join(b"C %d.%d\n" % (number, i) for i in range(size))
        (tmp_path / name).write_bytes(COMPRESS["" if name[1:] in (".smi", ".txt") else Path(name).suffix](text))
    expected = [("C", f"{number}.{i}") for number, size in enumerate(sizes.values()) for i in range(size)]
    with open_source(tmp_path) as source:
        assert [path.name for path in source.paths] == list(sizes)
        assert rows_of(source.read()) == expected
        for shard_rows in (1, 4, 6, 7, 1000):
            check_ranges(source, shard_rows)
        assert source.scan(6).ranges == [
            RowRange(0, 6, 0, 0, 0),
            RowRange(6, 6, 2, 1, None),
            RowRange(12, 1, 5, 0, None),
        ]


def test_folders_globs_and_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.smi", "a.smi", ".hidden.smi", "c.smi.part", "x.csv", "README", "[1].smi", "d.dat"):
        Path(name).write_text("smiles\n" if name == "x.csv" else f"C {name}\n")
    Path("sub.smi").mkdir()

    def names(*inputs: str | Path, **options: Any) -> list[str]:
        with open_source(list(inputs), **options) as source:
            return [str(path) for path in source.paths]

    assert names(".", format="smi") == ["[1].smi", "a.smi", "b.smi"]
    assert names("*.smi") == ["[1].smi", "a.smi", "b.smi"]
    assert names("[ab].smi") == ["a.smi", "b.smi"]
    assert names("[1].smi") == ["[1].smi"]  # a file of this name goes before a glob
    assert names("b.smi", Path("a.smi")) == ["b.smi", "a.smi"]
    assert names("*.dat", format="smi") == ["d.dat"]
    with pytest.raises(ValueError, match=r"one format, got smi \(\[1\].smi\) and csv \(x.csv\)"):
        names(".")
    with pytest.raises(
        ValueError, match=r"d.dat: expected a file name ending in .smi, .txt, .csv, .tsv, .parquet, .sdf"
    ):
        names("d.dat")
    with pytest.raises(ValueError, match=r"a.smi is given twice"):
        names("a.smi", "*.smi")
    with pytest.raises(ValueError, match=r"sub.smi/../a.smi is given twice, also as a.smi"):
        names("a.smi", "sub.smi/../a.smi")
    with pytest.raises(FileNotFoundError, match=r"\*.pdf: no such files"):
        names("*.pdf")
    with pytest.raises(FileNotFoundError, match=r"missing.smi"):
        names("missing.smi")
    with pytest.raises(FileNotFoundError, match=r"sub.smi: expected files ending in .parquet, got none"):
        names("sub.smi", format="parquet")
    with pytest.raises(ValueError, match="at least one file, got none"):
        names()
    Path("gone.smi").symlink_to("nowhere.smi")
    with pytest.raises(FileNotFoundError, match=r"gone.smi"):  # not left out in silence
        names("*.smi")


def test_files_must_have_the_same_columns(tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("1.csv", "2.csv", "3.csv"))
    first.write_text("smiles,x\nC,1\n")
    second.write_text("smiles,y\nC,1\n")
    third.write_text("CC,1\nCCC,2\n")
    with pytest.raises(ValueError, match=r"2.csv: expected the columns of .*1.csv, 'smiles', 'x', got 'smiles', 'y'"):
        open_source([first, second])
    with pytest.raises(ValueError, match=r"3.csv: expected the columns of .*1.csv, 'smiles', 'x', got 'c1', 'c2'"):
        open_source([first, third])
    third.write_text("smiles,x\nCC,2\n")
    with open_source([first, third]) as source:
        assert rows_of(source.read()) == [("C", None, "1"), ("CC", None, "2")]
        third.write_text("smiles,z\nCC,2\n")
        with pytest.raises(ValueError, match=r"3.csv: expected the columns of"):
            rows_of(source.read())


# --- standard input and pipes ---


def test_standard_input_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table())))
    source = open_source("-", format="csv")
    assert (source.seekable, source.size, source.paths) == (False, None, [Path("-")])
    with pytest.raises(ValueError, match="can be read twice, got standard input"):
        source.scan(10)
    with pytest.raises(ValueError, match="only be read once"):
        source.read(RowRange(0, 1, 0, 0, None))
    with pytest.raises(TypeError, match="another process"):
        pickle.dumps(source)
    assert rows_of(source.read(chunk_rows=2)) == TABLE_ROWS
    with pytest.raises(ValueError, match="only be read once"):
        source.read()
    assert not sys.stdin.buffer.closed


def test_standard_input_stands_alone(tmp_path: Path) -> None:
    (tmp_path / "a.smi").write_text("C\n")
    with pytest.raises(ValueError, match="by itself"):
        open_source(["-", tmp_path / "a.smi"])
    with pytest.raises(ValueError, match="expected a file for Parquet"):
        open_source("-", format="parquet")


@pytest.mark.skipif(os.name != "posix", reason="named pipes")
@pytest.mark.parametrize("kind", ["smi", "sdf"])
def test_named_pipes(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"pipe.{kind}"
    os.mkfifo(path)
    text = SMI if kind == "smi" else sdf_text(RECORDS)
    thread = threading.Thread(target=path.write_bytes, args=(text,))
    thread.start()
    with open_source(path) as source:
        assert not source.seekable
        assert [row[1] for row in rows_of(source.read())] == [
            row[1] for row in (SMI_ROWS if kind == "smi" else SDF_ROWS)
        ]
    thread.join()


# --- Parquet ---


def typed_table() -> pa.Table:
    return pa.table(
        {
            "mw": pa.array([1.5, None, 3.5, 4.5, 5.5], pa.float32()),
            "ID": pa.array([10, 11, None, 13, 14], pa.int64()),
            "Smiles": pa.array(["CCO", None, "", "C\u00e9", "CCN"]),
            "when": pa.array([0, 1, 2, 3, None], pa.timestamp("us", "UTC")),
            "tags": pa.array([["a"], [], None, ["b", "c"], ["d"]], pa.list_(pa.string())),
            "kind": pa.array(["x", "y", "x", None, "y"]).dictionary_encode(),
            "status": pa.array([True, False, None, True, False]),
        }
    )


def test_parquet_keeps_types(tmp_path: Path) -> None:
    path, given = tmp_path / "in.parquet", typed_table()
    pq.write_table(given, path, row_group_size=2)
    names = ["mw", "when", "tags", "kind", "input_status"]
    with open_source(path) as source:
        types = [given.schema.field(name.removeprefix("input_")).type for name in names]
        assert source.extra == list(zip(names, types, strict=True))
        assert source.arrow_fields() == [pa.field(name, kind) for name, kind in source.extra]
        chunks = list(source.read(chunk_rows=2))
        assert [column.type for column in chunks[0].extra] == types
        assert [row[:2] for row in rows_of(chunks)] == [
            ("CCO", "10"),
            ("", "11"),
            ("", None),
            ("C\u00e9", "13"),
            ("CCN", "14"),
        ]
        for at, name in enumerate(names):
            assert [row[2 + at] for row in rows_of(chunks)] == given[name.removeprefix("input_")].to_pylist()
        for shard_rows in (1, 3, 7, 1000):
            check_ranges(source, shard_rows)
        facts = source.scan(3)
    assert facts.files == [FileFacts(str(path), path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest(), 5)]
    assert facts.ranges == [RowRange(0, 3, 0, 0, None), RowRange(3, 2, 0, 3, None)]


def test_parquet_ranges_in_large_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"smiles": ["C"] * 30_000, "i": range(30_000)}), path, row_group_size=20_000)
    with open_source(path) as source:
        ranges = source.scan(7000).ranges
        for part in [*ranges, *ranges[::-2]]:
            assert [row[2] for row in rows_of(source.read(part))] == list(range(part.first, part.first + part.n))


@pytest.mark.parametrize(
    "kind", [pa.large_string(), pa.string_view(), pa.binary(), pa.dictionary(pa.int32(), pa.string())]
)
def test_parquet_smiles_types(tmp_path: Path, kind: pa.DataType) -> None:
    path = tmp_path / "in.parquet"
    values = pa.array(["CCO", None, "CCN"])
    column = values.dictionary_encode() if pa.types.is_dictionary(kind) else values.cast(kind)
    pq.write_table(pa.table({"smiles": column}), path)
    assert read_all(path) == [("CCO", None), ("", None), ("CCN", None)]


def test_parquet_bytes_that_are_not_text(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    bad = pa.array([b"C\xff", b"CCO"], pa.binary())
    claimed = pa.Array.from_buffers(pa.string(), 2, bad.buffers())  # a broken writer says that it is text
    pq.write_table(pa.table({"smiles": claimed, "id": bad}), path)
    assert read_all(path) == [("C\ufffd", "C\ufffd"), ("CCO", "CCO")]


def test_parquet_errors(tmp_path: Path) -> None:
    path, other = tmp_path / "in.parquet", tmp_path / "other.parquet"
    pq.write_table(typed_table(), path, row_group_size=2)
    with pytest.raises(ValueError, match="expected text in the SMILES column 'mw', got float"):
        open_source(path, smiles_column="mw")
    with pytest.raises(ValueError, match="expected text in the id column 'tags', got list"):
        open_source(path, id_column="tags")
    with pytest.raises(ValueError, match="expected a column 'drug', got the columns 'mw', 'ID', 'Smiles'"):
        open_source(path, smiles_column="drug")
    pq.write_table(typed_table().set_column(0, "mw", pa.array([1, 2, 3, 4, 5])), other)
    with pytest.raises(
        ValueError, match=r"other.parquet: expected the columns of .*in.parquet, 'mw float', .*'mw int64'"
    ):
        open_source([path, other])
    other.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ValueError, match=r"other.parquet: not a Parquet file, or a damaged one"):
        open_source(other)
    other.write_bytes(b"")
    with pytest.raises(ValueError, match=r"other.parquet: not a Parquet file"):
        open_source(other)


def test_an_unreadable_row_group(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    texts = [f"{'C' * (i % 50)}N{i}" for i in range(3000)]
    pq.write_table(pa.table({"smiles": texts}), path, row_group_size=1000, compression="zstd", use_dictionary=False)
    group = pq.ParquetFile(path).metadata.row_group(1).column(0)
    data = bytearray(path.read_bytes())
    at = group.data_page_offset
    data[at : at + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    path.write_bytes(data)
    with open_source(path) as source:
        ranges = source.scan(1000).ranges
        assert [row[0] for row in rows_of(source.read(ranges[0]))] == texts[:1000]
        with pytest.raises(ValueError, match=r"in.parquet: row group 1 \(row 1000\) can't be read"):
            rows_of(source.read(ranges[1]))
        assert [row[0] for row in rows_of(source.read(ranges[2]))] == texts[2000:]


# --- SDF: what becomes of the mol blocks is in test_molblock.py ---

RECORDS = [  # title, mol block without its title, data
    ("first", b"\n  x\n\n  atoms\nM  END", b"> <MW>\n46.1\n\n>  <NOTE>  (7)\ntwo\nlines\n"),
    ("", b"\n\n\nM  END", b""),
    ("cut off", b"\n  x", b""),
    ("no end", b"\n  x\n\n  atoms", b"> 25 <MW>\n\n> <LATE>\nx\n"),
    ("caf\u00e9", b"\n\n\n\natoms\nM  END\n", b"> <MW>\n1\n\n> <MW>\n2\n"),
]
SDF_ROWS = [
    ("\n  x\n\n  atoms\nM  END\n", "first", "46.1", "two\nlines", None),
    ("\n\n\nM  END\n", None, None, None, None),
    ("\n  x\n\n", "cut off", None, None, None),
    ("\n  x\n\n  atoms\n", "no end", "", None, "x"),
    ("\n\n\n\natoms\nM  END\n", "caf\u00e9", "2", None, None),
]


def sdf_text(records: list[tuple[str, bytes, bytes]], end: bytes = b"\n") -> bytes:
    text = b"".join(title.encode() + block + b"\n" + data + b"$$$$\n" for title, block, data in records)
    return text.replace(b"\n", end)


@pytest.mark.parametrize("ending", COMPRESS)
def test_sdf(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"in.sdf{ending}"
    path.write_bytes(COMPRESS[ending](sdf_text(RECORDS)))
    with open_source(path) as source:
        assert source.extra == [("MW", "string"), ("NOTE", "string"), ("LATE", "string")]
        rows = rows_of(source.read())
        assert rows == SDF_ROWS
        assert all(isinstance(row[0], MolBlock) for row in rows)
        assert source.n_surplus == 1  # the field that came twice
        for shard_rows in (1, 2, 7, 1000):
            check_ranges(source, shard_rows)
        assert all((r.offset is None) == bool(ending) for r in source.scan(2).ranges)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: b"\xef\xbb\xbf" + text,
        lambda text: text.removesuffix(b"$$$$\n"),
        lambda text: text.removesuffix(b"\n"),
        lambda text: text + b"\n  \n\n",
    ],
)
def test_sdf_line_ends_and_file_ends(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "in.sdf"
    path.write_bytes(change(sdf_text(RECORDS)))
    assert read_all(path) == SDF_ROWS
    with open_source(path) as source:
        check_ranges(source, 2)


def test_sdf_empty_records_are_rows(tmp_path: Path) -> None:
    path = tmp_path / "in.sdf"
    path.write_bytes(b"$$$$\nname\n$$$$\n\n\n$$$$\n")
    assert read_all(path) == [("\n\n\n", None), ("\n\n\n", "name"), ("\n\n\n", None)]
    path.write_bytes(b"")
    assert read_all(path) == []


def test_sdf_columns(tmp_path: Path) -> None:
    path, other = tmp_path / "in.sdf", tmp_path / "other.sdf"
    records = [("a", b"\n\n\n\nM  END", b"> <x>\n1\n")] * 100 + [("b", b"\n\n\n\nM  END", b"> <x>\n2\n\n> <y>\n3\n")]
    path.write_bytes(sdf_text(records))
    with open_source(path) as source:
        assert [name for name, _ in source.extra] == ["x"]
        assert rows_of(source.read())[-1] == ("\n\n\n\nM  END\n", "b", "2")
        assert source.n_surplus == 1  # the later field
    with open_source(path, id_column="X") as source:
        assert source.extra == []
        assert rows_of(source.read())[-1] == ("\n\n\n\nM  END\n", "2")
    other.write_bytes(sdf_text([("c", b"\n\n\n\nM  END", b"> <z>\n4\n\n> <smiles>\nC\n")]))
    with open_source([path, other]) as source:
        assert [name for name, _ in source.extra] == ["x", "z", "input_smiles"]
        assert rows_of(source.read())[-1] == ("\n\n\n\nM  END\n", "c", None, "4", "C")
        check_ranges(source, 40)
    with pytest.raises(ValueError, match="expected a column 'name', got the columns 'x'"):
        open_source(path, id_column="name")
    with pytest.raises(ValueError, match="smiles_column: expected none for SDF"):
        open_source(path, smiles_column="x")


def test_a_file_that_is_no_sdf_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("molcmim.scoring.formats_sdf.RECORD_BYTES", 10_000)
    path = tmp_path / "in.sdf"
    path.write_bytes(b"some line\n" * 100_000 + b"$$$$\nb\n\n\n\nM  END\n$$$$\n")
    with open_source(path) as source:
        rows = rows_of(source.read())
        assert [len(rows), source.n_surplus] == [2, 1]
        assert len(rows[0][0]) < 30_000
        assert rows[1] == ("\n\n\n\nM  END\n", "b")


# --- damage and change ---


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst"])
@pytest.mark.parametrize("kind", ["smi", "csv", "sdf"])
@pytest.mark.parametrize("what", ["cut", "not packed", "changed"])
def test_damaged_compressed_files(tmp_path: Path, kind: str, ending: str, what: str) -> None:
    path = tmp_path / f"in.{kind}{ending}"
    lines = b"".join(hashlib.sha256(b"%d" % i).hexdigest().encode() + b",x\n" for i in range(5000))
    data = bytearray(COMPRESS[ending](b"smiles,y\n" + lines))
    if what == "cut":
        del data[-20:]
    elif what == "not packed":
        data = bytearray(lines)
    else:
        data[len(data) // 2 : len(data) // 2 + 40] = b"\0" * 40
    path.write_bytes(data)
    message = f"in.{kind}{ending}: damaged or incomplete compressed data"
    with pytest.raises(ValueError, match=message), open_source(path) as source:
        rows_of(source.read())
    with pytest.raises(ValueError, match=message), open_source(path) as source:
        source.scan(100)


def test_zst_of_several_frames(tmp_path: Path) -> None:
    path = tmp_path / "in.smi.zst"
    path.write_bytes(zstandard.compress(b"C\nCC") + zstandard.compress(b"") + zstandard.compress(b"C\nCCCC\n"))
    assert [row[0] for row in read_all(path)] == ["C", "CCC", "CCCC"]


def test_a_file_that_has_become_shorter(tmp_path: Path) -> None:
    for path in (tmp_path / "in.smi", tmp_path / "in.smi.gz"):
        pack = COMPRESS[path.suffix if path.suffix == ".gz" else ""]
        path.write_bytes(pack(b"CC\n" * 20))
        with open_source(path) as source:
            ranges = source.scan(8).ranges
        path.write_bytes(pack(b"CC\n" * 10))
        with open_source(path) as source:
            with pytest.raises(ValueError, match="expected 8 rows from row 8 on, got 2"):
                rows_of(source.read(ranges[1]))
            with pytest.raises(ValueError, match=r"expected (a row 16, got only 10 rows|4 rows from row 16 on, got 0)"):
                rows_of(source.read(ranges[2]))


def test_bad_numbers(tmp_path: Path) -> None:
    path = tmp_path / "in.smi.gz"
    path.write_bytes(gzip.compress(b"C\nC\n"))
    with open_source(path) as source:
        with pytest.raises(ValueError, match="shard_rows: expected at least 1, got 0"):
            source.scan(0)
        with pytest.raises(ValueError, match="chunk_rows: expected at least 1, got 0"):
            source.read(chunk_rows=0)
        with pytest.raises(ValueError, match="range: expected rows of 1 files"):
            source.read(RowRange(0, 1, 1, 0, None))
        with pytest.raises(ValueError, match="expected a plain file to go to byte 2"):
            rows_of(source.read(RowRange(1, 1, 0, 1, 2)))
        assert rows_of(source.read(RowRange(1, 0, 0, 1, None))) == []


def test_importing_it_is_cheap(root: Path) -> None:
    code = "import sys, molcmim.scoring.source; print([m for m in ('torch', 'pyarrow', 'rdkit') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root)
    assert run.stdout.strip() == "[]"
