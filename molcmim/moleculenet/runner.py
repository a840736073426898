"""The runner: from a plan to a folder of results that a second run goes on with.

The folder holds `results.csv` (one number a row), `run.json` (what, how, where it was made), `splits/`, `predictions/`,
`maps/`, `cache/` (features; can be deleted) and the reports. A cell that is there already, made from the same data,
splits, features and version of the code, is not computed again; Ctrl-C loses the cells in hand only.
"""

# Axes: n rows, d features.

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from molcmim import provenance
from molcmim.beside import written_beside
from molcmim.moleculenet import splits as splitting
from molcmim.moleculenet.datasets import load_dataset
from molcmim.moleculenet.evaluate import Evaluation, evaluate
from molcmim.moleculenet.features import Features, FeatureSpec, available, compute
from molcmim.moleculenet.heads import check_head
from molcmim.moleculenet.plan import Cell, Plan, estimate_seconds, make_plan
from molcmim.moleculenet.protocols import Protocol, get_protocol
from molcmim.moleculenet.results import ResultsTable
from molcmim.moleculenet.types import REGRESSION, Dataset, Split

VERSION = 1  #: of what a cell computes; change it with the heads, and older cells are computed again
PACKAGES = (*provenance.PACKAGES, "scipy", "xgboost-cpu", "xgboost", "deepchem")
SHOWN_MAPS = 600  #: molecules of a data set in the map of the report

Say = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """What to run."""

    datasets: tuple[str, ...]  #: names of MoleculeNet sets
    protocols: tuple[str, ...]
    heads: tuple[str, ...]
    features: tuple[FeatureSpec, ...]
    out: Path
    data_dir: Path | None = None
    source: str = "auto"  #: see `load_dataset`
    tables: tuple[Dataset, ...] = ()  #: own data, run like the named sets
    processes: int = 1
    everything: bool = False  #: large sets get all heads and protocols
    maps: bool = True  #: draw the map of each small set's embedding
    command: str = ""  #: for the record


class Outcome(NamedTuple):
    """What a run came to."""

    computed: int
    skipped: int  #: cells that were there already
    errors: list[str]  #: cells that failed, with the reason


def run(options: Options, say: Say = print, dry: bool = False) -> Outcome:
    """Compute what is missing, and write results and reports.

    Parameters
    ----------
    say
        Gets lines of text for people.
    dry
        Print plan and estimate, and stop.

    Raises
    ------
    ValueError, OSError
        If a name isn't known, a data set can't be had, splits don't fit the data, or another run uses the folder.
    """
    protocols = [get_protocol(name) for name in options.protocols]
    for head in options.heads:
        check_head(head, REGRESSION)
    datasets = [load_dataset(name, options.data_dir, options.source) for name in options.datasets]
    datasets += options.tables
    for dataset in datasets:
        say(_described(dataset))
    plan = make_plan(datasets, protocols, [s.label for s in options.features], options.heads, options.everything)
    missing = {(s.label, d.name) for s in options.features for d in datasets if not available(s, d.name)}
    for label, name in sorted(missing):
        say(f"{name}: no vectors of {label}, left out")
    for line in plan.left_out:
        say(line)
    plan = Plan([cell for cell in plan.cells if (cell.features, cell.dataset) not in missing], plan.left_out)
    if not plan.cells:
        raise ValueError("plan: expected some cell to compute, but nothing that was asked for can be")
    say(_estimate(plan, datasets, protocols, options.processes))
    if dry:
        return Outcome(0, 0, [])
    options.out.mkdir(parents=True, exist_ok=True)
    with _lock(options.out):
        return _run(options, plan, datasets, protocols, say)


