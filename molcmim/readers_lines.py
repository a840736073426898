"""Bytes to lines to records: opening plain and compressed files, lines that know their offset, tables with quotes."""

from __future__ import annotations

import csv
import gzip
import io
import lzma
import os
import stat
import sys
import zlib
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Any

COMPRESSED = (".gz", ".xz", ".zst")
BUFFER_BYTES = 1 << 18
ZSTD_BYTES = 1 << 13  #: of compressed data at a time, since what a block of them grows to isn't bounded by zstandard
ZSTD_WINDOW = 1 << 31  #: the largest that `zstd --long=31` uses
SKIP_LINES = 1024
QUOTED_LINES = 1000  #: a quoted field of a table that goes on for more lines than this counts as never closed
BOM = b"\xef\xbb\xbf"
DAMAGED = (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


def is_regular(name: str) -> bool:
    """Whether it is a file that can be read again: not standard input, a pipe or a device."""
    return name != "-" and stat.S_ISREG(os.stat(name).st_mode)


def open_binary(name: str, digest: Any = None) -> tuple[IO[bytes], IO[bytes]]:
    """The file as it is on disk, and the same decompressed; both are one if it isn't compressed.

    Parameters
    ----------
    name
        A file, compressed if its name ends in .gz, .xz or .zst; or ``-`` for standard input.
    digest
        An object of `hashlib` that is to be fed all bytes that are read from disk.

    Raises
    ------
    OSError
        If the file can't be opened.
    """
    if name == "-":
        return sys.stdin.buffer, sys.stdin.buffer
    inner = open(name, "rb", buffering=0)  # noqa: SIM115  closed with the buffer around it
    raw = io.BufferedReader(_Hashed(inner, digest) if digest is not None else inner, BUFFER_BYTES)
    suffix = Path(name).suffix.lower()
    if suffix == ".gz":
        return raw, io.BufferedReader(gzip.GzipFile(fileobj=raw), BUFFER_BYTES)
    if suffix == ".xz":
        return raw, io.BufferedReader(lzma.LZMAFile(raw), BUFFER_BYTES)
    if suffix == ".zst":
        return raw, io.BufferedReader(_Zstd(raw), BUFFER_BYTES)
    return raw, raw


class _Hashed(io.RawIOBase):
    """A file, read once from beginning to end, whose bytes also go into a digest."""

    def __init__(self, inner: io.FileIO, digest: Any) -> None:
        self._inner, self._digest = inner, digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        n = self._inner.readinto(buffer) or 0
        self._digest.update(memoryview(buffer)[:n])
        return n

    def fileno(self) -> int:
        return self._inner.fileno()

    def tell(self) -> int:
        return self._inner.tell()

    def close(self) -> None:
        self._inner.close()
        super().close()


class _Zstd(io.RawIOBase):
    """Decompressed Zstandard frames. Unlike `zstandard.open`, it doesn't take an incomplete frame for the end."""

    def __init__(self, raw: IO[bytes]) -> None:
        import zstandard

        self._raw, self._error = raw, zstandard.ZstdError
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW)
        self._frame: Any = None
        self._ready = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            data = self._raw.read(ZSTD_BYTES)
            if not data:
                if self._frame is not None:
                    raise EOFError("the file ended before the end of a Zstandard frame")
                return 0
            self._ready = memoryview(self._decompress(data))
        n = min(len(self._ready), len(buffer))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n

    def _decompress(self, data: bytes) -> bytes:
        parts = []
        while data:
            self._frame = self._frame or self._decompressor.decompressobj()
            try:
                parts.append(self._frame.decompress(data))
            except self._error as error:
                raise EOFError(str(error)) from error
            data = b""
            if self._frame.eof:
                data, self._frame = self._frame.unused_data, None
        return b"".join(parts)


