"""The reading side: token store, sampler, packing. `test_corpus_build.py` has the building side."""

from __future__ import annotations

import json
import lzma
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from molcmim.corpus import BucketSampler, CorpusError, CorpusInfo, TokenStore, bucket_edges, new_directory
from molcmim.corpus_build import Source, build_corpus
from molcmim.corpus_pack import pack, unpack
from molcmim.tokenizer import SmilesTokenizer, load_tokenizer


def molecules() -> list[str]:
    """300 distinct canonical SMILES of many lengths, sorted."""
    tails = ("O", "N", "F", "Cl", "C(=O)O", "c1ccccc1", "C#N", "S", "Br", "C(N)=O")
    return sorted("C" * n + tail for n in range(1, 31) for tail in tails)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sources, 20 % validation."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = molecules()
    (folder / "a.smi").write_text("\n".join(rows[:100]) + "\n")
    (folder / "b.smi").write_text("\n".join(rows[100:]) + "\n")
    sources = [Source(folder / "a.smi", 0.5, "a"), Source(folder / "b.smi", 1.0, "b")]
    build_corpus(sources, folder / "out", policy="none", valid_fraction=0.2, workers=1, progress=False)
    return folder / "out"


def texts(directory: Path, split: str) -> list[str]:
    store, tokenizer = TokenStore.open(directory, split), load_tokenizer(directory / "vocab.json")
    return [tokenizer.decode(row) for row in store.rows(np.arange(len(store)))]


# ---- store ----


def test_store_has_every_molecule_once_and_in_order(corpus: Path) -> None:
    train, valid = texts(corpus, "train"), texts(corpus, "valid")
    assert sorted(train + valid) == molecules()
    assert train == sorted(train)
    assert 30 <= len(valid) <= 90
    info = CorpusInfo.load(corpus)
    assert (info.n_train, info.n_valid) == (len(train), len(valid))
    assert info.weights == (0.5, 1.0)
    assert [source.n for source in info.sources] == [100, 200]
    assert info.statuses == {"ok": 300}


def test_store_is_memory_mapped_and_source_matches(corpus: Path) -> None:
    store = TokenStore.open(corpus)
    rows = store.rows([0, 5])
    assert not rows[0].flags.writeable and not rows[0].flags.owndata
    base = rows[0]
    while isinstance(base, np.ndarray) and base.base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap)
    first_half = set(molecules()[:100])
    expected = [text not in first_half for text in texts(corpus, "train")]
    assert store.source.tolist() == [int(value) for value in expected]


def test_another_process_maps_the_files_again(corpus: Path) -> None:
    store = TokenStore.open(corpus, "valid")
    reopen, place = store.__reduce__()
    assert place == (corpus, "valid")
    np.testing.assert_array_equal(reopen(*place).gather([3, 1]), store.gather([3, 1]))


def test_gather_pads_rows(corpus: Path) -> None:
    store = TokenStore.open(corpus)
    rows = np.random.default_rng(0).permutation(len(store))[:50]
    padded = store.gather(rows)
    assert padded.dtype == np.int64
    assert padded.shape == (50, store.lengths[rows].max())
    for row, got in zip(store.rows(rows), padded, strict=True):
        assert got[: len(row)].tolist() == row.tolist()
        assert not got[len(row) :].any()
    wide = store.gather(rows, pad_to=60, dtype=np.uint8)
    assert wide.shape == (50, 60) and wide.dtype == np.uint8
    np.testing.assert_array_equal(wide[:, : padded.shape[1]], padded)
    assert store.gather([]).shape == (0, 0)
    with pytest.raises(ValueError, match="pad_to"):
        store.gather(rows, pad_to=3)


def test_store_without_options_says_so(corpus: Path) -> None:
    store = TokenStore.open(corpus)
    with pytest.raises(CorpusError, match="random_smiles=1"):
        store.gather([0], random=True)
    with pytest.raises(CorpusError, match="without properties"):
        store.properties([0])


def copy(corpus: Path, to: Path) -> Path:
    to.mkdir()
    for file in corpus.iterdir():
        (to / file.name).write_bytes(file.read_bytes())
    return to