def _run(options: Options, plan: Plan, datasets: list[Dataset], protocols: list[Protocol], say: Say) -> Outcome:
    started = time.perf_counter()
    table = ResultsTable(options.out / "results.csv")
    _forget_changed_data(options.out, table, datasets, say)
    record = RunRecord(options, datasets, protocols)
    computed, skipped, errors = 0, 0, list[str]()
    try:
        for dataset in datasets:
            cells = [cell for cell in plan.cells if cell.dataset == dataset.name]
            if not cells:
                continue
            jobs = _Jobs(options, dataset, [p for p in protocols if any(c.protocol == p.name for c in cells)], say)
            todo: list[Cell] = []
            unusable: set[str] = set()
            for cell in cells:
                if cell.features in unusable:
                    continue
                if cell.features not in jobs.features:
                    try:
                        jobs.add_features(next(s for s in options.features if s.label == cell.features))
                    except ValueError as error:  # vectors of other molecules, for one
                        unusable.add(cell.features)
                        errors.append(f"{dataset.name} {cell.features}: {error}")
                        say(f"error: {errors[-1]}")
                        continue
                    record.add_features(dataset, jobs.features[cell.features])
                if table.identity(cell) == jobs.identity(cell):
                    skipped += 1
                else:
                    todo.append(cell)
            if todo and options.maps:
                jobs.make_map()
            for cell, seconds, found in jobs.evaluate(todo):
                if isinstance(found, str):
                    errors.append(f"{dataset.name} {cell.protocol} {cell.features} {cell.head}: {found}")
                    say(f"error: {errors[-1]}")
                    continue
                _keep(options.out, table, cell, found, seconds, jobs)
                computed += 1
                say(_line(cell, found, seconds))
    finally:
        record.save(time.perf_counter() - started, computed)
        if len(table):
            from molcmim.moleculenet.report import write_report

            write_report(options.out)
    return Outcome(computed, skipped, errors)


def _forget_changed_data(out: Path, table: ResultsTable, datasets: Sequence[Dataset], say: Say) -> None:
    """Drop splits, predictions and results of data sets whose file or targets are not those of the earlier run."""
    path = out / "run.json"
    known = json.loads(path.read_text(encoding="utf-8"))["datasets"] if path.exists() else {}
    for dataset in datasets:
        before = known.get(dataset.name)
        if before is None or (before["sha256"], before["targets"]) == (dataset.sha256, list(dataset.targets)):
            continue
        for stale in [*out.glob(f"splits/{dataset.name}-*.json"), *out.glob(f"predictions/{dataset.name}-*.npz")]:
            stale.unlink()
        dropped = table.drop_dataset(dataset.name)
        say(f"{dataset.name}: other data than in the earlier run; {dropped} cells of it are dropped")


class _Jobs:
    """The cells of one data set: its splits, its features, and their evaluation in processes."""

    def __init__(self, options: Options, dataset: Dataset, protocols: Sequence[Protocol], say: Say) -> None:
        self.options, self.dataset, self.say = options, dataset, say
        self.protocols = {protocol.name: protocol for protocol in protocols}
        self.splits = {p.name: saved_splits(options.out, dataset, p, say) for p in protocols}
        self.groups = {p.name: p.inner_groups(dataset) for p in protocols}
        self.features: dict[str, Features] = {}

    def add_features(self, spec: FeatureSpec) -> None:
        """Compute a feature set, or read it from the cache."""
        features = compute(spec, self.dataset, cache=self.options.out / "cache")
        self.features[spec.label] = features
        if features.n_failed:
            self.say(
                f"{self.dataset.name}: {spec.label} has no vector for {features.n_failed} of {len(self.dataset)} rows"
            )

    def identity(self, cell: Cell) -> str:
        """Hash of all that a cell's numbers depend on."""
        protocol = self.protocols[cell.protocol]
        parts = [split.tolist() for group in self.splits[cell.protocol] for split in group]
        facts = [
            VERSION,
            self.dataset.sha256,
            self.dataset.targets,
            hashlib.sha256(json.dumps(parts).encode()).hexdigest(),
            self.features[cell.features].identity,
            [protocol.name, protocol.version],
            cell.head,
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]

    def make_map(self) -> None:
        """The map of the first model's embedding, for the report."""
        from molcmim.moleculenet.plan import LARGE_SETS
        from molcmim.moleculenet.plots import make_map

        spec = next((s for s in self.options.features if s.kind == "model" and s.label in self.features), None)
        if spec is not None and self.dataset.name not in LARGE_SETS:
            make_map(self.dataset, self.features[spec.label].x, self.options.out, n=SHOWN_MAPS, features=spec.label)

    def evaluate(self, cells: list[Cell]) -> Iterator[tuple[Cell, float, Evaluation | str]]:
        """Evaluations as they are done, the long ones started first; text instead where one failed."""
        cost = {
            cell: estimate_seconds(
                cell, self.dataset, self.protocols[cell.protocol], self.features[cell.features].x.shape[1]
            )
            for cell in cells
        }
        ordered = sorted(cells, key=lambda cell: -cost[cell])
        arguments = (
            (
                cell,
                self.features[cell.features].x,
                self.dataset,
                self.protocols[cell.protocol],
                self.splits[cell.protocol],
                self.groups[cell.protocol],
            )
            for cell in ordered
        )
        if self.options.processes == 1 or len(cells) < 2:
            yield from (_timed(*each) for each in arguments)
            return
        from joblib import Parallel, delayed, parallel_config
        from joblib.externals.loky import get_reusable_executor

        with parallel_config(backend="loky", n_jobs=self.options.processes, inner_max_num_threads=1):
            pool = Parallel(return_as="generator_unordered", pre_dispatch="n_jobs", batch_size=1)
            try:
                yield from pool(delayed(_timed)(*each) for each in arguments)
            except (KeyboardInterrupt, GeneratorExit):
                get_reusable_executor().shutdown(kill_workers=True)
                raise


