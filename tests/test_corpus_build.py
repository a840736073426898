"""Building a corpus: reading, statuses, repeats, splits, options."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from molcmim.corpus import CorpusInfo, TokenStore
from molcmim.corpus_build import Source, build_corpus
from molcmim.corpus_input import MOLSETS_MEMBER, read_smiles
from molcmim.tokenizer import SmilesTokenizer, load_tokenizer

ALKANOLS = [f"{'C' * n}O" for n in range(1, 101)]


def build(folder: Path, *sources: Source, name: str = "out", **options: Any) -> CorpusInfo:
    settings: dict[str, Any] = {"policy": "none", "workers": 1, "progress": False, "min_count": 1, **options}
    return build_corpus(sources, folder / name, **settings)


def smi(path: Path, rows: list[str]) -> Path:
    path.write_text("".join(f"{row}\n" for row in rows))
    return path


def texts(directory: Path, split: str) -> list[str]:
    store, tokenizer = TokenStore.open(directory, split), load_tokenizer(directory / "vocab.json")
    return [tokenizer.decode(row) for row in store.rows(np.arange(len(store)))]


def both(directory: Path) -> list[str]:
    return sorted(texts(directory, "train") + texts(directory, "valid"))


# ---- reading ----


def gz(path: Path, data: bytes) -> None:
    path.write_bytes(gzip.compress(data))


def xz(path: Path, data: bytes) -> None:
    path.write_bytes(lzma.compress(data))


def plain(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@pytest.mark.parametrize(("suffix", "write"), [("", plain), (".gz", gz), (".xz", xz)])
@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("a.smi", b"CCO ethanol\nCC\tethane\n\nc1ccccc1\n", ["CCO", "CC", "", "c1ccccc1"]),
        ("a.smi", b"SMILES name\nCCO a\nCC", ["CCO", "CC"]),
        ("a.smi", b"name smiles\na CCO\nb\n", ["CCO", ""]),
        ("a.txt", b"\xef\xbb\xbfCCO\r\nCC\r\n", ["CCO", "CC"]),
        ("a.csv", b'id,Smiles,x\n1,CCO,"a, b"\n2,"C[C@H](N)O",\n3\n', ["CCO", "C[C@H](N)O", ""]),
        ("a.csv", b"CCO,1\nCC,2\n", ["CCO", "CC"]),
        ("a.csv", b'id,canonical_smiles\n1,"CC\n', ["CC\n"]),
        ("a.tsv", b"SMILES\tx\nCCO\t1\nCC N\t2\n", ["CCO", "CC N"]),
        ("a.smi", b"C\xff\nCC\n", ["C\udcff", "CC"]),
        ("a.smi", b"", []),
    ],
)
def test_formats(
    tmp_path: Path,
    suffix: str,
    write: Callable[[Path, bytes], None],
    name: str,
    data: bytes,
    expected: list[str],
) -> None:
    write(tmp_path / (name + suffix), data)
    assert list(read_smiles(tmp_path / (name + suffix))) == expected


def test_column_option(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("smiles,Product\nCC,CCO\n")
    assert list(read_smiles(path, column="product")) == ["CCO"]
    with pytest.raises(ValueError, match=r"column: one of \['smiles', 'Product'\] expected, got 'mol'"):
        list(read_smiles(path, column="mol"))


def test_overlong_csv_field_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("smiles\n" + "C" * 1_000_000 + "\nCC\n")
    assert [len(row) for row in read_smiles(path)] == [1_000_000, 2]


def test_unknown_type(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_text("CC")
    with pytest.raises(ValueError, match=r"\.smi, \.txt, \.csv, \.tsv .* got a\.docx"):
        list(read_smiles(tmp_path / "a.docx"))
    with pytest.raises(FileNotFoundError):
        list(read_smiles(tmp_path / "a.smi"))


def fake_wheel(path: Path, rows: list[str]) -> Path:
    table = "SMILES,SPLIT\n" + "".join(f"{row},train\n" for row in rows)
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(MOLSETS_MEMBER, gzip.compress(table.encode()))
    return path


def test_molsets_wheel_and_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = fake_wheel(tmp_path / "molsets-0.3.1-py3-none-any.whl", ["CCO", "CC"])
    assert list(read_smiles(wheel)) == ["CCO", "CC"]
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as other:
        other.writestr("x", "y")
    with pytest.raises(ValueError, match="molsets wheel"):
        list(read_smiles(tmp_path / "other.whl"))

    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    info = tmp_path / "site" / "molsets-0.3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: molsets\nVersion: 0.3.1\n")
    (info / "RECORD").write_text(f"{MOLSETS_MEMBER},,\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert list(read_smiles("molsets")) == ["CCO", "CC"]

    def missing(name: str) -> None:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "files", missing)
    with pytest.raises(FileNotFoundError, match=r"pip download molsets==0\.3\.1 --no-deps"):
        list(read_smiles("molsets"))


# ---- rows: statuses, repeats, splits ----


def test_every_row_is_counted(tmp_path: Path) -> None:
    rows = [b"CCO", b"", b"C\xc3\xa9", b"C\xff", b"C" * 5000, b"CCO", b"C" * 300, b"[Xx]CC", b"CCN"]
    (tmp_path / "a.smi").write_bytes(b"\n".join(rows) + b"\n")
    info = build(tmp_path, Source(tmp_path / "a.smi"), valid_fraction=0)
    assert info.statuses == {
        "ok": 2,
        "empty": 1,
        "not_ascii": 2,
        "too_many_chars": 1,
        "too_many_tokens": 1,
        "unknown_token": 1,
    }
    assert info.duplicates == 1
    assert sum(info.statuses.values()) + info.duplicates == len(rows)
    assert both(tmp_path / "out") == ["CCN", "CCO"]
    assert CorpusInfo.load(tmp_path / "out") == info
    assert json.loads((tmp_path / "out" / "corpus.json").read_text())["format_version"] == 2


def test_canonical_policy_merges_spellings(tmp_path: Path) -> None:
    rows = ["OCC", "CCO", "C(C)O", "c1ccccc1", "C1=CC=CC=C1", "not a smiles", "C1CC", "CCO ethanol"]
    path = tmp_path / "a.csv"
    path.write_text("smiles\n" + "\n".join(rows) + "\n")
    info = build(tmp_path, Source(path), policy="canonical", valid_fraction=0, workers=2)
    assert both(tmp_path / "out") == ["CCO", "c1ccccc1"]
    assert info.statuses == {"ok": 2, "parse_error": 3}
    assert info.duplicates == 3
    assert info.policy == "canonical" and "rdkit" in info.built_with


def test_parent_policy(tmp_path: Path) -> None:
    path = smi(tmp_path / "a.smi", ["CC(=O)[O-].[Na+]", "CC(=O)O"])
    info = build(tmp_path, Source(path), policy="parent", valid_fraction=0, workers=2)
    assert both(tmp_path / "out") == ["CC(=O)O"] and info.duplicates == 1


def test_first_source_keeps_a_molecule(tmp_path: Path) -> None:
    a, b = smi(tmp_path / "a.smi", ALKANOLS[:40]), smi(tmp_path / "b.smi", ALKANOLS[20:])
    info = build(tmp_path, Source(a, 0.3, "a"), Source(b), valid_fraction=0)
    assert [tuple(source) for source in info.sources] == [("a", 0.3, 40), ("b.smi", 1.0, 60)]
    assert info.duplicates == 20
    assert TokenStore.open(tmp_path / "out").source.tolist() == [0] * 40 + [1] * 60


def test_a_marking_source_adds_no_molecule(tmp_path: Path) -> None:
    marks, rows = smi(tmp_path / "m.smi", ["OC", "CCCCN", "OCC"]), smi(tmp_path / "b.smi", ALKANOLS)
    info = build(
        tmp_path,
        Source(marks, 0.1, "m", policy="canonical", mark=True),
        Source(rows, 1, "b"),
        valid_fraction=0,
    )
    assert both(tmp_path / "out") == sorted(ALKANOLS)
    assert [source.n for source in info.sources] == [2, 98]
    assert (info.duplicates, info.unmatched, info.statuses) == (2, 1, {"ok": 100})
    assert TokenStore.open(tmp_path / "out").source.tolist() == [0, 0] + [1] * 98


def test_split_depends_on_the_molecule_alone(tmp_path: Path) -> None:
    forward, backward = smi(tmp_path / "f.smi", ALKANOLS), smi(tmp_path / "b.smi", ALKANOLS[::-1])
    more = smi(tmp_path / "m.smi", [f"{'C' * n}N" for n in range(1, 101)])
    build(tmp_path, Source(forward), valid_fraction=0.3, name="one")
    build(tmp_path, Source(more), Source(backward), valid_fraction=0.3, name="two")
    valid, train = set(texts(tmp_path / "one", "valid")), set(texts(tmp_path / "one", "train"))
    assert not valid & train and valid | train == set(ALKANOLS)
    assert 15 <= len(valid) <= 45
    assert valid == set(texts(tmp_path / "two", "valid")) & set(ALKANOLS)
    assert set(texts(tmp_path / "two", "valid")) - set(ALKANOLS)
    build(tmp_path, Source(forward), valid_fraction=0.5, name="three")
    assert valid < set(texts(tmp_path / "three", "valid"))  # a larger share keeps what was in it


def test_processes_and_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = smi(tmp_path / "a.smi", [*ALKANOLS, *ALKANOLS[:7]])
    one = build(tmp_path, Source(path), name="one", random_smiles=1, properties="wide")
    monkeypatch.setattr("molcmim.corpus_files.CHUNK", 9)
    two = build(tmp_path, Source(path), name="two", random_smiles=1, properties="wide", workers=2)
    assert one == two
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    assert len(list((tmp_path / "one").iterdir())) == 14


# ---- tokenizers and options ----


def test_given_tokenizer_is_used(tmp_path: Path) -> None:
    tokenizer = SmilesTokenizer.train(["CCO"])
    path = smi(tmp_path / "a.smi", [*ALKANOLS, "[99C]"])
    info = build(tmp_path, Source(path), tokenizer=tokenizer, max_tokens=50)
    assert info.fingerprint == tokenizer.fingerprint
    assert load_tokenizer(tmp_path / "out" / "vocab.json") == tokenizer
    assert info.statuses == {"ok": 49, "too_many_tokens": 51, "unknown_token": 1}
    assert TokenStore.open(tmp_path / "out").lengths.max() <= 50


def test_min_count_and_max_vocab(tmp_path: Path) -> None:
    path = smi(tmp_path / "a.smi", [*(f"{row}[99C]" for row in ALKANOLS), "[98C]"])
    build(tmp_path, Source(path), name="all")
    assert {"[98C]", "[99C]"} <= set(load_tokenizer(tmp_path / "all" / "vocab.json").vocab)
    info = build(tmp_path, Source(path), name="common", min_count=2)
    assert info.statuses["unknown_token"] == 1
    info = build(tmp_path, Source(path), name="small", max_vocab=len(SmilesTokenizer.train([]).vocab) + 1)
    assert info.statuses["unknown_token"] == 1


@pytest.mark.parametrize(("kind", "package"), [("selfies", "selfies"), ("bpe", "tokenizers")])
def test_other_tokenizers(tmp_path: Path, kind: str, package: str) -> None:
    pytest.importorskip(package)
    path = smi(tmp_path / "a.smi", ALKANOLS[:50])
    info = build(tmp_path, Source(path), tokenizer=kind)
    assert info.tokenizer_kind == kind
    store, tokenizer = TokenStore.open(tmp_path / "out"), load_tokenizer(tmp_path / "out" / "vocab.json")
    assert info.n_train + info.n_valid == 50
    assert len(tokenizer.decode(store.rows([10])[0])) >= 2


def test_random_smiles_are_of_the_same_molecule(tmp_path: Path) -> None:
    from rdkit import Chem

    rows = ["CC(=O)Oc1ccccc1C(=O)O", "C[C@H](N)C(=O)O", "F/C=C/Cl", "C", "CN1CCC[C@H]1c1cccnc1", "C1CC"]
    path = smi(tmp_path / "a.smi", rows)
    build(tmp_path, Source(path), name="one", random_smiles=1, valid_fraction=0)
    build(tmp_path, Source(path), name="two", random_smiles=1, valid_fraction=0, seed=1)
    tokenizer = load_tokenizer(tmp_path / "one" / "vocab.json")
    found = {}
    for name in ("one", "two"):
        store = TokenStore.open(tmp_path / name)
        found[name] = [tokenizer.decode(row) for row in store.random_rows(np.arange(6))]
        padded = store.gather([1, 0], random=True)
        assert [tokenizer.decode(row) for row in padded] == [found[name][1], found[name][0]]
    assert found["one"] != found["two"] and found["one"] != rows
    for given, random in zip(rows[:5], found["one"], strict=False):
        assert Chem.CanonSmiles(random) == Chem.CanonSmiles(given)
    assert found["one"][5] == "C1CC"  # RDKit can't read it: stored as it is
    small = build(tmp_path, Source(path), name="small", random_smiles=1, valid_fraction=0, max_tokens=21)
    store = TokenStore.open(tmp_path / "small")
    assert small.statuses["ok"] == 6 and store.gather(np.arange(6), random=True).shape[1] <= 21


def test_properties_are_standardised(tmp_path: Path) -> None:
    from rdkit import Chem
    from rdkit.Chem import rdMolDescriptors

    rows = [*ALKANOLS, "C1CCCC"]
    path = smi(tmp_path / "a.smi", rows)
    info = build(tmp_path, Source(path), properties="basic", valid_fraction=0.1)
    assert info.properties is not None
    names, center, scale, step = info.properties
    assert (tmp_path / "out" / "train.properties.bin").stat().st_size == info.n_train * len(names) and step == 0.04
    assert len(set(names)) == len(names) >= 16
    store = TokenStore.open(tmp_path / "out")
    values = store.properties(np.arange(len(store)))
    assert values.shape == (len(store), len(names)) and values.dtype == np.float32
    assert np.isfinite(values).all() and np.abs(values).max() <= 5
    assert store.properties([2, 1]).tolist() == [values[2].tolist(), values[1].tolist()]
    column = names.index("amw")
    assert np.median(values[:, column]) == pytest.approx(0, abs=0.05)
    train = texts(tmp_path / "out", "train")
    weight = rdMolDescriptors._CalcMolWt(Chem.MolFromSmiles(train[4]))
    assert values[4, column] == pytest.approx((weight - center[column]) / scale[column], abs=0.021)
    unreadable = [i for i, text in enumerate(train) if text == "C1CCCC"]
    assert unreadable and not values[unreadable].any()
    assert len(TokenStore.open(tmp_path / "out", "valid").properties([0, 1])) == 2


def test_a_pack_keeps_descriptors_with_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from molcmim import corpus_pack

    monkeypatch.setattr(corpus_pack, "ROWS", 7)
    path = smi(tmp_path / "a.smi", [*ALKANOLS[::2], *ALKANOLS[1::2]])
    before = build(tmp_path, Source(path), properties="wide", valid_fraction=0.1)
    corpus_pack.pack(tmp_path / "out", tmp_path / "c.xz")
    assert corpus_pack.unpack(tmp_path / "c.xz", tmp_path / "again") == before
    for split in ("train", "valid"):
        rows = []
        for name in ("out", "again"):
            store = TokenStore.open(tmp_path / name, split)
            values = store.stored_properties(np.arange(len(store))).tolist()
            rows.append(dict(zip(texts(tmp_path / name, split), values, strict=True)))
        assert rows[0] == rows[1] and len(rows[0]) > 3
    small = corpus_pack.pack(tmp_path / "out", tmp_path / "small.xz", properties=False)
    assert small < (tmp_path / "c.xz").stat().st_size
    assert corpus_pack.unpack(tmp_path / "small.xz", tmp_path / "without").properties is None


def test_descriptors_of_format_1_are_read(tmp_path: Path) -> None:
    path = smi(tmp_path / "a.smi", ALKANOLS)
    build(tmp_path, Source(path), properties="basic", valid_fraction=0.1)
    place = tmp_path / "out"
    values = TokenStore.open(place).properties(np.arange(3))
    data = json.loads((place / "corpus.json").read_text())
    del data["properties"]["step"]
    (place / "corpus.json").write_text(json.dumps({**data, "format_version": 1}))
    for file in place.glob("*.properties.bin"):
        file.write_bytes((np.frombuffer(file.read_bytes(), "i1") * np.float32(0.04)).astype("<f2").tobytes())
    np.testing.assert_allclose(TokenStore.open(place).properties(np.arange(3)), values, atol=0.003)


def test_descriptors_of_known_molecules() -> None:
    from rdkit.Chem import rdFingerprintGenerator

    from molcmim.corpus_chem import PROPERTY_SETS, descriptors, parse

    molecules = [parse("[NH3+]CC(=O)[O-].ClCBr.[Na+]"), parse("C1C"), parse("c1ccccc1O")]
    values = descriptors(molecules, "wide")
    np.testing.assert_array_equal(descriptors(molecules), values[:, : len(PROPERTY_SETS["basic"])])
    salt, phenol = (dict(zip(PROPERTY_SETS["wide"], row.tolist(), strict=True)) for row in values[[0, 2]])
    assert (salt["MQN1"], phenol["MQN1"], phenol["MQN12"], phenol["MQN41"]) == (3, 6, 7, 0), "carbons; all heavy atoms"
    assert sum(phenol[f"SlogP_VSA{i}"] for i in range(1, 13)) == pytest.approx(phenol["labuteASA"], rel=0.1)
    expected = {"FormalCharge": 1, "NumN": 1, "NumO": 2, "NumF": 0, "NumS": 0, "NumCl": 1, "NumBr": 1}
    assert {name: salt[name] for name in expected} == expected
    assert (phenol["NumRings"], phenol["NumAromaticRings"], phenol["NumHBD"], phenol["FractionCSP3"]) == (
        1,
        1,
        1,
        0,
    )
    assert phenol["amw"] == pytest.approx(94.113, abs=0.01)
    counts = descriptors(molecules, "morgan")
    np.testing.assert_array_equal(counts[:, : len(PROPERTY_SETS["wide"])], values)
    ecfp4 = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=256)
    expected_counts = ecfp4.GetCountFingerprintAsNumPy(molecules[2])
    np.testing.assert_array_equal(counts[2, len(PROPERTY_SETS["wide"]) :], expected_counts)
    assert expected_counts.sum() == 20, "7 atoms, 7 with their neighbours, 6 with those of radius 2"
    assert phenol["tpsa"] == pytest.approx(20.23, abs=0.01)
    assert np.isnan(values[1]).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"valid_fraction": 1.0}, "valid_fraction"),
        ({"random_smiles": 2}, "random_smiles"),
        ({"tokenizer": "words"}, "tokenizer"),
        ({"policy": "strict"}, "policy"),
        ({"properties": "all"}, "properties"),
    ],
)
def test_wrong_arguments(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = smi(tmp_path / "a.smi", ["CC"])
    with pytest.raises(ValueError, match=message):
        build(tmp_path, Source(path), **change)
    with pytest.raises(ValueError, match="weight"):
        build(tmp_path, Source(path, -1))
    with pytest.raises(ValueError, match="inputs"):
        build(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.smi"]


# ---- nothing half done ----


def test_no_usable_row_leaves_nothing(tmp_path: Path) -> None:
    path = smi(tmp_path / "a.smi", ["", "C" * 9999])
    with pytest.raises(ValueError, match=r"no usable row.*too_many_chars"):
        build(tmp_path, Source(path))
    assert [file.name for file in tmp_path.iterdir()] == ["a.smi"]


def test_existing_output(tmp_path: Path) -> None:
    path = smi(tmp_path / "a.smi", ALKANOLS)
    build(tmp_path, Source(path))
    smi(path, ALKANOLS[:50])
    with pytest.raises(FileExistsError):
        build(tmp_path, Source(path))
    assert len(both(tmp_path / "out")) == 100
    build(tmp_path, Source(path), overwrite=True)
    assert len(both(tmp_path / "out")) == 50
    with pytest.raises(FileNotFoundError):
        build(tmp_path, Source(tmp_path / "missing.smi"), overwrite=True)
    assert len(both(tmp_path / "out")) == 50  # a failed build does not touch it


def test_interrupt_leaves_nothing(tmp_path: Path, root: Path) -> None:
    """Ctrl-C while worker processes run."""
    fifo = tmp_path / "endless.smi"
    os.mkfifo(fifo)
    program = f"""
from molcmim.corpus_build import Source, build_corpus
build_corpus([Source({str(fifo)!r})], {str(tmp_path / "out")!r}, policy="none", workers=2, progress=False)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=root, stderr=subprocess.PIPE, start_new_session=True
    )
    with open(fifo, "w") as file:
        file.write("CCO\n" * 50_000)
        file.flush()
        deadline = time.monotonic() + 20
        while not list(tmp_path.glob(".out.*")) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert list(tmp_path.glob(".out.*.partial"))
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert process.returncode != 0
    assert b"KeyboardInterrupt" in errors
    assert errors.count(b"Traceback") <= 2  # the workers keep quiet
    assert [file.name for file in tmp_path.iterdir()] == ["endless.smi"]


def test_works_from_an_unguarded_script(tmp_path: Path, root: Path) -> None:
    path = smi(tmp_path / "a.smi", ALKANOLS)
    script = tmp_path / "script.py"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(root)!r})\n"
        "from molcmim.corpus_build import Source, build_corpus\n"
        f"info = build_corpus([Source({str(path)!r})], {str(tmp_path / 'out')!r}, progress=False)\n"
        "print(info.n_train + info.n_valid)\n"
    )
    result = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout == "100\n", result.stderr