def test_damaged_directories_are_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"corpus\.json is missing"):
        TokenStore.open(tmp_path)
    cut = copy(corpus, tmp_path / "cut")
    tokens = cut / "train.tokens.bin"
    tokens.write_bytes(tokens.read_bytes()[:-1])
    with pytest.raises(CorpusError, match=r"train\.tokens\.bin.*bytes expected"):
        TokenStore.open(cut)
    (cut / "train.source.bin").unlink()
    tokens.write_bytes((corpus / "train.tokens.bin").read_bytes())
    with pytest.raises(CorpusError, match=r"train\.source\.bin is missing"):
        TokenStore.open(cut)
    newer = copy(corpus, tmp_path / "newer")
    data = json.loads((newer / "corpus.json").read_text())
    (newer / "corpus.json").write_text(json.dumps({**data, "format_version": 99}))
    with pytest.raises(CorpusError, match="format_version up to 2"):
        TokenStore.open(newer)
    (newer / "corpus.json").write_text("{")
    with pytest.raises(CorpusError, match="not JSON"):
        CorpusInfo.load(newer)
    with pytest.raises(ValueError, match="split"):
        TokenStore.open(corpus, "test")


def test_new_directory_leaves_nothing_behind_when_interrupted(tmp_path: Path) -> None:
    def interrupted() -> None:
        with new_directory(tmp_path / "out") as partial:
            (partial / "file").write_text("x")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


# ---- sampler ----


def lengths_and_source(n: int = 5000) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    rng = np.random.default_rng(1)
    return rng.gamma(9, 4.5, n).astype(np.int64).clip(1, 200), rng.integers(0, 3, n)


def test_batches_are_full_and_fit_their_bucket() -> None:
    lengths, source = lengths_and_source()
    sampler = BucketSampler(lengths, source, None, 32, bucket_width=8)
    rows, bucket = sampler.batches(0)
    assert rows.shape == (5000 // 32, 32) == (sampler.expected_batches, 32)
    assert len(np.unique(rows)) == rows.size  # weight 1: nothing twice
    longest = lengths[rows].max(axis=1) + 1
    edges = sampler.edges[bucket]
    assert (longest <= edges).all()
    assert (longest > edges - np.maximum(8, edges // 4)).all()  # and not in a much longer one
    padding = 1 - (lengths[rows] + 1).sum() / (edges.sum() * 32)
    assert padding < 0.15
    assert (np.diff(bucket) != 0).any() and (np.diff(bucket) < 0).any()  # shuffled across buckets


def test_long_tail_joins_the_next_bucket() -> None:
    lengths = np.array([10] * 100 + [50, 90, 130, 190])
    sampler = BucketSampler(lengths, np.zeros(104), None, 8, bucket_width=8)
    rows, bucket = sampler.batches(0)
    assert rows.shape == (13, 8)
    assert sorted(sampler.edges[bucket].tolist()) == [16] * 12 + [192]
    assert {100, 101, 102, 103} <= set(rows[bucket == bucket.max()].ravel().tolist())


def test_left_over_rows_change_from_epoch_to_epoch() -> None:
    lengths, source = lengths_and_source(101)
    sampler = BucketSampler(lengths, source, None, 10)
    missing = {(set(range(101)) - set(sampler.batches(epoch).rows.ravel().tolist())).pop() for epoch in range(20)}
    assert len(missing) > 10


def test_an_epoch_depends_on_seed_and_epoch_only() -> None:
    lengths, source = lengths_and_source()
    weights = (0.3, 1.0, 1.5)
    one, two = (BucketSampler(lengths, source, weights, 16, seed=7) for _ in range(2))
    two.batches(0)
    two.batches(9)
    for got, expected in zip(one.batches(3), two.batches(3), strict=True):
        np.testing.assert_array_equal(got, expected)
    assert not np.array_equal(one.batches(3).rows[:50], one.batches(4).rows[:50])
    other = BucketSampler(lengths, source, weights, 16, seed=8)
    assert not np.array_equal(one.batches(3).rows[:50], other.batches(3).rows[:50])


def test_weights_are_expected_passes() -> None:
    lengths, source = lengths_and_source()
    sampler = BucketSampler(lengths, source, (0.25, 2.0, 1.5), 20)
    epochs = 30
    passes = np.zeros(5000)
    for epoch in range(epochs):
        passes += np.bincount(sampler.batches(epoch).rows.ravel(), minlength=5000)
    for s, weight in enumerate((0.25, 2.0, 1.5)):
        assert passes[source == s].mean() / epochs == pytest.approx(weight, rel=0.02)
    assert passes[source == 0].min() < passes[source == 0].max()
    only_one = BucketSampler(lengths, source, (0, 1, 0), 20).batches(0).rows
    assert set(source[only_one].ravel().tolist()) == {1}


def test_two_ranks_share_the_batches_of_one() -> None:
    lengths, source = lengths_and_source()
    weights = (0.3, 1.0, 1.2)
    whole = BucketSampler(lengths, source, weights, 32, seed=5).batches(2)
    halves = [
        BucketSampler(lengths, source, weights, 16, seed=5, world_size=2, rank=rank).batches(2) for rank in (0, 1)
    ]
    np.testing.assert_array_equal(np.concatenate([half.rows for half in halves], axis=1), whole.rows)
    for half in halves:
        np.testing.assert_array_equal(half.bucket, whole.bucket)


def test_stream_resumes_by_skipping() -> None:
    lengths, source = lengths_and_source(300)
    sampler = BucketSampler(lengths, source, None, 16)
    stream = sampler.stream()
    seen = [next(stream) for _ in range(25)]
    again = sampler.stream(*seen[10][:2])
    for epoch, batch, rows, pad_to in seen[10:]:
        got = next(again)
        assert (got[0], got[1], got[3]) == (epoch, batch, pad_to)
        np.testing.assert_array_equal(got[2], rows)
    assert seen[-1][0] == 1 and seen[-1][1] == 25 - 300 // 16 - 1


def test_max_length_leaves_rows_out() -> None:
    lengths, source = lengths_and_source()
    sampler = BucketSampler(lengths, source, None, 16, max_length=40)
    assert lengths[sampler.batches(0).rows].max() == 40
    assert sampler.n_left_out == (lengths > 40).sum() > 0
    assert sampler.edges[-1] == 48


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 501}, "batch_size"),
        ({"rank": 2, "world_size": 2}, "rank"),
        ({"weights": (1.0,)}, "weights"),
        ({"weights": (1.0, -1.0, 1.0)}, "weights"),
        ({"weights": (1.0, float("nan"), 1.0)}, "weights"),
        ({"source": np.zeros(3)}, "source"),
        ({"bucket_width": 0}, "bucket_width"),
    ],
)
def test_sampler_refuses(change: dict[str, object], message: str) -> None:
    lengths, source = lengths_and_source(500)
    arguments = {"lengths": lengths, "source": source, "weights": None, "batch_size": 10, **change}
    with pytest.raises(ValueError, match=message):
        BucketSampler(**arguments)  # type: ignore[arg-type]


