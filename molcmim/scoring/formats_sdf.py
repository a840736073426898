"""SDF (.gz, .xz, .zst): records split at ``$$$$`` here, their mol blocks left as text for the worker processes.

A record is a row whatever it holds: one that is cut off, or that RDKit can't read, keeps its place. SD data
fields become pass-through columns.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

from molcmim.chem import MAX_BLOCK_CHARS, MolBlock
from molcmim.readers import CHUNK_CHARS, Chunk
from molcmim.readers_columns import find_column, unique_names
from molcmim.readers_lines import BOM, SKIP_LINES, Lines, is_regular, open_binary, text_of

END = b"$$$$"
HEADER_LINES = 4  #: of a mol block; no data field can begin before
FIELD_RECORDS = 100  #: records whose data fields become columns
RECORD_BYTES = 1 << 26  #: what a record has beyond is left out, so that a file without ``$$$$`` can't fill the memory
_FIELD_NAME = re.compile(rb"<(.*?)>")


class Record(NamedTuple):
    """One record of an SDF."""

    title: str | None
    block: MolBlock
    fields: list[tuple[str, str]]  #: names and values of the data fields, in order


class SdfReader:
    """Rows of one SDF. Close it when done.

    Parameters
    ----------
    path
        The file, or ``-`` for standard input.
    id_column
        The data field that is the id; default: the title line is.
    fields
        Names of the data fields that are columns; default: those of the first 100 records. See `data_fields`.
    digest
        An object of `hashlib` that is to be fed all bytes read from the file.

    Attributes
    ----------
    extra
        Names of the pass-through columns, as for `molcmim.readers.MoleculeReader`.
    n_surplus
        Rows so far with a data field that isn't a column, or that came twice (the last one counts), or of more
        than 64 MiB (what is over is left out).

    Raises
    ------
    OSError
        If the file can't be read.
    ValueError
        If `id_column` isn't a data field, or compressed data are damaged.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        id_column: str | int | None = None,
        fields: Iterable[str] | None = None,
        digest: Any = None,
    ) -> None:
        self.name = os.fspath(path)
        self.columns: list[str] = []  # files of one input may have different data fields
        self.n_surplus = 0
        self._raw, self._file = open_binary(self.name, digest)
        try:
            self._regular = is_regular(self.name)
            self._plain = self._regular and self._raw is self._file
            self._lines = Lines(self._file, self.name)
            self.fields = list(self._first_fields() if fields is None else fields)
            self._id_at = None if id_column is None else find_column(self.name, self.fields, id_column)
        except BaseException:
            self.close()
            raise
        self._extra_at = [i for i in range(len(self.fields)) if i != self._id_at]
        self.extra = unique_names([self.fields[i] for i in self._extra_at])

    def close(self) -> None:
        """Close the file."""
        if self.name != "-":
            self._file.close()
            self._raw.close()

    @property
    def position(self) -> int:
        """Bytes of the file read so far; 0 for standard input and pipes."""
        return 0 if not self._regular or self._raw.closed else self._raw.tell()

    @property
    def offset(self) -> int | None:
        """Byte at which the next row begins, for `seek`; None if the file is compressed, a pipe or the like."""
        return self._lines.offset if self._plain else None

    def seek(self, offset: int) -> None:
        """Go on with the row that begins at byte `offset` of a plain file."""
        self._lines.seek(offset)

    def skip(self, n: int) -> int:
        """Leave out up to `n` rows; how many there were."""
        skipped = 0
        while skipped < n and self._next_lines(0) is not None:
            skipped += 1
        return skipped

    def take(self, n: int) -> Chunk:
        """The next rows, at most `n`, fewer if their texts are long; none at the end of the file."""
        chunk, n_chars = Chunk([], [], [[] for _ in self.extra]), 0
        known = set(self.fields)
        while len(chunk.smiles) < n and n_chars <= CHUNK_CHARS and (record := self._next_record()) is not None:
            values = dict(record.fields)
            self.n_surplus += len(values) < len(record.fields) or not known.issuperset(values)
            chunk.smiles.append(record.block)
            chunk.id.append(record.title if self._id_at is None else values.get(self.fields[self._id_at]))
            for column, at in zip(chunk.extra, self._extra_at, strict=True):
                column.append(values.get(self.fields[at]))
            n_chars += len(record.block) + sum(len(value) for value in values.values())
        return chunk

    def _first_fields(self) -> list[str]:
        """Names of the data fields of the first records, which will come again."""
        names: dict[str, None] = {}
        used: list[bytes] = []
        begin = n_records = n_bytes = 0
        for line in self._lines:
            used.append(line)
            n_bytes += len(line)
            if line.startswith(END):
                names.update((name, None) for name, _ in _parse(used[begin:]).fields)
                begin, n_records = len(used), n_records + 1
            if n_records == FIELD_RECORDS or n_bytes > RECORD_BYTES:
                break
        names.update((name, None) for name, _ in _parse(used[begin:]).fields)  # the last one may have no end
        self._lines.push_back(used)
        return list(names)

    def _next_record(self) -> Record | None:
        lines = self._next_lines(RECORD_BYTES)
        return None if lines is None else _parse(lines)

    def _next_lines(self, most: int) -> list[bytes] | None:
        """Lines of the next record, the first `most` bytes of them; None if only blank ones are left."""
        kept: list[bytes] = []
        n_bytes, anything = 0, False
        while lines := self._lines.peek(SKIP_LINES):
            end = next((i for i, line in enumerate(lines) if line.startswith(END)), None)
            part = lines if end is None else lines[: end + 1]
            first = self._lines.offset == 0
            self._lines.drop(part)
            if first:
                part[0] = part[0].removeprefix(BOM)
            if n_bytes < most:
                kept.extend(part)
            n_bytes += sum(map(len, part))
            if end is not None:
                self.n_surplus += n_bytes > most > 0
                return kept
            anything = anything or any(line.strip() for line in part)
        return kept if anything else None


