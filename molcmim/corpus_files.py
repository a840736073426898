"""The files of a corpus build: the spool of prepared SMILES, and the token files of a split."""
# n rows, P properties

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .corpus_worker import Answer, Encoded

CHUNK = 5000


class Spool:
    """The SMILES of all usable rows in one text file, repeats marked; and what was counted on the way."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.statuses: Counter[str] = Counter()
        self.duplicates, self.unmatched = 0, 0
        self._hashes: list[npt.NDArray[np.uint64]] = []
        self._source: list[npt.NDArray[np.uint8]] = []
        self.hashes = np.empty(0, np.uint64)
        self.source = np.empty(0, np.uint8)
        self.first = np.empty(0, bool)

    def add(self, number: int, answers: Iterable[Answer]) -> Iterator[int]:
        """Append one source, from `as_lines` answers. Yields the number of rows behind each answer."""
        with open(self.path, "ab") as file:
            for answer in answers:
                lines = answer.data["lines"].encode("ascii")
                file.write(lines)
                hashes = _hash_lines(lines)
                self._hashes.append(hashes)
                self._source.append(np.full(len(hashes), number, np.uint8))
                self.statuses.update(answer.data["statuses"])
                yield sum(answer.data["statuses"].values())

    def finish(self, mark: Sequence[bool]) -> None:
        """After the last source: find the rows to keep. `mark`: of each source, as in `Source`."""
        self.hashes = np.concatenate([np.empty(0, np.uint64), *self._hashes])
        self.source = np.concatenate([np.empty(0, np.uint8), *self._source])
        self._hashes, self._source = [], []
        self.first = np.zeros(len(self.hashes), bool)
        self.first[np.unique(self.hashes, return_index=True)[1]] = True
        self.duplicates = int((~self.first).sum())
        marks = np.asarray(mark, bool)[self.source]
        if marks.any():
            unmatched = self.first & marks & ~np.isin(self.hashes, self.hashes[~marks])
            self.first &= ~unmatched
            self.unmatched = int(unmatched.sum())
        self.statuses["ok"] -= self.duplicates + self.unmatched

    def chunks(self) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
        """(row numbers, SMILES) of the rows that are no repeats."""
        with open(self.path, encoding="ascii", newline="\n") as lines:
            start = 0
            for chunk in chunked(lines):
                keep = np.flatnonzero(self.first[start : start + len(chunk)])
                yield keep + start, [chunk[i][:-1] for i in keep]
                start += len(chunk)


class SplitWriter:
    """Appends encoded rows to the files of one split."""

    def __init__(
        self, stack: ExitStack, directory: Path, split: str, dtype: np.dtype[Any], settings: dict[str, Any]
    ) -> None:
        self.n = 0
        self._stack = stack  # closes the files
        self._dtype = dtype
        self._random, self._properties = settings["random_smiles"], settings["properties"]
        self._files: dict[str, IO[bytes]] = {}
        self._end: dict[str, int] = {}
        self._directory, self._split = directory, split
        for stem in [split, f"{split}.random"] if self._random else [split]:
            self._append(f"{stem}.offsets.bin", np.zeros(1, "<u8"))
            self._append(f"{stem}.tokens.bin", np.empty(0, dtype))
        self._append(f"{split}.source.bin", np.empty(0, "u1"))

    def write(self, encoded: Encoded, mine: npt.NDArray[np.bool_], source: npt.NDArray[np.uint8]) -> None:
        """The rows of a chunk for which `mine` is true."""
        self.n += int(mine.sum())
        self._ragged(self._split, encoded.tokens, encoded.lengths, mine)
        self._append(f"{self._split}.source.bin", source[mine])
        if self._random:
            self._ragged(f"{self._split}.random", encoded.random_tokens, encoded.random_lengths, mine)
        if self._properties:
            self._append(f"{self._split}.properties.raw", encoded.properties[mine].astype("<f4"))

    def _ragged(
        self, stem: str, tokens: npt.NDArray[Any], lengths: npt.NDArray[Any], mine: npt.NDArray[np.bool_]
    ) -> None:
        self._append(f"{stem}.tokens.bin", tokens[np.repeat(mine, lengths)].astype(self._dtype))
        ends = self._end.get(stem, 0) + np.cumsum(lengths[mine], dtype=np.int64)
        self._append(f"{stem}.offsets.bin", ends.astype("<u8"))
        if len(ends):
            self._end[stem] = int(ends[-1])

    def _append(self, name: str, array: npt.NDArray[Any]) -> None:
        if name not in self._files:
            path = self._directory / name
            self._files[name] = self._stack.enter_context(path.open("wb"))
        self._files[name].write(array.tobytes())


def _hash_lines(lines: bytes) -> npt.NDArray[np.uint64]:
    """64-bit blake2b of each line: what tells molecules apart, and what decides their split."""
    digests = [hashlib.blake2b(line, digest_size=8).digest() for line in lines.split(b"\n")[:-1]]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def chunked(rows: Iterable[str]) -> Iterator[list[str]]:
    """Lists of `CHUNK` rows."""
    chunk: list[str] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