class Lines:
    """Lines of a binary file; they can be looked at ahead, skipped, and pushed back.

    Attributes
    ----------
    offset
        Byte of the (decompressed) file at which the next line begins.
    """

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._file, self._name = file, name
        self._waiting: deque[bytes] = deque()
        self.offset = 0

    def seek(self, offset: int) -> None:
        """Go on with the line that begins at byte `offset` of a plain file."""
        self._file.seek(offset)
        self._waiting.clear()
        self.offset = offset

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        """A line with its end, without the byte order mark of a file."""
        if self._waiting:
            line = self._waiting.popleft()
        else:
            try:
                line = next(self._file)
            except DAMAGED as error:
                raise self._damaged(error) from error
        first = self.offset == 0
        self.offset += len(line)
        return line.removeprefix(BOM) if first else line

    def push_back(self, lines: list[bytes]) -> None:
        """Have these lines, the last ones that came, come again."""
        self._waiting.extendleft(reversed(lines))
        self.offset -= sum(map(len, lines))

    def peek(self, n: int) -> list[bytes]:
        """The next lines, at least one and at most `n` of them; none at the end of the file."""
        if not self._waiting:
            try:
                self._waiting.extend(islice(self._file, n))
            except DAMAGED as error:
                raise self._damaged(error) from error
        return list(islice(self._waiting, n))

    def skip(self, n: int) -> int:
        """Leave out up to `n` lines; how many there were."""
        skipped = 0
        while skipped < n and (lines := self.peek(min(n - skipped, SKIP_LINES))):
            self.drop(lines)
            skipped += len(lines)
        return skipped

    def drop(self, lines: list[bytes]) -> None:
        """Leave out lines that `peek` gave."""
        self.offset += sum(map(len, lines))
        if len(lines) == len(self._waiting):
            self._waiting.clear()
        else:
            for _ in lines:
                self._waiting.popleft()

    def _damaged(self, error: BaseException) -> ValueError:
        return ValueError(f"{self._name}: damaged or incomplete compressed data: {error}")


def text_of(line: bytes) -> str:
    """A line as text, without its end; bytes that aren't UTF-8 become replacement characters."""
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")


class Table:
    """Records of a .csv or .tsv file.

    Quoted fields may span lines. A quote that is never closed, or whose record hasn't the header's number
    of fields when it comes to an end some lines later, is plain text: it spoils the row that it is in, and
    hides no others. So a record depends on nothing that came before it but the header.
    """

    def __init__(self, lines: Lines, delimiter: str) -> None:
        self._lines, self._delimiter = lines, delimiter
        self.n_fields: int | None = None  #: set when the header is known
        self.used: list[bytes] = []  #: lines of the last record
        csv.field_size_limit(2**31 - 1)  # the default, 128 KiB, would end the job at one long field

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        line = next(self._lines)
        first = text_of(line)
        self.used = used = [line]
        if '"' not in first and "\r" not in first:
            return first.split(self._delimiter)
        closed = True

        def feed() -> Iterator[str]:
            nonlocal closed
            yield first + "\n"
            while len(used) < QUOTED_LINES:  # only asked for while a quote is open
                line = next(self._lines, None)
                if line is None:
                    break
                used.append(line)
                yield text_of(line) + "\n"
            closed = False

        try:
            record = next(csv.reader(feed(), delimiter=self._delimiter, strict=True), [""])
        except csv.Error:
            closed = False
            record = []
        if closed and (len(used) == 1 or len(record) == (self.n_fields or len(record))):
            return record
        self._lines.push_back(used[1:])
        del used[1:]
        return first.split(self._delimiter)

    def skip(self, n: int) -> int:
        """Leave out up to `n` records; how many there were."""
        skipped = 0
        slow = 0  # records still to be read one by one
        while skipped < n:
            if not slow:
                lines = self._lines.peek(min(n - skipped, SKIP_LINES))
                text = b"".join(lines)
                if lines and b'"' not in text and text.count(b"\r") == text.count(b"\r\n"):  # lines are records
                    self._lines.drop(lines)
                    skipped += len(lines)
                    continue
                slow = len(lines)
            if next(self, None) is None:
                break
            slow = max(0, slow - 1)
            skipped += 1
        return skipped