def _timed(
    cell: Cell, x: npt.NDArray[Any], dataset: Dataset, protocol: Protocol, splits: list[Split], groups: list[str]
) -> tuple[Cell, float, Evaluation | str]:
    """Evaluate a cell; an error costs this cell and not the run."""
    started = time.perf_counter()
    try:
        found: Evaluation | str = evaluate(x, dataset, protocol, splits, cell.head, groups)
    except (ValueError, ArithmeticError, MemoryError, RuntimeError, ImportError) as error:
        found = f"{type(error).__name__}: {error}"
    return cell, time.perf_counter() - started, found


def saved_splits(out: Path, dataset: Dataset, protocol: Protocol, say: Say) -> list[Split]:
    """The splits of a protocol, checked: from the folder if they are there, else made and saved.

    Raises
    ------
    SplitError
        If a split overlaps, is out of range or incomplete, or the saved ones belong to other data.
    """
    path = out / "splits" / f"{dataset.name}-{protocol.name}.json"
    made = protocol.make_splits(dataset)
    if path.exists():
        splits = splitting.load_splits(path, dataset, protocol.name)
        if [[part.tolist() for part in split] for split in splits] != [[part.tolist() for part in s] for s in made]:
            raise splitting.SplitError(
                f"{path}: these are not the splits that {protocol.name} makes now; remove the file"
            )
    else:
        splits = made
    straddling = [splitting.check_split(split, dataset, protocol.allows_duplicates) for split in splits]
    if any(straddling):
        counts = ", ".join(map(str, straddling))
        say(f"{dataset.name}, {protocol.name}: molecules in training and test part of each split: {counts}")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        splitting.save_splits(path, splits, dataset, protocol.name)
    return splits


