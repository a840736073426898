"""What an optimisation has seen, as results and as a folder that a later run can go on from.

The folder holds archive.csv, one line for each molecule that a start has spent an oracle call on, and state.json, what
the run was (objective, settings, starts, which are finished). Lines are only ever added, in one write each time, and a
line that a killed program left half written is cut off; state.json is replaced as a whole.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from molcmim.beside import written_beside
from molcmim.chem import Status

ARCHIVE, STATE = "archive.csv", "state.json"
COLUMNS = ("start", "call", "smiles", "score", "similarity", "shortfall", "feasible")
FORMAT = 1
NUMBERS = ("start_score", "best_score", "improvement", "similarity")
COUNTS = ("calls", "decoded", "valid", "skipped", "failed", "restarts")
RESULT_COLUMNS = ("start", "status", "start_smiles", "best_smiles", *NUMBERS, *COUNTS, "stopped")


class Candidate(NamedTuple):
    """A molecule that one start has spent an oracle call on."""

    smiles: str  #: canonical
    score: float  #: NaN where the oracle failed
    similarity: float  #: Tanimoto to the start
    shortfall: float  #: by how much it misses the objective's constraints; 0: all hold
    feasible: bool  #: it has a score, and satisfies the constraints and the minimal similarity
    call: int  #: the start's how manieth call it was, from 1


@dataclass(frozen=True)
class OptimizeResult:
    """What became of one start.

    Attributes
    ----------
    start
        As given.
    status
        `ok`, or why the start can't be used; then there are no molecules.
    start_smiles, start_score
        Canonical SMILES (None without one) and score of the start (NaN where the oracle failed).
    best_smiles, best_score, similarity
        The best feasible molecule, the start itself among them; None and NaN if none is.
    calls
        Oracle calls spent: distinct valid molecules, the start being the first.
    decoded, valid
        Latent vectors decoded, and how many of them gave a molecule.
    skipped
        Distinct molecules that no call was spent on: in more pieces than the start, or too dissimilar (if those are
        to be skipped).
    failed
        Calls on which the oracle gave no score.
    restarts
        How often the search began anew.
    stopped
        Why it ended: ``"budget"``, ``"stop_at"``, ``"patience"``, ``"decodes"`` (hardly any new molecules came out
        any more), ``"interrupted"``; ``""`` if the start can't be used.
    trace
        (calls, best score so far) at each improvement, and at the end.
    archive
        Every molecule, in the order of the calls.
    error
        What the oracle raised last, if it did.
    """

    start: str
    status: Status
    start_smiles: str | None = None
    start_score: float = math.nan
    best_smiles: str | None = None
    best_score: float = math.nan
    similarity: float = math.nan
    calls: int = 0
    decoded: int = 0
    valid: int = 0
    skipped: int = 0
    failed: int = 0
    restarts: int = 0
    stopped: str = ""
    trace: list[tuple[int, float]] = field(default_factory=list)
    archive: list[Candidate] = field(default_factory=list)
    error: str = ""

    @property
    def improvement(self) -> float:
        """Best score minus that of the start."""
        return self.best_score - self.start_score

    def calls_to(self, score: float) -> int | None:
        """The call at which a feasible molecule first had at least this score; None if none had."""
        return next((calls for calls, best in self.trace if best >= score), None)


def trace_of(archive: Sequence[Candidate]) -> list[tuple[int, float]]:
    """(calls, best feasible score so far) at each improvement, and at the last call."""
    trace: list[tuple[int, float]] = []
    for each in archive:
        if each.feasible and (not trace or each.score > trace[-1][1]):
            trace.append((each.call, each.score))
    if trace and trace[-1][0] < archive[-1].call:
        trace.append((archive[-1].call, trace[-1][1]))
    return trace


class Archive:
    """The folder. One program at a time may write to it.

    Parameters
    ----------
    directory
        Made if it isn't there.
    settings
        What the run is; ``"objective"``, a text, has to be the same when a run goes on from the folder.
    resume
        Whether it may hold the molecules of an earlier run.

    Attributes
    ----------
    known : dict
        (start, smiles) -> Candidate with a score, of this and earlier runs.

    Raises
    ------
    FileExistsError
        If there is an archive already and `resume` is off.
    ValueError
        If it was made with another objective, or is damaged.
    """

    def __init__(self, directory: str | os.PathLike[str], settings: Mapping[str, Any], resume: bool = False) -> None:
        self.directory = Path(directory)
        self.known: dict[tuple[str, str], Candidate] = {}
        path = self.directory / ARCHIVE
        if path.exists() and not resume:
            raise FileExistsError(f"archive: {self.directory} holds one already; resume it (--resume) or name another")
        self.directory.mkdir(parents=True, exist_ok=True)
        if path.exists():
            self._check_objective(settings.get("objective"))
            self._read(path)
        else:
            path.write_text(",".join(COLUMNS) + "\n")
        with written_beside(self.directory / STATE) as part:
            part.write_text(json.dumps({"format": FORMAT, "settings": dict(settings)}, indent=1) + "\n")

    def _check_objective(self, expected: object) -> None:
        try:
            found = json.loads((self.directory / STATE).read_text())["settings"]["objective"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"archive: expected a readable {STATE} in {self.directory}, got {error!r}") from error
        if found != expected:
            raise ValueError(f"archive: expected scores of {expected!r} in {self.directory}, got those of {found!r}")

    def _read(self, path: Path) -> None:
        data = path.read_bytes()
        whole = data[: data.rfind(b"\n") + 1]
        if len(whole) < len(data):  # a program was killed while it wrote
            with open(path, "r+b") as file:
                file.truncate(len(whole))
        rows = csv.DictReader(io.StringIO(whole.decode("utf-8", "replace")))
        try:
            for row in rows:
                if row["score"]:  # a molecule that the oracle failed on is tried again
                    score, similarity, shortfall = (float(row[name] or "nan") for name in COLUMNS[3:6])
                    feasible, call = row["feasible"] == "1", int(row["call"])
                    each = Candidate(row["smiles"], score, similarity, shortfall, feasible, call)
                    self.known[row["start"], each.smiles] = each
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}, line {rows.line_num}") from error

    def add(self, start: str, candidates: Iterable[Candidate]) -> None:
        """Add molecules; those that are in it already are left out."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        for each in candidates:
            if (start, each.smiles) in self.known:
                continue
            if not math.isnan(each.score):
                self.known[start, each.smiles] = each
            score, *others = ["" if math.isnan(value) else repr(float(value)) for value in each[1:4]]
            writer.writerow([start, each.call, each.smiles, score, *others, int(each.feasible)])
        if text.tell():
            with open(self.directory / ARCHIVE, "a", encoding="utf-8", newline="") as file:
                file.write(text.getvalue())


