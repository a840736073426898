"""A model directory cut into parts with checksums, to bring it home over a link that takes small files only.

    python -m molcmim.weights_parts split runs/gpu/export out --part-mib 16
    python -m molcmim.weights_parts join out model

`split` writes `part-00.bin`, `part-01.bin`, ... (the directory's files end to end) and `parts.json` (name, size and
sha256 of each file and each part). `join` checks every part and every file before it makes the directory. Standard
library only.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

INDEX = "parts.json"
FORMAT_VERSION = 1


def _entry(name: str, data: bytes) -> dict[str, Any]:
    return {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _part_name(number: int) -> str:
    return f"part-{number:02d}.bin"


def split(directory: str | Path, out: str | Path, part_mib: float = 16.0) -> list[Path]:
    """Write a directory's files as parts of at most `part_mib` MiB; parts of an earlier split in `out` are removed.

    Returns
    -------
    list of Path
        The parts, then the index.

    Raises
    ------
    ValueError
        If `part_mib` isn't positive, or the directory is empty or holds anything but plain files.
    """
    directory, out = Path(directory), Path(out)
    size = int(part_mib * 2**20)
    if size < 1:
        raise ValueError(f"part_mib: expected more than 0, got {part_mib}")
    paths = sorted(directory.iterdir())
    if not paths or not all(path.is_file() for path in paths):
        raise ValueError(f"directory: expected a folder of plain files, got {directory}")
    contents = {path.name: path.read_bytes() for path in paths}
    whole = b"".join(contents.values())
    out.mkdir(parents=True, exist_ok=True)
    for old in [*out.glob("part-*.bin"), out / INDEX]:
        old.unlink(missing_ok=True)
    parts = [whole[start : start + size] for start in range(0, len(whole), size)]
    index = {
        "format_version": FORMAT_VERSION,
        "files": [_entry(name, data) for name, data in contents.items()],
        "parts": [_entry(_part_name(i), data) for i, data in enumerate(parts)],
    }
    written = []
    for i, data in enumerate(parts):
        (out / _part_name(i)).write_bytes(data)
        written.append(out / _part_name(i))
    (out / INDEX).write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")  # last: it says that all is there
    return [*written, out / INDEX]


def join(parts: str | Path, directory: str | Path) -> Path:
    """Put the parts together again as `directory`, which must not exist yet.

    Raises
    ------
    ValueError
        If the index is missing or not one of ours, or a part is missing or damaged.
    FileExistsError
        If `directory` exists.
    """
    parts, directory = Path(parts), Path(directory)
    if directory.exists():
        raise FileExistsError(f"directory: expected a new one, {directory} exists")
    try:
        index = json.loads((parts / INDEX).read_text(encoding="utf-8"))
        if index["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version {index['format_version']}, expected {FORMAT_VERSION}")
        wanted_parts, wanted_files = index["parts"], index["files"]
        names = [entry["name"] for entry in [*wanted_parts, *wanted_files]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{parts / INDEX}: not an index of parts: {error}") from error
    if any(not isinstance(name, str) or Path(name).name != name for name in names):
        raise ValueError(f"{parts / INDEX}: expected plain file names, got {names}")
    whole = b""
    for entry in wanted_parts:
        path = parts / entry["name"]
        if not path.is_file():
            raise ValueError(f"{path}: part is missing")
        data = path.read_bytes()
        _check(entry, data, path)
        whole += data
    temporary = directory.with_name(f".{directory.name}.{os.getpid()}.part")
    temporary.mkdir(parents=True)
    try:
        start = 0
        for entry in wanted_files:
            data = whole[start : start + entry["size"]]
            _check(entry, data, temporary / entry["name"])
            (temporary / entry["name"]).write_bytes(data)
            start += entry["size"]
        os.replace(temporary, directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return directory


def _check(entry: dict[str, Any], data: bytes, path: Path) -> None:
    if _entry(entry["name"], data) != entry:
        raise ValueError(
            f"{path}: expected {entry['size']} bytes of sha256 {entry['sha256'][:12]}..., got something else"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("split")
    one.add_argument("directory")
    one.add_argument("out")
    one.add_argument("--part-mib", type=float, default=16.0)
    other = commands.add_parser("join")
    other.add_argument("parts")
    other.add_argument("directory")
    arguments = parser.parse_args()
    try:
        if arguments.command == "split":
            for path in split(arguments.directory, arguments.out, arguments.part_mib):
                print(path)
        else:
            print(join(arguments.parts, arguments.directory))
    except (ValueError, OSError) as error:
        parser.exit(1, f"error: {error}\n")


if __name__ == "__main__":
    main()
