"""Files that are there in full or not at all, even after a power cut: written beside, synced, renamed, synced.

A temporary file is called ``.NAME.PID.part``: the leading dot and the ending keep it from being taken for a
result, and the process id tells whether somebody is still writing it.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from molcmim.beside import part_path

PART = re.compile(r"\.(?P<name>.+)\.(?P<pid>\d+)\.part")


def sync_file(path: Path) -> None:
    """Wait until the system has the file's content on the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Wait until the folder's entries (new names) are on the disk, where the system knows how to."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def publish(part: Path, target: Path) -> None:
    """Give a complete temporary file its name: its content is on the disk before the name is."""
    sync_file(part)
    os.replace(part, target)
    sync_folder(target.parent)


def write_durably(target: Path, data: bytes) -> None:
    """Write a whole file; an error or a kill leaves the old one, or none.

    Raises
    ------
    OSError
        If the folder can't be written to or the disk is full; the temporary file is gone then.
    """
    part = part_path(target)
    try:
        part.write_bytes(data)
        publish(part, target)
    finally:
        part.unlink(missing_ok=True)


def remove_leftovers(folder: Path, names: Iterable[str], nobody_writes: bool = False) -> list[str]:
    """Remove temporary files of dead processes for these targets; the names of those removed, sorted.

    One with this process's own id is a leftover as well (in containers the ids repeat): call this before
    writing anything. Of files written on other machines the id says nothing: with `nobody_writes` all of them go.
    """
    wanted = set(names)
    removed = []
    for path in sorted(folder.glob(".*.part")):
        match = PART.fullmatch(path.name)
        if match and match["name"] in wanted and (nobody_writes or not _in_use(int(match["pid"]))):
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                path.unlink()
                removed.append(path.name)
    return removed


def _in_use(pid: int) -> bool:
    """Whether another process of this id is running."""
    if pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:  # it runs, as another user
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True
