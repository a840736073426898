"""Is this molecule in a training set of millions? A sorted array of 64-bit hashes on disk, memory-mapped.

>>> known = KnownSet.build(["CCO", "c1ccccc1"])
>>> known.contains(["CCO", "CCN", None]).tolist()
[True, False, False]

Eight bytes a molecule: 3.5 million take 28 MB. A molecule that is in the set is always found; one that isn't is
wrongly found with probability n / 2^64, 2e-13 for n = 3.5 million. Texts are compared, so both sides must be canonical
SMILES of one RDKit version; the header says which one the set was made with.

On disk: ``NAME.npy``, a plain array of rising uint64, and ``NAME.json``, what it is.
"""

# n molecules of the set, m molecules asked about.

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from molcmim.beside import written_beside
from molcmim.chem import WorkerPool, cpu_count

FORMAT_VERSION = 1
HASH = "blake2b-64 of the ASCII text, little-endian"
CHUNK_ROWS = 20_000

HashArray = npt.NDArray[np.uint64]


class KnownSet:
    """A set of canonical SMILES, kept as hashes.

    Made by `build`, `from_file`, `from_corpus` or `open`, not by calling it.

    Attributes
    ----------
    hashes : ndarray (n,) uint64
        Rising; memory-mapped after `open`.
    about : dict
        What it was built from, how many rows were read and left out, RDKit version.
    """

    def __init__(self, hashes: HashArray, about: Mapping[str, Any] | None = None) -> None:
        self.hashes = hashes
        self.about: dict[str, Any] = dict(about or {})

    def __len__(self) -> int:
        return len(self.hashes)

    def contains(self, smiles: Sequence[str | None]) -> npt.NDArray[np.bool_]:
        """Which of m canonical SMILES are in the set; None never is.

        Returns
        -------
        (m,) bool
        """
        found = np.zeros(len(smiles), dtype=np.bool_)
        rows = [i for i, text in enumerate(smiles) if text is not None]
        if not rows or not len(self.hashes):
            return found
        wanted = hash_all(text for text in smiles if text is not None)
        at = np.searchsorted(self.hashes, wanted).clip(max=len(self.hashes) - 1)
        found[rows] = self.hashes[at] == wanted
        return found

    @classmethod
    def build(
        cls,
        smiles: Iterable[str],
        canonical: bool = True,
        about: Mapping[str, Any] | None = None,
        workers: int | None = None,
    ) -> KnownSet:
        """Hash the texts of a list or stream.

        Parameters
        ----------
        smiles
            Any number of SMILES; only their hashes are held.
        canonical
            They are canonical SMILES of the RDKit in use, and are taken as they are (a second for a million).
            Otherwise they are parsed and written again in worker processes (minutes for a million), and what is no
            molecule is left out and counted.
        about
            Facts for the header.
        workers
            Processes that parse; None: one per CPU.
        """
        read = 0
        parts: list[HashArray] = []
        chunks = _chunks(smiles) if canonical else _canonical(_chunks(smiles), workers)
        for n_rows, texts in chunks:
            read += n_rows
            parts.append(hash_all(texts))
        hashes = np.concatenate([np.zeros(0, dtype=np.uint64), *parts])
        facts = {"rows_read": read, "rows_left_out": read - len(hashes), "written_again": not canonical}
        return cls(np.unique(hashes), {**(about or {}), **facts, "rdkit": _rdkit_version()})

    @classmethod
    def from_file(
        cls, path: str | Path, canonical: bool = False, column: str | None = None, workers: int | None = None
    ) -> KnownSet:
        """Hash the SMILES of a file: .smi, .txt, .csv or .tsv, also with .gz or .xz.

        Parameters
        ----------
        canonical, workers
            See `build`.
        column
            Of a table; see `molcmim.corpus_input.read_smiles`.

        Raises
        ------
        OSError, ValueError
            If the file can't be read, is of another type, or lacks the column.
        """
        from molcmim.corpus_input import read_smiles

        return cls.build(read_smiles(path, column), canonical, {"source": Path(path).name}, workers)

    @classmethod
    def from_corpus(
        cls, directory: str | Path, split: str = "train", canonical: bool | None = None, workers: int | None = None
    ) -> KnownSet:
        """Hash the molecules of a token corpus (`molcmim.corpus`).

        Parameters
        ----------
        directory, split
            See `molcmim.corpus.TokenStore.open`.
        canonical
            Take the texts as they are. None: if the corpus was built with policy `canonical` or `parent` by the RDKit
            in use, from tokens that spell the text itself (not SELFIES).
        workers
            See `build`.

        Raises
        ------
        molcmim.corpus.CorpusError
            If the directory is no corpus that this version can read.
        """
        from molcmim.corpus import TokenStore
        from molcmim.tokenizer import load_tokenizer

        store = TokenStore.open(directory, split)
        tokenizer = load_tokenizer(Path(directory) / "vocab.json")
        if canonical is None:
            same_rdkit = store.info.built_with.get("rdkit") == _rdkit_version()
            canonical = store.info.policy != "none" and same_rdkit and tokenizer.kind != "selfies"
        about = {"source": Path(directory).name, "split": split, "policy": store.info.policy}

        def texts() -> Iterator[str]:
            for start in range(0, len(store), CHUNK_ROWS):
                for row in store.rows(range(start, min(start + CHUNK_ROWS, len(store)))):
                    yield tokenizer.decode(row.tolist())

        return cls.build(texts(), canonical, about, workers)

    @classmethod
    def from_source(cls, path: str | Path, canonical: bool | None = None, workers: int | None = None) -> KnownSet:
        """`open` a .npy file, or build from a corpus directory or a file of SMILES.

        Raises
        ------
        FileNotFoundError
            If there is nothing of that name.
        ValueError
            If it is none of the three.
        """
        place = Path(path)
        if not place.exists():
            raise FileNotFoundError(f"known: expected a .npy, a corpus directory or a file of SMILES, no {place}")
        if place.is_dir():
            return cls.from_corpus(place, canonical=canonical, workers=workers)
        if place.suffix == ".npy":
            return cls.open(place)
        return cls.from_file(place, canonical=bool(canonical), workers=workers)

    def save(self, path: str | Path) -> None:
        """Write ``NAME.npy`` and ``NAME.json``, each beside its place first and then renamed.

        Raises
        ------
        ValueError
            If the name doesn't end in .npy.
        """
        target = _checked_name(path)
        header = {"format_version": FORMAT_VERSION, "hash": HASH, "count": len(self), **self.about}
        target.parent.mkdir(parents=True, exist_ok=True)
        with written_beside(target.with_suffix(".json")) as facts, written_beside(target) as numbers:
            with numbers.open("wb") as file:
                np.save(file, self.hashes.astype("<u8"), allow_pickle=False)
            facts.write_text(json.dumps(header, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def open(cls, path: str | Path) -> KnownSet:
        """Map a saved set into memory; costs next to nothing.

        Raises
        ------
        FileNotFoundError
            If one of the two files is missing.
        ValueError
            If they are no set, damaged, or of a newer format.
        """
        target = _checked_name(path)
        try:
            header = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
            version, count = header.pop("format_version"), header.pop("count")
            hash_name = header.pop("hash")
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise ValueError(f"{target.with_suffix('.json')}: expected the header of a known set: {error}") from error
        if version != FORMAT_VERSION or hash_name != HASH:
            raise ValueError(f"{target}: expected format {FORMAT_VERSION} with {HASH}, got {version!r}, {hash_name!r}")
        try:
            hashes = np.load(target, mmap_mode="r", allow_pickle=False)
        except EOFError as error:
            raise ValueError(f"{target}: expected a .npy array, got an empty file") from error
        if hashes.ndim != 1 or hashes.dtype != np.dtype("<u8") or len(hashes) != count:
            expected = f"{count} unsigned 64-bit numbers"
            raise ValueError(f"{target}: expected {expected}, got {hashes.dtype} of shape {hashes.shape}")
        plain = np.asarray(hashes)  # still mapped; indexing np.memmap itself is slower
        if (plain[1:] <= plain[:-1]).any():
            raise ValueError(f"{target}: expected rising hashes; the file is damaged")
        return cls(plain, header)


def hash_all(smiles: Iterable[str]) -> HashArray:
    """Hashes of m texts, (m,) uint64.

    >>> int(hash_all(["CCO"])[0])
    14074757553414938733
    """
    digests = b"".join(hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in smiles)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def _chunks(smiles: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """The number of rows and the texts of each chunk."""
    rows = iter(smiles)
    while chunk := list(islice(rows, CHUNK_ROWS)):
        yield len(chunk), chunk


def _canonical(chunks: Iterator[tuple[int, list[str]]], workers: int | None) -> Iterator[tuple[int, list[str]]]:
    """The same with canonical texts, bad rows left out."""
    with WorkerPool(workers or cpu_count()) as pool:
        for answers in pool.imap(chunk for _, chunk in chunks):
            yield len(answers), [row.canonical_smiles for row in answers if row.canonical_smiles is not None]


def _checked_name(path: str | Path) -> Path:
    if Path(path).suffix != ".npy":
        raise ValueError(f"path: expected a name ending in .npy, got {Path(path).name!r}")
    return Path(path)


def _rdkit_version() -> str:
    from rdkit import rdBase

    return str(rdBase.rdkitVersion)