def test_edges_cover_and_grow() -> None:
    for longest in (1, 8, 9, 201, 1000):
        edges = bucket_edges(longest, 8)
        assert edges[-1] >= longest and (len(edges) == 1 or edges[-2] < longest)
        assert (edges % 8 == 0).all()
    assert len(bucket_edges(2000, 8)) < 60


# ---- packing ----


def assert_same_corpus(left: Path, right: Path) -> None:
    for file in (
        "train.tokens",
        "train.offsets",
        "train.source",
        "valid.tokens",
        "valid.offsets",
        "valid.source",
    ):
        assert (left / f"{file}.bin").read_bytes() == (right / f"{file}.bin").read_bytes(), file
    assert CorpusInfo.load(left) == CorpusInfo.load(right)
    assert load_tokenizer(left / "vocab.json") == load_tokenizer(right / "vocab.json")


def test_pack_of_a_sorted_corpus_is_lossless(corpus: Path, tmp_path: Path) -> None:
    size = pack(corpus, tmp_path / "c.xz")
    assert size == (tmp_path / "c.xz").stat().st_size < 12_000
    unpack(tmp_path / "c.xz", tmp_path / "out")
    assert_same_corpus(corpus, tmp_path / "out")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["c.xz", "out"]
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "c.xz", tmp_path / "out")


