"""Token shards on disk, memory-mapped.

    store = TokenStore.open("corpus", "train")
    info = CorpusInfo.load("corpus")
    sampler = BucketSampler(store.lengths, store.source, info.weights, batch_size=256, bucket_width=8, seed=0)
    for rows, bucket in zip(*sampler.batches(epoch=0)):
        tokens = store.gather(rows, pad_to=sampler.edges[bucket] - 1)      # (B, T), 0 = padding, no specials

This file needs numpy and the standard library only, so that a GPU machine without RDKit can train. Corpora
are made by `molcmim.corpus_build` and packed into one file by `molcmim.corpus_pack`.

A corpus is a directory: `corpus.json` (what it is, see `CorpusInfo`), `vocab.json` (the tokenizer) and, for
each split in train and valid,

    {split}.tokens.bin       uint8 (uint16 when the vocabulary exceeds 256): all rows' token ids, end to end
    {split}.offsets.bin      uint64 (n + 1,): row i is tokens[offsets[i]:offsets[i + 1]]
    {split}.source.bin       uint8 (n,): index into the sources of corpus.json
    {split}.random.*.bin     optional, a second, random SMILES of each molecule: tokens and offsets as above
    {split}.properties.bin   optional, int8 (n, P): standardised descriptors in steps of 0.04
"""
# B molecules (rows of a batch), T tokens, P properties, n rows of the split

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .corpus_sampler import BucketSampler, EpochPlan, bucket_edges

__all__ = [
    "FORMAT_VERSION",
    "SPLITS",
    "BucketSampler",
    "CorpusError",
    "CorpusInfo",
    "EpochPlan",
    "PropertyInfo",
    "SourceInfo",
    "TokenStore",
    "bucket_edges",
    "new_directory",
]

FORMAT_VERSION = 2  #: 1 stored descriptors as float16; such corpora are read as well
SPLITS = ("train", "valid")
SUMMED_ROWS = 100_000  #: rows whose tokens `TokenStore.summed` looks up at once

IntArray = npt.NDArray[np.int64]


class CorpusError(ValueError):
    """A corpus directory or packed corpus that is missing, damaged, or of a newer format."""


class SourceInfo(NamedTuple):
    """One source of a corpus: its name, expected passes per epoch, and rows kept (both splits)."""

    name: str
    weight: float
    n: int


class PropertyInfo(NamedTuple):
    """Descriptor names, and how they were standardised: (raw - center) / scale, clipped, in multiples of `step`."""

    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]
    step: float = 0.0  #: the file holds int8 multiples of it; 0: float16, of format 1


