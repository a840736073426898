"""Files written beside their place and renamed, so that half a file is never taken for a whole one.

>>> with written_beside(Path("result.json")) as part:                      # doctest: +SKIP
...     part.write_text("{}")

What must survive a power cut as well goes through `molcmim.scoring.durable`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def part_path(target: Path, ending: str = "") -> Path:
    """Name under which this process writes what becomes `target`: ``.NAME.PID.part``, and `ending` after it."""
    return target.with_name(f".{target.name}.{os.getpid()}.part{ending}")


@contextmanager
def written_beside(target: Path, ending: str = "") -> Iterator[Path]:
    """The path to write to; it gets its name at the end. An error or Ctrl-C leaves the file that was there, or none.

    Parameters
    ----------
    target
        What is to be there in the end; an existing file is replaced.
    ending
        Of the temporary name, for writers that insist on one (``".npz"``).

    Raises
    ------
    FileNotFoundError
        If the folder doesn't exist; the message doesn't name the temporary file.
    OSError
        If it can't be written to.
    """
    if not target.parent.is_dir():
        raise FileNotFoundError(f"no such directory: {target.parent}")
    part = part_path(target, ending)
    try:
        yield part
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
