"""Files that are meant by a name, a folder or a glob, and their formats."""

from __future__ import annotations

import glob
import os
from pathlib import Path

from molcmim.readers import FORMATS
from molcmim.readers_lines import COMPRESSED

SUFFIXES = {**FORMATS, ".parquet": "parquet", ".sdf": "sdf", ".sd": "sdf"}


def expand(text: str, format: str | None = None) -> list[Path]:
    """Files that an input means, see `molcmim.scoring.source.open_source`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    """
    path = Path(text)
    if text == "-":
        return [path]
    if path.is_dir():
        listing = [entry for entry in sorted(path.iterdir()) if _is_wanted(entry)]
        found = [entry for entry in listing if (kind := _known_format(entry)) and kind == (format or kind)]
        if not found:
            raise FileNotFoundError(f"{text}: expected files ending in {_endings(format)}, got none in this folder")
        return found
    if os.path.lexists(path) or not any(sign in text for sign in "*?["):
        path.stat()  # FileNotFoundError
        return [path]
    found = [entry for entry in map(Path, sorted(glob.glob(text, recursive=True))) if _is_wanted(entry)]
    if not found:
        raise FileNotFoundError(f"{text}: no such files")
    return found


def _is_wanted(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix != ".part" and not path.is_dir()


def _known_format(path: Path) -> str | None:
    suffix = path.suffix.lower()
    inner = Path(path.stem).suffix.lower() if suffix in COMPRESSED else suffix
    found = SUFFIXES.get(inner)
    return None if found == "parquet" and inner != suffix else found


def format_of(path: Path) -> str:
    """Format by the file's name, ``"smi"`` for standard input; ValueError for an unknown ending."""
    if str(path) == "-":
        return "smi"
    found = _known_format(path)
    if found is None:
        raise ValueError(f"{path}: expected a file name ending in {_endings(None)}; or give --format")
    return found


def _endings(format: str | None) -> str:
    names = [ending for ending, kind in SUFFIXES.items() if kind == (format or kind)]
    return ", ".join(names) + ("" if names == [".parquet"] else " (text also with .gz, .xz or .zst)")