@dataclass(frozen=True)
class CorpusInfo:
    """The contents of `corpus.json`.

    Attributes
    ----------
    tokenizer_kind, fingerprint, vocab_size
        The tokenizer the rows were encoded with (its file is `vocab.json`).
    n_train, n_valid
        Rows in each split.
    max_tokens
        Longest row allowed, in tokens without special tokens (`Tokenizer.length`).
    policy
        How the SMILES were prepared: ``none``, ``canonical`` or ``parent``.
    valid_fraction
        Share of molecules whose hash puts them in the validation split.
    sources
        In the order given when built; `source.bin` holds indices into this.
    statuses
        Rows read by status; ``ok`` counts the rows kept. With `duplicates` and
        `unmatched` the values add up to the rows read.
    duplicates
        Rows left out because their SMILES had occurred before.
    unmatched
        Rows of a source that only marks others (``Source.mark``) and that no other source has.
    has_random, properties
        Which optional files are there.
    """

    tokenizer_kind: str
    fingerprint: str
    vocab_size: int
    n_train: int
    n_valid: int
    max_tokens: int
    policy: str
    valid_fraction: float
    sources: tuple[SourceInfo, ...]
    statuses: Mapping[str, int]
    duplicates: int = 0
    unmatched: int = 0
    has_random: bool = False
    properties: PropertyInfo | None = None
    built_with: Mapping[str, str] = field(default_factory=dict)

    @property
    def weights(self) -> tuple[float, ...]:
        """Expected passes per epoch of each source, for `BucketSampler`."""
        return tuple(source.weight for source in self.sources)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the token files."""
        return np.dtype("<u1" if self.vocab_size <= 256 else "<u2")

    def to_json(self) -> dict[str, Any]:
        """As a dict of plain JSON types, `format_version` first."""
        data = asdict(self)
        data["sources"] = [source._asdict() for source in self.sources]
        data["properties"] = None if self.properties is None else self.properties._asdict()
        return {"format_version": FORMAT_VERSION, **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str = "corpus.json") -> CorpusInfo:
        """Inverse of `to_json`.

        Raises
        ------
        CorpusError
            If the format is newer than this version, or a field is missing or unknown.
        """
        version = data.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            raise CorpusError(f"{where}: format_version up to {FORMAT_VERSION} can be read, got {version!r}")
        values = {key: value for key, value in data.items() if key != "format_version"}
        try:
            values["sources"] = tuple(SourceInfo(**source) for source in values["sources"])
            if values.get("properties") is not None:
                columns = values["properties"]
                names, center, scale = (tuple(columns[name]) for name in ("names", "center", "scale"))
                values["properties"] = PropertyInfo(names, center, scale, columns.get("step", 0.0))
            return cls(**values)
        except (KeyError, TypeError) as error:
            raise CorpusError(f"{where}: not a corpus description: {error}") from error

    @classmethod
    def load(cls, directory: str | Path) -> CorpusInfo:
        """Read `corpus.json` of a corpus directory.

        Raises
        ------
        CorpusError
            If the directory isn't a corpus that this version can read.
        """
        path = Path(directory) / "corpus.json"
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise CorpusError(f"no corpus in {directory}: {path.name} is missing") from error
        except ValueError as error:
            raise CorpusError(f"{path}: not JSON: {error}") from error
        return cls.from_json(data, str(path))

    def save(self, directory: str | Path) -> None:
        """Write `corpus.json` into a directory."""
        text = json.dumps(self.to_json(), indent=1) + "\n"
        (Path(directory) / "corpus.json").write_text(text, encoding="utf-8")


class TokenStore:
    """The rows of one split, memory-mapped: opening costs next to nothing and processes share the pages.

    Attributes
    ----------
    info : CorpusInfo
    lengths : ndarray (n,) int64
        Tokens of each row, without special tokens.
    source : ndarray (n,) uint8
        Index of each row's source in `info.sources`.
    """

    def __init__(self, directory: Path, split: str, info: CorpusInfo) -> None:
        n = {"train": info.n_train, "valid": info.n_valid}[split]
        self.info = info
        self._place = (directory, split)
        self._main = _Ragged(directory, split, n, info.dtype)
        self._random = _Ragged(directory, f"{split}.random", n, info.dtype) if info.has_random else None
        self.lengths: IntArray = np.diff(self._main.offsets).astype(np.int64)
        self.source: npt.NDArray[np.uint8] = _map(directory / f"{split}.source.bin", np.dtype("u1"), n)
        self._properties: npt.NDArray[Any] | None = None
        if info.properties is not None:
            width = len(info.properties.names)
            dtype = np.dtype("i1" if info.properties.step else "<f2")
            values = _map(directory / f"{split}.properties.bin", dtype, n * width)
            self._properties = values.reshape(n, width)

    @classmethod
    def open(cls, directory: str | Path, split: str = "train") -> TokenStore:
        """Open one split of a corpus directory.

        Raises
        ------
        CorpusError
            If a file is missing, or its size is not what `corpus.json` says.
        """
        if split not in SPLITS:
            raise ValueError(f"split: one of {SPLITS} expected, got {split!r}")
        return cls(Path(directory), split, CorpusInfo.load(directory))

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[Any, ...]:
        return TokenStore.open, self._place  # another process maps the files again rather than get a copy

    def summed(self, table: npt.ArrayLike) -> IntArray:
        """(V,) whole numbers -> their sum over the tokens of each row (n,)."""
        numbers, offsets = np.asarray(table, dtype=np.int64), self._main.offsets
        sums = np.empty(len(self), dtype=np.int64)
        for start in range(0, len(self), SUMMED_ROWS):
            part = offsets[start : start + SUMMED_ROWS + 1]  # where the rows begin, and where the last one ends
            values = numbers[self._main.tokens[part[0] : part[-1]]]
            sums[start : start + SUMMED_ROWS] = np.diff(np.append(0, np.cumsum(values))[part - part[0]])
        return sums

    def encoder_lengths(self, parts: Sequence[int] | None) -> IntArray:
        """Tokens that an encoder reads of each row (n,): each stands for `parts[id]` of them, or (None) for one."""
        return self.lengths if parts is None else self.summed(parts)

    def rows(self, indices: npt.ArrayLike) -> list[npt.NDArray[Any]]:
        """Token ids of each row, as a list of 1-D arrays (views into the file)."""
        return self._main.rows(indices)

    def random_rows(self, indices: npt.ArrayLike) -> list[npt.NDArray[Any]]:
        """As `rows`, of the second, random SMILES. Raises CorpusError if the corpus has none."""
        return self._need_random().rows(indices)

    def gather(
        self,
        indices: npt.ArrayLike,
        pad_to: int | None = None,
        random: bool = False,
        dtype: npt.DTypeLike = np.int64,
    ) -> npt.NDArray[Any]:
        """Rows as one padded array.

        Parameters
        ----------
        indices : (B,) int
        pad_to
            T; None = the longest of these rows. A random SMILES may have a few tokens more than the row
            itself (ring-closure digits, brackets), so leave it None there, or ask for enough.
        random
            The second, random SMILES of each molecule instead.

        Returns
        -------
        ndarray (B, T) of dtype
            Token ids, no special tokens, padded with 0.

        Raises
        ------
        ValueError
            If a row is longer than `pad_to`.
        CorpusError
            If `random` is asked for and the corpus has none.
        """
        ragged = self._need_random() if random else self._main
        return ragged.gather(np.asarray(indices, dtype=np.int64), pad_to, dtype)

    def properties(self, indices: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """Standardised descriptors, (B, P) float32. Raises CorpusError if the corpus has none."""
        values = self.stored_properties(indices).astype(np.float32)
        assert self.info.properties is not None
        return values * np.float32(self.info.properties.step or 1.0)

    def stored_properties(self, indices: npt.ArrayLike) -> npt.NDArray[Any]:
        """The same as they are stored: int8 multiples of the step (float16 in format 1), (B, P)."""
        if self._properties is None:
            raise CorpusError("this corpus was built without properties")
        return self._properties[np.asarray(indices, dtype=np.int64)]

    def _need_random(self) -> _Ragged:
        if self._random is None:
            raise CorpusError("this corpus was built without random_smiles=1")
        return self._random


class _Ragged:
    """Rows of unequal length in one flat file, with the offsets at which they begin."""

    def __init__(self, directory: Path, stem: str, n: int, dtype: np.dtype[Any]) -> None:
        self.offsets = _map(directory / f"{stem}.offsets.bin", np.dtype("<u8"), n + 1).astype(np.int64)
        self.tokens = _map(directory / f"{stem}.tokens.bin", dtype, int(self.offsets[-1]))
        if self.offsets[0] != 0 or (np.diff(self.offsets) < 0).any():
            raise CorpusError(f"{directory / stem}.offsets.bin: offsets that rise from 0 expected")

    def rows(self, indices: npt.ArrayLike) -> list[npt.NDArray[Any]]:
        wanted = np.asarray(indices, dtype=np.int64)
        return [self.tokens[self.offsets[i] : self.offsets[i + 1]] for i in wanted]

    def gather(self, indices: IntArray, pad_to: int | None, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        start = self.offsets[indices]  # (B,)
        length = self.offsets[indices + 1] - start  # (B,)
        longest = int(length.max(initial=0))
        width = longest if pad_to is None else int(pad_to)
        if longest > width:
            raise ValueError(f"pad_to: at least the longest row, {longest}, expected, got {width}")
        out = np.zeros((len(indices), width), dtype=dtype)  # (B, T)
        # position in the flat file of every token wanted, row after row: its row's start plus 0, 1, 2, ...
        first = np.cumsum(length) - length
        flat = np.arange(int(length.sum())) + np.repeat(start - first, length)
        out[np.arange(width) < length[:, None]] = self.tokens[flat]
        return out


def _map(path: Path, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    """A read-only memory map of `count` items, as a plain ndarray (indexing np.memmap itself is slower)."""
    try:
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise CorpusError(f"corpus file {path} is missing") from error
    if size != count * dtype.itemsize:
        raise CorpusError(f"{path}: {count * dtype.itemsize} bytes expected, got {size}")
    if count == 0:  # an empty file can't be mapped
        return np.empty(0, dtype=dtype)
    return np.asarray(np.memmap(path, dtype=dtype, mode="r", shape=(count,)))


@contextmanager
def new_directory(out: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A directory beside `out` to fill, which becomes `out` at the end, or is deleted if anything goes wrong.

    Raises
    ------
    FileExistsError
        If `out` exists, without `overwrite`.
    """
    out = Path(out)
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".partial", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o755)  # mkdtemp makes it private
        if out.is_dir():
            shutil.rmtree(out)
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
