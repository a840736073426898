"""Cells of a study, computed once each: a file of JSON lines that can be stopped and gone on with.

A line is ``{"cell": {...}, "result": {...}, "seconds": ..., "commit": ..., "modified": ..., "machine": ..., "date":
...}``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from molcmim.provenance import git_state, machine, now
from molcmim.stop_request import StopRequest

Cell = dict[str, Any]  #: what a cell is, by name; values as JSON has them


def key_of(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)


def read(path: Path) -> list[dict[str, Any]]:
    """Finished lines in the order of the file; a last one without its end (a killed process') is left out."""
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line]


def best_rate(path: Path, setting: Cell, score: Callable[[dict[str, Any]], float]) -> float:
    """Learning rate with the best score among the finished cells of this setting with seed 0, which are for tuning."""
    found = {}
    for line in read(path):
        cell = line["cell"]
        if cell.get("seed") == 0 and {k: v for k, v in cell.items() if k not in ("lr", "seed")} == setting:
            found[cell["lr"]] = score(line["result"])
    return max(found, key=lambda rate: found[rate])


def compute(path: Path, cells: Iterable[Cell], work: Callable[[Cell], dict[str, Any]], again: bool = False) -> bool:
    """Add the lines of those cells that `path` lacks; False if the user asked for the end (Ctrl-C) first.

    Parameters
    ----------
    work
        Result of a cell. ``{"error": ...}`` is a result too; an exception ends the study. KeyboardInterrupt says that
        the user asked for the end while it was at work.
    again
        Compute cells that are there, without writing: prints both results, for checking.
    """
    lines = read(path)
    if path.is_file():  # what a killed process left of a line goes
        with path.open("rb+") as file:
            file.truncate(file.read().rfind(b"\n") + 1)
    known = {key_of(line["cell"]): line["result"] for line in lines}
    wanted = [cell for cell in cells if (key_of(cell) in known) == again]
    facts = {**git_state(Path(__file__).parent), "machine": machine()}
    path.parent.mkdir(parents=True, exist_ok=True)
    with StopRequest("\nstopping after this cell; once more to stop at once\n") as stop:
        for cell in tqdm(wanted, unit="cell"):
            if stop.requested:
                return False
            started = time.monotonic()
            try:
                result = work(cell)
            except KeyboardInterrupt:  # a second Ctrl-C, or one that the work itself took: the cell isn't finished
                return False
            if again:
                print(json.dumps({"cell": cell, "before": known[key_of(cell)], "now": result}))
                continue
            line = {"cell": cell, "result": result, "seconds": round(time.monotonic() - started, 1), **facts}
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({**line, "date": now()}) + "\n")
                file.flush()
                os.fsync(file.fileno())
    return True
