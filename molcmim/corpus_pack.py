"""A corpus as one small file, to carry to a GPU machine. NumPy and the standard library only.

    pack("corpus", "corpus.xz")              # 3.5 M molecules: about 15 MB, in about a minute
    unpack("corpus.xz", "corpus")

The file is xz-compressed: a line of JSON (`corpus.json`, the vocabulary, the order), then for each split the
rows, each ended by a 0 (the padding id, which no row contains), the source of each row, and its descriptors, if the
corpus has any, descriptor by descriptor for every `ROWS` rows; at the end the sha256 of all that. Random SMILES are
left out: they would not fit, and can be made again from the SMILES.
"""
# n rows of a split, B rows at a time, T tokens, P descriptors

from __future__ import annotations

import hashlib
import json
import lzma
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from .corpus import SPLITS, CorpusError, CorpusInfo, PropertyInfo, TokenStore, new_directory

FORMAT = "molcmim-corpus-pack"
FORMAT_VERSION = 2  #: 1 never has descriptors
BLOCK = 16 << 20
ROWS = 20_000
SORT_KEY = 64  # tokens compared
KEPT_ORDER = 0.75  # share of the sorted order's common prefix at which the order is kept
# pb = 0 and lc = 4 suit one-byte symbols whose meaning depends on the one before; a block is one dictionary
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": BLOCK, "lc": 4, "lp": 0, "pb": 0}]