def test_pack_sorts_a_shuffled_corpus_and_keeps_sources_and_splits(tmp_path: Path) -> None:
    letters = np.array(list("CNOPSFI"))
    rng = np.random.default_rng(0)
    rows = sorted({"".join(rng.choice(letters, 12)) for _ in range(300)})
    rows = rng.permutation(rows).tolist()
    (tmp_path / "a.smi").write_text("\n".join(rows[:100]) + "\n")
    (tmp_path / "b.smi").write_text("\n".join(rows[100:]) + "\n")
    sources = [Source(tmp_path / "a.smi", 0.5, "a"), Source(tmp_path / "b.smi", 2.0, "b")]
    before = build_corpus(sources, tmp_path / "corpus", policy="none", valid_fraction=0.2, workers=1, progress=False)
    pack(tmp_path / "corpus", tmp_path / "c.xz")
    assert unpack(tmp_path / "c.xz", tmp_path / "out") == before
    for split in ("train", "valid"):
        given = zip(texts(tmp_path / "corpus", split), TokenStore.open(tmp_path / "corpus", split).source, strict=True)
        after = zip(texts(tmp_path / "out", split), TokenStore.open(tmp_path / "out", split).source, strict=True)
        given_list, after_list = list(given), list(after)
        assert given_list != after_list
        assert sorted(given_list) == sorted(after_list)


def test_pack_with_two_byte_tokens(tmp_path: Path) -> None:
    """Ids above 255, and ids whose low byte is 0."""
    vocabulary = [*SmilesTokenizer.train([]).vocab, *(f"[{n}CH3]" for n in range(100, 500))]
    tokenizer = SmilesTokenizer(vocabulary)
    assert tokenizer.vocab_size > 512
    rows = [f"[{n}CH3]{'C' * (n % 7)}O" for n in range(100, 500)]
    (tmp_path / "a.smi").write_text("\n".join(rows) + "\n")
    build_corpus([Source(tmp_path / "a.smi")], tmp_path / "c", tokenizer, policy="none", workers=1, progress=False)
    assert TokenStore.open(tmp_path / "c").info.dtype == np.dtype("<u2")
    pack(tmp_path / "c", tmp_path / "c.xz")
    unpack(tmp_path / "c.xz", tmp_path / "out")
    both = texts(tmp_path / "out", "train") + texts(tmp_path / "out", "valid")
    assert sorted(both) == sorted(rows)


def test_damaged_packs_are_refused_and_leave_nothing(corpus: Path, tmp_path: Path) -> None:
    pack(corpus, tmp_path / "c.xz")
    good = (tmp_path / "c.xz").read_bytes()
    plain = lzma.decompress(good)
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    changed = bytearray(plain)
    changed[-200] ^= 1  # a source or token, under a sound xz checksum
    newer = plain.replace(b'"format_version": 2', b'"format_version": 7', 1)  # the pack's own, which comes first
    cases = {
        "flipped bit": (bytes(flipped), "damaged"),
        "cut file": (good[: len(good) // 2], "damaged|cut short"),
        "cut content": (lzma.compress(plain[:-100]), "cut short|damaged"),
        "changed content": (lzma.compress(bytes(changed)), "sha256|tokens expected"),
        "longer content": (lzma.compress(plain + b"x"), "sha256"),
        "newer": (lzma.compress(newer), "format_version up to 2"),
        "another xz": (lzma.compress(b'{"a": 1}\n'), "not a packed corpus"),
        "not xz": (b"CCO\n" * 100, "not a packed corpus"),
        "empty": (b"", "not a packed corpus"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / "bad.xz").write_bytes(content)
        with pytest.raises(CorpusError, match=message):
            unpack(tmp_path / "bad.xz", tmp_path / "out")
        assert not (tmp_path / "out").exists(), name
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.xz", "c.xz"]


# ---- without RDKit ----


def test_reading_side_needs_numpy_only(corpus: Path, tmp_path: Path, root: Path) -> None:
    program = f"""
import sys
for name in ("rdkit", "torch", "selfies", "tokenizers", "pyarrow", "pandas"):
    sys.modules[name] = None
import numpy as np
from molcmim.corpus import BucketSampler, TokenStore
from molcmim.corpus_pack import pack, unpack
pack({str(corpus)!r}, {str(tmp_path / "c.xz")!r})
info = unpack({str(tmp_path / "c.xz")!r}, {str(tmp_path / "out")!r})
store = TokenStore.open({str(tmp_path / "out")!r}, "train")
sampler = BucketSampler(store.lengths, store.source, info.weights, 8)
rows, bucket = sampler.batches(0)
print(store.gather(rows[0], pad_to=sampler.edges[bucket[0]] - 1).shape[0], "rows")
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout == "8 rows\n"
