"""Cells of a study, computed once each: a file of JSON lines that can be stopped and gone on with.

A line is ``{"cell": {...}, "result": {...}, "seconds": ..., "commit": ..., "modified": ..., "machine": ..., "date":
...}``.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from molcmim.provenance import git_state, machine, now
from molcmim.stop_request import StopRequest

Cell = dict[str, Any]  #: what a cell is, by name; values as JSON has them
Line = dict[str, Any]
Score = Callable[[dict[str, Any]], float]  #: of a result: what learning rates are chosen by


def key_of(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)


def read(path: Path) -> list[Line]:
    """Finished lines in the order of the file; a last one without its end (a killed process') is left out."""
    if not path.is_file():
        return []
    whole = path.read_bytes().rpartition(b"\n")[0]
    return [json.loads(line) for line in whole.splitlines() if line]


def setting_of(cell: Cell) -> Cell:
    """What is compared, without learning rate and seed."""
    return {name: value for name, value in cell.items() if name not in ("lr", "seed")}


def tuned(lines: Iterable[Line], setting: Cell, score: Score) -> dict[float, float]:
    """Score of each learning rate tried, from the cells with seed 0, which are for tuning."""
    mine = (x for x in lines if x["cell"].get("seed") == 0 and setting_of(x["cell"]) == setting)
    return {line["cell"]["lr"]: score(line["result"]) for line in mine}


def best_rate(lines: Iterable[Line], setting: Cell, score: Score) -> float:
    """The learning rate with the best score of those tried."""
    found = tuned(lines, setting, score)
    return max(found, key=lambda rate: found[rate])


def untried(found: Mapping[float, float], ladder: Sequence[float]) -> list[float]:
    """Learning rates to try next: the middle three of the ladder, then the neighbours that the best one lacks."""
    middle = len(ladder) // 2
    first = [rate for rate in ladder[middle - 1 : middle + 2] if rate not in found]
    if first:
        return first
    best = ladder.index(max(found, key=lambda rate: found[rate]))
    return [rate for rate in ladder[max(best - 1, 0) : best + 2] if rate not in found]


def tune(
    path: Path,
    settings: Sequence[Cell],
    ladder_of: Callable[[Cell], Sequence[float]],
    score: Score,
    work: Callable[[Cell], dict[str, Any]],
) -> bool:
    """Compute cells with seed 0 until the best learning rate of each setting has both its neighbours of the ladder.

    False if the user asked for the end (Ctrl-C) first.
    """
    while True:
        lines = read(path)
        cells = [
            setting | {"lr": rate, "seed": 0}
            for setting in settings
            for rate in untried(tuned(lines, setting, score), ladder_of(setting))
        ]
        if not cells:
            return True
        if not compute(path, cells, work):
            return False


def without_superseded(lines: Sequence[Line], score: Score) -> list[Line]:
    """Without the reported seeds of learning rates that were the best only until another was tried."""
    tuning = (setting_of(line["cell"]) for line in lines if line["cell"].get("seed") == 0)
    settings = {key_of(setting): setting for setting in tuning}
    best = {key: best_rate(lines, setting, score) for key, setting in settings.items()}

    def current(cell: Cell) -> bool:
        return not cell.get("seed") or cell["lr"] == best.get(key_of(setting_of(cell)), cell["lr"])

    return [line for line in lines if current(line["cell"])]


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