# ------------------------------------------------------------------------------------------------ table


def results_table(results: Sequence[OptimizeResult], ids: Sequence[str | None] | None = None) -> dict[str, list[Any]]:
    """Name -> one value a start, None where there is none: what `write_results` writes."""
    table: dict[str, list[Any]] = {"id": list(ids)} if ids is not None else {}
    for name in RESULT_COLUMNS:
        values = [getattr(result, name) for result in results]
        table[name] = [None if value == "" or value != value else value for value in values]  # NaN isn't itself
    table["status"] = [str(value) for value in table["status"]]
    return table


def write_results(
    results: Sequence[OptimizeResult],
    path: str | os.PathLike[str],
    ids: Sequence[str | None] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write one line a start, in order; the file is written beside and renamed.

    Parameters
    ----------
    results
        Of `molcmim.optimize.optimize`.
    path
        ``*.csv``, ``*.tsv`` or ``*.parquet``; replaced if it is there.
    ids
        Names of the starts, for a column ``id``.
    facts
        For the footer of a Parquet file, as ``molcmim.NAME``.

    Raises
    ------
    ValueError
        If the name has another ending.
    OSError
        If the directory doesn't exist or can't be written to.
    """
    from molcmim.generated import write_beside

    table = results_table(results, ids)
    return write_beside(
        path,
        lambda part: _write_parquet(table, part, facts or {}),
        lambda part, delimiter: _write_text(table, part, delimiter),
    )


def _write_text(table: Mapping[str, list[Any]], part: Path, delimiter: str) -> None:
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*([_cell(value) for value in column] for column in table.values()), strict=True))


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def _write_parquet(table: Mapping[str, list[Any]], part: Path, facts: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {**dict.fromkeys(NUMBERS, pa.float64()), **dict.fromkeys(COUNTS, pa.int64())}
    columns = {name: pa.array(values, kinds.get(name, pa.string())) for name, values in table.items()}
    written = pa.table(columns)
    pq.write_table(written.replace_schema_metadata({f"molcmim.{name}": value for name, value in facts.items()}), part)