def data_fields(names: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Data fields of several files together (of the first 100 records of each), in the order in which they come up."""
    found: dict[str, None] = {}
    for name in names:
        reader = SdfReader(name)
        reader.close()
        found.update(dict.fromkeys(reader.fields))
    return list(found)


def _parse(lines: list[bytes]) -> Record:
    """Title, mol block and data fields of a record.

    The block ends with its ``M  END``, or, if that is missing, before the first data field. Of the lines before the
    atoms only the second is kept, which says whether coordinates are 2D or 3D: names and comments, in whatever
    encoding, don't make a molecule unreadable.
    """
    body = lines[:-1] if lines and lines[-1].startswith(END) else lines
    end = next((i for i in range(HEADER_LINES, len(body)) if body[i].startswith((b"M  END", b">"))), len(body))
    if end < len(body) and not body[end].startswith(b">"):
        end += 1
    title = text_of(body[0]).strip() if end else ""
    dimension = text_of(body[1].decode("ascii", "replace").encode("ascii", "replace")) if end > 1 else ""
    atoms = b"".join(body[3:end]).replace(b"\r\n", b"\n").decode("utf-8", "replace")
    block = f"\n{dimension}\n\n{atoms}"[: MAX_BLOCK_CHARS + 1]  # one too long: the row is `too_many_chars`
    return Record(title or None, MolBlock(block), _data(body[end:]))


def _data(lines: list[bytes]) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    rest = iter(lines)
    for line in rest:
        if not line.startswith(b">"):
            continue
        found = _FIELD_NAME.search(line)
        name = text_of(found.group(1) if found else line[1:]).strip()
        values = []
        for value in rest:  # ends with a blank line
            if not value.strip():
                break
            values.append(text_of(value))
        fields.append((name, "\n".join(values)))
    return fields
