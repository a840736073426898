"""A `Source` where a `molcmim.readers.MoleculeReader` is expected: several files into one output file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from molcmim.readers import Chunk
from molcmim.scoring.source import Source


class SourceReader:
    """What `molcmim.cli_run.embed_file` needs of a reader, over any source."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.name = "-" if not source.seekable else str(source.paths[0])
        self.extra: list[tuple[str, Any]] = source.extra
        self.size: int | None = None  # a bar over rows: a source doesn't say at which byte it is
        self.position = 0

    @property
    def n_surplus(self) -> int:
        """Rows so far that had more fields than there are columns."""
        return self.source.n_surplus

    def chunks(self) -> Iterator[Chunk]:
        """All rows, chunk by chunk."""
        return self.source.read()