def pack(directory: str | Path, file: str | Path, threads: int = 2, properties: bool = True) -> int:
    """Pack a corpus directory into one file.

    Token ids, splits, sources, weights and descriptors are kept; random SMILES are not. Rows keep their order where
    that compresses well, that is, if the corpus was built from sorted files (so that the sampler's batches are those
    of the original); otherwise they are sorted by their token ids within each split.

    Parameters
    ----------
    directory, file : path
        `file` is written beside its place and renamed.
    threads : int
        Compressing threads.
    properties : bool
        Keep the descriptors, which take more room than all the rest. Those of a corpus of format 1 are left out.

    Returns
    -------
    int
        Size of the file in bytes.

    Raises
    ------
    CorpusError
        If `directory` is not a corpus.
    """
    directory, file = Path(directory), Path(file)
    stores = [TokenStore.open(directory, split) for split in SPLITS]
    info = replace(stores[0].info, has_random=False)
    if not properties or (info.properties is not None and not info.properties.step):
        info = replace(info, properties=None)
    try:
        vocabulary = json.loads((directory / "vocab.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CorpusError(f"{directory / 'vocab.json'}: a vocabulary file expected: {error}") from error
    header = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "corpus": info.to_json(),
        "vocabulary": vocabulary,
        "tokens": [int(store.lengths.sum()) for store in stores],
    }
    partial_file = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with open(partial_file, "wb") as out:
            for block in _compressed(_with_sha256(_sections(header, stores, info.properties)), threads):
                out.write(block)
        partial_file.replace(file)
    finally:
        partial_file.unlink(missing_ok=True)
    return file.stat().st_size


def unpack(file: str | Path, directory: str | Path, overwrite: bool = False) -> CorpusInfo:
    """Make a corpus directory from a packed file; nothing is left behind unless the whole file is sound.

    Returns
    -------
    CorpusInfo

    Raises
    ------
    CorpusError
        If `file` is damaged, cut short, no packed corpus, or of a newer format.
    FileExistsError
        If `directory` exists, without `overwrite`.
    """
    file = Path(file)
    with new_directory(directory, overwrite) as partial_dir, lzma.open(file) as stream:
        try:
            return _unpack(_Checked(stream, str(file)), partial_dir)
        except (lzma.LZMAError, EOFError) as error:
            raise CorpusError(f"{file}: damaged or not a packed corpus: {error}") from error


# ---- writing ----


def _sections(
    header: dict[str, Any], stores: Iterable[TokenStore], properties: PropertyInfo | None
) -> Iterator[bytes]:
    yield json.dumps(header).encode("ascii") + b"\n"
    for store in stores:
        order = _order(store)
        for start in range(0, len(order), ROWS):
            rows = order[start : start + ROWS]
            lengths = store.lengths[rows]
            padded = store.gather(rows, int(lengths.max()) + 1, dtype=store.info.dtype)  # (B, T + 1)
            yield padded[np.arange(padded.shape[1]) <= lengths[:, None]].tobytes()
        yield store.source[order].tobytes()
        for start in range(0, len(order) if properties else 0, ROWS):
            yield np.ascontiguousarray(store.stored_properties(order[start : start + ROWS]).T).tobytes()  # (P, B)


def _order(store: TokenStore) -> npt.NDArray[np.int64]:
    """Row order to write: as it is if neighbours begin alike for nearly as long as when sorted, else sorted."""
    every = np.arange(len(store))
    key = np.zeros((len(store), SORT_KEY), store.info.dtype.newbyteorder(">"))
    for start in range(0, len(store), ROWS):
        rows = every[start : start + ROWS]
        part = store.gather(rows, dtype=store.info.dtype)[:, :SORT_KEY]
        key[start : start + ROWS, : part.shape[1]] = part
    if len(store) < 2:
        return every
    # big-endian, so that comparing bytes compares ids
    order = np.argsort(key.view(f"S{SORT_KEY * key.itemsize}").ravel(), kind="stable")
    return every if _common_prefix(key, every) >= KEPT_ORDER * _common_prefix(key, order) else order


def _common_prefix(key: npt.NDArray[Any], order: npt.NDArray[np.int64]) -> float:
    """Mean number of tokens in which a row begins like the one before, from up to 100,000 pairs."""
    first = np.linspace(0, len(order) - 2, min(len(order) - 1, 100_000)).astype(np.int64)
    alike = key[order[first]] == key[order[first + 1]]  # (pairs, SORT_KEY)
    return float(np.logical_and.accumulate(alike, axis=1).sum(axis=1).mean())


def _with_sha256(parts: Iterable[bytes]) -> Iterator[bytes]:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
        yield part
    yield digest.digest()


def _compressed(parts: Iterable[bytes], threads: int) -> Iterator[bytes]:
    """xz streams of one block each, made in parallel; one after another they are one .xz file."""
    compress = partial(lzma.compress, check=lzma.CHECK_CRC64, filters=_FILTERS)
    waiting: deque[Future[bytes]] = deque()
    with ThreadPoolExecutor(max(1, threads)) as pool:
        for block in _blocks(parts):
            waiting.append(pool.submit(compress, block))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _blocks(parts: Iterable[bytes]) -> Iterator[bytes]:
    buffer = bytearray()
    for part in parts:
        buffer += part
        while len(buffer) >= BLOCK:
            yield bytes(buffer[:BLOCK])
            del buffer[:BLOCK]
    if buffer:
        yield bytes(buffer)


# ---- reading ----


class _Checked:
    """Reads exactly what is asked for, and knows the sha256 of what was read."""

    def __init__(self, stream: IO[bytes], name: str) -> None:
        self.name = name
        self._stream = stream
        self._digest = hashlib.sha256()

    def header(self) -> dict[str, Any]:
        line = self._stream.readline(64 << 20)
        self._digest.update(line)
        try:
            header = json.loads(line)
        except ValueError as error:
            raise CorpusError(f"{self.name}: not a packed corpus") from error
        if not isinstance(header, dict) or header.get("format") != FORMAT:
            raise CorpusError(f"{self.name}: not a packed corpus")
        version = header.get("format_version")
        if not isinstance(version, int) or version > FORMAT_VERSION:
            expected = f"format_version up to {FORMAT_VERSION}"
            raise CorpusError(f"{self.name}: {expected} can be read, got {version!r}")
        return header

    def array(self, dtype: np.dtype[Any], count: int) -> npt.NDArray[Any]:
        data = self._stream.read(count * dtype.itemsize)
        if len(data) != count * dtype.itemsize:
            raise CorpusError(f"{self.name}: cut short")
        self._digest.update(data)
        return np.frombuffer(data, dtype)

    def finish(self) -> None:
        expected = self._digest.digest()
        if self._stream.read(len(expected)) != expected or self._stream.read(1):
            raise CorpusError(f"{self.name}: damaged: its sha256 is not the one it ends with")


def _unpack(stream: _Checked, directory: Path) -> CorpusInfo:
    header = stream.header()
    try:
        info = CorpusInfo.from_json(header["corpus"], stream.name)
        vocabulary, tokens = header["vocabulary"], [int(count) for count in header["tokens"]]
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{stream.name}: not a packed corpus: {error}") from error
    for split, n, count in zip(SPLITS, (info.n_train, info.n_valid), tokens, strict=True):
        _unpack_rows(stream, directory / split, info.dtype, n, count)
        (directory / f"{split}.source.bin").write_bytes(stream.array(np.dtype("u1"), n).tobytes())
        if info.properties is not None:
            width = len(info.properties.names)
            with open(directory / f"{split}.properties.bin", "wb") as file:
                for start in range(0, n, ROWS):
                    part = stream.array(np.dtype("i1"), min(ROWS, n - start) * width)
                    file.write(np.ascontiguousarray(part.reshape(width, -1).T).tobytes())  # (B, P)
    stream.finish()
    (directory / "vocab.json").write_text(json.dumps(vocabulary, indent=1) + "\n", encoding="ascii")
    info.save(directory)
    return info


def _unpack_rows(stream: _Checked, stem: Path, dtype: np.dtype[Any], n: int, tokens: int) -> None:
    left, end, rows = tokens + n, 0, 0
    with open(f"{stem}.tokens.bin", "wb") as token_file, open(f"{stem}.offsets.bin", "wb") as offset_file:
        offset_file.write(np.zeros(1, "<u8").tobytes())
        while left:
            part = stream.array(dtype, min(left, BLOCK))
            left -= len(part)
            is_token = part != 0
            token_file.write(part[is_token].tobytes())
            counted = np.cumsum(is_token, dtype=np.int64)
            ends = end + counted[~is_token]
            offset_file.write(ends.astype("<u8").tobytes())
            end, rows = end + int(counted[-1]), rows + len(ends)
    if rows != n or end != tokens:
        raise CorpusError(f"{stem.name}: {n} rows of {tokens} tokens expected, got {rows} of {end}")