class RunRecord:
    """`run.json`: what was run and where; facts of earlier runs into the same folder are kept."""

    def __init__(self, options: Options, datasets: Sequence[Dataset], protocols: Sequence[Protocol]) -> None:
        self.path = options.out / "run.json"
        self.content: dict[str, Any] = {"runs": [], "protocols": {}, "datasets": {}, "features": {}}
        if self.path.exists():
            self.content = json.loads(self.path.read_text(encoding="utf-8"))
        self.run = {
            "command": options.command,
            "date": provenance.now(),
            **provenance.git_state(),
            "machine": {**provenance.machine(PACKAGES), "processes": options.processes},
        }
        for protocol in protocols:
            names = ("version", "title", "description", "warning")
            self.content["protocols"][protocol.name] = {name: getattr(protocol, name) for name in names}
        for dataset in datasets:
            self.content["datasets"][dataset.name] = {
                "title": dataset.title,
                "task": dataset.task,
                "targets": list(dataset.targets),
                "unit": dataset.unit,
                "n": len(dataset),
                "n_rows": len(dataset) + len(dataset.failures),
                "failures": dict(Counter(failure.status for failure in dataset.failures)),
                "sha256": dataset.sha256,
                "source": dataset.source,
            }

    def add_features(self, dataset: Dataset, features: Features) -> None:
        """Note a feature set's identity and width, and for how many rows it has no vector."""
        entry = self.content["features"].setdefault(features.label, {"n_failed": {}})
        entry.update(identity=features.identity, width=int(features.x.shape[1]))
        entry["n_failed"][dataset.name] = features.n_failed

    def save(self, seconds: float, computed: int) -> None:
        """Write the file; a run that computed nothing is not added to the list."""
        if computed:
            self.content["runs"].append({**self.run, "seconds": round(seconds, 1), "cells": computed})
        with written_beside(self.path) as part:
            part.write_text(json.dumps(self.content, indent=1) + "\n", encoding="utf-8")


def _keep(out: Path, table: ResultsTable, cell: Cell, found: Evaluation, seconds: float, jobs: _Jobs) -> None:
    """Predictions first, then the table: a cell that is in the table is complete."""
    path = predictions_path(out, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_beside(path, ".npz") as part:
        np.savez_compressed(part, **cast(dict[str, Any], found.predictions))
    shared = {
        "n_failed": jobs.features[cell.features].n_failed,
        "seconds": round(seconds, 2),
        "identity": jobs.identity(cell),
    }
    table.put(cell, [{**record, **shared} for record in found.records])


def predictions_path(out: Path, cell: Cell) -> Path:
    """Where the predictions of a cell lie; characters that file systems may not like become ``_``."""
    name = "-".join(cell)
    return out / "predictions" / f"{''.join(c if c.isalnum() or c in '-_.+' else '_' for c in name)}.npz"


def _described(dataset: Dataset) -> str:
    failed = Counter(failure.status for failure in dataset.failures)
    text = f"{dataset.name}: {len(dataset):,} molecules, {dataset.task}, {len(dataset.targets)} target(s)"
    bad = ", ".join(f"{count} {status}" for status, count in failed.most_common())
    return f"{text}, from {dataset.source}" + (f"; left out: {bad}" if bad else "")


def _estimate(plan: Plan, datasets: Sequence[Dataset], protocols: Sequence[Protocol], processes: int) -> str:
    by_name, by_protocol = {d.name: d for d in datasets}, {p.name: p for p in protocols}
    total = sum(estimate_seconds(cell, by_name[cell.dataset], by_protocol[cell.protocol]) for cell in plan.cells)
    minutes = total / 60 / processes
    about = f"{minutes:.0f} minutes" if minutes >= 2 else f"{60 * minutes:.0f} seconds"
    cells = f"{len(plan.cells)} cells, those done before are skipped"
    return f"{cells}: about {about} on {processes} processes, and the features"


def _line(cell: Cell, found: Evaluation, seconds: float) -> str:
    """One finished cell, for people."""
    means: dict[str, list[float]] = {}
    for record in found.records:
        if record["task"] == "":
            means.setdefault(record["metric"], []).append(record["value"])
    text = "  ".join(f"{metric} {_mean_text(values)}" for metric, values in means.items())
    return f"{cell.dataset:9} {cell.protocol:9} {cell.features:24} {cell.head:10} {text}  {seconds:.1f} s"


def _mean_text(values: list[float]) -> str:
    """``0.912``, or with splits that have no value ``0.912 (2 of 5 splits undefined)``."""
    defined = [value for value in values if np.isfinite(value)]
    mean = f"{np.mean(defined):.3f}" if defined else "undefined"
    return (
        mean
        if len(defined) == len(values)
        else f"{mean} ({len(values) - len(defined)} of {len(values)} splits undefined)"
    )


@contextmanager
def _lock(out: Path) -> Iterator[None]:
    """Keep a second run out of the folder."""
    import fcntl

    with (out / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OSError(f"{out}: another run is writing there") from error
        yield
        os.ftruncate(file.fileno(), 0)
